//! [`Sources`]: an ordered set of places that speak the read API, their health, and the order to ask them in.
//!
//! Health is deliberately simple: a source that served bad bytes is asked last for minutes, one that failed otherwise for
//! seconds, longer each time it fails again. Nobody is banned: when all are demoted, all are asked, so a fault of the whole fleet cannot lock a device out.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use colibri_common::BlobId;

use crate::error::{Blame, FetchError};
use crate::limits::{BLAME_DEMOTION, BLAMES_KEPT_MAX, FAILURE_DEMOTION, FAILURE_DEMOTION_MAX, SOURCES_MAX};

/// Base URL of a source, `http(s)://AUTHORITY[/PATH]`, without a trailing slash. With a repository's path it is a TUF mirror.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceUrl {
    text: String,
    authority_at: usize,
    path_at: usize,
}

impl SourceUrl {
    /// The whole URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host and port, as written.
    pub fn authority(&self) -> &str {
        &self.text[self.authority_at..self.path_at]
    }

    /// This URL with `path` (which begins with a slash, or is empty) added.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

impl FromStr for SourceUrl {
    type Err = FetchError;

    fn from_str(url: &str) -> Result<Self, FetchError> {
        let refuse = |reason: &str| FetchError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| refuse(&error.to_string()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refuse("it must begin with https:// or http://"));
        }
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(refuse("it must name a host, without user or password"));
        }
        if uri.query().is_some() || url.contains('#') {
            return Err(refuse("it cannot have a query or fragment"));
        }
        let text = url.trim_end_matches('/').to_owned();
        let authority_at = text.find("://").map_or(0, |at| at + 3);
        let path_at = text[authority_at..].find('/').map_or(text.len(), |at| authority_at + at);
        Ok(Self { text, authority_at, path_at })
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// In which order healthy sources are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceOrder {
    /// As listed: a parent first, its stand-ins after it.
    Listed,
    /// Spread by blob and unit, so that several edges share a device's load and each unit has one favourite edge.
    Spread,
}

/// One source with its health and what came from it.
#[derive(Debug)]
pub struct Source {
    /// Where it is.
    pub url: SourceUrl,
    /// Where its blobs are: `url` + `/blobs` unless configured otherwise.
    pub blobs: SourceUrl,
    health: Mutex<Health>,
    body_bytes: AtomicU64,
    requests: AtomicU64,
    blames: AtomicU64,
    ignores_ranges: AtomicBool,
}

#[derive(Debug, Default)]
struct Health {
    blamed_at: Option<Instant>,
    failed_at: Option<Instant>,
    failures_in_a_row: u32,
}

impl Health {
    /// How long the last failure counts.
    fn demotion(&self) -> Duration {
        let doublings = self.failures_in_a_row.saturating_sub(1);
        FAILURE_DEMOTION.saturating_mul(2_u32.saturating_pow(doublings)).min(FAILURE_DEMOTION_MAX)
    }
}

/// How eagerly a source is asked; smaller comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Good,
    Failing,
    Blamed,
}

impl Source {
    /// A source whose blobs are under its own URL.
    pub fn new(url: SourceUrl) -> Self {
        let blobs = url.join("/blobs").parse().expect("a path added to a good URL");
        Self::with_blobs(url, blobs)
    }

    /// A mirror with another address for blobs (`blob_mirror_url`).
    pub fn with_blobs(url: SourceUrl, blobs: SourceUrl) -> Self {
        let zero = AtomicU64::default;
        Self {
            url,
            blobs,
            health: Mutex::default(),
            body_bytes: zero(),
            requests: zero(),
            blames: zero(),
            ignores_ranges: AtomicBool::default(),
        }
    }

