//! `colibri repo rollout`: documents of the delegated role `rollout`, which chooses among releases that targets lists.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{KeyForm, ListedKey, Repository};
use serde_json::Value;

use super::signing::SigningArgs;
use super::{RepoError, ceremony, versions_line};
use crate::files;

/// Arguments of `repo rollout`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A rollout is a JSON object whose `releases` are package hashes that the repository offers:\n\n  \
    colibri repo rollout enable repo\n  \
    colibri repo rollout put repo spring spring.json"
)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with rollouts.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Gives the role one new key; again, when a key is lost or stolen
    Enable(Enable),
    /// Offers a document as rollout/NAME; refused if it refers to anything that targets does not list
    Put(Put),
    /// Offers rollout/NAME no longer
    Remove(Remove),
    /// Lists the names of the rollouts offered
    List(List),
}

/// Arguments of `repo rollout enable`.
#[derive(Debug, clap::Args)]
pub struct Enable {
    /// Where keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Write the new private key without a passphrase
    #[arg(long, conflicts_with = "export")]
    pub dev: bool,
    /// Change nothing: write the targets that name the key of --public-key to this file, for `repo targets sign`
    #[arg(long, value_name = "FILE", requires = "public_key")]
    pub export: Option<PathBuf>,
    /// The key's public part, with --export (`repo keys new rollout.pem` makes a key)
    #[arg(long, value_name = "FILE", requires = "export")]
    pub public_key: Option<PathBuf>,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Arguments of `repo rollout put`.
#[derive(Debug, clap::Args)]
pub struct Put {
    /// Where keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The repository's folder
    pub repo_path: PathBuf,
    /// The rollout's name
    pub name: String,
    /// The document
    pub file: PathBuf,
}

/// Arguments of `repo rollout remove`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Where keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The repository's folder
    pub repo_path: PathBuf,
    /// The rollout's name
    pub name: String,
}

/// Arguments of `repo rollout list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print a JSON array of names
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let now = SystemClock.now();
    let versions = match &args.verb {
        Verb::Enable(args) => return enable(args, out),
        Verb::Put(args) => {
            let document = files::read(&args.file)?;
            args.signing.open(&args.repo_path)?.put_rollout(&args.name, &document, now)?
        }
        Verb::Remove(args) => args.signing.open(&args.repo_path)?.remove_rollout(&args.name, now)?,
        Verb::List(args) => {
            let names = Repository::open(&args.repo_path)?.rollouts()?;
            if args.json {
                files::print_json(out, &names.into_iter().map(Value::from).collect())?;
            } else {
                names.iter().try_for_each(|name| writeln!(out, "{name}"))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    };
    writeln!(out, "now {}", versions_line(versions))?;
    Ok(ExitCode::SUCCESS)
}

fn enable(args: &Enable, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let (repository, now) = (args.signing.open(&args.repo_path)?, SystemClock.now());
    if let (Some(file), Some(key)) = (&args.export, &args.public_key) {
        return ceremony::export(&repository.export_rollout_key(&ListedKey::read(key)?, now)?, file, out);
    }
    let form = if args.dev { KeyForm::Plain } else { KeyForm::Encrypted };
    writeln!(out, "rollout has key {} alone", repository.enable_rollout(form, now)?.id())?;
    Ok(ExitCode::SUCCESS)
}
