//! [`BlobFetcher`]: leaves, layout and units of a blob from whichever source can prove them.

use std::sync::Arc;

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, Clock, VerifiedLength};
use colibri_package::delivery::{Encoding, Layout, VerifiedPieces};
use colibri_transport::Client;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use crate::attempt::{Attempt, MEMORY_PERMIT_BYTES};
use crate::bandwidth::Bandwidth;
use crate::class::Class;
use crate::error::FetchError;
use crate::limits::UNVERIFIED_BYTES_MAX;
use crate::nearby::{Nearby, Part};
use crate::patience::Patience;
use crate::persistence::Persistence;
use crate::round::{Round, Subject};
use crate::signed_size::SignedSize;
use crate::source::{CurrentSources, Source, Sources};
use crate::urgency::Urgency;
use crate::witness::{Given, Witness};

/// Unit number used to spread requests for leaves and unit H.
const HEAD: u32 = 0;

/// Fetches blobs from a set of sources. Cheap to clone; clones share the room for unverified bytes.
#[derive(Debug, Clone)]
pub struct BlobFetcher {
    client: Client,
    sources: CurrentSources,
    agent: HeaderValue,
    headers: HeaderMap,
    patience: Patience,
    urgency: Urgency,
    nearby: Option<Arc<dyn Nearby>>,
    nearby_has_units: bool,
    absence_age_ms_max: u64,
    memory: Arc<Semaphore>,
    witness: Option<Arc<dyn Witness>>,
    persistence: Persistence,
    bandwidth: Option<Bandwidth>,
    signed: Option<SignedSize>,
    clock: Option<WallClock>,
}

/// Says how late it is.
#[derive(Clone)]
struct WallClock(Arc<dyn Clock>);

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WallClock")
    }
}

/// A blob whose shape and length are proven.
#[derive(Debug, Clone)]
pub struct OpenedBlob {
    /// Units and pieces of the encoding that was opened, with the checked leaves.
    pub layout: Layout,
    /// Length of the content.
    pub length: VerifiedLength,
    /// What was verified on the way: the last piece, or all pieces of a small blob. In order.
    pub early: Vec<VerifiedPieces>,
}

/// Leaves that belong to their blob, and what had to be shown to prove it.
#[derive(Debug, Clone)]
pub struct ProvenLeaves {
    /// The leaves.
    pub leaves: Leaves,
    /// A blob of one leaf, as its source showed it.
    pub shown: Option<OpenedBlob>,
}

impl BlobFetcher {
    /// A fetcher that introduces itself as `agent` (`User-Agent`).
    pub fn new(client: Client, sources: Arc<Sources>, agent: &str) -> Self {
        let agent = HeaderValue::from_str(agent).unwrap_or(HeaderValue::from_static("colibri"));
        let permits = usize::try_from(UNVERIFIED_BYTES_MAX / MEMORY_PERMIT_BYTES).expect("a few thousand");
        let memory = Arc::new(Semaphore::new(permits));
        let (headers, patience, urgency) = (HeaderMap::new(), Patience::default(), Urgency::default());
        Self {
            client,
            sources: CurrentSources::new(sources),
            agent,
            headers,
            patience,
            urgency,
            nearby: None,
            nearby_has_units: true,
            absence_age_ms_max: 0,
            memory,
            witness: None,
            persistence: Persistence::default(),
            bandwidth: None,
            signed: None,
            clock: None,
        }
    }

