//! `colibri repo verify`: reads and hashes all of a repository, and says which blob of which package is bad.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{BlobUse, Damage, VerifyProgress, VerifyReport, verify};
use serde_json::{Value, json};

use super::{RepoError, versions_json, versions_line};
use crate::files;
use crate::progress::{bytes, step};

/// Most packages named per damaged blob, and unreferenced blobs named, for people; JSON has all.
const NAMED_MAX: usize = 20;

/// Arguments of `repo verify`.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "Exit code 1 if anything is damaged or missing. Blobs that no package names are told and are no \
                        damage.\n\nExample: colibri repo verify ./repo && echo whole"
)]
pub struct Verify {
    /// Also run the client that real devices carry against it, and say what it would refuse
    #[arg(long)]
    pub stock_client: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder, in any layout of the real tools
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Verifies.
pub(super) fn run(args: &Verify, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let step = step(&format!("reading all of {}", args.dir.display()));
    let hear = |at: VerifyProgress| step.progress(at.bytes_done, at.bytes_total);
    let report = verify(&args.dir, SystemClock.now(), Some(&hear))?;
    step.done(&format!("{} read in {} files of blobs", bytes(report.bytes), report.forms));
    let refusals = if args.stock_client { Some(super::stock_client::refusals(&args.dir)?) } else { None };
    if args.json {
        files::print_json(out, &to_json(&report, refusals.as_deref()))?;
    } else {
        print(&report, refusals.as_deref(), out)?;
    }
    let whole = report.damage.is_empty() && refusals.is_none_or(|refusals| refusals.is_empty());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &VerifyReport, refusals: Option<&[String]>, out: &mut dyn Write) -> std::io::Result<()> {
    for damage in &report.damage {
        print_damage(damage, out)?;
    }
    for role in &report.expired {
        writeln!(out, "note: {role} metadata has expired: sign it again before devices can update")?;
    }
    let unreferenced: u64 = report.unreferenced.iter().map(|blob| blob.bytes).sum();
    if !report.unreferenced.is_empty() {
        let count = report.unreferenced.len();
        writeln!(out, "note: {count} blobs ({}) belong to no package offered:", bytes(unreferenced))?;
        for blob in report.unreferenced.iter().take(NAMED_MAX) {
            writeln!(out, "  {} {}", blob.blob, bytes(blob.bytes))?;
        }
        if count > NAMED_MAX {
            writeln!(out, "  and {} more (--json names all)", count - NAMED_MAX)?;
        }
    }
    for refusal in refusals.into_iter().flatten() {
        writeln!(out, "REFUSED by the stock client: {refusal}")?;
    }
    let versions = report.versions.map_or_else(|| "metadata cannot be verified".to_owned(), versions_line);
    let verdict = match (report.damage.len(), refusals.map_or(0, <[String]>::len)) {
        (0, 0) => "whole".to_owned(),
        (0, refused) => format!("whole, and refused by the stock client {refused} times"),
        (damaged, _) => format!("DAMAGED in {damaged} places"),
    };
    writeln!(out, "{verdict}: {} packages, {} blobs; {versions}", report.packages, report.blobs)
}

fn print_damage(damage: &Damage, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "BAD {}: {}", damage.file.display(), damage.reason)?;
    for BlobUse { package, path } in damage.users.iter().take(NAMED_MAX) {
        writeln!(out, "  is {path} of {package}")?;
    }
    if damage.users.len() > NAMED_MAX {
        writeln!(out, "  and {} more (--json names all)", damage.users.len() - NAMED_MAX)?;
    }
    if damage.blob.is_some() && damage.users.is_empty() {
        writeln!(out, "  no package offered names it")?;
    }
    Ok(())
}

fn to_json(report: &VerifyReport, refusals: Option<&[String]>) -> Value {
    let damage = |damage: &Damage| {
        let users = damage.users.iter().map(|user| json!({ "package": user.package, "path": user.path }));
        let file = damage.file.display().to_string();
        json!({ "file": file, "blob": damage.blob, "reason": damage.reason, "users": users.collect::<Value>() })
    };
    let unreferenced = report.unreferenced.iter().map(|blob| json!({ "blob": blob.blob, "bytes": blob.bytes }));
    json!({
        "whole": report.damage.is_empty(),
        "packages": report.packages,
        "blobs": report.blobs,
        "files": report.forms,
        "bytes": report.bytes,
        "versions": report.versions.map(versions_json),
        "expired": report.expired.iter().map(|role| role.name()).collect::<Value>(),
        "damage": report.damage.iter().map(damage).collect::<Value>(),
        "unreferenced": unreferenced.collect::<Value>(),
        "stock_client_refusals": refusals,
    })
}
