//! The readers: whole blobs and ranges, raw and as delivery blobs, over three protocols, quick, slow and vanishing ones, now and
//! then a herd. Every byte that arrives is compared with the truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use colibri_transport::{Body, Client, ClientConfig, Protocol};
use http::header::RANGE;
use http::{HeaderValue, Request, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::nodes::Ports;
use crate::site::{Document, Site};

/// Readers at a time, herds apart.
const READERS: u64 = 12;

/// Readers of one herd, and how often there is one.
const HERD: usize = 40;
const HERD_EVERY: Duration = Duration::from_secs(45);

/// A slow reader takes this long over a body, bytes or no bytes.
const SLOW: Duration = Duration::from_secs(12);

/// After this many requests a reader begins with new connections.
const REQUESTS_PER_CLIENT: u32 = 40;

/// Different causes of failures that are kept for the report.
const CAUSES_MAX: usize = 200;

/// What was counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Bodies that arrived whole.
    pub whole: AtomicU64,
    /// Readers that left on purpose.
    pub vanished: AtomicU64,
    /// Of the whole ones, those over each protocol: h3, h2, h1.
    pub by_protocol: [AtomicU64; 3],
    /// Requests without a good answer, and bodies that broke off with an error.
    pub failed: AtomicU64,
    /// Of these, those that began in the calm.
    pub failed_in_calm: AtomicU64,
    /// Bytes that arrived and were right.
    pub bytes: AtomicU64,
    /// Bodies with a wrong byte.
    pub wrong: AtomicU64,
    /// Bodies that ended well before their end, or were longer than the truth.
    pub short: AtomicU64,
    /// Herds.
    pub herds: AtomicU64,
}

/// The readers and what they saw.
#[derive(Debug)]
pub struct Load {
    site: Arc<Site>,
    edges: Vec<Ports>,
    /// What they saw.
    pub counts: Counts,
    /// Whether the faults are over.
    pub calm: AtomicBool,
    /// Why something failed, and how often so.
    pub causes: Mutex<BTreeMap<String, u64>>,
}

/// How a request ended.
enum End {
    Whole(Protocol),
    Vanished,
    Failed(String),
    Wrong(String),
    Short(String),
}

impl Load {
    /// Readers of `site` behind `edges`.
    pub fn new(site: Arc<Site>, edges: Vec<Ports>) -> Self {
        let (counts, calm, causes) = (Counts::default(), AtomicBool::new(false), Mutex::default());
        Self { site, edges, counts, calm, causes }
    }

    /// Starts them; they end by themselves.
    pub fn start(self: &Arc<Self>, seed: u64, until: Instant) -> Vec<JoinHandle<()>> {
        let readers = (0..READERS).map(|number| {
            let random = fastrand::Rng::with_seed(seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            tokio::spawn(self.clone().reader(random, until))
        });
        let herd = tokio::spawn(self.clone().herds(fastrand::Rng::with_seed(!seed), until));
        readers.chain([herd]).collect()
    }

    async fn reader(self: Arc<Self>, mut random: fastrand::Rng, until: Instant) {
        while Instant::now() < until {
            let protocol = *random
                .choice([Protocol::Http3, Protocol::Http3, Protocol::Http2, Protocol::Http1].iter())
                .unwrap_or(&Protocol::Http3);
            let client = client(protocol);
            for _ in 0..random.u32(1..REQUESTS_PER_CLIENT) {
                if Instant::now() >= until {
                    return;
                }
                let edge = self.edges[random.usize(..self.edges.len())];
                let site = self.site.clone();
                let document = site.pick(&mut random);
                self.request(&client, &url(edge, protocol, document), document, &mut random).await;
            }
        }
    }

    /// Many readers of one document at one edge at once.
    async fn herds(self: Arc<Self>, mut random: fastrand::Rng, until: Instant) {
        while Instant::now() + HERD_EVERY < until {
            sleep(HERD_EVERY).await;
            self.counts.herds.fetch_add(1, Ordering::Relaxed);
            let protocol = if random.bool() { Protocol::Http3 } else { Protocol::Http2 };
            let edge = self.edges[random.usize(..self.edges.len())];
            let document = random.usize(..self.site.documents.len());
            let client = client(protocol);
            let herd = (0..HERD).map(|_| {
                let (this, client, mut random) = (self.clone(), client.clone(), random.fork());
                tokio::spawn(async move {
                    let site = this.site.clone();
                    let document = &site.documents[document];
                    this.request(&client, &url(edge, protocol, document), document, &mut random).await;
                })
            });
            for reader in herd.collect::<Vec<_>>() {
                // One that panicked shows in the counts: it is missing there.
                drop(reader.await);
            }
        }
    }

    async fn request(&self, client: &Client, url: &str, document: &Document, random: &mut fastrand::Rng) {
        let in_calm = self.calm.load(Ordering::SeqCst);
        let counts = &self.counts;
        let one = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        match self.fetch(client, url, document, random).await {
            End::Whole(protocol) => {
                one(&counts.whole);
                one(&counts.by_protocol[protocol as usize]);
            }
            End::Vanished => _ = one(&counts.vanished),
            End::Wrong(cause) => {
                one(&counts.wrong);
                self.note(format!("WRONG: {url}: {cause}"));
            }
            End::Short(cause) => {
                one(&counts.short);
                self.note(format!("SHORT: {url}: {cause}"));
            }
            End::Failed(cause) => {
                one(&counts.failed);
                if in_calm {
                    one(&counts.failed_in_calm);
                }
                // Where it happened in a body is of no interest, and there are many places.
                let general: String = cause.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
                self.note(if in_calm { format!("in the calm: {url}: {cause}") } else { general });
                // Whoever was refused does not come back at once.
                sleep(Duration::from_millis(random.u64(50..500))).await;
            }
        }
    }

    fn note(&self, cause: String) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.len() < CAUSES_MAX || causes.contains_key(&cause) {
            *causes.entry(cause).or_default() += 1;
        }
    }

