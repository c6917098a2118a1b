//! `device repo`: which repositories a device believes, and who vouched for them.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use colibri_device::Device;
use colibri_device::repositories::Repository;
use colibri_fetch::SourceUrl;
use colibri_metadata::repo_config::StorageType;
use colibri_metadata::{KeyId, RepoConfig, Role};
use colibri_package::url::RepositoryUrl;
use colibri_store::Store;
use serde_json::{Value, json};

use super::configuration::{self, Format, check_root_keys, replace_mirrors, root_key_ids};
use super::{Console, DeviceVerbError, Make};

/// Arguments of `device repo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print whole configurations, as JSON
    #[arg(short, long)]
    pub verbose: bool,
    /// What to do; without it the repositories' URLs are printed
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What to do with a device's repositories.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Adds a repository, or replaces the one of the same name
    Add {
        /// Where its configuration is
        #[command(subcommand)]
        from: AddFrom,
    },
    /// Shows each repository with its mirrors, root keys and trusted metadata
    List,
    /// Removes a repository and its trusted metadata
    Rm {
        /// fuchsia-pkg://HOST
        url: String,
    },
    /// Prints one configuration as JSON
    Show {
        /// fuchsia-pkg://HOST
        url: String,
    },
}

/// Where a configuration comes from.
#[derive(Debug, clap::Subcommand)]
pub enum AddFrom {
    /// From a file
    File {
        /// The configuration
        file: PathBuf,
        /// How to add it
        #[command(flatten)]
        how: How,
    },
    /// From a server: only as trusted as the connection, unless --root-keys says which keys to expect
    Url {
        /// Its whole address, as https://HOST/REPOSITORY/repo.config
        url: SourceUrl,
        /// How to add it
        #[command(flatten)]
        how: How,
    },
}

/// How to add a repository.
#[derive(Debug, Default, clap::Args)]
pub struct How {
    /// Mark it as persistent; this device keeps what it trusts over restarts in any case
    #[arg(short, long)]
    pub persist: bool,
    /// Form of the configuration: 1 is the older config.json
    #[arg(short, long, value_enum, default_value = "2")]
    pub format: Format,
    /// Name of the repository, in place of the one the configuration gives
    #[arg(short, long)]
    pub name: Option<String>,
    /// Refuse the configuration unless its root keys are exactly those with these ids
    #[arg(long, value_name = "ID", num_args = 1.., value_delimiter = ',')]
    pub root_keys: Vec<KeyId>,
    /// Mirrors to use in place of those that the configuration names (repeatable)
    #[arg(long = "mirror", value_name = "URL")]
    pub mirrors: Vec<SourceUrl>,
}

