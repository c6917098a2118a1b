//! A whole edge before an upstream on loopback that makes its blobs up as they are asked for.

use std::collections::HashMap;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_api::{ETag, Representation, cache, head_for};
use colibri_common::{BlobId, merkle};
use colibri_edge::{Edge, EdgeConfig, Metrics, limits};
use colibri_service::metrics::Registry;
use colibri_transport::{Body, Handler, Request, Response, Server, ServerConfig, handler};
use http::{HeaderValue, Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::trace::Trace;

/// The memory tier's part of an edge's `memory_bytes`: the rest is for fills and readers (`TIER_SHARES` and `SHARES` in
/// `edge/src/limits.rs`).
const TIER_PART: (u64, u64) = (limits::TIER_SHARES, limits::SHARES);

/// The edge, its upstream, and the names of the trace's objects.
pub struct Site {
    edge: Edge,
    handler: Handler,
    ids: Vec<BlobId>,
    _stop: tokio_util::sync::DropGuard,
}

impl Site {
    /// Names every object and starts both; the edge keeps memory only, and its tier has room for `tier_bytes`.
    ///
    /// # Errors
    /// No port, or a configuration that the edge refuses.
    pub fn start(trace: &Trace, tier_bytes: u64) -> Result<Self, Box<dyn Error>> {
        let ids: Vec<BlobId> = (0..trace.sizes.len()).map(|key| merkle::build(&content(key, trace)).id).collect();
        let sizes = ids.iter().enumerate().map(|(key, id)| (*id, (key, trace.sizes[key]))).collect();
        let config = ServerConfig::plain((Ipv4Addr::LOCALHOST, 0).into());
        let server = Server::bind(config, upstream(sizes))?;
        let upstreams = vec![format!("http://{}", server.address())];
        let memory_bytes = tier_bytes * TIER_PART.1 / TIER_PART.0;
        let config = EdgeConfig { upstreams, memory_bytes, ..EdgeConfig::default() };
        let edge = Edge::build(&config, &Registry::new())?;
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        Ok(Self { handler: edge.handler(), edge, ids, _stop: stop.drop_guard() })
    }

    /// What the edge counted.
    pub const fn metrics(&self) -> &Metrics {
        self.edge.metrics()
    }

    /// One whole blob through the edge.
    ///
    /// # Errors
    /// Any answer but the blob.
    pub async fn get(&self, key: u32, trace: &Trace) -> Result<(), Box<dyn Error>> {
        let request = http::Request::get(format!("/blobs/{}", self.ids[key as usize])).header("host", "edge");
        let response = (self.handler)(request.body(Body::empty())?).await;
        let (head, body) = response.into_parts();
        let bytes = body.read_all(1 << 20).await?;
        if head.status != StatusCode::OK || bytes.len() as u64 != u64::from(trace.sizes[key as usize]) {
            return Err(format!("object {key}: status {}, {} bytes", head.status, bytes.len()).into());
        }
        Ok(())
    }
}

/// Content of an object: noise from its number.
fn content(key: usize, trace: &Trace) -> Vec<u8> {
    noise(key, trace.sizes[key])
}

fn noise(key: usize, bytes: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(key as u64 + 1);
    let mut content = vec![0; bytes as usize];
    random.fill(&mut content);
    content
}

fn upstream(sizes: HashMap<BlobId, (usize, u32)>) -> Handler {
    let sizes = Arc::new(sizes);
    handler(move |request: Request| {
        let sizes = sizes.clone();
        async move { answer(&sizes, &request) }
    })
}

fn answer(sizes: &HashMap<BlobId, (usize, u32)>, request: &Request) -> Response {
    let path = request.uri().path();
    let (leaves, name) = match path.strip_prefix("/blobs/leaves/") {
        Some(name) => (true, Some(name)),
        None => (false, path.strip_prefix("/blobs/")),
    };
    let found = name.and_then(|name| name.parse().ok()).and_then(|id: BlobId| Some((id, *sizes.get(&id)?)));
    let Some((id, (key, size))) = found else { return status(StatusCode::NOT_FOUND) };
    let content = noise(key, size);
    let (bytes, etag) = match leaves {
        true => (merkle::build(&content).leaves.wire(), ETag::leaves(id)),
        false => (Bytes::from(content), ETag::raw(id)),
    };
    let representation = Representation {
        length: bytes.len() as u64,
        etag: Some(etag),
        cache_control: cache::IMMUTABLE,
        content_type: HeaderValue::from_static("application/octet-stream"),
        accept_ranges: true,
        coding: colibri_api::Coding::Identity,
        vary: None,
    };
    let plan = head_for(&representation, request.method(), request.headers());
    let body = plan.body.filter(|_| request.method() == Method::GET).map(|range| bytes.slice(range.within(0)));
    let body = body.unwrap_or_default();
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = plan.status;
    *response.headers_mut() = plan.headers;
    response
}

fn status(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
