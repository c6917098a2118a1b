//! Repository configurations from a file or a server, and the arguments about them that several verbs share.
//!
//! A configuration names the root keys, so whoever hands it out decides what will be believed: comparing key ids with those
//! that the publisher told by another way is what makes one trustworthy.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_device::DeviceConfig;
use colibri_fetch::{BlobFetcher, FetchError, Source, SourceOrder, SourceUrl, Sources, Unverified};
use colibri_metadata::limits::REPO_CONFIG_BYTES_MAX;
use colibri_metadata::repo_config::{Mirror, RootKey};
use colibri_metadata::{KeyId, RepoConfig, RepoConfigError};
use colibri_package::url::RepositoryUrl;
use colibri_transport::{Client, ClientConfig, TransportError, Trust};

use crate::files::{self, FilesError};

/// How a device connects.
#[derive(Debug, Clone, clap::Args)]
pub struct Connection {
    /// Whom to believe on the transport: none (the default), system, ca-file:PATH or pin:HEX,...; what is fetched is verified
    /// in any case
    #[arg(long, global = true, value_name = "TRUST")]
    pub tls: Option<Trust>,
    /// Do not try HTTP/3
    #[arg(long, global = true)]
    pub no_http3: bool,
}

impl Connection {
    /// Whether to try HTTP/3.
    pub const fn http3(&self) -> bool {
        !self.no_http3
    }

    /// Whom to believe.
    pub fn trust(&self) -> Trust {
        self.tls.clone().unwrap_or(Trust::None)
    }

    pub(crate) fn client(&self) -> Result<Client, TransportError> {
        Client::new(ClientConfig { trust: self.trust(), http3: self.http3(), ..ClientConfig::default() })
    }
}

/// The form of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// `config.json` of the older server
    #[value(name = "1")]
    One,
    /// `repo.config`
    #[default]
    #[value(name = "2")]
    Two,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FilesError),
    /// The address names a server, not a configuration on it.
    #[error("{0}: give the whole address of a configuration, as https://HOST/REPOSITORY/repo.config")]
    NoPath(SourceUrl),
    /// It could not be fetched.
    #[error("the configuration at {url} could not be fetched: {error}")]
    Fetch {
        /// Where.
        url: SourceUrl,
        /// Why not.
        error: FetchError,
    },
    /// It is not one.
    #[error("{from}: {error}")]
    Malformed {
        /// File or address.
        from: String,
        /// What is wrong.
        error: RepoConfigError,
    },
    /// The name given for it.
    #[error("`{name}` cannot be the name of a repository: {reason}")]
    Name {
        /// As given.
        name: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// Its root keys are not those that were expected.
    #[error("{from} names root keys {found} where {expected} were expected: it was not added, and must not be trusted")]
    RootKeys {
        /// File or address.
        from: String,
        /// Ids of its keys.
        found: String,
        /// Ids that were given.
        expected: String,
    },
    /// Sockets or trust anchors.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl ConfigurationError {
    /// Whether the command was wrong, not the world.
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::NoPath(_) | Self::Name { .. })
    }
}

/// 2026-01-01: this program was written after that. Builds that know better say so in SOURCE_DATE_EPOCH.
const WRITTEN_AFTER: UnixSeconds = UnixSeconds(1_767_225_600);

/// The configuration of a device, before arguments.
pub(crate) fn defaults() -> DeviceConfig {
    let built_at = option_env!("SOURCE_DATE_EPOCH").and_then(|seconds| seconds.parse().ok()).map(UnixSeconds);
    DeviceConfig { built_at: built_at.unwrap_or(WRITTEN_AFTER).max(WRITTEN_AFTER), ..DeviceConfig::default() }
}

/// Reads a configuration file, as far as one may be long.
pub(crate) fn read(path: &Path) -> Result<Bytes, ConfigurationError> {
    let mut bytes = Vec::new();
    let mut file = files::open(path)?.take(REPO_CONFIG_BYTES_MAX + 1);
    file.read_to_end(&mut bytes).map_err(FilesError::io("reading", path))?;
    Ok(bytes.into())
}

/// Fetches a configuration from its whole address.
pub(crate) async fn fetch(connection: &Connection, url: &SourceUrl) -> Result<Bytes, ConfigurationError> {
    let no_path = || ConfigurationError::NoPath(url.clone());
    let (server, path) = url.as_str().rsplit_once('/').ok_or_else(no_path)?;
    let server: SourceUrl = server.parse().map_err(|_| no_path())?;
    let sources = Sources::new(vec![Source::new(server)], SourceOrder::Listed);
    let agent = concat!("colibri/", env!("CARGO_PKG_VERSION"));
    let fetcher = BlobFetcher::new(connection.client()?, sources.into(), agent);
    match fetcher.document(&format!("/{path}"), REPO_CONFIG_BYTES_MAX, None).await {
        Ok(Unverified::Document { bytes, .. }) => Ok(bytes),
        Ok(Unverified::NotModified) => {
            let error = FetchError::Local("the server said it had not changed, and was never asked that".to_owned());
            Err(ConfigurationError::Fetch { url: url.clone(), error })
        }
        Err(error) => Err(ConfigurationError::Fetch { url: url.clone(), error }),
    }
}

/// Reads what a configuration says; `name` takes the place of the host it gives itself. `from` is for messages.
pub(crate) fn parse(
    from: &str,
    bytes: &[u8],
    format: Format,
    name: Option<&str>,
) -> Result<RepoConfig, ConfigurationError> {
    let url = name.map(|name| {
        let named = RepositoryUrl::from_host(name);
        named.map_err(|error| ConfigurationError::Name { name: name.to_owned(), reason: error.to_string() })
    });
    let url = url.transpose()?;
    let parsed = match format {
        Format::One => RepoConfig::parse_format_1(bytes, name),
        Format::Two => RepoConfig::parse(bytes),
    };
    let mut config = parsed.map_err(|error| ConfigurationError::Malformed { from: from.to_owned(), error })?;
    if let Some(url) = url {
        config.repo_url = url.to_string();
    }
    Ok(config)
}

/// Puts `mirrors`, if there are any, in the place of the configuration's own.
pub(crate) fn replace_mirrors(config: &mut RepoConfig, mirrors: &[SourceUrl]) {
    if !mirrors.is_empty() {
        let mirror =
            |url: &SourceUrl| Mirror { mirror_url: url.as_str().to_owned(), subscribe: false, blob_mirror_url: None };
        config.mirrors = mirrors.iter().map(mirror).collect();
    }
}

/// Refuses a configuration whose root keys are not exactly those with the `expected` ids.
pub(crate) fn check_root_keys(from: &str, config: &RepoConfig, expected: &[KeyId]) -> Result<(), ConfigurationError> {
    // A key may go by several ids, depending on what the publisher's tool writes into it.
    let expected: BTreeSet<_> = expected.iter().collect();
    let goes_by = |key: &RootKey, id: &KeyId| key.0.ids().contains(id);
    let all_expected = config.root_keys.iter().all(|key| expected.iter().any(|id| goes_by(key, id)));
    let all_found = expected.iter().all(|id| config.root_keys.iter().any(|key| goes_by(key, id)));
    if all_expected && all_found {
        return Ok(());
    }
    let found = root_key_ids(config).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(ConfigurationError::RootKeys { from: from.to_owned(), found, expected })
}

/// Ids of the root keys: SHA-256 of each key's canonical JSON.
pub(crate) fn root_key_ids(config: &RepoConfig) -> Vec<KeyId> {
    config.root_keys.iter().map(|key| key.0.id()).collect()
}