    /// Body bytes received from it.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.load(Ordering::Relaxed)
    }

    /// Requests sent to it.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Times it served bad bytes.
    pub fn blames(&self) -> u64 {
        self.blames.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_body_bytes(&self, bytes: usize) {
        self.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn succeeded(&self) {
        let mut health = lock(&self.health);
        health.failed_at = None;
        health.failures_in_a_row = 0;
    }

    pub(crate) fn failed(&self) {
        let mut health = lock(&self.health);
        // Fetches under way at the same time meet the same trouble: one failure.
        if health.failed_at.is_none_or(|at| at.elapsed() >= health.demotion()) {
            health.failures_in_a_row = health.failures_in_a_row.saturating_add(1);
        }
        health.failed_at = Some(Instant::now());
    }

    /// True once it has answered a request for a range with the whole.
    pub(crate) fn ignores_ranges(&self) -> bool {
        self.ignores_ranges.load(Ordering::Relaxed)
    }

    pub(crate) fn found_to_ignore_ranges(&self) {
        self.ignores_ranges.store(true, Ordering::Relaxed);
    }

    fn blamed(&self) {
        self.blames.fetch_add(1, Ordering::Relaxed);
        lock(&self.health).blamed_at = Some(Instant::now());
    }

    pub(crate) fn standing(&self) -> Standing {
        let health = lock(&self.health);
        if health.blamed_at.is_some_and(|at| at.elapsed() < BLAME_DEMOTION) {
            Standing::Blamed
        } else if self.ignores_ranges() || health.failed_at.is_some_and(|at| at.elapsed() < health.demotion()) {
            Standing::Failing
        } else {
            Standing::Good
        }
    }
}

/// A set of sources shared by all fetches of one repository or one edge.
#[derive(Debug)]
pub struct Sources {
    list: Vec<Source>,
    order: SourceOrder,
    blames: Mutex<VecDeque<Blame>>,
}

impl Sources {
    /// A set of at most [`SOURCES_MAX`] sources; more are cut off.
    pub fn new(mut list: Vec<Source>, order: SourceOrder) -> Self {
        list.truncate(SOURCES_MAX);
        Self { list, order, blames: Mutex::default() }
    }

    /// All of them, as listed.
    pub fn list(&self) -> &[Source] {
        &self.list
    }

    /// Authorities, for messages.
    pub fn names(&self) -> String {
        self.list.iter().map(|source| source.url.authority()).collect::<Vec<_>>().join(", ")
    }

    /// The order to ask in for unit `unit` of `blob`: best standing first.
    pub fn candidates(&self, blob: Option<&BlobId>, unit: u32) -> Vec<&Source> {
        let count = self.list.len();
        let first = match (self.order, blob) {
            (SourceOrder::Spread, Some(id)) if count > 0 => spread(id, unit) % count,
            _ => 0,
        };
        let mut order: Vec<&Source> = (0..count).map(|step| &self.list[(first + step) % count]).collect();
        order.sort_by_key(|source| source.standing());
        order
    }

    /// Records that `source` served bad bytes and demotes it.
    pub(crate) fn blame(&self, source: &Source, blame: Blame) {
        tracing::warn!(source = %blame.source, blob = %blame.blob, detail = %blame.detail, "a source served bad bytes");
        source.blamed();
        let mut blames = lock(&self.blames);
        if blames.len() == BLAMES_KEPT_MAX {
            blames.pop_front();
        }
        blames.push_back(blame);
    }

    /// The newest blames, oldest first.
    pub fn blames(&self) -> Vec<Blame> {
        lock(&self.blames).iter().cloned().collect()
    }
}

/// A number that depends on blob and unit only: merkle roots are uniform already.
fn spread(id: &BlobId, unit: u32) -> usize {
    let head = u32::from_le_bytes(id.as_bytes()[..4].try_into().expect("4 of 32 bytes"));
    head.wrapping_add(unit) as usize
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(order: SourceOrder) -> Sources {
        let list = ["https://a:1/r", "https://b:2/r", "http://c/"].map(|url| Source::new(url.parse().unwrap()));
        Sources::new(list.into(), order)
    }

    fn names(order: &[&Source]) -> Vec<String> {
        order.iter().map(|source| source.url.authority().to_owned()).collect()
    }

    #[test]
    fn urls() {
        let url: SourceUrl = "https://edge.example:4443/devhost/".parse().unwrap();
        assert_eq!(
            (url.authority(), url.join("/x").as_str()),
            ("edge.example:4443", "https://edge.example:4443/devhost/x")
        );
        for bad in ["", "edge:1", "ftp://x/", "https://", "https://u@h/", "https://h/?q", "https://h/#f", "/path"] {
            assert!(bad.parse::<SourceUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn blamed_come_last_failing_before_them_and_nobody_is_banned() {
        let sources = sources(SourceOrder::Listed);
        let id = BlobId::from_digest([0; 32]);
        assert_eq!(names(&sources.candidates(Some(&id), 7)), ["a:1", "b:2", "c"]);
        let blame = Blame { source: "a:1".into(), blob: id, encoding: None, detail: String::new() };
        sources.blame(&sources.list()[0], blame.clone());
        sources.list()[1].failed();
        assert_eq!(names(&sources.candidates(Some(&id), 7)), ["c", "b:2", "a:1"]);
        sources.list()[1].succeeded();
        assert_eq!(names(&sources.candidates(Some(&id), 7)), ["b:2", "c", "a:1"]);
        assert_eq!(sources.blames(), [blame]);
    }

    #[test]
    fn spread_rotates_by_unit() {
        let sources = sources(SourceOrder::Spread);
        let id = BlobId::from_digest([0; 32]);
        assert_eq!(names(&sources.candidates(Some(&id), 1)), ["b:2", "c", "a:1"]);
        assert_eq!(names(&sources.candidates(Some(&id), 2)), ["c", "a:1", "b:2"]);
    }
}
