//! What an operator can choose about an edge. Defaults serve a small site; sizes are bytes, times seconds.

use std::net::SocketAddr;
use std::path::PathBuf;

use colibri_api::RepositoryName;
use colibri_service::AccessLogConfig;
use serde::{Deserialize, Serialize};

use crate::tokens::TokensConfig;

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
    /// UDP sockets towards one upstream, each with a connection of its own; further ones are used while those there are busy.
    pub upstream_udp_sockets: usize,
    /// How long an upstream may take to answer, or to send what is no more than a trickle, while there are others to ask.
    /// With nobody else left it may take three times as long.
    pub upstream_patience_s: u64,
    /// In which order upstreams that are well are asked.
    pub upstream_order: UpstreamOrder,
    /// Requests in flight at one upstream, bodies being read included; more wait, those that somebody waits for go first.
    pub upstream_in_flight_max: u32,
    /// At most this part of the fetches of units asks a second upstream when the first is silent for longer than it nearly
    /// ever is, in percent; 0 for never.
    pub upstream_hedge_percent: u8,
    /// But not before this silence, in milliseconds.
    pub upstream_hedge_delay_ms: u64,
    /// Those of `upstreams` that are the origin; the last one if none is named.
    pub origins: Vec<String>,
    /// Requests per second to the origin, all together; 0 for any number.
    pub origin_requests_per_s: u64,
    /// Bytes per second from the origin, all together; 0 for any number.
    pub origin_bytes_per_s: u64,
    /// Budget for all units in memory: two thirds for those that are kept, the rest for those that come in and for what readers
    /// still hold. Fills and readers have 16 MiB however small it is. Leaves and seek tables of opened blobs have a quarter of it
    /// besides, from 16 MiB to 1 GiB.
    pub memory_bytes: u64,
    /// The other edges of the region, if any.
    pub peers: Option<PeersConfig>,
    /// The disk tier, if any.
    pub disk: Option<DiskTierConfig>,
    /// How long unnumbered metadata is served before upstream is asked again.
    pub metadata_max_age_s: u64,
    /// How long metadata is served when upstream cannot be reached.
    pub metadata_stale_max_s: u64,
    /// How long upstream may sign no new timestamp of a followed repository before the operator is told; 0 for three quarters of
    /// the life that the newest had left when it was first seen.
    pub metadata_frozen_after_s: u64,
    /// Repositories that the edge follows as a verifying client. Others pass through.
    pub repositories: Vec<FollowedConfig>,
    /// How many clients may listen to `/REPO/auto` at a time; more get 429.
    pub auto_listeners_max: usize,
    /// How long a blob that upstream did not have counts as missing, unless new metadata is served before.
    pub unknown_blob_s: u64,
    /// Refuse blobs that no trusted set of a followed repository reaches, without asking upstream. The address without a
    /// repository stands for all that are followed: leave it off where others pass through.
    pub refuse_unlisted_blobs: bool,
    /// Bring what new metadata reaches here before anybody asks; nothing for not.
    pub warm: Option<WarmConfig>,
    /// Folder for what should survive a restart: the newest metadata that was seen. Without one, a folder `state` of the disk
    /// tier's if there is a disk tier. It may be wiped at any time.
    pub state_dir: Option<PathBuf>,
    /// Whose tokens open what is here; without keys everybody may read.
    pub tokens: TokensConfig,
    /// Where a line about each request goes.
    pub access_log: AccessLogConfig,
}

/// A repository that the edge follows. Exactly one of `root_file` and `root` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowedConfig {
    /// Its name, as in the path.
    pub name: RepositoryName,
    /// A root.json that is trusted.
    #[serde(default)]
    pub root_file: Option<PathBuf>,
    /// The text of one.
    #[serde(default)]
    pub root: Option<String>,
}

impl EdgeConfig {
    /// The folder for what should survive a restart, if there is one.
    pub fn state_dir(&self) -> Option<PathBuf> {
        self.state_dir.clone().or_else(|| self.disk.as_ref().map(|disk| disk.dir.join("state")))
    }
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            name: "edge".to_owned(),
            upstreams: Vec::new(),
            upstream_tls: "none".to_owned(),
            upstream_http3: true,
            upstream_udp_sockets: 2,
            upstream_patience_s: 10,
            upstream_order: UpstreamOrder::Listed,
            upstream_in_flight_max: colibri_fetch::limits::SOURCE_IN_FLIGHT_MAX,
            upstream_hedge_percent: 5,
            upstream_hedge_delay_ms: 20,
            origins: Vec::new(),
            origin_requests_per_s: 0,
            origin_bytes_per_s: 0,
            memory_bytes: 256 << 20,
            peers: None,
            disk: None,
            metadata_max_age_s: 5,
            metadata_stale_max_s: 3600,
            metadata_frozen_after_s: 0,
            repositories: Vec::new(),
            auto_listeners_max: 10_000,
            unknown_blob_s: 10,
            refuse_unlisted_blobs: false,
            warm: None,
            state_dir: None,
            tokens: TokensConfig::default(),
            access_log: AccessLogConfig::default(),
        }
    }
}

