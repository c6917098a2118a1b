//! [`Sources`]: an ordered set of places that speak the read API, their health, and the order to ask them in.
//!
//! A source that served bad bytes is asked last for minutes, one that failed otherwise for seconds, longer each time it fails
//! again (module `health`). Nobody is banned: when all are demoted, all are asked, so a fault of the whole fleet cannot lock a
//! device out.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds};
use colibri_transport::Client;
use http::HeaderMap;
use tokio::time::Instant;

use crate::budget::{Budget, BudgetLimits};
use crate::class::Class;
use crate::error::{Blame, FetchError};
use crate::evidence::BadPiece;
use crate::health::{Health, Standing};
use crate::hedge::{HedgeShare, Hedging};
use crate::limits::{BLAMES_KEPT_MAX, RETRY_AFTER_MAX, SOURCES_MAX};

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
    /// The quickest first, as measured lately; those that differ by less than a factor of two as listed.
    Quickest,
    /// Spread by blob and unit, so that several edges share a device's load and each unit has one favourite edge.
    Spread,
}

/// A mirror that answers older metadata than what is trusted, or metadata that has expired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lagging {
    /// When it was first found so, without having kept up in between.
    pub since: UnixSeconds,
    /// When it was last found so.
    pub last: UnixSeconds,
    /// What it answered, and what is known better.
    pub what: String,
}

/// One source with its health and what came from it.
#[derive(Debug)]
pub struct Source {
    /// Where it is.
    pub url: SourceUrl,
    /// Where its blobs are: `url` + `/blobs` unless configured otherwise.
    pub blobs: SourceUrl,
    /// Asked through this pool instead of the fetcher's.
    client: Option<Client>,
    /// Fields of every request to it.
    headers: HeaderMap,
    budget: Arc<Budget>,
    spared: bool,
    health: Mutex<Health>,
    counters: Counters,
    ignores_ranges: AtomicBool,
    lagging: Mutex<Option<Lagging>>,
}

#[derive(Debug, Default)]
struct Counters {
    body_bytes: AtomicU64,
    requests: AtomicU64,
    blames: AtomicU64,
    failures: AtomicU64,
    hedges: AtomicU64,
    hedges_won: AtomicU64,
    cancelled: AtomicU64,
}

