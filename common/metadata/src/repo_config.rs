//! [`RepoConfig`]: the device-side repository configuration (reference "Fuchsia formats" §5), and the older `config.json`.
//!
//! A configuration names root keys: it is only as trusted as the way it was obtained.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::key::{KeyError, PublicKey};
use crate::limits;
use crate::role::Role;
use crate::root::Root;
use crate::trust::TrustAnchor;

const SCHEME: &str = "fuchsia-pkg://";

/// One repository, as a device is told of it (`repo.config`, format 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoConfig {
    /// `fuchsia-pkg://HOST`.
    pub repo_url: String,
    /// Version of the first root to fetch.
    #[serde(default = "one")]
    pub root_version: u32,
    /// How many root keys must sign it.
    #[serde(default = "one")]
    pub root_threshold: u32,
    /// The root keys.
    pub root_keys: Vec<RootKey>,
    /// Where the repository is served; stock clients use only the first.
    pub mirrors: Vec<Mirror>,
    /// Legacy; carried, not acted upon.
    #[serde(default)]
    pub use_local_mirror: bool,
    /// Whether a device keeps the TUF state over restarts.
    #[serde(default)]
    pub repo_storage_type: StorageType,
}

/// A key in a repository configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct RootKey(pub PublicKey);

/// An address that serves a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where the metadata is.
    pub mirror_url: String,
    /// Whether to listen to `MIRROR/auto`.
    #[serde(default)]
    pub subscribe: bool,
    /// Where the blobs are, if not at `MIRROR/blobs`: see [`Mirror::blob_url`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_mirror_url: Option<String>,
}

/// Where a device keeps the TUF state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageType {
    /// In memory.
    #[default]
    Ephemeral,
    /// On disk.
    Persistent,
}

/// Why a text is not a repository configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepoConfigError {
    /// Longer than the limit.
    #[error("a repository configuration has at most {} bytes", limits::REPO_CONFIG_BYTES_MAX)]
    TooLarge,
    /// A list longer than the limit.
    #[error("a list of repository configurations has at most {} bytes", limits::REPO_CONFIG_LIST_BYTES_MAX)]
    ListTooLarge,
    /// Not strict JSON of this form.
    #[error("repository configuration: {0}")]
    Malformed(String),
    /// `repo_url` is not `fuchsia-pkg://HOST`.
    #[error("repo_url {0:?} is not fuchsia-pkg://HOST with a host of a-z, 0-9, `.` and `-`")]
    RepoUrl(String),
    /// A mirror address without a scheme, or not an address.
    #[error("mirror address {0:?} is not an http or https URL")]
    MirrorUrl(String),
    /// Version or threshold 0, or fewer keys than the threshold.
    #[error("{0}")]
    Trust(String),
}

fn one() -> u32 {
    1
}

impl RepoConfig {
    /// A configuration that trusts the root keys of `root`, for a repository called `fuchsia-pkg://HOST`.
    ///
    /// # Errors
    /// The host or the address is not one.
    pub fn from_root(host: &str, root: &Root, mirror_url: &str) -> Result<Self, RepoConfigError> {
        // The format knows only ed25519; with too few of those the check below fails.
        let ed25519 = |key: &PublicKey| key.ed25519_bytes().is_some();
        let mut keys: Vec<PublicKey> = root.public_keys(Role::Root).filter(ed25519).collect();
        keys.sort_unstable();
        keys.dedup();
        let mirror = Mirror { mirror_url: mirror_url.to_owned(), subscribe: false, blob_mirror_url: None };
        Self {
            repo_url: format!("{SCHEME}{host}"),
            root_version: root.version(),
            root_threshold: root.role_keys(Role::Root).threshold,
            root_keys: keys.into_iter().map(RootKey).collect(),
            mirrors: vec![mirror],
            use_local_mirror: false,
            repo_storage_type: StorageType::Ephemeral,
        }
        .checked()
    }

