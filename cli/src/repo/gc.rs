//! `colibri repo gc`: collection.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{Collect, CollectReport, Repository};
use serde_json::json;

use super::RepoError;
use crate::files;
use crate::progress::bytes;

/// Arguments of `repo gc`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What stays: everything that the last sets reach, everything pinned, what publishes at work depend on, and what \
                  was stored within the grace period; metadata of every timestamp that was served within its own life or 24 \
                  hours; all roots. It may run beside publishes.\n\nExample: colibri repo gc --dry-run ./repo"
)]
pub struct Gc {
    /// How many of the newest different sets of packages keep their blobs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub keep_sets: u64,
    /// Hours for which a blob stays from when it was stored, whatever names it
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(..=876_000))]
    pub grace_hours: u64,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Collects.
pub(super) fn run(args: &Gc, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let collect = Collect {
        now: SystemClock.now(),
        keep_sets: args.keep_sets,
        grace_s: args.grace_hours * 3600,
        dry_run: args.dry_run,
    };
    let report = Repository::open(&args.dir)?.collect(&collect)?;
    let CollectReport {
        blobs_kept,
        blobs_in_grace,
        bytes_kept,
        blobs_removed,
        bytes_removed,
        metadata_removed,
        commits_removed,
        uploads_removed,
    } = report;
    if args.json {
        let json = json!({
            "dry_run": args.dry_run,
            "blobs_kept": blobs_kept,
            "blobs_in_grace": blobs_in_grace,
            "bytes_kept": bytes_kept,
            "blobs_removed": blobs_removed,
            "bytes_removed": bytes_removed,
            "metadata_removed": metadata_removed,
            "commits_removed": commits_removed,
            "uploads_removed": uploads_removed,
        });
        files::print_json(out, &json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let done = if args.dry_run { "would be removed" } else { "removed" };
    writeln!(
        out,
        "{blobs_removed} blobs {done}, {blobs_kept} stay ({}), {blobs_in_grace} of them only because they are new",
        bytes(bytes_kept)
    )?;
    writeln!(
        out,
        "{metadata_removed} metadata files, {commits_removed} commits and {uploads_removed} unfinished uploads {done}"
    )?;
    writeln!(out, "{} in all {done}", bytes(bytes_removed))?;
    Ok(ExitCode::SUCCESS)
}
