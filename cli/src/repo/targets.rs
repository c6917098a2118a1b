//! `colibri repo targets`: what is offered, signed by people who hold the targets keys elsewhere.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{KeyRole, Repository};

use super::signing::SigningArgs;
use super::{RepoError, ceremony, versions_line};

/// Arguments of `repo targets`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A release signed elsewhere; the origin holds only snapshot and timestamp keys:\n\n  \
    colibri repo publish repo --package hello/package_manifest.json --export-targets targets.json\n  \
    colibri repo targets sign targets.json --signing-keys ~/alice\n  \
    colibri repo targets import repo targets.json")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with targets.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Writes the next targets, unsigned: what is offered now, with a new life (`repo publish --export-targets` adds packages)
    Export(Export),
    /// Signs such a file; needs no repository
    Sign(ceremony::Sign),
    /// Takes over targets that enough keys have signed, and signs snapshot and timestamp
    Import(Import),
}

/// Arguments of `repo targets export`.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The file to be signed
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The next root, signed but not imported yet, which gives targets other keys: for these to sign
    #[arg(long, value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Arguments of `repo targets import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Where online keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The repository's folder
    pub repo_path: PathBuf,
    /// The signed file
    pub file: PathBuf,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::Export(args) => {
            let (repository, now) = (Repository::open(&args.repo_path)?, SystemClock.now());
            let targets = match &args.root {
                Some(root) => repository.export_targets_under(&ceremony::read(root, KeyRole::Root)?, now)?,
                None => repository.export_targets(now)?,
            };
            ceremony::export(&targets, &args.output, out)
        }
        Verb::Sign(args) => ceremony::sign(args, KeyRole::Targets, out),
        Verb::Import(args) => {
            let targets = ceremony::read(&args.file, KeyRole::Targets)?;
            let repository = args.signing.open(&args.repo_path)?;
            writeln!(out, "now {}", versions_line(repository.import_targets(&targets, SystemClock.now())?))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
