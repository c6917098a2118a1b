//! `colibri release audit`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_release::{AuditDiff, audit};
use serde_json::json;

use super::{ReleaseVerbError, read};
use crate::files::{self, FilesError};

const EXAMPLE: &str = "\
One line for each anchored package and each of its subpackages, to any depth, without versions: a list to be kept beside the product's
sources. A package or subpackage that comes or goes is a difference, which somebody should look at.

Example: colibri release audit release.json --golden anchored-packages.txt

Exit status: 0 as in the golden file, or there is none to compare with; 1 there are differences, or any other failure.";

/// Arguments of `release audit`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Audit {
    /// The release document
    pub release: PathBuf,
    /// The golden list to compare with
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,
    /// Write the golden list instead of comparing with it
    #[arg(long, requires = "golden")]
    pub update: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Audits.
pub(super) fn run(args: &Audit, out: &mut dyn Write) -> Result<ExitCode, ReleaseVerbError> {
    let release = read(&args.release)?;
    let lines = audit(&release).map_err(ReleaseVerbError::release(&args.release))?;
    let name = format!("{} {}", release.product(), release.version());
    let diff = match &args.golden {
        None => None,
        Some(golden) if args.update => {
            files::write_with(golden, |file| {
                let mut write = || {
                    writeln!(
                        file,
                        "# Anchored packages of {}, with their subpackages (colibri release audit)",
                        release.product()
                    )?;
                    lines.iter().try_for_each(|line| writeln!(file, "{line}"))
                };
                write().map_err(FilesError::io("writing", golden))
            })?;
            None
        }
        Some(golden) => Some(AuditDiff::of(&lines, &String::from_utf8_lossy(&files::read(golden)?))),
    };
    let differs = diff.as_ref().is_some_and(|diff| !diff.is_empty());
    if args.json {
        let diff = diff.map(|diff| json!({ "added": diff.added, "removed": diff.removed }));
        let report = json!({ "product": release.product(), "version": release.version(), "anchored": lines, "differences": diff });
        files::print_json(out, &report)?;
    } else {
        match (&args.golden, diff) {
            (None, _) => lines.iter().try_for_each(|line| writeln!(out, "{line}"))?,
            (Some(golden), None) => writeln!(out, "{}: {} lines of {name}", golden.display(), lines.len())?,
            (Some(golden), Some(diff)) if diff.is_empty() => {
                writeln!(out, "{name}: {} lines, as in {}", lines.len(), golden.display())?;
            }
            (Some(golden), Some(diff)) => {
                diff.removed.iter().try_for_each(|line| writeln!(out, "- {line}"))?;
                diff.added.iter().try_for_each(|line| writeln!(out, "+ {line}"))?;
                let (added, removed) = (diff.added.len(), diff.removed.len());
                writeln!(out, "{name} differs from {}: {added} added, {removed} removed", golden.display())?;
                writeln!(
                    out,
                    "next: review them, then colibri release audit {} --golden {} --update",
                    args.release.display(),
                    golden.display()
                )?;
            }
        }
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
