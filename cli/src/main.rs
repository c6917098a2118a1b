//! `colibri`: arguments, printing, progress, exit codes. One module per verb group; what the verbs do is in the libraries.
//!
//! Exit codes: 0 done, 1 failed, 2 usage, 64 bad configuration; others are documented with their verb.

mod blob;
mod demo;
mod device;
mod edge;
mod far;
mod file_hash;
mod files;
mod loadtest;
mod origin;
mod package;
mod progress;
mod repo;
mod serve;

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
    Demo(demo::Args),
    /// Serves repositories
    Origin(origin::Args),
    /// Serves as a cache in front of an origin or another edge
    Edge(edge::Args),
    /// Makes, fills and reads repositories
    Repo(repo::Args),
    /// Resolves packages on a device and looks at them
    Device(device::Args),
    /// Runs synthetic fleets
    Loadtest(loadtest::Args),
    /// Builds packages
    Package(package::Args),
    /// Compresses, decompresses and hashes delivery blobs
    Blob(blob::Args),
    /// Makes and reads FAR archives
    Far(far::Args),
    /// Prints merkle roots of files
    FileHash(file_hash::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::stdout().lock();
    let outcome = match &cli.verb {
        Verb::Demo(args) => report(demo::run(args, &mut out), |_| ExitCode::FAILURE),
        Verb::Origin(args) => report(origin::run(args, &mut out), serve::ServeError::exit_code),
        Verb::Edge(args) => report(edge::run(args, &mut out), serve::ServeError::exit_code),
        Verb::Repo(args) => report(repo::run(args, &mut out), |_| ExitCode::FAILURE),
        Verb::Device(args) => report(device::run(args, &mut out), device::DeviceVerbError::exit_code),
        Verb::Loadtest(args) => report(loadtest::run(args, &mut out), loadtest::LoadtestError::exit_code),
        Verb::Package(args) => report(package::run(args, &mut out), files::FilesError::exit_code),
        Verb::Blob(args) => report(blob::run(args, &mut out), files::FilesError::exit_code),
        Verb::Far(args) => report(far::run(args, &mut out), files::FilesError::exit_code),
        Verb::FileHash(args) => report(file_hash::run(args, &mut out), files::FilesError::exit_code),
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
