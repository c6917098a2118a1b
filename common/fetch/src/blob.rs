//! [`BlobFetcher`]: leaves, layout and units of a blob from whichever source can prove them.

use std::sync::Arc;

use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, VerifiedLength};
use colibri_package::delivery::{Encoding, Layout, VerifiedPieces};
use colibri_transport::Client;
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use crate::assemble::{Assembler, Sink};
use crate::attempt::{Attempt, MEMORY_PERMIT_BYTES, ended_early};
use crate::error::{AttemptError, FetchError};
use crate::limits::UNVERIFIED_BYTES_MAX;
use crate::open::Form;
use crate::patience::Patience;
use crate::round::{Round, Subject};
use crate::source::{Source, Sources};

/// Unit number used to spread requests for leaves and unit H.
const HEAD: u32 = 0;

/// Fetches blobs from a set of sources. Cheap to clone; clones share the room for unverified bytes.
#[derive(Debug, Clone)]
pub struct BlobFetcher {
    client: Client,
    sources: Arc<Sources>,
    agent: HeaderValue,
    headers: HeaderMap,
    patience: Patience,
    memory: Arc<Semaphore>,
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
        Self { client, sources, agent, headers: HeaderMap::new(), patience: Patience::default(), memory }
    }

    /// The same fetcher with another patience.
    #[must_use]
    pub const fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The same fetcher with these fields in every request.
    #[must_use]
    pub fn with_headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// The sources.
    pub const fn sources(&self) -> &Arc<Sources> {
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
            memory: &self.memory,
        }
    }

    /// The proven leaves of a blob. `place` is `/REPO` for sources that serve several repositories, else empty.
    ///
    /// A list of hashes proves itself. An empty list only claims that the blob has one leaf, so the source that says so
    /// must show the blob: in the `expected` encoding, else raw. What it showed comes along.
    pub async fn leaves(&self, place: &str, id: BlobId, expected: Encoding) -> Result<ProvenLeaves, FetchError> {
        let what = format!("leaves of blob {id}");
        let mut round = Round::new(&self.sources, Subject { what, blob: Some(id), encoding: None, unit: HEAD });
        while let Some(source) = round.next().await {
            match self.attempt(&round, source).leaves(place, id, expected).await {
                Ok(leaves) => {
                    source.succeeded();
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
            Some(ProvenLeaves { shown: Some(shown), .. }) if shown.layout.encoding() == encoding => return Ok(shown),
            found => found.map(|proven| proven.leaves),
        };
        self.open_with(place, id, encoding, leaves).await
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
        let mut round = Round::new(&self.sources, subject);
        while let Some(source) = round.next().await {
            let attempt = self.attempt(&round, source);
            let opened = match &leaves {
                Some(leaves) if !source.ignores_ranges() => attempt.open(place, leaves, encoding).await,
                _ => attempt.open_whole(place, id, encoding).await,
            };
            match opened {
                Ok(opened) => {
                    source.succeeded();
                    return Ok(opened);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }

    /// Fetches the pieces `pieces` of an opened blob (usually one unit's) and hands each verified run to `sink` as soon as
    /// it is proven. A source that fails is replaced at the first piece not yet verified.
    pub async fn pieces(
        &self,
        place: &str,
        layout: &Layout,
        unit: u32,
        pieces: std::ops::Range<u32>,
        sink: &mut (dyn FnMut(VerifiedPieces) + Send),
    ) -> Result<(), FetchError> {
        let (id, encoding) = (layout.id(), layout.encoding());
        let what = format!("blob {id} ({encoding}) unit {unit}");
        let subject = Subject { what, blob: Some(id), encoding: Some(encoding), unit };
        let mut round = Round::new(&self.sources, subject);
        let mut assembler = Assembler::new(layout, pieces.clone());
        if layout.pieces_range(pieces.clone()).is_empty() {
            let verified = assembler.push(&[], sink);
            return verified.map(drop).map_err(|error| FetchError::Local(format!("blob {id}: {error}")));
        }
        while let Some(source) = round.next().await {
            let begin = assembler.next();
            match self.attempt(&round, source).pieces(place, layout, &mut assembler, pieces.end, sink).await {
                Ok(()) => {
                    source.succeeded();
                    return Ok(());
                }
                Err(error) => round.failed(source, &error),
            }
            if assembler.next() > begin {
                round.progressed();
            }
            // A piece is never continued from another source but fetched again from its first byte.
            assembler = Assembler::new(layout, assembler.next()..pieces.end);
        }
        Err(round.give_up())
    }
}

impl Attempt<'_> {
    /// Feeds `assembler` from its next piece up to piece `end`.
    async fn pieces(
        &self,
        place: &str,
        layout: &Layout,
        assembler: &mut Assembler,
        end: u32,
        sink: &mut Sink<'_>,
    ) -> Result<(), AttemptError> {
        let range = layout.pieces_range(assembler.next()..end);
        let url = self.url(place, layout.id(), layout.encoding());
        let answer = self.part(&url, Some(range)).await?;
        let form = Form::of(layout, &answer)?;
        let mut reading = self.read(answer);
        let mut received = 0;
        while !assembler.is_done() {
            let Some(chunk) = reading.next().await? else { return Err(ended_early(received, Some(range.len()))) };
            received += chunk.len() as u64;
            if let Err(error) = assembler.push(&chunk, sink) {
                return Err(self.judge(&url, layout, form, error).await);
            }
        }
        Ok(())
    }
}
