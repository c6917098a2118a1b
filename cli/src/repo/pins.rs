//! `colibri repo pins add|list|remove`: named reasons to keep what is in a repository.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{BlobId, Clock, SystemClock, UnixSeconds};
use colibri_repository::{Pin, Repository};
use serde_json::json;

use super::{RepoError, date};
use crate::files;
use crate::table::print_table;

/// Arguments of `repo pins`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with pins.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Keeps packages, with all they name, and blobs, whatever is offered
    Add(Add),
    /// Shows all pins
    List(List),
    /// Removes a pin; what it kept goes with the next collection
    Remove(Remove),
}

/// Arguments of `repo pins add`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri repo pins add factory --owner qa@example.org --reason 'shipped in 2026' \
                        --package base/0 ./repo")]
pub struct Add {
    /// Its name: letters, digits, `.`, `_` and `-`
    pub name: String,
    /// Who wants it
    #[arg(long)]
    pub owner: String,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// A package or blob by hash (repeatable)
    #[arg(long, value_name = "HASH")]
    pub hash: Vec<BlobId>,
    /// A package as it is offered now, NAME or NAME/VARIANT (repeatable)
    #[arg(long, value_name = "NAME")]
    pub package: Vec<String>,
    /// The repository's folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `repo pins list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `repo pins remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its name
    pub name: String,
    /// The repository's folder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::Add(args) => add(args, out),
        Verb::List(args) => list(args, out),
        Verb::Remove(args) => remove(args, out),
    }
}

fn add(args: &Add, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let repository = Repository::open(&args.dir)?;
    let mut hashes = args.hash.clone();
    for name in &args.package {
        hashes.push(repository.package(name)?.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    let count = hashes.len();
    let pin = Pin {
        name: args.name.clone(),
        owner: args.owner.clone(),
        reason: args.reason.clone(),
        added_s: SystemClock.now().0,
        hashes,
    };
    for absent in repository.add_pin(&pin)? {
        eprintln!("colibri: blob {absent} is not in {}: the pin cannot keep it until it is", args.dir.display());
    }
    writeln!(out, "{} keeps {count} hashes", args.name)?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &List, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let pins = Repository::open(&args.dir)?.pins()?;
    if args.json {
        let json = |pin: &Pin| {
            let Pin { name, owner, reason, added_s, hashes } = pin;
            json!({"name": name, "owner": owner, "reason": reason, "added": date(UnixSeconds(*added_s)), "hashes": hashes})
        };
        files::print_json(out, &pins.iter().map(json).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["NAME", "OWNER", "ADDED", "HASHES", "REASON"].map(str::to_owned).to_vec()];
    rows.extend(pins.into_iter().map(|pin| {
        vec![pin.name, pin.owner, date(UnixSeconds(pin.added_s)), pin.hashes.len().to_string(), pin.reason]
    }));
    print_table(out, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn remove(args: &Remove, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    if Repository::open(&args.dir)?.remove_pin(&args.name)? {
        writeln!(out, "{} removed", args.name)?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("colibri: {} has no pin {}", args.dir.display(), args.name);
    Ok(ExitCode::FAILURE)
}
