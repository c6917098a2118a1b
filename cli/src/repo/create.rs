//! `colibri repo create`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{CreateOptions, Expiries, KeyCount, KeyForm, KeyRole, Profile, Repository};
use serde_json::json;

use super::signing::SigningArgs;
use super::{RepoError, versions_json, versions_line};
use crate::files;

/// Arguments of `repo create`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "New private keys are encrypted with a passphrase, one key per role.\n\n  \
    COLIBRI_KEY_PASSPHRASE=… colibri repo create repo\n  \
    colibri repo create --passphrase-file ~/.passphrase --key-count root=3 --threshold root=2 repo\n  \
    colibri repo create --dev repo            # unencrypted, for a developer's desk")]
pub struct Create {
    /// Metadata versions are seconds since 1970 instead of counting from 1
    #[arg(long)]
    pub time_versioning: bool,
    /// Form of the metadata: compat is what real devices read; scale spreads targets over hash bins, for many packages and
    /// frequent publishing. It stays as it is
    #[arg(long, value_name = "PROFILE", default_value = "compat")]
    pub profile: Profile,
    /// Folder of existing key files of every role, instead of new keys in REPO_PATH/keys
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// Write new private keys without a passphrase: for trying things out
    #[arg(long)]
    pub dev: bool,
    /// With --dev: write new keys in the form that the real tools read
    #[arg(long, requires = "dev")]
    pub real_tools_keys: bool,
    /// Sign for as long as the real tools do (timestamp and snapshot 30 days), for a repository that nobody re-signs daily;
    /// default is timestamp 24 h, snapshot 7 days, targets 90 days, root 365 days
    #[arg(long)]
    pub compat_expiry: bool,
    /// Number of keys of a role (repeatable); default 1
    #[arg(long, value_name = "ROLE=N", value_parser = role_and_number)]
    pub key_count: Vec<(KeyRole, u32)>,
    /// How many keys of a role must sign (repeatable); default 1
    #[arg(long, value_name = "ROLE=N", value_parser = role_and_number)]
    pub threshold: Vec<(KeyRole, u32)>,
    /// File with the passphrase of new private keys; else COLIBRI_KEY_PASSPHRASE, else it is asked for
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    pub repo_path: PathBuf,
}

pub(super) fn role_and_number(text: &str) -> Result<(KeyRole, u32), String> {
    let (role, number) = text.split_once('=').ok_or("it must have the form ROLE=N")?;
    Ok((role.parse().map_err(|error| format!("{error}"))?, number.parse().map_err(|error| format!("{error}"))?))
}

impl Create {
    fn counts(&self) -> Vec<(KeyRole, KeyCount)> {
        let of = |list: &[(KeyRole, u32)], role| list.iter().rfind(|(of, _)| *of == role).map(|(_, number)| *number);
        let count = |role| {
            let threshold = of(&self.threshold, role).unwrap_or(1);
            (role, KeyCount { keys: of(&self.key_count, role).unwrap_or(1), threshold })
        };
        KeyRole::ALL.into_iter().map(count).collect()
    }
}

/// Makes the repository. The ids are what a device's owner compares before believing a configuration from the network.
pub(super) fn run(args: &Create, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let signing = SigningArgs { passphrase_file: args.passphrase_file.clone(), ..SigningArgs::default() };
    let options = CreateOptions {
        time_versioning: args.time_versioning,
        keys: args.keys.clone(),
        sources: signing.sources()?,
        form: match (args.dev, args.real_tools_keys) {
            (false, _) => KeyForm::Encrypted,
            (true, false) => KeyForm::Plain,
            (true, true) => KeyForm::RealTools,
        },
        counts: args.counts(),
        expiries: if args.compat_expiry { Expiries::compat() } else { Expiries::default() },
        act: signing.act(),
        profile: args.profile,
        ..CreateOptions::new(SystemClock.now())
    };
    let repository = Repository::create(&args.repo_path, options)?;
    let (ids, versions) = (repository.root_key_ids()?, repository.versions()?);
    if args.json {
        let ids: Vec<_> = ids.iter().map(colibri_metadata::KeyId::as_str).collect();
        let path = args.repo_path.display().to_string();
        let versions = versions_json(versions);
        let report = json!({ "path": path, "profile": args.profile.name(), "root_keys": ids, "versions": versions });
        files::print_json(out, &report)?;
    } else {
        writeln!(out, "{}: {}", args.repo_path.display(), versions_line(versions))?;
        for id in ids {
            writeln!(out, "root key {}", id.as_str())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
