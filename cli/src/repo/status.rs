//! `colibri repo status`: versions, lives, thresholds, and who can sign here.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{KeySources, Repository, RoleStatus};
use serde_json::{Value, json};

use super::{RepoError, date};
use crate::files;
use crate::table::print_table;

/// Arguments of `repo status`.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// Print a JSON array of {role, version, expires, expired, due, overdue, threshold, keys, keys_here, can_sign}
    #[arg(long)]
    pub json: bool,
    /// Folder of the private keys; default is REPO_PATH/keys
    #[arg(long, value_name = "DIR")]
    pub signing_keys: Option<PathBuf>,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// The roles. Without a passphrase: looking opens no key.
pub(super) fn of(dir: &Path, keys: Option<PathBuf>) -> Result<Vec<RoleStatus>, RepoError> {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Repository::open_with(dir, keys, KeySources::from_variables(variables)?)?.status()?)
}

/// Shows it.
pub(super) fn run(args: &Status, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let now = SystemClock.now();
    let roles = of(&args.repo_path, args.signing_keys.clone())?;
    let here = |role: &RoleStatus| role.keys.iter().filter(|key| key.here.is_some()).count();
    if args.json {
        let role = |role: &RoleStatus| {
            json!({
                "role": role.role.name(), "version": role.version, "expires": date(role.expires),
                "expired": role.expires <= now, "due": date(role.due), "overdue": role.due <= now,
                "threshold": role.threshold, "keys": role.keys.len(), "keys_here": here(role), "can_sign": role.can_sign,
            })
        };
        files::print_json(out, &roles.iter().map(role).collect::<Value>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["ROLE", "VERSION", "EXPIRES", "SIGN AGAIN", "NEEDED", "KEYS HERE", "CAN SIGN"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for role in &roles {
        let expired = if role.expires <= now { " (expired)" } else { "" };
        let overdue = if role.due <= now { " (due)" } else { "" };
        rows.push(vec![
            role.role.to_string(),
            role.version.to_string(),
            format!("{}{expired}", date(role.expires)),
            format!("{}{overdue}", date(role.due)),
            format!("{} of {}", role.threshold, role.keys.len()),
            here(role).to_string(),
            if role.can_sign { "yes" } else { "no" }.to_owned(),
        ]);
    }
    print_table(out, &rows)?;
    Ok(ExitCode::SUCCESS)
}
