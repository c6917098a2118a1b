//! What an origin is told: which repositories to serve, and how long answers may be kept.

use std::path::PathBuf;

use colibri_api::RepositoryName;
use serde::{Deserialize, Serialize};

/// Configuration of an [`Origin`](crate::Origin).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OriginConfig {
    /// The repositories, each served below its name.
    pub repositories: Vec<RepositoryConfig>,
    /// How long a timestamp (and anything else that is replaced in place, and a 404) may be kept by caches, in seconds.
    pub timestamp_max_age_s: u64,
    /// This hop's name in `Cache-Status`.
    pub cache_name: String,
    /// Whether leaves that had to be computed are written beside the blobs, so that it is done once. A folder that cannot be
    /// written is served all the same.
    pub keep_computed_leaves: bool,
    /// Whether the configurations it gives to devices ask them to listen to `/REPO/auto`: right for a desk, a connection per
    /// device elsewhere.
    pub subscribe: bool,
}

/// One repository to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryConfig {
    /// Its name: the first segment of its paths, and the host in its `fuchsia-pkg` URLs.
    pub name: RepositoryName,
    /// Its folder, laid out as the real tools do: metadata in `repository/` (or the folder itself), blobs in `blobs/` or
    /// `repository/blobs/`.
    pub path: PathBuf,
    /// The folder of its private keys, for the write API; without it `keys` below its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<PathBuf>,
}

impl RepositoryConfig {
    /// A repository with its keys, if any, below its folder.
    pub fn new(name: RepositoryName, path: impl Into<PathBuf>) -> Self {
        Self { name, path: path.into(), keys: None }
    }
}

impl Default for OriginConfig {
    fn default() -> Self {
        Self {
            repositories: Vec::new(),
            timestamp_max_age_s: 5,
            cache_name: "colibri-origin".to_owned(),
            keep_computed_leaves: true,
            subscribe: false,
        }
    }
}