    /// Reads one configuration.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, RepoConfigError> {
        Self::from_value(read(bytes)?)
    }

    /// Reads a list as static configurations are wrapped: `{"version":"1","content":[CONFIG,…]}`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>, RepoConfigError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wrapper {
            version: String,
            content: Vec<Value>,
        }
        if bytes.len() as u64 > limits::REPO_CONFIG_LIST_BYTES_MAX {
            return Err(RepoConfigError::ListTooLarge);
        }
        let wrapper: Wrapper = typed(parsed(bytes)?)?;
        if wrapper.version != "1" {
            return Err(RepoConfigError::Malformed(format!("list version {:?} is not \"1\"", wrapper.version)));
        }
        wrapper.content.into_iter().map(Self::from_value).collect()
    }

    /// Converts the older `config.json` (format 1). `name` becomes the host; without it the host is made from `ID`.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse_format_1(bytes: &[u8], name: Option<&str>) -> Result<Self, RepoConfigError> {
        let old: Format1 = typed(read(bytes)?)?;
        let derived = || host_from(&old.id);
        let root_keys = old.root_keys.iter().map(|key| RootKey::from_parts(&key.kind, &key.value));
        let root_keys = root_keys.collect::<Result<_, String>>().map_err(RepoConfigError::Malformed)?;
        let mirror = Mirror { mirror_url: old.repo_url, subscribe: old.auto, blob_mirror_url: old.blob_repo_url };
        Self {
            repo_url: format!("{SCHEME}{}", name.map_or_else(derived, str::to_owned)),
            root_version: old.root_version,
            root_threshold: old.root_threshold,
            root_keys,
            mirrors: vec![mirror],
            use_local_mirror: false,
            repo_storage_type: StorageType::Ephemeral,
        }
        .checked()
    }

    fn from_value(value: Value) -> Result<Self, RepoConfigError> {
        typed::<Self>(value)?.checked()
    }

    /// Checks what the form alone does not say, and leaves out what is implied.
    fn checked(mut self) -> Result<Self, RepoConfigError> {
        self.repo_url = self.repo_url.strip_suffix('/').unwrap_or(&self.repo_url).to_owned();
        let host = self.repo_url.strip_prefix(SCHEME).unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.' || byte == b'-';
        if host.is_empty() || host.len() > 255 || !host.bytes().all(allowed) {
            return Err(RepoConfigError::RepoUrl(self.repo_url));
        }
        for mirror in &mut self.mirrors {
            for url in std::iter::once(&mirror.mirror_url).chain(&mirror.blob_mirror_url) {
                if !is_http(url) {
                    return Err(RepoConfigError::MirrorUrl(url.clone()));
                }
            }
            if mirror.blob_mirror_url.as_deref().is_some_and(|url| url == mirror.implied_blob_url()) {
                mirror.blob_mirror_url = None;
            }
        }
        let mut keys = self.keys();
        keys.sort_unstable();
        keys.dedup();
        if self.root_version == 0 || self.root_threshold == 0 {
            return Err(RepoConfigError::Trust("root_version and root_threshold are at least 1".into()));
        }
        if keys.len() < self.root_threshold as usize {
            let text = format!("root_threshold {} needs more than the {} keys given", self.root_threshold, keys.len());
            return Err(RepoConfigError::Trust(text));
        }
        Ok(self)
    }

    fn keys(&self) -> Vec<PublicKey> {
        self.root_keys.iter().map(|key| key.0.clone()).collect()
    }

    /// What a client of this repository trusts at first.
    pub fn trust_anchor(&self) -> TrustAnchor {
        TrustAnchor::Keys {
            root_keys: self.keys(),
            root_threshold: self.root_threshold,
            root_version: self.root_version,
        }
    }

    /// The host of `fuchsia-pkg://HOST`.
    pub fn host(&self) -> &str {
        self.repo_url.strip_prefix(SCHEME).unwrap_or(&self.repo_url)
    }
}

impl Mirror {
    /// Where the blobs are.
    pub fn blob_url(&self) -> String {
        self.blob_mirror_url.clone().unwrap_or_else(|| self.implied_blob_url())
    }

    fn implied_blob_url(&self) -> String {
        format!("{}/blobs", self.mirror_url.strip_suffix('/').unwrap_or(&self.mirror_url))
    }
}

fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let clean = |byte: u8| byte.is_ascii_graphic();
    url.len() as u64 <= limits::URL_BYTES_MAX
        && url.bytes().all(clean)
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn read(bytes: &[u8]) -> Result<Value, RepoConfigError> {
    if bytes.len() as u64 > limits::REPO_CONFIG_BYTES_MAX {
        return Err(RepoConfigError::TooLarge);
    }
    parsed(bytes)
}

fn parsed(bytes: &[u8]) -> Result<Value, RepoConfigError> {
    canonical::parse(bytes).map_err(|e| RepoConfigError::Malformed(e.to_string()))
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, RepoConfigError> {
    serde_json::from_value(value).map_err(|e| RepoConfigError::Malformed(e.to_string()))
}

/// A host made of an id such as `http://10.0.2.2:8083`: without scheme, with `-` for what a host cannot hold.
fn host_from(id: &str) -> String {
    let rest = id.split_once("://").map_or(id, |(_, rest)| rest).trim_end_matches('/').to_ascii_lowercase();
    let fold = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' };
    rest.chars().map(fold).collect()
}

/// `config.json` of the older server; fields without meaning for us are ignored.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Format1 {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "RepoURL")]
    repo_url: String,
    #[serde(rename = "BlobRepoURL", default)]
    blob_repo_url: Option<String>,
    root_keys: Vec<Format1Key>,
    #[serde(default = "one")]
    root_version: u32,
    #[serde(default = "one")]
    root_threshold: u32,
    #[serde(default)]
    auto: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Format1Key {
    #[serde(rename = "Type")]
    kind: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootKeyForm {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

impl RootKey {
    fn from_parts(kind: &str, value: &str) -> Result<Self, String> {
        if kind != "ed25519" {
            return Err(format!("root key type {kind:?} is not \"ed25519\""));
        }
        value.parse().map(Self).map_err(|e: KeyError| e.to_string())
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootKey({})", self.0)
    }
}

impl Serialize for RootKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RootKeyForm { kind: "ed25519".into(), value: self.0.to_string() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RootKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = RootKeyForm::deserialize(deserializer)?;
        Self::from_parts(&form.kind, &form.value).map_err(serde::de::Error::custom)
    }
}
