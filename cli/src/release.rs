//! `colibri release create|show|diff|audit|bundle`: product releases, from a description and repositories to a document that says
//! all, and to one file with everything in it.
//!
//! What a release is and must be is in `colibri-release`; here are files, questions to repositories, and printing.

mod audit;
mod bundle;
mod create;
mod description;
mod diff;
mod package;
mod show;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_common::BlobId;
use colibri_release::{Release, ReleaseError};
use colibri_repository::RepositoryError;

use crate::files::{self, FilesError};

/// Works on product releases: which packages a product has, at which versions, and how each is kept.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with releases.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Writes the release that a product description asks for, at the versions that repositories offer now
    Create(create::Create),
    /// Shows the packages of a release and what they weigh
    Show(show::Show),
    /// Compares two releases: packages, blobs, and the bytes that a device fetches
    Diff(diff::Diff),
    /// Lists the anchored packages of a release with their subpackages, and compares the list with a golden one
    Audit(audit::Audit),
    /// Writes a published release, its metadata and all its blobs into one file
    Bundle(bundle::Bundle),
}

/// Why a verb on releases failed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseVerbError {
    /// A release document, or one that was to be written.
    #[error("{}: {error}", path.display())]
    Release {
        /// The document or the description.
        path: PathBuf,
        /// What is wrong.
        error: ReleaseError,
    },
    /// A product description.
    #[error("{}: {reason}", path.display())]
    Description {
        /// The description.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A package or blob that no repository has.
    #[error(
        "{what} {id} is in none of the repositories given: publish its package again, or give the repository that has it"
    )]
    Missing {
        /// `package hash` or `blob`.
        what: &'static str,
        /// Which.
        id: BlobId,
    },
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// A repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A file that was given.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Standard output.
    #[error("printing failed: {0}")]
    Output(#[from] std::io::Error),
}

impl ReleaseVerbError {
    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Files(error) => error.exit_code(),
            _ => ExitCode::FAILURE,
        }
    }

    fn release(path: &Path) -> impl Fn(ReleaseError) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Release { path: path.clone(), error }
    }
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, ReleaseVerbError> {
    match &args.verb {
        Verb::Create(args) => create::run(args, out),
        Verb::Show(args) => show::run(args, out),
        Verb::Diff(args) => diff::run(args, out),
        Verb::Audit(args) => audit::run(args, out),
        Verb::Bundle(args) => bundle::run(args, out),
    }
}

/// Reads and checks a release document.
fn read(path: &Path) -> Result<Release, ReleaseVerbError> {
    Release::parse(&files::read(path)?).map_err(ReleaseVerbError::release(path))
}

/// A hash for people.
fn short(hash: Option<BlobId>) -> String {
    hash.map_or_else(|| "-".to_owned(), |hash| hash.to_string()[..11].to_owned())
}
