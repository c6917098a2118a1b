//! `colibri release bundle`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{BundleReport, Repository, RepositoryError, Versions};
use serde_json::json;

use super::ReleaseVerbError;
use crate::files::{self, FilesError};
use crate::progress::{bytes, step};

const EXAMPLE: &str = "\
The bundle holds the metadata of the repository, the release, and every blob that it needs, verified while it is written.
What is missing is said before anything is written; the file appears only when it is whole.

Example: colibri release bundle kiosk-release --repo-path repo -o kiosk-1.4.bundle";

/// Arguments of `release bundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Bundle {
    /// The published package that carries the release: NAME or NAME/VARIANT
    pub release: String,
    /// The repository's folder
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub repo_path: PathBuf,
    /// Where to write the bundle
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Bundles.
pub(super) fn run(args: &Bundle, out: &mut dyn Write) -> Result<ExitCode, ReleaseVerbError> {
    let repository = Repository::open(&args.repo_path)?;
    let step = step(&format!("bundling {} into {}", args.release, args.output.display()));
    let mut failed: Option<RepositoryError> = None;
    let written = files::write_with(&args.output, |file| {
        let progress = |done, total| step.progress(done, total);
        let written = repository.write_release_bundle(&args.release, SystemClock.now(), file, &progress);
        // Kept apart: it says more than that the file could not be written.
        written.map_err(|error| {
            failed = Some(error);
            FilesError::Refused { path: args.output.clone(), reason: "it was not written" }
        })
    });
    let report = written.map_err(|error| failed.map_or_else(|| error.into(), ReleaseVerbError::from))?;
    step.done(&format!("{} is whole", args.output.display()));
    print(args, &report, out)?;
    Ok(ExitCode::SUCCESS)
}

fn print(args: &Bundle, report: &BundleReport, out: &mut dyn Write) -> Result<(), ReleaseVerbError> {
    let BundleReport { release, hash, blobs, bytes: blob_bytes, versions } = report;
    let Versions { root, targets, snapshot, timestamp } = versions;
    if args.json {
        let report = json!({
            "bundle": args.output.display().to_string(),
            "product": release.product(),
            "version": release.version(),
            "hash": hash,
            "blobs": blobs,
            "bytes": blob_bytes,
            "versions": { "root": root, "targets": targets, "snapshot": snapshot, "timestamp": timestamp },
        });
        return Ok(files::print_json(out, &report)?);
    }
    writeln!(out, "{}: {} {}", args.output.display(), release.product(), release.version())?;
    writeln!(out, "{hash}  {}", args.release)?;
    writeln!(out, "{blobs} blobs, {}", bytes(*blob_bytes))?;
    writeln!(out, "metadata root {root}, targets {targets}, snapshot {snapshot}, timestamp {timestamp}")?;
    Ok(())
}
