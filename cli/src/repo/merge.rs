//! `colibri repo merge`: the packages of several repositories in one.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{CreateOptions, Prefer, Repository, Transfer, TransferProgress, TransferReport, sources};
use serde_json::json;

use super::transfer::Mode;
use super::{RepoError, versions_json, versions_line};
use crate::files;
use crate::progress::step;

/// Whom to believe where packages of one name differ.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Preferred {
    /// The repository named first; what OUT has comes before all
    First,
    /// The repository named last
    Last,
}

/// Arguments of `repo merge`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Packages of one name and different content are named, and nothing is merged, unless --prefer says \
                        whom to believe.\n\nExample: colibri repo merge base extras -o all"
)]
pub struct Merge {
    /// The repository to merge into, made if it is missing
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Whom to believe where packages of one name differ
    #[arg(long, value_name = "WHICH")]
    pub prefer: Option<Preferred>,
    /// How blobs come over
    #[arg(long, value_name = "MODE", default_value = "copy")]
    pub copy_mode: Mode,
    /// Folder of the private keys of OUT; default is OUT/keys
    #[arg(long, value_name = "DIR")]
    pub signing_keys: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Repository folders or product bundles
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
}

/// Merges.
pub(super) fn run(args: &Merge, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let mut named = Vec::new();
    for dir in &args.dirs {
        for source in sources(dir)? {
            let label = source
                .name
                .as_ref()
                .map_or_else(|| dir.display().to_string(), |name| format!("{name} of {}", dir.display()));
            named.push((label, source));
        }
    }
    let now = SystemClock.now();
    let repository = if args.output.join("repository").is_dir() {
        Repository::open_with_keys(&args.output, args.signing_keys.clone())?
    } else {
        Repository::create(&args.output, CreateOptions { keys: args.signing_keys.clone(), ..CreateOptions::new(now) })?
    };
    let prefer = match args.prefer {
        None => Prefer::Neither,
        Some(Preferred::First) => Prefer::First,
        Some(Preferred::Last) => Prefer::Last,
    };
    let step = step(&format!("merging into {}", args.output.display()));
    let hear = |at: TransferProgress| step.progress(at.blobs_done as u64, at.blobs_total as u64);
    let transfer = Transfer { copy_mode: args.copy_mode.into(), with_keys: false, progress: Some(&hear) };
    let report = repository.merge(&named, prefer, now, &transfer)?;
    step.done(&format!("{} blobs are proven", report.blobs));
    let TransferReport { packages, blobs, blobs_new, versions } = report;
    if args.json {
        let versions = versions_json(versions);
        let path = args.output.display().to_string();
        let report =
            json!({ "path": path, "packages": packages, "blobs": blobs, "blobs_new": blobs_new, "versions": versions });
        files::print_json(out, &report)?;
    } else {
        writeln!(out, "{packages} packages merged: {blobs} blobs, {blobs_new} of them new")?;
        writeln!(out, "now {}", versions_line(versions))?;
    }
    Ok(ExitCode::SUCCESS)
}
