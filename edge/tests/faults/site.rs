//! The edge under test and a client of it: through its handler, without sockets in between.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use colibri_edge::{Admission, DiskTierConfig, Edge, EdgeConfig};
use colibri_service::metrics::Registry;
use colibri_transport::{Body, Handler, Request, Server, ServerConfig};
use http::{HeaderMap, Method};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::upstream::{Upstream, loopback};

/// An edge over these upstreams with defaults for the rest, but for a memory of what was missing a moment ago.
pub fn config(upstreams: &[&Upstream]) -> EdgeConfig {
    let upstreams = upstreams.iter().map(|upstream| upstream.url()).collect();
    EdgeConfig { upstreams, unknown_blob_s: 0, ..EdgeConfig::default() }
}

pub fn build(config: &EdgeConfig) -> Edge {
    Edge::build(config, &Registry::new()).unwrap()
}

pub fn disk(dir: &std::path::Path, bytes: u64, admission: Admission) -> Option<DiskTierConfig> {
    Some(DiskTierConfig { admission, ..DiskTierConfig::new(dir.to_owned(), bytes) })
}

/// The files of a disk tier.
pub fn unit_files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for path in std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(unit_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "unit") {
            files.push(path);
        }
    }
    files
}

/// The edge at an address of its own, until the guard is dropped.
pub fn listen(edge: &Edge) -> (SocketAddr, DropGuard) {
    let server = Server::bind(ServerConfig::plain(loopback(0)), edge.handler()).unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
    (address, stop.drop_guard())
}

/// What a client received.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    /// The body, or what came of it before it failed.
    pub body: Result<Bytes, Vec<u8>>,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_else(|_| panic!("the body broke off: {} {:?}", self.status, self.headers))
    }

    pub fn problem(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(self.bytes()).unwrap();
        assert_eq!(problem["status"], self.status);
        problem
    }
}

pub fn request(method: Method, path: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = http::Request::builder().method(method).uri(path).header("host", "edge.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

pub async fn send(handler: &Handler, request: Request) -> Got {
    let response = handler(request).await;
    let (head, mut body) = response.into_parts();
    let announced: Option<usize> =
        head.headers.get("content-length").map(|value| value.to_str().unwrap().parse().unwrap());
    let mut bytes = Vec::new();
    let body = loop {
        match body.next().await {
            None => break Ok(Bytes::from(bytes)),
            Some(Ok(piece)) => bytes.extend_from_slice(&piece),
            Some(Err(_)) => break Err(bytes),
        }
    };
    if let (Ok(bytes), Some(announced)) = (&body, announced) {
        assert!(
            bytes.is_empty() || bytes.len() == announced,
            "a clean body that is short: {} {announced}",
            bytes.len()
        );
    }
    Got { status: head.status.as_u16(), headers: head.headers, body }
}

pub async fn get(edge: &Edge, path: &str, fields: &[(&str, &str)]) -> Got {
    send(&edge.handler(), request(Method::GET, path, fields)).await
}

pub async fn head(edge: &Edge, path: &str) -> Got {
    send(&edge.handler(), request(Method::HEAD, path, &[])).await
}

/// A range of a file, which must come right.
pub async fn part(edge: &Edge, path: &str, whole: &[u8], start: usize, end: usize) -> Got {
    let got = get(edge, path, &[("range", &format!("bytes={start}-{}", end - 1))]).await;
    assert_eq!(got.status, 206, "{path} {start}..{end}: {got:?}");
    assert!(got.bytes() == &whole[start..end], "{path} {start}..{end}: wrong bytes");
    assert_eq!(got.header("content-range"), format!("bytes {start}-{}/{}", end - 1, whole.len()));
    got
}

/// A whole file, which must come right.
pub async fn whole(edge: &Edge, path: &str, whole: &[u8]) -> Got {
    let got = get(edge, path, &[]).await;
    assert_eq!(got.status, 200, "{path}: {got:?}");
    assert!(got.bytes() == whole, "{path}: wrong bytes");
    got
}
