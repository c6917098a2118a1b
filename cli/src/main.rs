//! `colibri`: arguments, printing, progress, exit codes. One module per verb group; what the verbs do is in the libraries.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 64 bad configuration; others are documented with their verb.

mod blob;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "device")]
mod device;
#[cfg(feature = "edge")]
mod edge;
mod far;
mod file_hash;
mod files;
#[cfg(feature = "loadtest")]
mod loadtest;
#[cfg(feature = "origin")]
mod origin;
mod package;
#[cfg(any(feature = "repo", feature = "device", feature = "edge"))]
#[cfg_attr(not(feature = "demo"), allow(dead_code, reason = "each role shows its own kind of progress"))]
mod progress;
#[cfg(feature = "repo")]
mod release;
#[cfg(feature = "repo")]
mod repo;
#[cfg(any(feature = "origin", feature = "edge"))]
mod serve;
mod table;
#[cfg(feature = "device")]
mod tuf_client;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Carries a fleet's software from one origin to every device, through edges that nobody has to trust.
#[derive(Debug, Parser)]
#[command(name = "colibri", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Plays the whole system on this machine: publish, serve, update, a fleet, a lying edge
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    /// Serves repositories
    #[cfg(feature = "origin")]
    Origin(origin::Args),
    /// Serves as a cache in front of an origin or another edge
    #[cfg(feature = "edge")]
    Edge(edge::Args),
    /// Makes, fills and reads repositories
    #[cfg(feature = "repo")]
    Repo(repo::Args),
    /// Makes product releases and compares them
    #[cfg(feature = "repo")]
    Release(release::Args),
    /// Resolves packages on a device and looks at them
    #[cfg(feature = "device")]
    Device(device::Args),
    /// Runs synthetic fleets
    #[cfg(feature = "loadtest")]
    Loadtest(loadtest::Args),
    /// Builds, packs, opens and compares packages
    Package(package::Args),
    /// Compresses, decompresses and hashes delivery blobs
    Blob(blob::Args),
    /// Makes and reads FAR archives
    Far(far::Args),
    /// Prints merkle roots of files
    FileHash(file_hash::Args),
    /// The metadata core as a plain TUF client, for the conformance suite
    #[cfg(feature = "device")]
    #[command(hide = true)]
    TufClient(tuf_client::Args),
}

/// Various operations on packages, package repositories, and the package cache.
#[cfg(feature = "device")]
#[derive(Debug, Parser)]
#[command(name = PKGCTL, version, propagate_version = true)]
struct Pkgctl {
    #[command(flatten)]
    args: device::Args,
}

/// The name under which the program is what people know from devices.
#[cfg(feature = "device")]
const PKGCTL: &str = "pkgctl";

/// What the command line says, under whichever name the program was called.
fn verb() -> Verb {
    #[cfg(feature = "device")]
    {
        let called = std::env::args_os().next().map(std::path::PathBuf::from);
        if called.as_deref().and_then(std::path::Path::file_name).is_some_and(|name| name == PKGCTL) {
            return Verb::Device(Pkgctl::parse().args);
        }
    }
    Cli::parse().verb
}

fn main() -> ExitCode {
    let verb = verb();
    let mut out = std::io::stdout().lock();
    let outcome = match &verb {
        #[cfg(feature = "demo")]
        Verb::Demo(args) => report(demo::run(args, &mut out), |_| ExitCode::FAILURE),
        #[cfg(feature = "origin")]
        Verb::Origin(args) => report(origin::run(args, &mut out), serve::ServeError::exit_code),
        #[cfg(feature = "edge")]
        Verb::Edge(args) => report(edge::run(args, &mut out), serve::ServeError::exit_code),
        #[cfg(feature = "repo")]
        Verb::Repo(args) => report(repo::run(args, &mut out), |_| ExitCode::FAILURE),
        #[cfg(feature = "repo")]
        Verb::Release(args) => report(release::run(args, &mut out), release::ReleaseVerbError::exit_code),
        #[cfg(feature = "device")]
        Verb::Device(args) => report(device::run(args, &mut out), device::DeviceVerbError::exit_code),
        #[cfg(feature = "loadtest")]
        Verb::Loadtest(args) => report(loadtest::run(args, &mut out), loadtest::LoadtestError::exit_code),
        Verb::Package(args) => report(package::run(args, &mut out), files::FilesError::exit_code),
        Verb::Blob(args) => report(blob::run(args, &mut out), files::FilesError::exit_code),
        Verb::Far(args) => report(far::run(args, &mut out), files::FilesError::exit_code),
        Verb::FileHash(args) => report(file_hash::run(args, &mut out), files::FilesError::exit_code),
        #[cfg(feature = "device")]
        Verb::TufClient(args) => report(tuf_client::run(args, &mut out), |_| ExitCode::FAILURE),
    };
    // A closed pipe on the other side is not worth a message.
    drop(out.flush());
    outcome
}

/// One clear line on standard error, and the exit code that the error stands for.
fn report<E: std::error::Error>(outcome: Result<ExitCode, E>, code: impl FnOnce(&E) -> ExitCode) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("colibri: {error}");
        code(&error)
    })
}