    /// The same fetcher, which knows how late it is: for sources that ask to be left alone until some time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(WallClock(clock));
        self
    }

    /// The same fetcher with another patience.
    #[must_use]
    pub const fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The same fetcher, which gives up sooner or later.
    #[must_use]
    pub const fn with_persistence(mut self, persistence: Persistence) -> Self {
        self.persistence = persistence;
        self
    }

    /// The same fetcher, which reads bodies of blobs no faster than this allows.
    #[must_use]
    pub fn with_bandwidth(mut self, bandwidth: Option<Bandwidth>) -> Self {
        self.bandwidth = bandwidth;
        self
    }

    /// The same fetcher for one blob of which so much is signed: who sends more is to blame.
    #[must_use]
    pub const fn with_signed_size(mut self, signed: Option<SignedSize>) -> Self {
        self.signed = signed;
        self
    }

    /// The same fetcher with these fields in every request.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// The same fetcher for fetches of this class.
    #[must_use]
    pub fn with_class(self, class: Class) -> Self {
        self.with_urgency(Urgency::new(class))
    }

    /// The same fetcher for fetches that become more urgent when this does.
    #[must_use]
    pub fn with_urgency(mut self, urgency: Urgency) -> Self {
        self.urgency = urgency;
        self
    }

    /// How urgent its fetches are.
    pub const fn urgency(&self) -> &Urgency {
        &self.urgency
    }

    /// The same fetcher that asks whom `nearby` names before the sources, for blobs.
    #[must_use]
    pub fn with_nearby(mut self, nearby: Option<Arc<dyn Nearby>>) -> Self {
        self.nearby = nearby;
        self
    }

    /// The same fetcher, which believes whoever is nearby that upstream has no such blob if upstream said so at most this many
    /// milliseconds ago.
    #[must_use]
    pub const fn believing_absence(mut self, age_ms_max: u64) -> Self {
        self.absence_age_ms_max = age_ms_max;
        self
    }

    /// The same fetcher, which tells `witness` which source gave what.
    #[must_use]
    pub fn with_witness(mut self, witness: Option<Arc<dyn Witness>>) -> Self {
        self.witness = witness;
        self
    }

    /// Records that a source gave what was asked of it.
    pub(crate) fn succeeded(&self, source: &Source, given: Given) {
        source.succeeded();
        if let Some(witness) = &self.witness {
            witness.gave(source.url.authority(), given);
        }
    }

    /// The fields of every request.
    pub const fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The same fetcher on behalf of somebody nearby: units are not asked of a third. Heads of blobs may be, since whoever is
    /// asked for a unit must know the head, which may be another's share.
    #[must_use]
    pub const fn on_behalf_of_nearby(mut self) -> Self {
        self.nearby_has_units = false;
        self
    }

    /// The sources as they are now.
    pub fn sources(&self) -> Arc<Sources> {
        self.sources.get()
    }

    /// The sources, to be replaced: for this fetcher and all its clones.
    pub const fn current_sources(&self) -> &CurrentSources {
        &self.sources
    }

    /// The connection pool.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// One attempt at the source that `round` gave last.
    pub(crate) fn attempt<'a>(&'a self, round: &Round<'_>, source: &'a Source) -> Attempt<'a> {
        Attempt {
            client: &self.client,
            agent: &self.agent,
            headers: &self.headers,
            source,
            pace: round.pace(&self.patience),
            urgency: &self.urgency,
            memory: &self.memory,
            witness: self.witness.as_deref(),
            bandwidth: self.bandwidth.as_ref(),
            signed: self.signed,
            now: self.clock.as_ref().map(|clock| clock.0.now()),
        }
    }

    /// Who is to be asked first for a part of a blob.
    pub(crate) fn first(&self, blob: &BlobId, part: Part) -> Option<Arc<Source>> {
        let nearby = self.nearby.as_ref().filter(|_| self.nearby_has_units || part == Part::Head);
        nearby?.first(blob, part)
    }

    /// A walk over the sources, `nearby` first.
    pub(crate) fn round<'a>(&'a self, sources: &'a Sources, subject: Subject, nearby: Option<&'a Source>) -> Round<'a> {
        let round = Round::new(sources, subject).with_urgency(&self.urgency).with_persistence(self.persistence);
        round.nearby_first(nearby).believing_absence(self.absence_age_ms_max).seen_by(self.witness.as_deref())
    }

    /// The proven leaves of a blob. `place` is `/REPO` for sources that serve several repositories, else empty.
    ///
    /// A list of hashes proves itself. An empty list only claims that the blob has one leaf, so the source that says so
    /// must show the blob: in the `expected` encoding, else raw. What it showed comes along.
    pub async fn leaves(&self, place: &str, id: BlobId, expected: Encoding) -> Result<ProvenLeaves, FetchError> {
        let what = format!("leaves of blob {id}");
        let nearby = self.first(&id, Part::Head);
        let (subject, sources) = (Subject { what, blob: Some(id), encoding: None, unit: HEAD }, self.sources());
        let mut round = self.round(&sources, subject, nearby.as_deref());
        while let Some(source) = round.next().await {
            match self.attempt(&round, source).leaves(place, id, expected).await {
                Ok(leaves) => {
                    self.succeeded(source, Given::Head(id));
                    return Ok(leaves);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }

    /// [`Self::leaves`], or nothing if they cannot be had and some source has none: it may have the blob all the same, as
    /// plain file servers do, whatever is wrong with the others.
    pub async fn leaves_if_any(
        &self,
        place: &str,
        id: BlobId,
        expected: Encoding,
    ) -> Result<Option<ProvenLeaves>, FetchError> {
        match self.leaves(place, id, expected).await {
            Ok(leaves) => Ok(Some(leaves)),
            Err(FetchError::NotFound { .. } | FetchError::AllFailed { absent_somewhere: true, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a blob in one encoding: fetches and proves what a reader must know before the first byte is announced.
    /// From sources without leaves the whole blob is fetched and verified.
    pub async fn open(&self, place: &str, id: BlobId, encoding: Encoding) -> Result<OpenedBlob, FetchError> {
        let leaves = match self.leaves_if_any(place, id, encoding).await? {
            Some(ProvenLeaves { shown: Some(shown), .. }) if shown.layout.encoding() == encoding => {
                return self.as_signed(id, shown);
            }
            found => found.map(|proven| proven.leaves),
        };
        self.open_with(place, id, encoding, leaves).await
    }

    /// The blob, unless what is signed says that it has another length than its hash proves.
    fn as_signed(&self, id: BlobId, opened: OpenedBlob) -> Result<OpenedBlob, FetchError> {
        let proven_bytes = opened.length.bytes();
        match self.signed {
            Some(SignedSize { content_bytes, .. }) if content_bytes != proven_bytes => {
                Err(FetchError::SignedSize { blob: id, signed_bytes: content_bytes, proven_bytes })
            }
            _ => Ok(opened),
        }
    }

    /// [`Self::open`] for a caller that has looked for the leaves already and found these, or none.
    pub async fn open_with(
        &self,
        place: &str,
        id: BlobId,
        encoding: Encoding,
        leaves: Option<Leaves>,
    ) -> Result<OpenedBlob, FetchError> {
        let what = format!("blob {id} ({encoding})");
        let subject = Subject { what, blob: Some(id), encoding: Some(encoding), unit: HEAD };
        let (nearby, sources) = (self.first(&id, Part::Head), self.sources());
        let mut round = self.round(&sources, subject, nearby.as_deref());
        while let Some(source) = round.next().await {
            let attempt = self.attempt(&round, source);
            let opened = match &leaves {
                Some(leaves) if !source.ignores_ranges() => attempt.open(place, leaves, encoding).await,
                _ => attempt.open_whole(place, id, encoding).await,
            };
            match opened {
                Ok(opened) => {
                    self.succeeded(source, Given::Head(id));
                    return self.as_signed(id, opened);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }
}
