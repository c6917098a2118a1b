//! `colibri repo target register|deregister|list`: tells a device about a repository that is served here (reference "Fuchsia
//! command lines" §11.2). A device is a folder; the real tools talk to one that is connected.
//!
//! The configuration is made from the repository's own folder, so the device trusts what lies there and nobody on the way.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock};
use colibri_device::Rule;
use colibri_metadata::RepoConfig;
use colibri_metadata::repo_config::StorageType;
use colibri_repository::RepositorySource;
use serde_json::{Value, json};

use super::RepoError;
use super::served::Where;
use super::server::instances::Instance;
use super::server::{DEVHOST, ServerError};
use crate::device::registrations::DevicePlace;
use crate::files::{self, FilesError};
use crate::table::print_table;

/// Arguments of `repo target`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: packages of fuchsia.com come from the desk's repository\n  \
    colibri repo server start --repo-path repo --background\n  \
    colibri repo target register --alias fuchsia.com\n  \
    colibri device resolve fuchsia-pkg://fuchsia.com/hello")]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// The device's folder
    #[arg(long, global = true, value_name = "DIR", env = "COLIBRI_DEVICE_DIR", default_value = "./colibri-device")]
    pub device_dir: PathBuf,
    /// The socket of the device's daemon, which is asked if it runs [default: DIR/daemon.sock]
    #[arg(long, global = true, value_name = "PATH", env = "COLIBRI_DEVICE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Args {
    fn place(&self) -> DevicePlace {
        DevicePlace { socket: self.socket.clone(), ..DevicePlace::of(&self.device_dir) }
    }
}

/// What to do with a device's registrations.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Adds a repository that is served here to a device, and lets hosts stand for it
    Register(Register),
    /// Removes a repository from a device, and the rules that lead to it
    Deregister {
        /// Which one
        #[arg(short, long, value_name = "NAME", default_value = DEVHOST)]
        repository: String,
    },
    /// Lists a device's repositories, where they are, and what stands for them
    List,
}

/// Arguments of `repo target register`.
#[derive(Debug, clap::Args)]
pub struct Register {
    /// A repository that a running `repo server` serves: its name, or the server's
    #[arg(short, long, value_name = "NAME", default_value = DEVHOST)]
    pub repository: String,
    /// The port of that server
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Where running servers are recorded; default is as for `repo server`
    #[arg(long, value_name = "DIR", env = "COLIBRI_SERVERS_DIR", hide_env_values = true)]
    pub servers_dir: Option<PathBuf>,
    /// How it is registered; without an alias those that the server was started with
    #[command(flatten)]
    pub how: How,
}

/// How a repository is registered.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct How {
    /// Whether the registration is marked to outlive a restart of the device; ours outlives it in any case
    #[arg(long, value_name = "TYPE", default_value = "ephemeral")]
    pub storage_type: Storage,
    /// Package URLs of this host stand for those of the repository (repeatable)
    #[arg(long, value_name = "HOST")]
    pub alias: Vec<String>,
    /// What to do with a rule of the device about such a host
    #[arg(long, value_name = "MODE", default_value = "replace")]
    pub alias_conflict_mode: OnConflict,
}

/// Whether a registration is marked to outlive a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Storage {
    /// It is not
    #[default]
    Ephemeral,
    /// It is
    Persistent,
}

/// What to do with a rule about the same host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnConflict {
    /// Change nothing, and fail
    ErrorOut,
    /// The new rule takes its place
    #[default]
    Replace,
}

