//! `colibri repo keys`: which keys a repository has, and changing that.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_metadata::KeyId;
use colibri_repository::{KeyChange, KeyForm, KeyRole, ListedKey, Repository, generate_key_file};
use serde_json::json;

use super::create::role_and_number;
use super::signing::SigningArgs;
use super::{RepoError, status, versions_line};
use crate::files;
use crate::table::print_table;

/// Arguments of `repo keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with keys.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Lists the keys that the root names, and which of them are here
    List(List),
    /// Makes a private key in a file, for a person with a machine of their own, and prints its public key
    New(New),
    /// Replaces every key of a role that is here by a new one
    Rotate(Change<OfRole>),
    /// Gives a role one more key, of which only the public part need be known
    Add(Change<Add>),
    /// Takes a key away from a role; what it signed is signed again by the others
    Revoke(Change<Revoke>),
    /// Changes how many keys of a role must sign
    Threshold(Change<Threshold>),
}

/// Arguments of `repo keys list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print a JSON array of {role, id, threshold, here}
    #[arg(long)]
    pub json: bool,
    /// Folder of the private keys; default is REPO_PATH/keys
    #[arg(long, value_name = "DIR")]
    pub signing_keys: Option<PathBuf>,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Arguments of `repo keys new`.
#[derive(Debug, clap::Args)]
pub struct New {
    /// Without a passphrase: for trying things out
    #[arg(long)]
    pub dev: bool,
    /// File with the passphrase; else COLIBRI_KEY_PASSPHRASE, else it is asked for
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The key file, such as root.alice.pem: its name begins with the role and a dot
    pub file: PathBuf,
}

/// Arguments of verbs that change keys.
#[derive(Debug, clap::Args)]
pub struct Change<T: clap::Args> {
    /// Where keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Change nothing: write the next root, unsigned, to this file, for signers elsewhere (`repo root sign`)
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// The repository's folder
    pub repo_path: PathBuf,
    /// What changes
    #[command(flatten)]
    pub what: T,
}

/// A role.
#[derive(Debug, clap::Args)]
pub struct OfRole {
    /// Write the new private keys without a passphrase
    #[arg(long)]
    pub dev: bool,
    /// root, targets, snapshot or timestamp
    pub role: KeyRole,
}

/// A role and a key.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// root, targets, snapshot or timestamp
    pub role: KeyRole,
    /// File with the public key: PEM, or JSON as metadata lists it
    pub public_key: PathBuf,
}

/// A role and a key's id.
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// root, targets, snapshot or timestamp
    pub role: KeyRole,
    /// The key's id, as `repo keys list` prints it
    pub key_id: KeyId,
}

/// A role and a number.
#[derive(Debug, clap::Args)]
pub struct Threshold {
    /// The role and how many of its keys must sign
    #[arg(value_name = "ROLE=N", value_parser = role_and_number)]
    pub threshold: (KeyRole, u32),
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::List(args) => list(args, out),
        Verb::New(args) => new(args, out),
        Verb::Rotate(args) => {
            let form = if args.what.dev { KeyForm::Plain } else { KeyForm::Encrypted };
            change(args, out, |repository| Ok(repository.prepare_rotation(args.what.role, form)?))
        }
        Verb::Add(args) => change(args, out, |_| {
            let add = vec![(args.what.role, ListedKey::read(&args.what.public_key)?)];
            Ok(KeyChange { add, ..KeyChange::default() })
        }),
        Verb::Revoke(args) => change(args, out, |_| {
            Ok(KeyChange { revoke: vec![(args.what.role, args.what.key_id.clone())], ..KeyChange::default() })
        }),
        Verb::Threshold(args) => {
            change(args, out, |_| Ok(KeyChange { thresholds: vec![args.what.threshold], ..KeyChange::default() }))
        }
    }
}

fn change<T: clap::Args>(
    args: &Change<T>,
    out: &mut dyn Write,
    what: impl FnOnce(&Repository) -> Result<KeyChange, RepoError>,
) -> Result<ExitCode, RepoError> {
    let repository = args.signing.open(&args.repo_path)?;
    let change = what(&repository)?;
    for (role, key) in &change.add {
        writeln!(out, "{role} gets key {}", key.id())?;
    }
    for (role, id) in &change.revoke {
        writeln!(out, "{role} loses key {id}")?;
    }
    match &args.export {
        Some(path) => {
            files::write(path, &repository.export_root(&change, SystemClock.now())?.to_bytes()?)?;
            writeln!(out, "{}: to be signed by old and new root keys (`repo root sign`)", path.display())?;
        }
        None => writeln!(out, "now {}", versions_line(repository.change_keys(&change, SystemClock.now())?))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn new(args: &New, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let signing = SigningArgs { passphrase_file: args.passphrase_file.clone(), ..SigningArgs::default() };
    let form = if args.dev { KeyForm::Plain } else { KeyForm::Encrypted };
    let key = generate_key_file(&args.file, form, signing.sources()?.passphrase)?;
    writeln!(out, "key {} in {}; its public part, for `repo keys add`:", key.id(), args.file.display())?;
    write!(out, "{}", key.to_pem()?)?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &List, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let roles = status::of(&args.repo_path, args.signing_keys.as_deref().map(Path::to_owned))?;
    let keys = roles.iter().flat_map(|role| role.keys.iter().map(move |key| (role, key)));
    if args.json {
        let key = |(role, key): (&colibri_repository::RoleStatus, &colibri_repository::KeyStatus)| json!({ "role": role.role.name(), "id": key.id, "threshold": role.threshold, "here": key.here });
        files::print_json(out, &keys.map(key).collect())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["ROLE", "NEEDED", "KEY", "PRIVATE KEY"].map(str::to_owned).to_vec()];
    for (role, key) in keys {
        let needed = format!("{} of {}", role.threshold, role.keys.len());
        let here = key.here.clone().unwrap_or_else(|| "elsewhere".to_owned());
        rows.push(vec![role.role.to_string(), needed, key.id.to_string(), here]);
    }
    print_table(out, &rows)?;
    Ok(ExitCode::SUCCESS)
}
