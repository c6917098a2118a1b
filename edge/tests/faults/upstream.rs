//! An upstream for tests: files by path over plain HTTP, what it was asked, and faults that a test switches on.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use colibri_api::{Coding, ETag, Representation, cache, head_for};
use colibri_common::{BlobId, merkle, sha256};
use colibri_package::delivery::{DeliveryType, Identity, Layout, encode};
use colibri_transport::{Body, Handler, Request, Response, Server, ServerConfig, handler};
use http::header::RANGE;
use http::{HeaderValue, StatusCode};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// The form that devices ask for.
pub const TYPE: DeliveryType = DeliveryType::Type1;

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub enum Fault {
    Status(u16),
    /// One bit of this byte of the body.
    Flip(usize),
    /// The body breaks off after so many bytes.
    Cut(usize),
    /// The body stops after so many bytes and nothing more comes.
    Hang(usize),
    /// After so many bytes, the rest comes byte by byte.
    Drip(usize),
    /// After the right body, more and more of anything.
    Endless,
    /// Not before a permit is there.
    Gate(Arc<Semaphore>),
    /// So many bytes of the body for each permit.
    Step(usize, Arc<Semaphore>),
}

type Faults = Box<dyn Fn(&str, Option<&str>) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    files: BTreeMap<String, (Bytes, ETag, Coding)>,
    asked: HashMap<(String, Option<String>), u64>,
    not_modified: u64,
    faults: Option<Faults>,
}

/// An upstream that listens until it is dropped or goes away.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
}

impl Upstream {
    pub async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let server = Server::bind(ServerConfig::plain(loopback(0)), answering(state.clone())).unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        Self { address, state, stop }
    }

    pub async fn with(contents: &[&[u8]]) -> Self {
        let upstream = Self::start().await;
        contents.iter().for_each(|content| upstream.add(content));
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn name(&self) -> String {
        self.address.to_string()
    }

    pub fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let etag = ETag::metadata(&sha256(&bytes));
        self.state.lock().unwrap().files.insert(path.to_owned(), (bytes, etag, Coding::Identity));
    }

    /// A file that is always sent as this form of `plain`.
    pub fn put_coded(&self, path: &str, plain: &[u8], coding: Coding, form: Bytes) {
        let etag = ETag::coded(&sha256(plain), coding);
        self.state.lock().unwrap().files.insert(path.to_owned(), (form, etag, coding));
    }

    /// Forgets all files.
    pub fn clear(&self) {
        self.state.lock().unwrap().files.clear();
    }

    pub fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    /// Adds a blob raw, encoded, and its leaves.
    pub fn add(&self, content: &[u8]) {
        self.add_encoded(content, &encode(content, TYPE, Some(1)).unwrap());
    }

    pub fn add_encoded(&self, content: &[u8], encoded: &[u8]) {
        let tree = merkle::build(content);
        let id = tree.id;
        let head = Layout::unit_h_bytes(encoded).unwrap() as usize;
        let identity = Identity::of_unit_h(&encoded[..head]);
        let mut state = self.state.lock().unwrap();
        let mut put = |path: String, bytes: &[u8], etag| {
            state.files.insert(path, (Bytes::copy_from_slice(bytes), etag, Coding::Identity));
        };
        put(format!("/blobs/{id}"), content, ETag::raw(id));
        put(format!("/blobs/1/{id}"), encoded, ETag::delivery(id, 1, identity.as_bytes()));
        put(format!("/blobs/leaves/{id}"), &tree.leaves.wire(), ETag::leaves(id));
    }

    /// Adds a blob in its raw form only, and its leaves.
    pub fn add_raw(&self, content: &[u8]) {
        let tree = merkle::build(content);
        let mut state = self.state.lock().unwrap();
        let mut put = |path: String, bytes: Bytes, etag| state.files.insert(path, (bytes, etag, Coding::Identity));
        put(format!("/blobs/{}", tree.id), Bytes::copy_from_slice(content), ETag::raw(tree.id));
        put(format!("/blobs/leaves/{}", tree.id), tree.leaves.wire(), ETag::leaves(tree.id));
    }

    pub fn file(&self, path: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[path].0.to_vec()
    }

    /// From now on, each request is answered with the fault that `faults` gives for its path and range.
    pub fn faults(&self, faults: impl Fn(&str, Option<&str>) -> Option<Fault> + Send + 'static) {
        self.state.lock().unwrap().faults = Some(Box::new(faults));
    }

    pub fn no_faults(&self) {
        self.state.lock().unwrap().faults = None;
    }

    /// How often each path and range was asked for.
    pub fn asked(&self) -> HashMap<(String, Option<String>), u64> {
        self.state.lock().unwrap().asked.clone()
    }

    pub fn requests(&self) -> u64 {
        self.asked().values().sum()
    }

    /// Bytes of the ranges that were asked for of paths with this beginning; all of these questions must have a range.
    pub fn asked_bytes(&self, beginning: &str) -> u64 {
        let bytes = |range: &str| {
            let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            end.parse::<u64>().unwrap() + 1 - start.parse::<u64>().unwrap()
        };
        let asked = self.asked().into_iter().filter(|((path, _), _)| path.starts_with(beginning));
        asked.map(|((_, range), times)| times * bytes(&range.unwrap())).sum()
    }

    /// The most that one path and range was asked for.
    pub fn asked_max(&self) -> u64 {
        self.asked().values().copied().max().unwrap_or(0)
    }

    pub fn not_modified(&self) -> u64 {
        self.state.lock().unwrap().not_modified
    }

    /// Stops listening; the address is free until [`Self::come_back`].
    pub async fn go_away(&mut self) {
        self.stop.cancel();
        until(|| std::net::TcpStream::connect(self.address).is_err()).await;
    }

    pub async fn come_back(&mut self) {
        let mut server = None;
        until(|| {
            server = Server::bind(ServerConfig::plain(self.address), answering(self.state.clone())).ok();
            server.is_some()
        })
        .await;
        self.stop = CancellationToken::new();
        tokio::spawn(server.unwrap().serve(self.stop.clone(), Duration::ZERO));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until something is so.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come to pass");
}

pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn answering(state: Arc<Mutex<State>>) -> Handler {
    handler(move |request: Request| {
        let state = state.clone();
        async move {
            let path = request.uri().path().to_owned();
            let range = request.headers().get(RANGE).map(|value| value.to_str().unwrap().to_owned());
            let (fault, response) = {
                let mut state = state.lock().unwrap();
                *state.asked.entry((path.clone(), range.clone())).or_default() += 1;
                let response = honest(&state.files, &request);
                state.not_modified += u64::from(response.status() == StatusCode::NOT_MODIFIED);
                (state.faults.as_ref().and_then(|faults| faults(&path, range.as_deref())), response)
            };
            spoil(response, fault).await
        }
    })
}

fn honest(files: &BTreeMap<String, (Bytes, ETag, Coding)>, request: &Request) -> Response {
    let Some((bytes, etag, coding)) = files.get(request.uri().path()) else { return status(404) };
    let representation = Representation {
        length: bytes.len() as u64,
        etag: Some(etag.clone()),
        cache_control: cache::IMMUTABLE,
        content_type: HeaderValue::from_static("application/octet-stream"),
        accept_ranges: true,
        coding: *coding,
        vary: None,
    };
    let plan = head_for(&representation, request.method(), request.headers());
    let body = plan.body.map_or(Body::empty(), |range| Body::full(bytes.slice(range.within(0))));
    let mut response = Response::new(body);
    *response.status_mut() = plan.status;
    *response.headers_mut() = plan.headers;
    response
}

async fn spoil(response: Response, fault: Option<Fault>) -> Response {
    let Some(fault) = fault else { return response };
    if let Fault::Gate(gate) = fault {
        gate.acquire().await.unwrap().forget();
        return response;
    }
    let (mut head, body) = response.into_parts();
    let bytes = body.read_all(1 << 30).await.unwrap();
    let body = match fault {
        Fault::Status(code) => return status(code),
        Fault::Flip(at) => {
            let mut bytes = bytes.to_vec();
            let at = at.min(bytes.len().saturating_sub(1));
            bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1);
            Body::full(bytes)
        }
        Fault::Cut(at) | Fault::Hang(at) => {
            let (mut sender, body) = Body::channel(Some(bytes.len() as u64));
            let (part, hangs) = (bytes.slice(..at.min(bytes.len())), matches!(fault, Fault::Hang(_)));
            tokio::spawn(async move {
                if sender.send(part).await.is_ok() && hangs {
                    std::future::pending::<()>().await;
                }
            });
            body
        }
        Fault::Step(step, permits) => {
            let (mut sender, body) = Body::channel(Some(bytes.len() as u64));
            tokio::spawn(async move {
                for start in (0..bytes.len()).step_by(step) {
                    permits.acquire().await.unwrap().forget();
                    if sender.send(bytes.slice(start..bytes.len().min(start + step))).await.is_err() {
                        return;
                    }
                }
                sender.finish();
            });
            body
        }
        Fault::Drip(at) => drip(bytes, at),
        Fault::Endless => {
            head.headers.remove(http::header::CONTENT_LENGTH);
            endless(bytes)
        }
        Fault::Gate(_) => Body::full(bytes),
    };
    Response::from_parts(head, body)
}

fn drip(bytes: Bytes, at: usize) -> Body {
    let (mut sender, body) = Body::channel(Some(bytes.len() as u64));
    let first = bytes.slice(..at.min(bytes.len()));
    tokio::spawn(async move {
        let mut next = first.len();
        let mut piece = first;
        while sender.send(piece).await.is_ok() && next < bytes.len() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            piece = bytes.slice(next..next + 1);
            next += 1;
        }
    });
    body
}

fn endless(bytes: Bytes) -> Body {
    let (mut sender, body) = Body::channel(None);
    tokio::spawn(async move {
        let mut piece = bytes;
        while sender.send(piece).await.is_ok() {
            piece = Bytes::from_static(&[7; 16 << 10]);
        }
    });
    body
}

fn status(code: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

pub fn id(content: &[u8]) -> BlobId {
    merkle::build(content).id
}

/// Content that compresses, but not to nothing.
pub fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = Vec::with_capacity(length + 16);
    while content.len() < length {
        content.extend_from_slice(&random.u64(..).to_le_bytes());
        content.extend_from_slice(b"bird");
    }
    content.truncate(length);
    content
}