/// Runs the verb.
pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    match &args.verb {
        Verb::Register(register) => run_register(register, args, out)?,
        Verb::Deregister { repository } => deregister(repository, args, out)?,
        Verb::List => list(args, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_register(args: &Register, common: &Args, out: &mut dyn Write) -> Result<(), RepoError> {
    let (repository, servers_dir) = (Some(args.repository.clone()), args.servers_dir.clone());
    let (instance, source) = Where { repo_path: None, repository, port: args.port, servers_dir }.served()?;
    let mut how = args.how.clone();
    if how.alias.is_empty() {
        how.alias.clone_from(&instance.aliases);
    }
    let name = source.name.clone().or_else(|| Some(instance.repositories.first()?.name.clone()));
    let name = name.unwrap_or_else(|| args.repository.clone());
    let registered = register(&common.place(), &instance, &name, &source, &how)?;
    if common.json {
        files::print_json(out, &registered)?;
        return Ok(());
    }
    writeln!(out, "registered fuchsia-pkg://{name} at {}/{name}", instance.url())?;
    how.alias.iter().try_for_each(|alias| writeln!(out, "  fuchsia-pkg://{alias} stands for it"))?;
    Ok(())
}

/// Adds a repository of a server to a device; what was done, as JSON.
pub(super) fn register(
    place: &DevicePlace,
    instance: &Instance,
    name: &str,
    source: &RepositorySource,
    how: &How,
) -> Result<Value, RepoError> {
    let usage = |error: &dyn std::fmt::Display| FilesError::Usage(error.to_string());
    let set = source.trusted_at(SystemClock.now())?;
    let mut config = RepoConfig::from_root(name, set.root(), &format!("{}/{name}", instance.url()))
        .map_err(|error| usage(&error))?;
    config.mirrors.iter_mut().for_each(|mirror| mirror.subscribe = true);
    if how.storage_type == Storage::Persistent {
        config.repo_storage_type = StorageType::Persistent;
    }
    let rules: Result<Vec<Rule>, _> = how.alias.iter().map(|alias| Rule::whole_host(alias, name)).collect();
    let rules = rules.map_err(|error| usage(&error))?;
    let report = json!({ "repo_url": config.repo_url, "mirrors": config.mirrors, "aliases": how.alias });
    let on_conflict = how.alias_conflict_mode;
    let taken = place.ask(async move |device| {
        let (_, mut set) = device.rules().await?;
        // A bad alias or a conflict is found before anything changes.
        let conflict = |rule: &&Rule| set.iter().any(|old| is_other(old, rule));
        if let Some(rule) = rules.iter().find(conflict).filter(|_| on_conflict == OnConflict::ErrorOut) {
            return Ok(Some(rule.host_match().to_owned()));
        }
        device.add(&config).await?;
        if !rules.is_empty() {
            set.retain(|old| !rules.iter().any(|rule| rule.host_match() == old.host_match()));
            set.splice(0..0, rules);
            device.replace_rules(&set).await?;
        }
        Ok(None)
    })?;
    taken.map_or(Ok(report), |alias| Err(ServerError::AliasTaken { alias }.into()))
}

/// Whether a rule is about the same host and leads elsewhere.
fn is_other(old: &Rule, rule: &Rule) -> bool {
    old.host_match() == rule.host_match() && old != rule
}

fn deregister(name: &str, args: &Args, out: &mut dyn Write) -> Result<(), RepoError> {
    let removed = name.to_owned();
    args.place().ask(async move |device| {
        device.remove(&removed).await?;
        let (_, mut set) = device.rules().await?;
        let before = set.len();
        set.retain(|rule| rule.host_replacement() != removed);
        if set.len() < before { device.replace_rules(&set).await } else { Ok(()) }
    })?;
    if args.json {
        files::print_json(out, &json!({ "removed": format!("fuchsia-pkg://{name}") }))?;
    } else {
        writeln!(out, "removed fuchsia-pkg://{name}")?;
    }
    Ok(())
}

fn list(args: &Args, out: &mut dyn Write) -> Result<(), RepoError> {
    let (configs, rules) =
        args.place().ask(async move |device| Ok((device.configs().await?, device.rules().await?.0)))?;
    let aliases = |host: &str| -> Vec<String> {
        rules.iter().filter(|rule| rule.host_replacement() == host).map(|rule| rule.host_match().to_owned()).collect()
    };
    let mut rows = vec![["REPOSITORY", "MIRRORS", "ALIASES"].map(str::to_owned).to_vec()];
    let mut values = Vec::new();
    for config in configs {
        let mirrors: Vec<_> = config.mirrors.iter().map(|mirror| mirror.mirror_url.clone()).collect();
        let aliases = aliases(config.host());
        values.push(json!({ "repo_url": config.repo_url, "mirrors": mirrors, "aliases": aliases }));
        rows.push(vec![config.host().to_owned(), mirrors.join(" "), aliases.join(" ")]);
    }
    if args.json {
        files::print_json(out, &values.into())?;
    } else {
        print_table(out, &rows)?;
    }
    Ok(())
}
