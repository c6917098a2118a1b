//! [`BlobFetcher`]: leaves, layout and units of a blob from whichever source can prove them.
//!
//! Order of a cold blob (architecture §6): leaves, then unit H of a delivery blob, then the last leaf or frame, which proves
//! the length, then units in the order the caller wants. Blobs of one unit skip the probe: the unit proves the length.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::{self, LEAF_BYTES, Leaves};
use colibri_common::{BlobId, ByteRange, ClaimedLength, VerifiedLength};
use colibri_package::delivery::{self, DeliveryType, Encoding, Layout, UNIT_H_PROBE_BYTES, VerifiedPieces};
use colibri_transport::Client;
use http::{HeaderMap, HeaderValue};

use crate::attempt::{self, Answer};
use crate::error::{AttemptError, FetchError};
use crate::limits::{BLOB_WITHOUT_LEAVES_BYTES_MAX, SEGMENT_BYTES_MAX};
use crate::round::{Round, Subject};
use crate::source::{Source, Sources};

/// Unit number used to spread requests for leaves and unit H.
const HEAD: u32 = 0;

/// Fetches blobs from a set of sources. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobFetcher {
    client: Client,
    sources: Arc<Sources>,
    agent: HeaderValue,
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
        Self { client, sources, agent }
    }

    /// The sources.
    pub const fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    pub(crate) const fn agent(&self) -> &HeaderValue {
        &self.agent
    }

    /// The connection pool.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The proven leaves of a blob. `place` is `/REPO` for sources that serve several repositories, else empty.
    ///
    /// A list of hashes proves itself. An empty list only claims that the blob has one leaf, so the source that says so
    /// must show the blob: in the `expected` encoding, else raw. What it showed comes along.
    pub async fn leaves(&self, place: &str, id: BlobId, expected: Encoding) -> Result<ProvenLeaves, FetchError> {
        let what = format!("leaves of blob {id}");
        let mut round = Round::new(&self.sources, Subject { what, blob: Some(id), encoding: None, unit: HEAD });
        while let Some(source) = round.next().await {
            match self.leaves_from(source, place, id, expected).await {
                Ok(leaves) => {
                    source.succeeded();
                    return Ok(leaves);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }

    async fn leaves_from(
        &self,
        source: &Source,
        place: &str,
        id: BlobId,
        expected: Encoding,
    ) -> Result<ProvenLeaves, AttemptError> {
        let url = blob_url(source, place, &format!("/leaves/{id}"));
        let answer = self.get(source, &url, None).await?;
        let list = attempt::read_all(source, answer.body, LEAVES_LIST_BYTES_MAX).await?;
        let leaves = Leaves::check(id, list)?;
        if leaves.count() > 1 {
            return Ok(ProvenLeaves { leaves, shown: None });
        }
        let shown = match self.open_from(source, place, &leaves, expected).await {
            Err(AttemptError::NotFound) if expected != Encoding::Raw => self.open_raw(source, place, &leaves).await?,
            shown => shown?,
        };
        Ok(ProvenLeaves { leaves, shown: Some(shown) })
    }

    /// Opens a blob in one encoding: fetches and proves what a reader must know before the first byte is announced.
    /// From sources without leaves the whole blob is fetched and verified.
    pub async fn open(&self, place: &str, id: BlobId, encoding: Encoding) -> Result<OpenedBlob, FetchError> {
        let leaves = match self.leaves(place, id, encoding).await {
            Ok(ProvenLeaves { shown: Some(shown), .. }) if shown.layout.encoding() == encoding => return Ok(shown),
            Ok(ProvenLeaves { leaves, .. }) => Some(leaves),
            Err(FetchError::NotFound { .. }) => None,
            Err(error) => return Err(error),
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
            let attempt = match &leaves {
                None => self.open_whole(source, place, id, encoding).await,
                Some(leaves) => self.open_from(source, place, leaves, encoding).await,
            };
            match attempt {
                Ok(opened) => {
                    source.succeeded();
                    return Ok(opened);
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }

    async fn open_from(
        &self,
        source: &Source,
        place: &str,
        leaves: &Leaves,
        encoding: Encoding,
    ) -> Result<OpenedBlob, AttemptError> {
        match encoding {
            Encoding::Raw => self.open_raw(source, place, leaves).await,
            Encoding::Delivery(kind) => self.open_delivery(source, place, leaves, kind).await,
        }
    }

    async fn open_raw(&self, source: &Source, place: &str, leaves: &Leaves) -> Result<OpenedBlob, AttemptError> {
        let url = blob_url(source, place, &format!("/{}", leaves.id()));
        let capacity = leaves.count() * LEAF_BYTES;
        if capacity <= merkle::UNIT_BYTES {
            let answer = self.get(source, &url, None).await?;
            let content = attempt::read_all(source, answer.body, capacity).await?;
            let layout = Layout::raw(leaves.clone(), ClaimedLength(content.len() as u64))?;
            let pieces = layout.verify(0, content)?;
            return opened(layout, vec![pieces]);
        }
        let last = ByteRange::new(capacity - LEAF_BYTES, capacity);
        let answer = self.get(source, &url, Some(last)).await?;
        let bytes = attempt::read_all(source, answer.body, LEAF_BYTES).await?;
        let claimed = ClaimedLength(last.start() + bytes.len() as u64);
        let layout = Layout::raw(leaves.clone(), claimed)?;
        let pieces = layout.verify(layout.piece_count() - 1, bytes)?;
        opened(layout, vec![pieces])
    }

    async fn open_delivery(
        &self,
        source: &Source,
        place: &str,
        leaves: &Leaves,
        kind: DeliveryType,
    ) -> Result<OpenedBlob, AttemptError> {
        let url = blob_url(source, place, &format!("/{kind}/{}", leaves.id()));
        let probe = ByteRange::new(0, UNIT_H_PROBE_BYTES);
        let answer = self.get(source, &url, Some(probe)).await?;
        let mut head = read_prefix(source, answer.body, UNIT_H_PROBE_BYTES).await?;
        let layout = Layout::from_unit_h(kind, leaves.clone(), &head)?;
        let encoded = layout.encoded_length().0;
        if answer.total_claimed.is_some_and(|total| total != encoded) {
            return Err(AttemptError::Unexpected(format!("its seek table ends at {encoded}, its total differs")));
        }
        if layout.unit_count() == 1 || encoded <= head.len() as u64 {
            let rest = ByteRange::new(head.len() as u64, encoded);
            if !rest.is_empty() {
                let answer = self.get(source, &url, Some(rest)).await?;
                check_identity(&layout, &answer)?;
                let bytes = attempt::read_all(source, answer.body, rest.len()).await?;
                head = [head, bytes].concat().into();
            }
            let body = layout.piece_range(0).start()..encoded;
            let body = head.get(ByteRange::new(body.start, body.end).within(0)).map(|part| head.slice_ref(part));
            let body = body.ok_or_else(|| AttemptError::Unexpected("ends early".to_owned()))?;
            let pieces = verify_each(&layout, 0..layout.piece_count(), body)?;
            return opened(layout, pieces);
        }
        let last = layout.piece_count() - 1;
        let range = layout.piece_range(last);
        let answer = self.get(source, &url, Some(range)).await?;
        check_identity(&layout, &answer)?;
        let bytes = attempt::read_all(source, answer.body, range.len()).await?;
        let pieces = layout.verify(last, bytes)?;
        opened(layout, vec![pieces])
    }

    /// From a source without leaves (a plain file server, a real Fuchsia one): the whole blob, then the whole check.
    async fn open_whole(
        &self,
        source: &Source,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> Result<OpenedBlob, AttemptError> {
        let path = match encoding {
            Encoding::Raw => format!("/{id}"),
            Encoding::Delivery(kind) => format!("/{kind}/{id}"),
        };
        let answer = self.get(source, &blob_url(source, place, &path), None).await?;
        let blob = attempt::read_all(source, answer.body, BLOB_WITHOUT_LEAVES_BYTES_MAX).await?;
        let tree = match encoding {
            Encoding::Raw => merkle::build(&blob),
            Encoding::Delivery(_) => delivery::content_tree(&blob)
                .map_err(|error| AttemptError::Unexpected(format!("not a blob: {error}")))?,
        };
        if tree.id != id {
            return Err(AttemptError::WrongContent { found: tree.id });
        }
        let layout = match encoding {
            Encoding::Raw => Layout::raw(tree.leaves, tree.length.into())?,
            Encoding::Delivery(kind) => Layout::from_unit_h(kind, tree.leaves, &blob)?,
        };
        let start = usize::try_from(layout.piece_range(0).start()).expect("within a blob in memory");
        let pieces = verify_each(&layout, 0..layout.piece_count(), blob.slice(start..))?;
        opened(layout, pieces)
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
        let mut next = pieces.start;
        if next >= pieces.end {
            return Ok(());
        }
        while let Some(source) = round.next().await {
            match self.pieces_from(source, place, layout, &mut next, pieces.end, sink).await {
                Ok(()) => {
                    source.succeeded();
                    return Ok(());
                }
                Err(error) => round.failed(source, &error),
            }
        }
        Err(round.give_up())
    }

    async fn pieces_from(
        &self,
        source: &Source,
        place: &str,
        layout: &Layout,
        next: &mut u32,
        end: u32,
        sink: &mut (dyn FnMut(VerifiedPieces) + Send),
    ) -> Result<(), AttemptError> {
        let range = ByteRange::new(layout.piece_range(*next).start(), layout.piece_range(end - 1).end());
        if range.is_empty() {
            sink(layout.verify(*next, Bytes::new())?);
            *next = end;
            return Ok(());
        }
        let path = match layout.encoding() {
            Encoding::Raw => format!("/{}", layout.id()),
            Encoding::Delivery(kind) => format!("/{kind}/{}", layout.id()),
        };
        let answer = self.get(source, &blob_url(source, place, &path), Some(range)).await?;
        check_identity(layout, &answer)?;
        let mut body = answer.body;
        let mut pending = BytesMut::new();
        let mut received = 0;
        while *next < end {
            let Some(chunk) = body.next().await else {
                return Err(AttemptError::Unexpected(format!("ended after {received} of {} bytes", range.len())));
            };
            let chunk = chunk?;
            source.count_body_bytes(chunk.len());
            received += chunk.len() as u64;
            pending.extend_from_slice(&chunk);
            while let Some((count, bytes)) = whole_pieces(layout, *next, end, pending.len()) {
                sink(layout.verify(*next, pending.split_to(bytes).freeze())?);
                *next += count;
            }
        }
        Ok(())
    }

    async fn get(&self, source: &Source, url: &str, range: Option<ByteRange>) -> Result<Answer, AttemptError> {
        attempt::get(&self.client, source, &self.agent, url, range, &HeaderMap::new()).await
    }
}

fn blob_url(source: &Source, place: &str, path: &str) -> String {
    if place.is_empty() { source.blobs.join(path) } else { source.url.join(&format!("{place}/blobs{path}")) }
}

/// The opened blob, if the pieces prove its length.
fn opened(layout: Layout, early: Vec<VerifiedPieces>) -> Result<OpenedBlob, AttemptError> {
    let length = early.iter().find_map(VerifiedPieces::length);
    let length = length.ok_or_else(|| AttemptError::Unexpected("its last piece does not end the blob".to_owned()))?;
    Ok(OpenedBlob { layout, length, early })
}

/// Verifies consecutive pieces that are wholly in memory, in segments of bounded size.
fn verify_each(
    layout: &Layout,
    pieces: std::ops::Range<u32>,
    mut encoded: Bytes,
) -> Result<Vec<VerifiedPieces>, AttemptError> {
    let mut verified = Vec::new();
    let mut next = pieces.start;
    while next < pieces.end {
        let Some((count, bytes)) = whole_pieces(layout, next, pieces.end, encoded.len()) else {
            return Err(AttemptError::Unexpected("ends inside a piece".to_owned()));
        };
        verified.push(layout.verify(next, encoded.split_to(bytes))?);
        next += count;
    }
    if !encoded.is_empty() {
        return Err(AttemptError::Unexpected("goes on after its last piece".to_owned()));
    }
    Ok(verified)
}

/// How many whole pieces from `first` on are in the next `available` bytes, and their size: at least one, and no more than
/// make a segment.
fn whole_pieces(layout: &Layout, first: u32, end: u32, available: usize) -> Option<(u32, usize)> {
    let base = layout.piece_range(first).start();
    let mut whole = None;
    for piece in first..end {
        let bytes = usize::try_from(layout.piece_range(piece).end() - base).expect("units fit memory");
        if bytes > available || (whole.is_some() && bytes > SEGMENT_BYTES_MAX) {
            break;
        }
        whole = Some((piece - first + 1, bytes));
    }
    whole
}

/// Bytes of one encoded form must all come from that form: a source says which it has by its ETag.
fn check_identity(layout: &Layout, answer: &Answer) -> Result<(), AttemptError> {
    if answer.total_claimed.is_some_and(|total| total != layout.encoded_length().0) {
        return Err(AttemptError::OtherIdentity);
    }
    match (&answer.etag, layout.identity()) {
        (Some(etag), Some(identity)) if !etag.contains(&identity.etag_hex()) => Err(AttemptError::OtherIdentity),
        _ => Ok(()),
    }
}

/// The first `bytes_max` bytes of a body that may be longer (a source that ignores ranges).
async fn read_prefix(
    source: &Source,
    mut body: colibri_transport::Body,
    bytes_max: u64,
) -> Result<Bytes, AttemptError> {
    let limit = usize::try_from(bytes_max).expect("a prefix fits memory");
    let mut head = BytesMut::new();
    while head.len() < limit {
        let Some(chunk) = body.next().await else { break };
        let chunk = chunk?;
        source.count_body_bytes(chunk.len());
        head.extend_from_slice(&chunk[..chunk.len().min(limit - head.len())]);
    }
    Ok(head.freeze())
}
