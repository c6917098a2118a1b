//! Metadata and other small documents, kept for a short life: unnumbered files are revalidated when they are old, numbered
//! ones never change. When upstream is away, what is here is served within a bound, and so is that something is not there: the
//! next root is asked for first by every client, and nobody could use a timestamp that is here without that answer.
//!
//! They are passed on as they came, byte for byte; devices verify the signatures. Only a hash in a name is checked here. One
//! version is kept for all codings: what is coded is decoded, under the cap, before anybody gets it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_common::{Digest, hex, sha256, sha512};
use colibri_fetch::{BlobFetcher, FetchError, Unverified};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::forms::Forms;
use crate::freshness::Freshness;
use crate::lifetimes::Lifetimes;
use crate::limits::{
    ABSENT_BYTES_MAX, ABSENT_FLOOR_MS, DOCUMENT_BYTES_MAX, DOCUMENTS_BYTES_MAX, FIRST_CONTACT_MS,
    FIRST_CONTACT_PAUSE_MS, NUMBERED_RECHECK_MS, STALE_AFTER_MS,
};
use crate::metrics::Metrics;
use crate::shapes::one_shard;
use crate::single_flight::SingleFlight;

/// Items the index is sized for.
const ESTIMATED_ITEMS: usize = 4096;

/// Bytes an entry costs besides name and content.
const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// Upstream is not asked again this soon after it could not be reached, if there is something to serve.
const AWAY: Duration = Duration::from_secs(1);

/// One document as it came from upstream.
#[derive(Debug)]
pub(crate) struct Document {
    pub bytes: Bytes,
    pub sha256: Digest,
    /// What upstream called it, to revalidate with.
    upstream_etag: Option<String>,
    checked_at: Instant,
    away: Away,
}

/// When upstream was last found away, as one thing was asked for.
#[derive(Debug, Clone, Default)]
struct Away(Arc<Mutex<Option<Instant>>>);

impl Away {
    fn found(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether it was so a moment ago.
    fn lately(&self) -> bool {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < AWAY)
    }
}

/// What upstream said that it does not have.
#[derive(Debug, Clone)]
struct Absence {
    since: Instant,
    away: Away,
}

/// What is here of something that upstream should be asked for.
enum Old {
    Document(Arc<Document>),
    Absence(Absence),
}

