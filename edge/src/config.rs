//! What an operator can choose about an edge. Defaults serve a small site; sizes are bytes, times seconds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Configuration of one edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Name of this edge in `Cache-Status` and towards its upstream: letters, digits, `-`, `.`.
    pub name: String,
    /// Base URLs of what it stands in front of, in order of preference: origin, another edge, a static file server.
    pub upstreams: Vec<String>,
    /// Whom to believe upstream: `none`, `system`, `ca-file:PATH` or `pin:HEX`. Integrity never depends on it.
    pub upstream_tls: String,
    /// Try HTTP/3 towards upstream.
    pub upstream_http3: bool,
    /// How long an upstream may take to answer, or to send what is no more than a trickle, while there are others to ask.
    /// With nobody else left it may take three times as long.
    pub upstream_patience_s: u64,
    /// Budget of the memory tier. Fills under way and units held for slow readers take up to three quarters as much besides.
    pub memory_bytes: u64,
    /// The disk tier, if any.
    pub disk: Option<DiskTierConfig>,
    /// How long unnumbered metadata is served before upstream is asked again.
    pub metadata_max_age_s: u64,
    /// How long metadata is served when upstream cannot be reached.
    pub metadata_stale_max_s: u64,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            name: "edge".to_owned(),
            upstreams: Vec::new(),
            upstream_tls: "none".to_owned(),
            upstream_http3: true,
            upstream_patience_s: 10,
            memory_bytes: 256 << 20,
            disk: None,
            metadata_max_age_s: 5,
            metadata_stale_max_s: 3600,
        }
    }
}

/// Configuration of the disk tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskTierConfig {
    /// Its folder. Everything in it belongs to the edge and may be deleted at any time.
    pub dir: PathBuf,
    /// Its budget.
    pub bytes: u64,
    /// What gets onto it.
    #[serde(default)]
    pub admission: Admission,
}

/// When a unit is written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// When memory evicts a unit that was asked for again: disk writes cost more than serving.
    #[default]
    Reused,
    /// Every unit, as soon as it is verified.
    Always,
}