/// What one source did so far, and how it does, for export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceCounts {
    /// Requests sent to it.
    pub requests: u64,
    /// Body bytes received from it.
    pub body_bytes: u64,
    /// Times it served bad bytes.
    pub blames: u64,
    /// Other failed attempts; neither "not found" nor another encoded form is one.
    pub failures: u64,
    /// Requests that were sent to it because another source was slow.
    pub hedges: u64,
    /// Of these, those that were quicker.
    pub hedges_won: u64,
    /// Requests given up because another source was quicker.
    pub cancelled: u64,
    /// Requests that waited for a place in its budget.
    pub waits: u64,
    /// How long they waited, all together.
    pub waited: Duration,
    /// Requests in flight.
    pub in_flight: u32,
    /// Mean time to the head of an answer, if it was measured lately.
    pub latency: Option<Duration>,
    /// Mean rate of bodies, bytes per second.
    pub bytes_per_s: Option<u64>,
    /// Whether it is asked before or after others.
    pub standing: Standing,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Source {
    /// A source whose blobs are under its own URL.
    pub fn new(url: SourceUrl) -> Self {
        let blobs = url.join("/blobs").parse().expect("a path added to a good URL");
        Self::with_blobs(url, blobs)
    }

    /// A mirror with another address for blobs (`blob_mirror_url`).
    pub fn with_blobs(url: SourceUrl, blobs: SourceUrl) -> Self {
        Self {
            url,
            blobs,
            client: None,
            headers: HeaderMap::new(),
            budget: Budget::new(BudgetLimits::default()),
            spared: false,
            health: Mutex::default(),
            counters: Counters::default(),
            ignores_ranges: AtomicBool::default(),
            lagging: Mutex::default(),
        }
    }

    /// The same source with this budget, which it may share with others.
    #[must_use]
    pub fn with_budget(mut self, budget: Arc<Budget>) -> Self {
        self.budget = budget;
        self
    }

    /// The same source with these fields in every request to it.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// The same source, asked through another connection pool than the fetcher's.
    #[must_use]
    pub fn with_client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// The same source, never asked because another is slow, unless that one is spared as well. For origins: a cache before
    /// them is slow when it is asking them already.
    #[must_use]
    pub const fn spared(mut self) -> Self {
        self.spared = true;
        self
    }

    /// Whether it is spared.
    pub const fn is_spared(&self) -> bool {
        self.spared
    }

    /// Whether it may be asked because `slow` is.
    pub(crate) const fn may_rival(&self, slow: &Self) -> bool {
        !self.spared || slow.spared
    }

    /// What may be asked of it.
    pub const fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(crate) const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub(crate) const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Body bytes received from it.
    pub fn body_bytes(&self) -> u64 {
        self.counters.body_bytes.load(Ordering::Relaxed)
    }

    /// Requests sent to it.
    pub fn requests(&self) -> u64 {
        self.counters.requests.load(Ordering::Relaxed)
    }

    /// Times it served bad bytes, or metadata that was refused.
    pub fn blames(&self) -> u64 {
        self.counters.blames.load(Ordering::Relaxed)
    }

    /// All that was counted and measured.
    pub fn counts(&self) -> SourceCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (waits, waited) = self.budget.waited();
        let (latency, bytes_per_s) = {
            let health = lock(&self.health);
            (health.latency(Instant::now()), health.bytes_per_s())
        };
        SourceCounts {
            requests: read(&counters.requests),
            body_bytes: read(&counters.body_bytes),
            blames: read(&counters.blames),
            failures: read(&counters.failures),
            hedges: read(&counters.hedges),
            hedges_won: read(&counters.hedges_won),
            cancelled: read(&counters.cancelled),
            waits,
            waited,
            in_flight: self.budget.in_flight(),
            latency,
            bytes_per_s,
            standing: self.standing(),
        }
    }

    pub(crate) fn count_request(&self) {
        count(&self.counters.requests);
    }

    pub(crate) fn count_body_bytes(&self, bytes: usize) {
        self.counters.body_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_hedge(&self) {
        count(&self.counters.hedges);
    }

    pub(crate) fn hedge_won(&self) {
        count(&self.counters.hedges_won);
    }

    /// Another was quicker; it had sent nothing for this long.
    pub(crate) fn outrun(&self, silent_for: Duration) {
        count(&self.counters.cancelled);
        self.first_byte_came(silent_for);
    }

    pub(crate) fn head_came(&self, after: Duration) {
        lock(&self.health).head_came(after, Instant::now());
    }

    pub(crate) fn first_byte_came(&self, after: Duration) {
        lock(&self.health).first_byte_came(after);
    }

    pub(crate) fn body_came(&self, bytes: u64, within: Duration) {
        lock(&self.health).body_came(bytes, within);
    }

    pub(crate) fn succeeded(&self) {
        lock(&self.health).succeeded(Instant::now());
    }

    pub(crate) fn failed(&self) {
        count(&self.counters.failures);
        lock(&self.health).failed(Instant::now());
    }

    /// It asked to be left alone for so long.
    pub(crate) fn rests(&self, class: Class, pause: Duration) {
        lock(&self.health).rests(class, Instant::now() + pause.min(RETRY_AFTER_MAX));
    }

    /// For how long it may not be asked for something of this class.
    pub(crate) fn rest(&self, class: Class) -> Duration {
        lock(&self.health).rest(class, Instant::now())
    }

    /// It said that it is about to stop.
    pub(crate) fn found_leaving(&self) {
        lock(&self.health).leaving(Instant::now());
    }

    /// It answered metadata that is older than what is known.
    pub(crate) fn lags(&self, what: String, now: UnixSeconds) {
        let mut lagging = lock(&self.lagging);
        let since = lagging.as_ref().map_or(now, |before| before.since);
        *lagging = Some(Lagging { since, last: now, what });
    }

    /// It answered metadata as new as any.
    pub(crate) fn keeps_up(&self) {
        *lock(&self.lagging) = None;
    }

    /// It lagged behind when it was asked last, by another process.
    pub fn was_lagging(&self, before: Lagging) {
        lock(&self.lagging).get_or_insert(before);
    }

    /// Whether it lags behind, as far as it was asked.
    pub fn lagging(&self) -> Option<Lagging> {
        lock(&self.lagging).clone()
    }

    /// True once it has answered a request for a range with the whole.
    pub(crate) fn ignores_ranges(&self) -> bool {
        self.ignores_ranges.load(Ordering::Relaxed)
    }

    pub(crate) fn found_to_ignore_ranges(&self) {
        self.ignores_ranges.store(true, Ordering::Relaxed);
    }

    fn blamed(&self, demote: bool) {
        count(&self.counters.blames);
        if demote {
            lock(&self.health).blamed(Instant::now());
        }
    }

    /// Whether it is asked before or after others.
    pub fn standing(&self) -> Standing {
        let standing = lock(&self.health).standing(Instant::now());
        if self.ignores_ranges() { standing.max(Standing::Failing) } else { standing }
    }

    /// Its latency to within a factor of two, for sorting; the unknown come first, so that they become known.
    fn latency_step(&self) -> u32 {
        let latency = lock(&self.health).latency(Instant::now());
        latency
            .map_or(0, |latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX).saturating_add(1).ilog2() + 1)
    }
}

/// A set of sources shared by all fetches of one repository or one edge.
#[derive(Debug)]
pub struct Sources {
    list: Vec<Arc<Source>>,
    order: SourceOrder,
    hedging: Hedging,
    hedge_share: Arc<HedgeShare>,
    blames: Arc<Mutex<VecDeque<Blame>>>,
}

