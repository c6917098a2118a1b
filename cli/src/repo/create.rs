//! `colibri repo create`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{CreateOptions, Repository};
use serde_json::json;

use super::{RepoError, versions_json, versions_line};
use crate::files;

/// Arguments of `repo create`.
#[derive(Debug, Default, clap::Args)]
pub struct Create {
    /// Metadata versions are seconds since 1970 instead of counting from 1
    #[arg(long)]
    pub time_versioning: bool,
    /// Folder of existing key files, one per role, instead of new keys in REPO_PATH/keys
    #[arg(long, value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// Makes the repository. The ids are what a device's owner compares before believing a configuration from the network.
pub(super) fn run(args: &Create, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let options = CreateOptions {
        time_versioning: args.time_versioning,
        keys: args.keys.clone(),
        ..CreateOptions::new(SystemClock.now())
    };
    let repository = Repository::create(&args.repo_path, options)?;
    let (ids, versions) = (repository.root_key_ids()?, repository.versions()?);
    if args.json {
        let ids: Vec<_> = ids.iter().map(colibri_metadata::KeyId::as_str).collect();
        let path = args.repo_path.display().to_string();
        let report = json!({ "path": path, "root_keys": ids, "versions": versions_json(versions) });
        files::print_json(out, &report)?;
    } else {
        writeln!(out, "{}: {}", args.repo_path.display(), versions_line(versions))?;
        for id in ids {
            writeln!(out, "root key {}", id.as_str())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
