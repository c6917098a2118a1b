//! `colibri package diff`: what differs between two packages, and the bytes a device fetches to get from one to the other.

mod side;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use colibri_common::BlobId;
use colibri_package::diff::{self, BlobBytes, File, FileChange, PackageDiff, Side};
use serde_json::{Value, json};

use crate::files::{self, FilesError};
use crate::table::print_table;

/// Arguments of `package diff`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "A package is given as a package manifest, the directory that has one, a package archive, or a meta.far \
    whose subpackages are found with --blobs.\n\n\
    Files of subpackages appear as NAME#PATH. A blob counts as its delivery blob where that is known (a manifest of \
    delivery blobs, or --blobs), else as its content.\n\n\
    Example: what devices fetch when they update from the old build to the new one\n  \
    colibri package diff old/package_manifest.json out --blobs repo/repository/blobs"
)]
pub struct Args {
    /// The package that a device has
    pub from: PathBuf,
    /// The package that it shall have
    pub to: PathBuf,
    /// Directory of blobs, as HASH (content), 1/HASH or 2/HASH (delivery blobs); may be given again
    #[arg(long, value_name = "DIR")]
    pub blobs: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), FilesError> {
    let (from, to) = (side::read(&args.from, &args.blobs)?, side::read(&args.to, &args.blobs)?);
    let diff = diff::diff(&from, &to).map_err(FilesError::package(&args.to))?;
    if args.json { files::print_json(out, &json(&diff, &from, &to)) } else { print(&diff, &from, &to, out) }
}

fn json(diff: &PackageDiff, from: &Side, to: &Side) -> Value {
    let package =
        |side: &Side| json!({ "package": side.closure.root().path().to_string(), "hash": side.closure.hash() });
    let file = |file: &File| json!({ "hash": file.blob, "bytes": file.bytes });
    let change = |change: &FileChange| {
        let kind = match (change.from, change.to) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        json!({ "path": change.path, "change": kind, "from": change.from.as_ref().map(file), "to": change.to.as_ref().map(file) })
    };
    let blob = |(id, bytes): &(BlobId, BlobBytes)| json!({ "hash": id, "raw_bytes": bytes.raw, "delivery_bytes": bytes.delivery });
    json!({
        "from": package(from),
        "to": package(to),
        "files": diff.files.iter().map(change).collect::<Value>(),
        "blobs_added": diff.added.iter().map(blob).collect::<Value>(),
        "blobs_removed": diff.removed.iter().map(blob).collect::<Value>(),
        "blobs_kept": diff.kept,
        "fetch_bytes": diff.fetch_bytes(),
        "fetch_blobs_as_delivery": diff.as_delivery(),
        "fetch_blobs_of_unknown_length": diff.unknown(),
    })
}

fn print(diff: &PackageDiff, from: &Side, to: &Side, out: &mut dyn Write) -> Result<(), FilesError> {
    for (sign, side) in [("-", from), ("+", to)] {
        writeln!(out, "{sign} {}  {}", side.closure.hash(), side.closure.root().path())?;
    }
    if !diff.files.is_empty() {
        writeln!(out)?;
        let mut table = vec![["", "PATH", "BEFORE", "AFTER"].map(str::to_owned).to_vec()];
        table.extend(diff.files.iter().map(row));
        print_table(out, &table)?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "blobs: {} to fetch, {} no longer needed, {} in both",
        diff.added.len(),
        diff.removed.len(),
        diff.kept
    )?;
    let mut fetch = format!("fetch: {} bytes", diff.fetch_bytes());
    if !diff.added.is_empty() {
        fetch += &format!(" ({} of {} blobs counted as delivery blobs)", diff.as_delivery(), diff.added.len());
    }
    if diff.unknown() > 0 {
        fetch += &format!("; the lengths of {} blobs are not known: give --blobs", diff.unknown());
    }
    Ok(writeln!(out, "{fetch}")?)
}

fn row(change: &FileChange) -> Vec<String> {
    let sign = match (change.from, change.to) {
        (None, _) => "+",
        (_, None) => "-",
        _ => "~",
    };
    let bytes = |file: Option<File>| match file {
        None => "-".to_owned(),
        Some(file) => file.bytes.map_or("?".to_owned(), |bytes| bytes.to_string()),
    };
    let path = if change.path.chars().any(char::is_control) {
        change.path.escape_debug().to_string()
    } else {
        change.path.clone()
    };
    vec![sign.to_owned(), path, bytes(change.from), bytes(change.to)]
}
