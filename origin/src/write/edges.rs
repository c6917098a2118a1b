//! The edges that a release waits for: from configuration to one gate per repository.

use std::sync::Arc;
use std::time::Duration;

use colibri_api::RepositoryName;
use colibri_fetch::{BlobFetcher, Source, SourceOrder, SourceUrl, Sources};
use colibri_repository::{EdgeGate, Witness};
use colibri_transport::{Client, ClientConfig};

use super::config::EdgeGateConfig;
use crate::error::OriginError;

/// How the origin calls itself.
const AGENT: &str = concat!("colibri-origin/", env!("CARGO_PKG_VERSION"));

/// The gate of a repository, asking the edges for that repository's blobs; nothing where no edges are waited for.
pub(crate) fn gate(config: &EdgeGateConfig, name: &RepositoryName) -> Result<Option<EdgeGate>, OriginError> {
    if config.edges_min == 0 {
        return Ok(None);
    }
    let client = Client::new(ClientConfig { trust: config.trust.parse()?, ..ClientConfig::default() })?;
    let witness = |edge: &String| {
        let url: Result<SourceUrl, _> = format!("{}/{name}", edge.trim_end_matches('/')).parse();
        let url = url.map_err(|error| OriginError::WriteConfig(format!("write.edge_gate.edges: {error}")))?;
        let sources = Arc::new(Sources::new(vec![Source::new(url)], SourceOrder::Listed));
        Ok(Witness { name: edge.clone(), fetcher: BlobFetcher::new(client.clone(), sources, AGENT) })
    };
    let edges = config.edges.iter().map(witness).collect::<Result<_, OriginError>>()?;
    Ok(Some(EdgeGate::new(edges, config.edges_min, Duration::from_secs(config.wait_s))))
}
