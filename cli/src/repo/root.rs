//! `colibri repo root`: the root, signed by people who hold its keys elsewhere.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{KeyChange, KeyRole, Repository};

use super::signing::SigningArgs;
use super::{RepoError, ceremony, versions_line};

/// Arguments of `repo root`.
#[derive(Debug, clap::Args)]
#[command(after_help = "A root signed on two machines:\n\n  \
    colibri repo root export repo -o root.json          # at the origin; `repo keys … --export` changes keys\n  \
    colibri repo root sign root.json --signing-keys ~/alice\n  \
    colibri repo root sign root.json --signing-keys ~/bob\n  \
    colibri repo root import repo root.json             # at the origin")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with a root.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Writes the next root, unsigned: as it is now, with a new life
    Export(Export),
    /// Signs such a file; needs no repository
    Sign(ceremony::Sign),
    /// Takes over a root that enough old and new keys have signed
    Import(Import),
}

/// Arguments of `repo root export`.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// The file to be signed
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Arguments of `repo root import`.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Where online keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Targets signed by the new root's keys for targets, if it changes them
    #[arg(long, value_name = "FILE")]
    pub targets: Option<PathBuf>,
    /// The repository's folder
    pub repo_path: PathBuf,
    /// The signed file
    pub file: PathBuf,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::Export(args) => {
            let root = Repository::open(&args.repo_path)?.export_root(&KeyChange::default(), SystemClock.now())?;
            ceremony::export(&root, &args.output, out)
        }
        Verb::Sign(args) => ceremony::sign(args, KeyRole::Root, out),
        Verb::Import(args) => {
            let root = ceremony::read(&args.file, KeyRole::Root)?;
            let targets = args.targets.as_ref().map(|path| ceremony::read(path, KeyRole::Targets)).transpose()?;
            let repository = args.signing.open(&args.repo_path)?;
            let versions = repository.import_root(&root, targets.as_ref(), SystemClock.now())?;
            writeln!(out, "now {}", versions_line(versions))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
