//! `device repo`: which repositories a device believes, and who vouched for them.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_device::daemon::wire::{RepositoryAdded, RepositoryEntry, TrustedVersions};
use colibri_fetch::SourceUrl;
use colibri_metadata::repo_config::StorageType;
use colibri_metadata::{KeyId, RepoConfig};
use colibri_package::url::RepositoryUrl;
use serde_json::{Value, json};

use super::api::Api;
use super::configuration::{self, Format, check_root_keys, replace_mirrors, root_key_ids};
use super::status::since;
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
    connect: impl AsyncFn(Make) -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let all = async || connect(Make::Refused).await?.get::<Vec<RepositoryEntry>>("/repositories").await;
    match &args.verb {
        None => urls(&all().await?, args.verbose, console)?,
        Some(Verb::List) => list(&all().await?, console)?,
        Some(Verb::Show { url }) => {
            let place = format!("/repositories/{}", parse_url(url)?.host());
            let shown = connect(Make::Refused).await?.get::<RepositoryEntry>(&place).await;
            print_pretty(&shown.map_err(|error| unknown(error, url))?.config, console)?;
        }
        Some(Verb::Rm { url }) => {
            let host = parse_url(url)?.host().to_owned();
            let removed = connect(Make::Refused).await?.delete(&format!("/repositories/{host}")).await;
            removed.map_err(|error| unknown(error, url))?;
            if console.json {
                console.print_json(&json!({ "removed": format!("fuchsia-pkg://{host}") }))?;
            } else {
                writeln!(console.out, "removed fuchsia-pkg://{host}")?;
            }
        }
        Some(Verb::Add { from }) => {
            let (config, warning) = configuration_of(from, device).await?;
            add(&connect(Make::Allowed).await?, &config, warning, console).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// That there is no such repository is said in words of its own.
fn unknown(error: DeviceVerbError, url: &str) -> DeviceVerbError {
    match error {
        DeviceVerbError::Problem(problem) if &*problem.kind == "RepoNotFound" => {
            DeviceVerbError::NoRepository(url.to_owned())
        }
        error => error,
    }
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

async fn add(
    api: &Api,
    config: &RepoConfig,
    is_unchecked: bool,
    console: &mut Console<'_>,
) -> Result<(), DeviceVerbError> {
    let host = config.host().to_owned();
    let RepositoryAdded { added, replaced } = api.post("/repositories", config).await?;
    let old_keys = replaced.as_ref().map(root_key_ids);
    if let Some(old_keys) = old_keys.filter(|old| *old != root_key_ids(&added.config)) {
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
    writeln!(console.out, "{} fuchsia-pkg://{host}", if replaced.is_some() { "replaced" } else { "added" })?;
    describe(&added, console.out)?;
    Ok(())
}

fn urls(repositories: &[RepositoryEntry], verbose: bool, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    let configs: Vec<_> = repositories.iter().map(|repository| &repository.config).collect();
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

fn list(repositories: &[RepositoryEntry], console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    if console.json {
        let list: Value = repositories.iter().map(described).collect();
        return console.print_json(&list);
    }
    for repository in repositories {
        writeln!(console.out, "{}", repository.config.repo_url)?;
        describe(repository, console.out)?;
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

fn described(repository: &RepositoryEntry) -> Value {
    let config = &repository.config;
    let mirrors: Vec<_> = config.mirrors.iter().map(|mirror| &mirror.mirror_url).collect();
    let lagging: Vec<_> = repository.mirrors.iter().filter(|mirror| mirror.lagging.is_some()).collect();
    let lagging = lagging.iter().map(|mirror| json!({ "source": mirror.source, "lagging": mirror.lagging }));
    let lagging: Value = lagging.collect();
    json!({
        "repo_url": config.repo_url,
        "mirrors": mirrors,
        "root_key_ids": root_key_ids(config),
        "root_threshold": config.root_threshold,
        "trusted": repository.trusted,
        "lagging": lagging,
    })
}

fn describe(repository: &RepositoryEntry, out: &mut dyn Write) -> std::io::Result<()> {
    let config = &repository.config;
    for mirror in &config.mirrors {
        writeln!(out, "  mirror    {}", mirror.mirror_url)?;
    }
    for mirror in &repository.mirrors {
        if let Some(lagging) = &mirror.lagging {
            writeln!(out, "  lagging   {} since {}", mirror.source, since(lagging))?;
        }
    }
    for id in root_key_ids(config) {
        writeln!(out, "  root key  {id}")?;
    }
    let keys = config.root_keys.len();
    if keys > 1 {
        writeln!(out, "  signed by {} of these {keys} root keys", config.root_threshold)?;
    }
    if let Some(TrustedVersions { root, targets, snapshot, timestamp, expires }) = &repository.trusted {
        // The roles of a trusted set, in the order in which they vouch for each other.
        let roles = [("root", root), ("targets", targets), ("snapshot", snapshot), ("timestamp", timestamp)];
        let versions = roles.map(|(role, version)| format!("{role} {}", version.unwrap_or(0))).join(", ");
        writeln!(out, "  metadata  {versions}, until {}", expires.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

fn join(ids: &[KeyId]) -> String {
    ids.iter().map(KeyId::as_str).collect::<Vec<_>>().join(", ")
}