impl Sources {
    /// A set of at most [`SOURCES_MAX`] sources; more are cut off.
    pub fn new(list: Vec<Source>, order: SourceOrder) -> Self {
        let list = list.into_iter().take(SOURCES_MAX).map(Arc::new).collect();
        Self { list, order, hedging: Hedging::OFF, hedge_share: Arc::default(), blames: Arc::default() }
    }

    /// The set that comes after this one, of sources that are new or were in it. What was blamed stays known.
    #[must_use]
    pub fn followed_by(&self, mut list: Vec<Arc<Source>>, order: SourceOrder) -> Self {
        list.truncate(SOURCES_MAX);
        let (hedge_share, blames) = (self.hedge_share.clone(), self.blames.clone());
        Self { list, order, hedging: self.hedging, hedge_share, blames }
    }

    /// The same set with hedging, which is off by default.
    #[must_use]
    pub const fn with_hedging(mut self, hedging: Hedging) -> Self {
        self.hedging = hedging;
        self
    }

    /// After which silence of `first` another source is asked as well, if at all. A fetch that may be hedged begins.
    pub(crate) fn hedge_after(&self, first: &Source) -> Option<Duration> {
        self.hedge_share.earn(&self.hedging);
        let within = lock(&first.health).first_byte_within(self.hedging.quantile_percent)?;
        (self.hedging.share_percent > 0).then(|| within.max(self.hedging.delay_min))
    }

    /// Takes a hedge out of the share; false if there is none left.
    pub(crate) fn may_hedge(&self) -> bool {
        self.hedge_share.spend()
    }

    /// All of them, as listed.
    pub fn list(&self) -> &[Arc<Source>] {
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
        let mut order: Vec<&Source> = (0..count).map(|step| &*self.list[(first + step) % count]).collect();
        match self.order {
            SourceOrder::Quickest => order.sort_by_cached_key(|source| (source.standing(), source.latency_step())),
            SourceOrder::Listed | SourceOrder::Spread => order.sort_by_cached_key(|source| source.standing()),
        }
        order
    }

    /// Records that `source` served what is bad, and demotes it if so wished.
    pub(crate) fn blame(&self, source: &Source, blame: Blame, demote: bool) {
        tracing::warn!(%blame, "a source is to blame");
        source.blamed(demote);
        let mut blames = lock(&self.blames);
        if blames.len() == BLAMES_KEPT_MAX {
            blames.pop_front();
        }
        let piece = blame.piece.map(|piece| Box::new(BadPiece { bytes: Bytes::new(), ..*piece }));
        blames.push_back(Blame { piece, ..blame });
    }

    /// The newest blames, oldest first.
    pub fn blames(&self) -> Vec<Blame> {
        lock(&self.blames).iter().cloned().collect()
    }
}

/// The set of sources as it is now. Clones share it. A fetch ends with the set that it began with.
#[derive(Debug, Clone)]
pub struct CurrentSources(Arc<RwLock<Arc<Sources>>>);

impl CurrentSources {
    pub(crate) fn new(sources: Arc<Sources>) -> Self {
        Self(Arc::new(RwLock::new(sources)))
    }

    /// The set.
    pub fn get(&self) -> Arc<Sources> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has fetches that begin from now on ask these.
    pub fn replace(&self, sources: Sources) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sources);
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
        let blame = Blame { source: "a:1".into(), blob: Some(id), encoding: None, detail: String::new(), piece: None };
        sources.blame(&sources.list()[0], blame.clone(), true);
        sources.list()[1].failed();
        assert_eq!(names(&sources.candidates(Some(&id), 7)), ["c", "b:2", "a:1"]);
        sources.list()[1].succeeded();
        assert_eq!(names(&sources.candidates(Some(&id), 7)), ["b:2", "c", "a:1"]);
        assert_eq!(sources.blames(), [blame]);
    }

    #[test]
    fn the_quickest_come_first_and_the_unknown_before_them() {
        let sources = sources(SourceOrder::Quickest);
        let order = || names(&sources.candidates(None, 0));
        assert_eq!(order(), ["a:1", "b:2", "c"]);
        sources.list()[0].head_came(Duration::from_millis(90));
        assert_eq!(order(), ["b:2", "c", "a:1"]);
        sources.list()[1].head_came(Duration::from_millis(100));
        sources.list()[2].head_came(Duration::from_millis(9));
        assert_eq!(order(), ["c", "a:1", "b:2"], "a and b are as good as equal");
        sources.list()[2].failed();
        assert_eq!(order(), ["a:1", "b:2", "c"]);
    }

    #[test]
    fn spread_rotates_by_unit() {
        let sources = sources(SourceOrder::Spread);
        let id = BlobId::from_digest([0; 32]);
        assert_eq!(names(&sources.candidates(Some(&id), 1)), ["b:2", "c", "a:1"]);
        assert_eq!(names(&sources.candidates(Some(&id), 2)), ["c", "a:1", "b:2"]);
    }
}
