//! `colibri release diff`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_release::{ReleaseBlob, ReleaseDiff, ReleasePackage, fetched_bytes, raw_bytes};
use serde_json::{Value, json};

use super::{ReleaseVerbError, read, short};
use crate::files;
use crate::progress::bytes;
use crate::table::print_table;

/// Arguments of `release diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri release diff release-1.4.json release-1.5.json")]
pub struct Diff {
    /// The release that devices have
    pub old: PathBuf,
    /// The release that they get
    pub new: PathBuf,
    /// Print one JSON object; sizes are bytes
    #[arg(long)]
    pub json: bool,
}

/// Compares.
pub(super) fn run(args: &Diff, out: &mut dyn Write) -> Result<ExitCode, ReleaseVerbError> {
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let diff = ReleaseDiff::of(&old, &new);
    if args.json {
        let named =
            |release: &colibri_release::Release| json!({ "product": release.product(), "version": release.version() });
        files::print_json(out, &to_json(&diff, &named(&old), &named(&new)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let ends = [&old, &new].map(|release| format!("{} {}", release.product(), release.version()));
    writeln!(out, "{} -> {}", ends[0], ends[1])?;
    print(&diff, out)?;
    Ok(ExitCode::SUCCESS)
}

fn to_json(diff: &ReleaseDiff<'_>, old: &Value, new: &Value) -> Value {
    let packages = |packages: &[&ReleasePackage]| packages.iter().map(|package| json!(package)).collect::<Value>();
    let changed = diff.changed.iter().map(|(old, new)| json!({ "old": old, "new": new })).collect::<Value>();
    let blobs = |blobs: &[&ReleaseBlob]| {
        let hashes: Value = blobs.iter().map(|blob| json!(blob.hash)).collect();
        let all = || blobs.iter().copied();
        json!({ "hashes": hashes, "raw_bytes": raw_bytes(all()), "fetched_bytes": fetched_bytes(all()) })
    };
    json!({
        "old": old,
        "new": new,
        "packages": {
            "added": packages(&diff.added),
            "removed": packages(&diff.removed),
            "changed": changed,
        },
        "beside": diff.beside.iter().map(|beside| {
            json!({ "set": beside.set, "url": beside.url, "old": beside.old, "new": beside.new })
        }).collect::<Value>(),
        "blobs": { "added": blobs(&diff.blobs_added), "removed": blobs(&diff.blobs_removed) },
        "fetched": blobs(&diff.fetched),
        "fetched_on_demand": blobs(&diff.fetched_on_demand),
    })
}

fn print(diff: &ReleaseDiff<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let row = |sign: &str, package: &ReleasePackage, version: String| {
        let set = format!("{} & {}", package.availability, package.versioning);
        vec![sign.to_owned(), package.url.to_string(), set, version]
    };
    let version = |package: &ReleasePackage| match package.minimum_version {
        Some(least) => format!("{} (>= {least})", short(package.hash)),
        None => short(package.hash),
    };
    let mut rows = Vec::new();
    rows.extend(diff.added.iter().map(|package| row("+", package, version(package))));
    rows.extend(diff.removed.iter().map(|package| row("-", package, version(package))));
    for (old, new) in &diff.changed {
        rows.push(row("~", new, format!("{} -> {}", version(old), version(new))));
    }
    rows.extend(diff.beside.iter().map(|beside| {
        let (sign, version) = match (beside.old, beside.new) {
            (None, new) => ("+", short(new)),
            (old, None) => ("-", short(old)),
            (old, new) => ("~", format!("{} -> {}", short(old), short(new))),
        };
        vec![sign.to_owned(), beside.url.clone(), beside.set.to_owned(), version]
    }));
    print_table(out, &rows)?;
    if rows.is_empty() {
        writeln!(out, "the packages are the same")?;
    }
    for (what, blobs) in [("added", &diff.blobs_added), ("removed", &diff.blobs_removed)] {
        writeln!(out, "blobs {what}: {} ({} of content)", blobs.len(), bytes(raw_bytes(blobs.iter().copied())))?;
    }
    let weight =
        |blobs: &[&ReleaseBlob]| format!("{} blobs, {}", blobs.len(), bytes(fetched_bytes(blobs.iter().copied())));
    writeln!(out, "a device fetches {}", weight(&diff.fetched))?;
    writeln!(out, "and at most {} more when all that is on demand is asked for", weight(&diff.fetched_on_demand))
}