impl Old {
    fn away(&self) -> &Away {
        match self {
            Self::Document(document) => &document.away,
            Self::Absence(absence) => &absence.away,
        }
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<String, Arc<Document>> for ByBytes {
    fn weight(&self, path: &String, document: &Arc<Document>) -> u64 {
        (path.len() + document.bytes.len()) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

impl Weighter<String, Absence> for ByBytes {
    fn weight(&self, path: &String, _: &Absence) -> u64 {
        path.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub path: String,
    pub life: Life,
    /// The client wants it checked now (`no-cache`).
    pub insists: bool,
}

/// How long a document may be answered without asking upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its name has its SHA-256 or SHA-512 in hex: it never changes, and it is checked.
    Hashed(String),
    /// Its name has its version: it never changes.
    Numbered,
    /// The configured life of unnumbered metadata.
    Short,
}

impl Life {
    /// Whether a document of this life may have these bytes.
    fn check(&self, bytes: &[u8]) -> Result<(), String> {
        let Self::Hashed(expected) = self else { return Ok(()) };
        let found = if expected.len() == 64 { hex(&sha256(bytes)) } else { hex(&sha512(bytes)) };
        if found == *expected { Ok(()) } else { Err(format!("it hashes to {found}, its name says {expected}")) }
    }
}

/// The documents of one edge.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    kept: Arc<Cache<String, Arc<Document>, ByBytes>>,
    /// What upstream said it does not have.
    absent: Arc<Cache<String, Absence, ByBytes>>,
    flights: Arc<SingleFlight<String, Arc<Document>>>,
    /// Coded forms of what is kept.
    pub forms: Forms,
    lifetimes: Lifetimes,
    numbered_recheck: Duration,
    /// Upstream has answered, with whatever.
    met: Arc<AtomicBool>,
    metrics: Metrics,
}

impl Documents {
    pub fn new(lifetimes: Lifetimes, metrics: Metrics, tasks: &TaskTracker) -> Self {
        Self {
            kept: Arc::new(one_shard(ESTIMATED_ITEMS, DOCUMENTS_BYTES_MAX, ByBytes)),
            absent: Arc::new(one_shard(ESTIMATED_ITEMS, ABSENT_BYTES_MAX, ByBytes)),
            flights: Arc::new(SingleFlight::new(tasks.clone())),
            forms: Forms::new(),
            lifetimes,
            numbered_recheck: Duration::from_millis(NUMBERED_RECHECK_MS),
            met: Arc::default(),
            metrics,
        }
    }

    /// The document.
    pub async fn get(&self, fetcher: &BlobFetcher, wish: Wish) -> (Result<Arc<Document>, FetchError>, Freshness) {
        self.metrics.documents_asked.inc();
        let kept = self.kept.get(&wish.path);
        let life = match (&wish.life, wish.insists) {
            (Life::Hashed(_), _) | (Life::Numbered, false) => Duration::MAX,
            (Life::Numbered, true) => self.numbered_recheck,
            (Life::Short, false) => self.lifetimes.max_age(),
            (Life::Short, true) => Duration::ZERO,
        };
        if let Some(document) = kept.as_ref().filter(|document| document.checked_at.elapsed() < life) {
            return (Ok(document.clone()), Freshness::Hit);
        }
        if let Some(absent) = self.absent(fetcher, &wish) {
            return (Err(absent), Freshness::Hit);
        }
        let seen = kept.clone();
        let old = self.old(&wish.path, kept);
        if let Some(old) = old.as_ref().filter(|old| old.away().lately()) {
            return self.stale(old, fetcher, &wish);
        }
        let (this, for_flight, asked) = (self.clone(), fetcher.clone(), wish.clone());
        let work = async move { this.bring(&for_flight, &asked, seen.as_ref()).await };
        let flight = self.flights.join(wish.path.clone(), work);
        let Some(old) = old else {
            let (answer, joined) = flight.await;
            return (answer, Freshness::of_flight(joined));
        };
        // Nobody waits for long while there is something to serve: the flight goes on without its readers.
        match timeout(Duration::from_millis(STALE_AFTER_MS), flight).await {
            Ok((Err(error @ (FetchError::AllFailed { .. } | FetchError::Circle { .. })), _)) => {
                tracing::warn!(%error, "upstream is away: serving what is here");
            }
            Ok((answer, joined)) => return (answer, Freshness::of_flight(joined)),
            Err(_) => tracing::warn!(path = wish.path, "upstream is slow: serving what is here"),
        }
        old.away().found();
        self.stale(&old, fetcher, &wish)
    }

    /// What may be served of it when upstream is away.
    fn old(&self, path: &str, kept: Option<Arc<Document>>) -> Option<Old> {
        let stale_max = self.lifetimes.stale_max();
        match kept {
            Some(document) => (document.checked_at.elapsed() < stale_max).then_some(Old::Document(document)),
            None => {
                let absence = self.absent.get(path).filter(|absence| absence.since.elapsed() < stale_max);
                absence.map(Old::Absence)
            }
        }
    }

    fn stale(&self, old: &Old, fetcher: &BlobFetcher, wish: &Wish) -> (Result<Arc<Document>, FetchError>, Freshness) {
        self.metrics.documents_stale.inc();
        let answer = match old {
            Old::Document(document) => Ok(document.clone()),
            Old::Absence(_) => Err(not_found(fetcher, wish)),
        };
        (answer, Freshness::Stale)
    }

    /// "Not found", if upstream said so lately. Clients that insist get it only if it was said a moment ago: the next release
    /// may make what is missing now, but nobody can have every question passed on.
    fn absent(&self, fetcher: &BlobFetcher, wish: &Wish) -> Option<FetchError> {
        let floor = Duration::from_millis(ABSENT_FLOOR_MS);
        let life = self.lifetimes.max_age();
        let life = if wish.insists { life.min(floor) } else { life };
        let since = self.absent.get(&wish.path)?.since;
        (since.elapsed() < life).then(|| not_found(fetcher, wish))
    }

    /// The work of a flight. Another one may have landed since whoever starts this one looked, and saw `seen`.
    async fn bring(
        &self,
        fetcher: &BlobFetcher,
        wish: &Wish,
        seen: Option<&Arc<Document>>,
    ) -> Result<Arc<Document>, FetchError> {
        let kept = self.kept.peek(&wish.path);
        match kept.filter(|kept| seen.is_none_or(|seen| !Arc::ptr_eq(kept, seen))) {
            Some(arrived) => Ok(arrived),
            None => match self.absent(fetcher, wish) {
                Some(absent) => Err(absent),
                None => self.fetch(fetcher, wish).await,
            },
        }
    }

    async fn fetch(&self, fetcher: &BlobFetcher, wish: &Wish) -> Result<Arc<Document>, FetchError> {
        self.metrics.documents_fetched.inc();
        let path = &wish.path;
        let kept = self.kept.peek(path);
        let etag = kept.as_ref().and_then(|document| document.upstream_etag.as_deref());
        let checked_at = Instant::now();
        let answer = self.ask(fetcher, wish, etag).await;
        let (bytes, sha256, upstream_etag) = match (answer, &kept) {
            (Ok(Unverified::Document { bytes, coded, etag }), _) => {
                let sha256 = sha256(&bytes);
                if let Some((coding, form)) = coded {
                    self.forms.keep(sha256, coding, form);
                }
                (bytes, sha256, etag)
            }
            (Ok(Unverified::NotModified), Some(kept)) => (kept.bytes.clone(), kept.sha256, kept.upstream_etag.clone()),
            (Ok(Unverified::NotModified), None) => {
                return Err(FetchError::Local(format!("{path}: upstream answered 304 to an unconditional request")));
            }
            (Err(error), kept) => {
                if matches!(error, FetchError::NotFound { .. }) {
                    self.kept.remove(path);
                    self.absent.insert(path.clone(), Absence { since: checked_at, away: Away::default() });
                } else if kept.is_none() {
                    // Clients are told less.
                    tracing::warn!(%error, "a document could not be had");
                }
                return Err(error);
            }
        };
        let document = Arc::new(Document { bytes, sha256, upstream_etag, checked_at, away: Away::default() });
        self.absent.remove(path);
        self.kept.insert(path.clone(), document.clone());
        Ok(document)
    }
}

impl Documents {
    /// Asks upstream. An edge that has never met it does not give up at once: it may have started first, or the name may not
    /// be known yet, and there is nothing else to serve.
    async fn ask(&self, fetcher: &BlobFetcher, wish: &Wish, etag: Option<&str>) -> Result<Unverified, FetchError> {
        let since = Instant::now();
        let check = |bytes: &[u8]| wish.life.check(bytes);
        // What a peer keeps of what changes is older than what upstream says; who insists does not want what was bad once.
        let lasts = wish.life != Life::Short && !wish.insists;
        loop {
            let answer = match lasts {
                true => fetcher.lasting_document(&wish.path, DOCUMENT_BYTES_MAX, etag, &check).await,
                false => fetcher.document_checked(&wish.path, DOCUMENT_BYTES_MAX, etag, &check).await,
            };
            if !matches!(answer, Err(FetchError::AllFailed { .. })) {
                self.met.store(true, Ordering::Relaxed);
                return answer;
            }
            if self.met.load(Ordering::Relaxed) || since.elapsed() >= Duration::from_millis(FIRST_CONTACT_MS) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(FIRST_CONTACT_PAUSE_MS)).await;
        }
    }
}

/// The same words as from upstream: an answer must not depend on who asked before.
fn not_found(fetcher: &BlobFetcher, wish: &Wish) -> FetchError {
    FetchError::NotFound { what: wish.path.clone(), asked: fetcher.sources().names() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use colibri_fetch::{Source, SourceOrder, Sources};
    use colibri_service::metrics::Registry;
    use colibri_transport::{Body, Client, ClientConfig, Request, Response, Server, ServerConfig, handler};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::EdgeConfig;

    /// A captive portal, a wrong file on a mirror: upstream sends something bad once. It is gone as soon as clients that
    /// cannot use it insist.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_bad_numbered_document_does_not_stay() {
        let asked = Arc::new(AtomicU64::new(0));
        let count = asked.clone();
        let upstream = handler(move |_: Request| {
            let text = if count.fetch_add(1, Ordering::SeqCst) == 0 { "<html>" } else { "{}" };
            async move { Response::new(Body::full(text)) }
        });
        let server = Server::bind(ServerConfig::plain("127.0.0.1:0".parse().unwrap()), upstream).unwrap();
        let source = Source::new(format!("http://{}", server.address()).parse().unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        let sources = Arc::new(Sources::new(vec![source], SourceOrder::Listed));
        let fetcher = BlobFetcher::new(Client::new(ClientConfig::default()).unwrap(), sources, "test");
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let mut documents = Documents::new(Lifetimes::new(&EdgeConfig::default()), metrics, &TaskTracker::new());
        let wish = |insists| Wish { path: "/repo/1.root.json".to_owned(), life: Life::Numbered, insists };
        for (insists, recheck, expected) in [
            (false, NUMBERED_RECHECK_MS, "<html>"),
            (true, NUMBERED_RECHECK_MS, "<html>"),
            (false, 0, "<html>"),
            (true, 0, "{}"),
            (false, 0, "{}"),
        ] {
            documents.numbered_recheck = Duration::from_millis(recheck);
            let document = documents.get(&fetcher, wish(insists)).await.0.unwrap();
            assert_eq!(document.bytes, expected, "insists: {insists}, recheck: {recheck} ms");
        }
        // Somebody looked before it was here, and begins his flight only after the other one has landed.
        assert_eq!(documents.bring(&fetcher, &wish(true), None).await.unwrap().bytes, "{}");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        stop.cancel();
        serving.await.unwrap();
    }
}
