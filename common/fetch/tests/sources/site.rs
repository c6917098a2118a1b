//! Small servers for tests: an honest one that has some blobs in all forms, and others that lie where a test wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use colibri_api::{ByteRangeSpec, Coding, ETag, RangeRequest, Representation, cache, head_for};
use colibri_common::{BlobId, ByteRange, merkle};
use colibri_fetch::Source;
use colibri_package::delivery::{DeliveryType, Identity, Layout, UNIT_H_PROBE_BYTES, encode};
use colibri_transport::{Body, Request, Response, Server, ServerConfig, handler};
use http::{HeaderValue, Method, StatusCode};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The form that devices ask for.
pub const TYPE: DeliveryType = DeliveryType::Type1;

/// What a request wants, as far as lies depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Leaves,
    /// The first request for a delivery blob.
    UnitH,
    /// The last piece, which proves the length.
    LastPiece,
    /// A whole blob.
    Whole,
    /// A run of pieces.
    Pieces,
    Document,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Asked {
    pub stage: Stage,
    pub path: String,
    pub range: Option<ByteRange>,
}

/// Files by path, with their entity tags.
#[derive(Debug, Clone, Default)]
pub struct Site {
    pub files: BTreeMap<String, (Bytes, Option<ETag>)>,
    last_pieces: BTreeSet<(String, u64)>,
}

impl Site {
    /// A site that has this content raw, encoded at a zstd level, and its leaves.
    pub fn with(content: &[u8], level: i32) -> Self {
        Self::encoded(content, &encode(content, TYPE, Some(level)).unwrap())
    }

    /// The same with a certain encoded form.
    pub fn encoded(content: &[u8], encoded: &[u8]) -> Self {
        let tree = merkle::build(content);
        let id = tree.id;
        let mut site = Self::default();
        let (raw, delivery) = (format!("/blobs/{id}"), format!("/blobs/1/{id}"));
        if let Ok(layout) = Layout::from_unit_h(TYPE, tree.leaves.clone(), encoded) {
            site.last_pieces.insert((delivery.clone(), layout.piece_range(layout.piece_count() - 1).start()));
        }
        site.last_pieces.insert((raw.clone(), (tree.leaves.count() - 1) * merkle::LEAF_BYTES));
        let head = Layout::unit_h_bytes(encoded).map_or(0, |bytes| bytes as usize);
        let identity = Identity::of_unit_h(&encoded[..head]);
        site.put(&raw, content.to_vec(), Some(ETag::raw(id)));
        site.put(&delivery, encoded.to_vec(), Some(ETag::delivery(id, 1, identity.as_bytes())));
        site.put(&format!("/blobs/leaves/{id}"), tree.leaves.wire().to_vec(), Some(ETag::leaves(id)));
        site
    }

    pub fn put(&mut self, path: &str, bytes: Vec<u8>, etag: Option<ETag>) {
        self.files.insert(path.to_owned(), (bytes.into(), etag));
    }

    /// The same without any leaf list.
    pub fn without_leaves(mut self) -> Self {
        self.files.retain(|path, _| !path.contains("/leaves/"));
        self
    }

    /// The same without entity tags, as a plain file server.
    pub fn without_etags(mut self) -> Self {
        self.files.values_mut().for_each(|(_, etag)| *etag = None);
        self
    }

    fn stage(&self, path: &str, range: Option<ByteRange>) -> Stage {
        match range {
            _ if path.contains("/leaves/") => Stage::Leaves,
            _ if !path.contains("/blobs/") => Stage::Document,
            None => Stage::Whole,
            Some(range) if range == ByteRange::new(0, UNIT_H_PROBE_BYTES) => Stage::UnitH,
            Some(range) if self.last_pieces.contains(&(path.to_owned(), range.start())) => Stage::LastPiece,
            Some(_) => Stage::Pieces,
        }
    }

    /// The right answer.
    pub fn honest(&self, request: &Request) -> Response {
        let Some((bytes, etag)) = self.files.get(request.uri().path()) else { return status(404) };
        let representation = Representation {
            length: bytes.len() as u64,
            etag: etag.clone(),
            cache_control: cache::IMMUTABLE,
            content_type: HeaderValue::from_static("application/octet-stream"),
            accept_ranges: true,
            coding: Coding::Identity,
            vary: None,
        };
        let plan = head_for(&representation, request.method(), request.headers());
        let body = plan.body.map_or(Body::empty(), |range| Body::full(bytes.slice(range.within(0))));
        let mut response = Response::new(body);
        *response.status_mut() = plan.status;
        *response.headers_mut() = plan.headers;
        response
    }
}

/// What a liar answers; nothing means the truth.
pub type Lie = Arc<dyn Fn(&Site, &Asked, &Request) -> Option<Response> + Send + Sync>;

/// A site that listens, with what it was asked.
pub struct Node {
    pub source: Source,
    asked: Arc<Mutex<Vec<Asked>>>,
    _stop: DropGuard,
}

impl Node {
    pub fn honest(site: Site) -> Self {
        Self::lying(site, Arc::new(|_, _, _| None))
    }

    pub fn lying(site: Site, lie: Lie) -> Self {
        let (site, asked) = (Arc::new(site), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        let handler = handler(move |request: Request| {
            let range = match RangeRequest::from_headers(request.headers()) {
                RangeRequest::Single(ByteRangeSpec::FromTo { first, last }) => Some(ByteRange::new(first, last + 1)),
                _ => None,
            };
            assert_eq!(request.method(), Method::GET);
            let path = request.uri().path().to_owned();
            let one = Asked { stage: site.stage(&path, range), path, range };
            log.lock().unwrap().push(one.clone());
            let response = lie(&site, &one, &request).unwrap_or_else(|| site.honest(&request));
            async move { response }
        });
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let server = Server::bind(ServerConfig::plain(any), handler).unwrap();
        let stop = CancellationToken::new();
        let source = Source::new(format!("http://{}", server.address()).parse().unwrap());
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        Self { source, asked, _stop: stop.drop_guard() }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The source and a name that outlive it in a set of sources.
    pub fn source(&self) -> Source {
        Source::new(self.source.url.clone())
    }
}

/// An answer without a body.
pub fn status(status: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// The id of a content.
pub fn id(content: &[u8]) -> BlobId {
    merkle::build(content).id
}

/// Content of several units that compresses, but not to nothing.
pub fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = Vec::with_capacity(length + 16);
    while content.len() < length {
        content.extend_from_slice(&random.u16(..).to_le_bytes());
        content.extend_from_slice(b"hummingbird");
    }
    content.truncate(length);
    content
}
