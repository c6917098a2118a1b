//! [`WriteConfig`]: where and for whom the write API answers, and its bounds.

use std::net::SocketAddr;
use std::path::PathBuf;

use colibri_api::RepositoryName;
use serde::{Deserialize, Serialize};

use super::role::WriteRole;

/// Configuration of the write API: the table `write` of an origin's configuration. Without a listener there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriteConfig {
    /// Where to answer HTTP/2 and 1.1 with TLS, with the certificate of the read API; nothing for nowhere.
    pub listen: Option<SocketAddr>,
    /// Where to answer without TLS: a loopback address, for a program on this machine; nothing for nowhere.
    pub listen_plain: Option<SocketAddr>,
    /// The repositories that can be written; none listed means all. Their private keys are below their folders unless
    /// their `keys` says otherwise.
    pub repositories: Vec<RepositoryName>,
    /// The file of bearer tokens, made by `colibri origin token create`. Read anew when it changes.
    pub token_file: PathBuf,
    /// PEM file of authorities for client certificates; nothing asks for none.
    pub client_ca_file: Option<PathBuf>,
    /// What the holder of such a certificate may do.
    pub client_role: WriteRole,
    /// File that gets one JSON line per act; nothing for the log alone.
    pub audit_file: Option<PathBuf>,
    /// Requests a second that one token or certificate may make, on average.
    pub requests_per_s: u32,
    /// Refused logins a minute from one address before the answer is 429.
    pub refusals_per_min: u32,
    /// Connections at a time.
    pub connections_max: usize,
    /// Uploads at a time, of everybody.
    pub uploads_max: usize,
    /// Largest upload in bytes.
    pub upload_bytes_max: u64,
    /// Slowest upload, in bytes a second; slower ones are cut off and can be resumed.
    pub upload_bytes_per_s_min: u64,
    /// The time over which that is measured, in seconds.
    pub upload_pace_s: u64,
    /// Longest request in seconds, its body included.
    pub request_s_max: u64,
    /// The publish gate that edges take part in.
    pub edge_gate: EdgeGateConfig,
}

/// Edges that must have served the new blobs back before a release becomes visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeGateConfig {
    /// Addresses of the edges, such as `https://edge.example:8443`.
    pub edges: Vec<String>,
    /// How many of them must have served every new blob; 0 asks none.
    pub edges_min: usize,
    /// How long to wait for them, in seconds.
    pub wait_s: u64,
    /// Whom to believe to be an edge: `none` (what it serves is proven either way), `system`, `ca-file:PATH`, `pin:HEX[,HEX]`.
    pub trust: String,
}

impl Default for EdgeGateConfig {
    fn default() -> Self {
        Self { edges: Vec::new(), edges_min: 0, wait_s: 300, trust: "none".to_owned() }
    }
}

impl Default for WriteConfig {
    fn default() -> Self {
        Self {
            listen: None,
            listen_plain: None,
            repositories: Vec::new(),
            token_file: PathBuf::from("tokens.json"),
            client_ca_file: None,
            client_role: WriteRole::Publisher,
            audit_file: None,
            requests_per_s: 200,
            refusals_per_min: 30,
            connections_max: 256,
            uploads_max: 32,
            upload_bytes_max: 4 << 30,
            upload_bytes_per_s_min: 1024,
            upload_pace_s: 30,
            request_s_max: 3600,
            edge_gate: EdgeGateConfig::default(),
        }
    }
}

impl WriteConfig {
    /// Whether anything is listened on.
    pub fn is_on(&self) -> bool {
        self.listen.is_some() || self.listen_plain.is_some()
    }

    /// What contradicts itself, the key first.
    pub(crate) fn mistake(&self) -> Option<String> {
        if let Some(address) = self.listen_plain.filter(|address| !address.ip().is_loopback()) {
            return Some(format!(
                "write.listen_plain is {address}, which is no loopback address: without TLS a token would travel in the \
                 clear; use write.listen"
            ));
        }
        let gate = &self.edge_gate;
        if gate.edges_min > gate.edges.len() {
            let (asked, named) = (gate.edges_min, gate.edges.len());
            return Some(format!(
                "write.edge_gate.edges_min is {asked}, but {named} edges are named in write.edge_gate.edges"
            ));
        }
        let positive = [
            ("requests_per_s", u64::from(self.requests_per_s)),
            ("refusals_per_min", u64::from(self.refusals_per_min)),
            ("connections_max", self.connections_max as u64),
            ("uploads_max", self.uploads_max as u64),
            ("upload_bytes_max", self.upload_bytes_max),
            ("upload_pace_s", self.upload_pace_s),
            ("request_s_max", self.request_s_max),
        ];
        positive
            .iter()
            .find(|(_, value)| *value == 0)
            .map(|(key, _)| format!("write.{key} is 0: nothing would be answered"))
    }
}