    async fn fetch(&self, client: &Client, url: &str, document: &Document, random: &mut fastrand::Rng) -> End {
        let length = document.truth.len();
        let range = if random.bool() { 0..length } else { some_range(random, length) };
        let ranged = range.len() < length;
        let Ok(mut request) = Request::get(url).body(Body::empty()) else { return End::Failed("a bad URL".to_owned()) };
        if ranged && let Ok(value) = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1)) {
            request.headers_mut().insert(RANGE, value);
        }
        let answer = match client.send(request).await {
            Ok(answer) => answer,
            Err(error) => return End::Failed(error.to_string()),
        };
        let expected = if ranged { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let protocol = answer.extensions().get::<Protocol>().copied().unwrap_or(Protocol::Http1);
        if answer.status() != expected {
            let status = answer.status();
            let said = answer.into_body().read_all(4096).await.unwrap_or_default();
            return End::Failed(format!("answered {status}: {}", String::from_utf8_lossy(&said)));
        }
        let truth = &document.truth[range.clone()];
        let leaves_at = if random.u8(..12) == 0 { random.usize(..truth.len()) } else { usize::MAX };
        let slow_for = if random.u8(..12) == 0 { SLOW } else { Duration::ZERO };
        let (mut body, mut read) = (answer.into_body(), 0);
        while let Some(piece) = body.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return End::Failed(format!("after {read} of {} bytes: {error}", truth.len())),
            };
            let Some(right) = truth.get(read..read + piece.len()) else {
                return End::Short(format!("{} bytes and more instead of {}", read + piece.len(), truth.len()));
            };
            if piece != right {
                let at = range.start + read;
                return End::Wrong(format!("within {} bytes from {at} on", piece.len()));
            }
            read += piece.len();
            self.counts.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            if read > leaves_at {
                return End::Vanished;
            }
            if !slow_for.is_zero() {
                sleep(slow_for.mul_f64(piece.len() as f64 / truth.len() as f64)).await;
            }
        }
        if read == truth.len() {
            return End::Whole(protocol);
        }
        End::Short(format!("a clean end after {read} of {} bytes", truth.len()))
    }

    /// How it goes, in a line.
    pub fn line(&self) -> String {
        let counts = &self.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [h3, h2, h1] = &counts.by_protocol;
        format!(
            "{} whole ({} h3, {} h2, {} h1), {} left, {} failed, {} wrong, {} short, {} MB",
            get(&counts.whole),
            get(h3),
            get(h2),
            get(h1),
            get(&counts.vanished),
            get(&counts.failed),
            get(&counts.wrong),
            get(&counts.short),
            get(&counts.bytes) / 1_000_000
        )
    }
}

fn some_range(random: &mut fastrand::Rng, length: usize) -> std::ops::Range<usize> {
    let start = random.usize(..length);
    start..random.usize(start + 1..=length)
}

/// A client that speaks nothing else, faults aside: where UDP seems dead it goes on over HTTP/2 for a moment.
fn client(protocol: Protocol) -> Client {
    let config = ClientConfig {
        http3: protocol == Protocol::Http3,
        dead_udp_memory: Duration::from_secs(2),
        ..ClientConfig::default()
    };
    Client::new(config).expect("the client's configuration is constant")
}

fn url(edge: Ports, protocol: Protocol, document: &Document) -> String {
    match protocol {
        Protocol::Http1 => format!("http://127.0.0.1:{}{}", edge.http, document.path),
        _ => format!("https://127.0.0.1:{}{}", edge.https, document.path),
    }
}