/// The other edges of a region, of which each asks the parent for its share and gives it to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeersConfig {
    /// `HOST:PORT` of this edge, exactly as the others know it: with it they all find the same share for it.
    pub own: String,
    /// `HOST:PORT` of members; this edge may be among them.
    pub members: Vec<String>,
    /// `HOST:PORT` of a name whose addresses are the members, such as a headless service; this edge may be among them.
    pub dns: Option<String>,
    /// The name server to ask instead of the system's.
    pub dns_server: Option<SocketAddr>,
    /// A service of Kubernetes whose endpoints are the members.
    pub endpoint_slices: Option<EndpointSlicesConfig>,
    /// How often DNS or Kubernetes is asked.
    pub refresh_s: u64,
    /// Ask members over TLS.
    pub secure: bool,
    /// Try HTTP/3 towards members.
    pub http3: bool,
    /// Whom to believe: `none`, `system`, `ca-file:PATH` or `pin:HEX`. Integrity never depends on it.
    pub tls: String,
}

impl Default for PeersConfig {
    fn default() -> Self {
        Self {
            own: String::new(),
            members: Vec::new(),
            dns: None,
            dns_server: None,
            endpoint_slices: None,
            refresh_s: 5,
            secure: true,
            http3: true,
            tls: "none".to_owned(),
        }
    }
}

/// A service of Kubernetes, and how its API server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSlicesConfig {
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Port of its endpoints.
    pub port: u16,
    /// URL of the API server.
    pub api: String,
    /// File of the service account's token.
    pub token_file: PathBuf,
    /// Whom to believe: `ca-file:PATH` of the cluster, or as in `upstream_tls`.
    pub tls: String,
}

impl Default for EndpointSlicesConfig {
    fn default() -> Self {
        let account = "/var/run/secrets/kubernetes.io/serviceaccount";
        Self {
            namespace: String::new(),
            service: String::new(),
            port: 8443,
            api: "https://kubernetes.default.svc".to_owned(),
            token_file: format!("{account}/token").into(),
            tls: format!("ca-file:{account}/ca.crt"),
        }
    }
}

/// In which order upstreams that are well are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamOrder {
    /// As listed: a parent first, its stand-ins and the origin after it.
    #[default]
    Listed,
    /// Whichever answered quickest lately; those that differ by less than a factor of two as listed.
    Quickest,
}

/// How followed repositories are warmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmConfig {
    /// Most bytes fetched per second on average over a unit; 0 for as fast as demand leaves room.
    pub bytes_per_s: u64,
    /// Most bytes that are warmed of one repository; 0 for three quarters of the disk tier, or half of the memory tier.
    pub space_bytes: u64,
    /// Times of the day at which is warmed, `HH:MM-HH:MM` in UTC; none for always.
    pub windows: Vec<String>,
}

/// Configuration of the disk tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskTierConfig {
    /// Its folder. Everything in it belongs to the edge and may be deleted at any time.
    pub dir: PathBuf,
    /// Its budget, in blocks of the file system.
    pub bytes: u64,
    /// Most files; each takes about 150 bytes of memory besides.
    #[serde(default = "files_by_default")]
    pub files: u64,
    /// What gets onto it.
    #[serde(default)]
    pub admission: Admission,
    /// How fast what is at rest is verified again, bytes per second; 0 for never.
    #[serde(default = "scrub_by_default")]
    pub scrub_bytes_per_s: u64,
}

impl DiskTierConfig {
    /// Defaults for everything but place and budget.
    pub fn new(dir: PathBuf, bytes: u64) -> Self {
        Self {
            dir,
            bytes,
            files: files_by_default(),
            admission: Admission::default(),
            scrub_bytes_per_s: scrub_by_default(),
        }
    }
}

const fn files_by_default() -> u64 {
    1_000_000
}

const fn scrub_by_default() -> u64 {
    4 << 20
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