/// Runs the verb.
pub(super) async fn run(
    args: &Args,
    device: &super::Args,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    match &args.verb {
        None => urls(&open(Make::Refused)?.0, args.verbose, console)?,
        Some(Verb::List) => list(&open(Make::Refused)?.0, console)?,
        Some(Verb::Show { url }) => {
            let host = parse_url(url)?.host().to_owned();
            let (device, _) = open(Make::Refused)?;
            let repository = device.repositories().get(&host);
            let repository = repository.map_err(|_| DeviceVerbError::NoRepository(url.clone()))?;
            print_pretty(repository.config(), console)?;
        }
        Some(Verb::Rm { url }) => {
            let host = parse_url(url)?.host().to_owned();
            if !open(Make::Refused)?.0.repositories().remove(&host)? {
                return Err(DeviceVerbError::NoRepository(url.clone()));
            }
            if console.json {
                console.print_json(&json!({ "removed": format!("fuchsia-pkg://{host}") }))?;
            } else {
                writeln!(console.out, "removed fuchsia-pkg://{host}")?;
            }
        }
        Some(Verb::Add { from }) => {
            let (config, warning) = configuration_of(from, device).await?;
            add(&open(Make::Allowed)?.0, config, warning, console)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_url(url: &str) -> Result<RepositoryUrl, DeviceVerbError> {
    url.parse().map_err(|error| DeviceVerbError::Argument {
        given: url.to_owned(),
        reason: format!("not a repository URL (fuchsia-pkg://HOST): {error}"),
    })
}

/// The configuration that is to be added, checked; and whether its keys are still to be compared by a person.
async fn configuration_of(from: &AddFrom, device: &super::Args) -> Result<(RepoConfig, bool), DeviceVerbError> {
    let (source, bytes, how) = match from {
        AddFrom::File { file, how } => (file.display().to_string(), configuration::read(file)?, how),
        AddFrom::Url { url, how } => {
            (url.as_str().to_owned(), configuration::fetch(&device.connection, url).await?, how)
        }
    };
    let mut config = configuration::parse(&source, &bytes, how.format, how.name.as_deref())?;
    if !how.root_keys.is_empty() {
        check_root_keys(&source, &config, &how.root_keys)?;
    }
    replace_mirrors(&mut config, &how.mirrors);
    if how.persist {
        config.repo_storage_type = StorageType::Persistent;
    }
    Ok((config, matches!(from, AddFrom::Url { .. }) && how.root_keys.is_empty()))
}

fn add(
    device: &Device,
    config: RepoConfig,
    is_unchecked: bool,
    console: &mut Console<'_>,
) -> Result<(), DeviceVerbError> {
    let host = config.host().to_owned();
    let old = device.repositories().get(&host).ok();
    device.repositories().add(config)?;
    let added = device.repositories().get(&host)?;
    let old_keys = old.as_ref().map(|old| root_key_ids(old.config()));
    if let Some(old_keys) = old_keys.filter(|old| *old != root_key_ids(added.config())) {
        let old_keys = join(&old_keys);
        writeln!(console.err, "warning: fuchsia-pkg://{host} had other root keys until now: {old_keys}")?;
    }
    if is_unchecked {
        let advice = "compare the root key ids with the publisher's, or give those with --root-keys";
        writeln!(console.err, "warning: this configuration is only as trusted as the connection it came by: {advice}")?;
    }
    if console.json {
        return console.print_json(&described(&added));
    }
    writeln!(console.out, "{} fuchsia-pkg://{host}", if old.is_some() { "replaced" } else { "added" })?;
    describe(&added, console.out)?;
    Ok(())
}

fn urls(device: &Device, verbose: bool, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    let repositories = device.repositories().list();
    let configs: Vec<_> = repositories.iter().map(|repository| repository.config()).collect();
    if verbose {
        return print_pretty(&configs, console);
    }
    if console.json {
        return console.print_json(&json!(configs));
    }
    for config in configs {
        writeln!(console.out, "{}", config.repo_url)?;
    }
    Ok(())
}

fn list(device: &Device, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    let repositories = device.repositories().list();
    if console.json {
        let list: Value = repositories.iter().map(|repository| described(repository)).collect();
        return console.print_json(&list);
    }
    for repository in repositories {
        writeln!(console.out, "{}", repository.config().repo_url)?;
        describe(&repository, console.out)?;
    }
    Ok(())
}

/// JSON for people, over several lines; on one line if JSON was asked for.
fn print_pretty(value: &impl serde::Serialize, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    if console.json {
        return console.print_json(&json!(value));
    }
    serde_json::to_writer_pretty(&mut *console.out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(console.out)?)
}

/// The roles of a trusted set, in the order in which they vouch for each other.
const ROLES: [Role; 4] = [Role::Root, Role::Targets, Role::Snapshot, Role::Timestamp];

fn described(repository: &Repository) -> Value {
    let config = repository.config();
    let mirrors: Vec<_> = config.mirrors.iter().map(|mirror| &mirror.mirror_url).collect();
    let trusted = repository.trusted().map(|set| {
        let versions = ROLES.map(|role| (role.to_string(), json!(set.version(role))));
        let mut trusted: serde_json::Map<_, _> = versions.into_iter().collect();
        trusted.insert("expires".to_owned(), json!(colibri_metadata::utc::format(set.earliest_expiry())));
        trusted
    });
    json!({
        "repo_url": config.repo_url,
        "mirrors": mirrors,
        "root_key_ids": root_key_ids(config),
        "root_threshold": config.root_threshold,
        "trusted": trusted,
    })
}

fn describe(repository: &Repository, out: &mut dyn Write) -> std::io::Result<()> {
    let config = repository.config();
    for mirror in &config.mirrors {
        writeln!(out, "  mirror    {}", mirror.mirror_url)?;
    }
    for id in root_key_ids(config) {
        writeln!(out, "  root key  {id}")?;
    }
    let keys = config.root_keys.len();
    if keys > 1 {
        writeln!(out, "  signed by {} of these {keys} root keys", config.root_threshold)?;
    }
    if let Some(set) = repository.trusted() {
        let versions = ROLES.map(|role| format!("{role} {}", set.version(role).unwrap_or(0))).join(", ");
        let until = colibri_metadata::utc::format(set.earliest_expiry()).unwrap_or_default();
        writeln!(out, "  metadata  {versions}, until {until}")?;
    }
    Ok(())
}

fn join(ids: &[KeyId]) -> String {
    ids.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", ")
}
