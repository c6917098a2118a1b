//! A mirror that asks an honest edge, and may answer something else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use colibri_api::{ByteRangeSpec, RangeRequest};
use colibri_common::{BlobId, ByteRange};
use colibri_transport::{Body, Client, ClientConfig, Request, Response, Server, ServerConfig, handler};
use http::header::{ALT_SVC, CONNECTION, HOST};
use http::{HeaderMap, StatusCode};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Metadata,
    Leaves,
    Raw,
    Delivery,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub kind: Kind,
    pub id: Option<BlobId>,
    pub range: Option<ByteRange>,
}

/// What the honest edge answers to it.
#[derive(Debug, Clone)]
pub struct Truth {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Truth {
    /// As it is.
    pub fn told(&self) -> Response {
        self.with(Body::full(self.body.clone()))
    }

    /// With another body.
    pub fn with(&self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        response
    }
}

/// What a liar answers; nothing means the truth.
pub type Lie = Arc<dyn Fn(&Asked, &Truth) -> Option<Response> + Send + Sync>;

/// A mirror that listens.
pub struct Liar {
    pub authority: String,
    is_lying: Arc<AtomicBool>,
    told: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Liar {
    /// In front of the edge at `upstream` (`https://HOST:PORT`).
    pub fn start(upstream: &str, lie: Lie) -> Self {
        let client = Client::new(ClientConfig::default()).unwrap();
        let (is_lying, told) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let handler = {
            let (upstream, is_lying, told) = (upstream.to_owned(), is_lying.clone(), told.clone());
            handler(move |request: Request| {
                let asked = asked(&request);
                let (lie, is_lying, told) = (lie.clone(), is_lying.clone(), told.clone());
                let truth = truth(client.clone(), format!("{upstream}{}", request.uri()), request.headers().clone());
                async move {
                    let truth = truth.await;
                    let lie = is_lying.load(Ordering::SeqCst).then(|| lie(&asked, &truth)).flatten();
                    told.fetch_add(u64::from(lie.is_some()), Ordering::SeqCst);
                    lie.unwrap_or_else(|| truth.told())
                }
            })
        };
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::bind(ServerConfig::plain(any), handler).unwrap();
        let (authority, stop) = (server.address().to_string(), CancellationToken::new());
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        Self { authority, is_lying, told, _stop: stop.drop_guard() }
    }

    /// Begins or ends lying; a liar begins as one.
    pub fn lies(&self, lies: bool) {
        self.is_lying.store(lies, Ordering::SeqCst);
    }

    /// Lies told.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }
}

fn asked(request: &Request) -> Asked {
    let path = request.uri().path().to_owned();
    let range = match RangeRequest::from_headers(request.headers()) {
        RangeRequest::Single(ByteRangeSpec::FromTo { first, last }) => Some(ByteRange::new(first, last + 1)),
        _ => None,
    };
    let kind = match &path {
        path if path.contains("/blobs/leaves/") => Kind::Leaves,
        path if path.contains("/blobs/1/") => Kind::Delivery,
        path if path.contains("/blobs/") => Kind::Raw,
        _ => Kind::Metadata,
    };
    let id = path.rsplit('/').next().and_then(|name| name.parse().ok());
    Asked { path, kind, id, range }
}

async fn truth(client: Client, url: String, mut headers: HeaderMap) -> Truth {
    headers.remove(HOST);
    headers.remove(CONNECTION);
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = url.parse().unwrap();
    *request.headers_mut() = headers;
    let (head, body) = client.send(request).await.expect("the edge answers").into_parts();
    let body = body.read_all(64 << 20).await.expect("the edge answers to the end");
    let mut headers = head.headers;
    headers.remove(ALT_SVC);
    Truth { status: head.status, headers, body }
}
