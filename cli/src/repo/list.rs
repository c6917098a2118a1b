//! `colibri repo list`: what is in repository folders.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock, UnixSeconds};
use colibri_metadata::{Role, TrustedSet};
use colibri_repository::Repository;
use serde_json::{Map, Value, json};

use super::{RepoError, date};
use crate::files;
use crate::table::print_table;

/// Arguments of `repo list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print a JSON array of {path, packages, roles}; the first failure then fails the command
    #[arg(long)]
    pub json: bool,
    /// Repository folders
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
}

/// What a folder holds.
struct Found {
    packages: usize,
    roles: Vec<RoleState>,
}

struct RoleState {
    role: Role,
    version: u32,
    expires: UnixSeconds,
    expired: bool,
}

impl Found {
    fn look(dir: &Path, now: UnixSeconds) -> Result<Self, RepoError> {
        let repository = Repository::open(dir)?;
        let set = repository.metadata()?;
        let state = |role| {
            let (version, expires) = (set.version(role)?, expires(&set, role)?);
            Some(RoleState { role, version, expires, expired: expires <= now })
        };
        let roles = Role::ALL.into_iter().filter_map(state).collect();
        Ok(Self { packages: repository.packages()?.len(), roles })
    }

    fn json(&self, dir: &Path) -> Value {
        let role = |state: &RoleState| {
            let RoleState { role, version, expires, expired } = state;
            (role.name().to_owned(), json!({ "version": version, "expires": date(*expires), "expired": expired }))
        };
        let roles: Map<_, _> = self.roles.iter().map(role).collect();
        json!({ "path": dir.display().to_string(), "packages": self.packages, "roles": roles })
    }

    fn print(&self, dir: &Path, out: &mut dyn Write) -> std::io::Result<()> {
        let plural = if self.packages == 1 { "" } else { "s" };
        writeln!(out, "{}: {} package{plural}", dir.display(), self.packages)?;
        let mut rows = vec![["  ROLE", "VERSION", "EXPIRES"].map(str::to_owned).to_vec()];
        for RoleState { role, version, expires, expired } in &self.roles {
            let note = if *expired { " (expired)" } else { "" };
            rows.push(vec![format!("  {role}"), version.to_string(), format!("{}{note}", date(*expires))]);
        }
        print_table(out, &rows)
    }
}

fn expires(set: &TrustedSet, role: Role) -> Option<UnixSeconds> {
    match role {
        Role::Root => Some(set.root().expires()),
        Role::Timestamp => set.timestamp().map(colibri_metadata::Timestamp::expires),
        Role::Snapshot => set.snapshot().map(colibri_metadata::Snapshot::expires),
        Role::Targets => set.targets().map(colibri_metadata::Targets::expires),
    }
}

/// Lists. Without JSON a folder that is no repository is told on standard error and the others go on.
pub(super) fn run(args: &List, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let now = SystemClock.now();
    if args.json {
        let found = args.dirs.iter().map(|dir| Ok(Found::look(dir, now)?.json(dir)));
        files::print_json(out, &found.collect::<Result<Value, RepoError>>()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut code = ExitCode::SUCCESS;
    for dir in &args.dirs {
        match Found::look(dir, now) {
            Ok(found) => found.print(dir, out)?,
            Err(error) => {
                eprintln!("colibri: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
