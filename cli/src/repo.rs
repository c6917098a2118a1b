//! `colibri repo …`: repositories in folders, at the desk of whoever holds keys.
//!
//! Nothing here signs or stores: that is the library `colibri-repository`, which servers and the demo use too.

mod audit;
mod ceremony;
mod create;
mod gc;
mod keys;
mod list;
mod merge;
mod mirror;
mod packages;
mod pins;
mod publish;
mod push;
mod recover;
mod rollout;
mod root;
mod served;
mod server;
mod signing;
mod status;
mod stock_client;
mod target;
mod targets;
#[cfg(test)]
mod tests;
mod transfer;
mod verify;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use colibri_common::UnixSeconds;
use colibri_repository::remote::RemoteError;
use colibri_repository::{RepositoryError, Versions};
use colibri_transport::TransportError;
use serde_json::json;

use crate::device::DeviceVerbError;
use crate::files::FilesError;

/// Makes, fills and reads repositories.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with repositories.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Makes a repository without packages and prints the ids of its root keys
    Create(create::Create),
    /// Adds packages to what a repository offers, and signs it
    Publish(Box<publish::Publish>),
    /// Adds packages to what a running origin offers, over its write API
    Push(Box<push::Push>),
    /// Takes back from edges what was released after a backup was made
    Recover(Box<recover::Recover>),
    /// Shows versions, expiry dates and the number of packages
    List(list::List),
    /// Shows versions, lives and thresholds, and what can be signed here
    Status(status::Status),
    /// Lists, adds, revokes and replaces keys
    Keys(keys::Args),
    /// Has the root signed by people elsewhere
    Root(root::Args),
    /// Has what is offered signed by people elsewhere
    Targets(targets::Args),
    /// Chooses among the releases offered: documents of the role rollout
    Rollout(rollout::Args),
    /// Reads and verifies the log of every signing act
    Audit(audit::Args),
    /// Reads and hashes everything, and says which blob of which package is bad
    Verify(verify::Verify),
    /// Brings in a repository or product bundle of the real tools, its signed metadata unchanged
    Import(transfer::Import),
    /// Writes a folder that any static web server serves to devices
    Export(transfer::Export),
    /// Offers the packages of several repositories in one
    Merge(merge::Merge),
    /// Follows a repository that somebody else serves
    Mirror(Box<mirror::Mirror>),
    /// Serves repositories on a developer's desk
    Server(server::Args),
    /// Tells devices about repositories that are served here
    Target(target::Args),
    /// Removes blobs that nothing offers and nobody pinned, and metadata that no client needs any more
    Gc(gc::Gc),
    /// Named reasons to keep packages and blobs, each with an owner
    Pins(pins::Args),
    /// Looks at the packages of a repository
    Package(packages::Args),
}

/// Why a verb on repositories failed.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A running origin.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Whom to believe.
    #[error(transparent)]
    Trust(#[from] TransportError),
    /// A file that was given.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The client of real devices is not in this build.
    #[cfg(not(feature = "stock-client"))]
    #[error(
        "this build does not carry the client of real devices: build it with `cargo build --features stock-client`"
    )]
    NoStockClient,
    /// Following another repository.
    #[error(transparent)]
    Mirror(#[from] mirror::MirrorError),
    /// A server of the desk.
    #[error(transparent)]
    Server(#[from] server::ServerError),
    /// A device that is told of a repository.
    #[error(transparent)]
    Device(#[from] DeviceVerbError),
    /// The system's watch over files.
    #[error("files cannot be watched: {0}")]
    Watch(#[from] notify::Error),
    /// Standard output.
    #[error("printing failed: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::Create(args) => create::run(args, out),
        Verb::Publish(args) => publish::run(args, out),
        Verb::Push(args) => push::run(args, out),
        Verb::Recover(args) => recover::run(args, out),
        Verb::List(args) => list::run(args, out),
        Verb::Status(args) => status::run(args, out),
        Verb::Keys(args) => keys::run(args, out),
        Verb::Root(args) => root::run(args, out),
        Verb::Targets(args) => targets::run(args, out),
        Verb::Rollout(args) => rollout::run(args, out),
        Verb::Audit(args) => audit::run(args, out),
        Verb::Verify(args) => verify::run(args, out),
        Verb::Import(args) => transfer::import(args, out),
        Verb::Export(args) => transfer::export_to(args, out),
        Verb::Merge(args) => merge::run(args, out),
        Verb::Mirror(args) => mirror::run(args, out),
        Verb::Server(args) => server::run(args, out),
        Verb::Target(args) => target::run(args, out),
        Verb::Gc(args) => gc::run(args, out),
        Verb::Pins(args) => pins::run(args, out),
        Verb::Package(args) => packages::run(args, out),
    }
}

/// The versions of the four roles, for programs.
fn versions_json(versions: Versions) -> serde_json::Value {
    let Versions { root, targets, snapshot, timestamp } = versions;
    json!({ "root": root, "targets": targets, "snapshot": snapshot, "timestamp": timestamp })
}

/// The versions of the four roles, for people.
fn versions_line(versions: Versions) -> String {
    let Versions { root, targets, snapshot, timestamp } = versions;
    format!("root {root}, targets {targets}, snapshot {snapshot}, timestamp {timestamp}")
}

/// A date as metadata writes it; beyond the year 9999, the number.
fn date(at: UnixSeconds) -> String {
    colibri_metadata::utc::format(at).unwrap_or_else(|| at.0.to_string())
}
