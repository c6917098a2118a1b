//! Opening a blob at one source: what must be proven before the first byte is announced, its length above all.
//!
//! Order of a cold blob (architecture §6): leaves, then unit H of a delivery blob, then the last leaf or frame, which proves
//! the length. Small blobs skip the probe: they are fetched whole. From sources without leaves, or without ranges,
//! the whole blob is fetched and verified.

use bytes::Bytes;
use colibri_api::ETag;
use colibri_common::limits::LEAVES_LIST_BYTES_MAX;
use colibri_common::merkle::{self, Builder, LEAF_BYTES, Leaves, LeavesError};
use colibri_common::{BlobId, ByteRange, ClaimedLength};
use colibri_package::delivery::{
    self, DeliveryError, DeliveryType, Encoding, Layout, StrictError, UNIT_H_PROBE_BYTES, VerifiedPieces,
};
use http::HeaderMap;

use crate::assemble::Assembler;
use crate::attempt::{Answer, Attempt, ended_early};
use crate::blob::{OpenedBlob, ProvenLeaves};
use crate::error::AttemptError;
use crate::evidence::Refused;
use crate::limits::{BLOB_WITHOUT_LEAVES_BYTES_MAX, CONTENT_WITHOUT_LEAVES_BYTES_MAX, OPEN_WHOLE_BYTES_MAX};
use crate::signed_size::SignedSize;

impl Attempt<'_> {
    /// The address of a form of a blob. `place` is `/REPO` for sources that serve several repositories, else empty.
    pub(crate) fn url(&self, place: &str, id: BlobId, encoding: Encoding) -> String {
        match encoding {
            Encoding::Raw => self.join(place, &format!("/{id}")),
            Encoding::Delivery(kind) => self.join(place, &format!("/{kind}/{id}")),
        }
    }

    fn join(&self, place: &str, path: &str) -> String {
        if place.is_empty() {
            self.source.blobs.join(path)
        } else {
            self.source.url.join(&format!("{place}/blobs{path}"))
        }
    }

    pub(crate) async fn part(&self, url: &str, range: Option<ByteRange>) -> Result<Answer, AttemptError> {
        self.get(url, range, HeaderMap::new()).await
    }

    /// The leaves; a source that says there is one leaf shows the blob to prove it, in the `expected` encoding, else raw.
    pub(crate) async fn leaves(
        &self,
        place: &str,
        id: BlobId,
        expected: Encoding,
    ) -> Result<ProvenLeaves, AttemptError> {
        let answer = self.part(&self.join(place, &format!("/leaves/{id}")), None).await?;
        let promised = answer.promised;
        let signed_bytes = self.signed.map(SignedSize::leaves_bytes).filter(|bytes| *bytes <= LEAVES_LIST_BYTES_MAX);
        let list = self.read_all(answer, signed_bytes.unwrap_or(LEAVES_LIST_BYTES_MAX)).await;
        let list = list.map_err(|error| error.if_signed(signed_bytes))?;
        let leaves = Leaves::check(id, list.clone());
        let leaves = leaves.map_err(|error| AttemptError::from(error).shown(0, &list).or_cut_short(promised))?;
        if leaves.count() > 1 {
            return Ok(ProvenLeaves { leaves, shown: None });
        }
        let shown = match self.open(place, &leaves, expected).await {
            Err(AttemptError::NotFound { .. }) if expected != Encoding::Raw => self.open_raw(place, &leaves).await?,
            shown => shown?,
        };
        Ok(ProvenLeaves { leaves, shown: Some(shown) })
    }

    /// Opens a blob whose leaves are known.
    pub(crate) async fn open(
        &self,
        place: &str,
        leaves: &Leaves,
        encoding: Encoding,
    ) -> Result<OpenedBlob, AttemptError> {
        match encoding {
            Encoding::Raw => self.open_raw(place, leaves).await,
            Encoding::Delivery(kind) => self.open_delivery(place, leaves, kind).await,
        }
    }

    async fn open_raw(&self, place: &str, leaves: &Leaves) -> Result<OpenedBlob, AttemptError> {
        let url = self.url(place, leaves.id(), Encoding::Raw);
        let capacity = leaves.count() * LEAF_BYTES;
        if capacity <= OPEN_WHOLE_BYTES_MAX {
            let answer = self.part(&url, None).await?;
            let promised = answer.promised;
            if let Some(claimed) = promised.filter(|promised| *promised > capacity && leaves.count() == 1) {
                // It says at once that the blob has one leaf and that it has more: the list of none is what is bad.
                return Err(AttemptError::from(LeavesError::Count { count: 1, claimed }).shown(0, &[]));
            }
            let content = self.read_all(answer, capacity).await.map_err(|error| error.if_signed(Some(capacity)))?;
            let proven = Layout::raw(leaves.clone(), ClaimedLength(content.len() as u64))
                .map_err(|error| Refused::new(0, &content, error))
                .and_then(|layout| Ok((verify_all(&layout, 0..layout.piece_count(), &content)?, layout)));
            let (pieces, layout) = proven.map_err(|error| AttemptError::from(error).or_cut_short(promised))?;
            return opened(layout, pieces);
        }
        let last = ByteRange::new(capacity - LEAF_BYTES, capacity);
        let answer = self.part(&url, Some(last)).await?;
        if let Some(claimed) = answer.total_claimed.filter(|claimed| leaves.fits(ClaimedLength(*claimed)).is_err()) {
            return Err(other_length(claimed, format!("{} leaves", leaves.count())));
        }
        let promised = answer.promised.ok_or_else(|| ended_early(0, None))?;
        let bytes = self.read_exactly(answer, promised.min(LEAF_BYTES)).await?;
        if bytes.is_empty() || promised > LEAF_BYTES {
            let why = "says a length that does not fit the blob's leaves";
            return Err(AttemptError::Unexpected(why.to_owned()));
        }
        let layout = Layout::raw(leaves.clone(), ClaimedLength(last.start() + bytes.len() as u64))?;
        let pieces = verify_all(&layout, layout.piece_count() - 1..layout.piece_count(), &bytes)?;
        opened(layout, pieces)
    }

    async fn open_delivery(
        &self,
        place: &str,
        leaves: &Leaves,
        kind: DeliveryType,
    ) -> Result<OpenedBlob, AttemptError> {
        let url = self.url(place, leaves.id(), Encoding::Delivery(kind));
        let answer = self.part(&url, Some(ByteRange::new(0, UNIT_H_PROBE_BYTES))).await?;
        let (total, promised, etag) = (answer.total_claimed, answer.promised, answer.etag.clone());
        let head = self.read_prefix(answer, UNIT_H_PROBE_BYTES).await?;
        let layout = Layout::from_unit_h(kind, leaves.clone(), &head);
        let layout = layout.map_err(|error| AttemptError::from(error).shown(0, &head).or_cut_short(promised))?;
        let encoded = layout.encoded_length().0;
        if total.is_some_and(|total| total != encoded) {
            return Err(AttemptError::Unexpected(format!("its seek table ends at {encoded}, its total differs")));
        }
        if Form::named(&layout, etag.as_deref()) == Some(false) {
            return Err(AttemptError::Unexpected("its entity tag names another form than its header has".to_owned()));
        }
        self.not_over_signed(&layout)?;
        let pieces = layout.piece_count();
        let in_hand = head.len() as u64;
        let first = layout.piece_range(0).start();
        // A small blob is fetched to its end, of others the last piece.
        let (wanted, rest) = if encoded <= in_hand || (layout.unit_count() == 1 && encoded <= OPEN_WHOLE_BYTES_MAX) {
            (0..pieces, ByteRange::new(in_hand.min(encoded), encoded))
        } else {
            (pieces - 1..pieces, layout.piece_range(pieces - 1))
        };
        let mut bytes = Vec::new();
        if wanted.start == 0 {
            bytes.extend_from_slice(&head[ByteRange::new(first, in_hand.min(encoded)).within(0)]);
        }
        if rest.is_empty() {
            return opened(layout.clone(), verify_all(&layout, wanted, &bytes)?);
        }
        let answer = self.part(&url, Some(rest)).await?;
        let form = Form::of(&layout, &answer)?;
        bytes.extend_from_slice(&self.read_exactly(answer, rest.len()).await?);
        match verify_all(&layout, wanted, &bytes) {
            Ok(verified) => opened(layout, verified),
            Err(error) => Err(self.judge(&url, &layout, form, error).await),
        }
    }

    /// The form that a source has may be no longer than the one that was signed.
    fn not_over_signed(&self, layout: &Layout) -> Result<(), AttemptError> {
        match self.signed.and_then(|signed| signed.encoded_bytes) {
            Some(signed_bytes) if layout.encoded_length().0 > signed_bytes => {
                Err(AttemptError::OverSigned { signed_bytes }.shown(signed_bytes, &[]))
            }
            _ => Ok(()),
        }
    }

    /// The whole blob, then the whole check. On a thread for blocking work: it may take a second.
    pub(crate) async fn open_whole(
        &self,
        place: &str,
        id: BlobId,
        encoding: Encoding,
    ) -> Result<OpenedBlob, AttemptError> {
        let answer = self.part(&self.url(place, id, encoding), None).await?;
        let promised = answer.promised;
        let signed_bytes = self.signed.and_then(|signed| signed.of(encoding));
        let signed_bytes = signed_bytes.filter(|bytes| *bytes <= BLOB_WITHOUT_LEAVES_BYTES_MAX);
        let blob = self.read_all(answer, signed_bytes.unwrap_or(BLOB_WITHOUT_LEAVES_BYTES_MAX)).await;
        let blob = blob.map_err(|error| error.if_signed(signed_bytes))?;
        let proven = tokio::task::spawn_blocking(move || prove_whole(id, encoding, &blob)).await;
        let proven = proven.map_err(|error| AttemptError::Unexpected(error.to_string()))?;
        proven.map_err(|error| error.or_cut_short(promised))
    }

    /// Why these bytes did not verify: they are bad, or of another encoded form, which an honest source may have. Unless the
    /// source named its form, its unit H is asked for.
    pub(crate) async fn judge(&self, url: &str, layout: &Layout, form: Form, refused: Refused) -> AttemptError {
        let (Form::Unknown, Encoding::Delivery(kind)) = (form, layout.encoding()) else { return refused.into() };
        let looked = async {
            let answer = self.part(url, Some(ByteRange::new(0, UNIT_H_PROBE_BYTES))).await?;
            self.read_prefix(answer, UNIT_H_PROBE_BYTES).await
        };
        match looked.await {
            Err(failure) => {
                AttemptError::Unexpected(format!("sent what does not fit ({refused}), then failed: {failure}"))
            }
            Ok(head) => match Layout::from_unit_h(kind, layout.leaves().clone(), &head) {
                Ok(other) if other.identity() != layout.identity() => AttemptError::OtherIdentity,
                _ => refused.into(),
            },
        }
    }
}

/// Whether a source says that it answers from the encoded form that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its entity tag says so, or there is one form only.
    Same,
    /// It says nothing that we understand: a plain file server.
    Unknown,
}

impl Form {
    /// Bytes of one encoded form must all come from that form; an answer that says it comes from another is refused.
    pub fn of(layout: &Layout, answer: &Answer) -> Result<Self, AttemptError> {
        let length = layout.encoded_length().0;
        let claimed = answer.total_claimed.filter(|total| *total != length);
        match (layout.encoding(), Self::named(layout, answer.etag.as_deref())) {
            (Encoding::Raw, _) | (_, Some(true)) => match claimed {
                Some(total) => Err(other_length(total, length.to_string())),
                None => Ok(Self::Same),
            },
            (Encoding::Delivery(_), Some(false)) => Err(AttemptError::OtherIdentity),
            (Encoding::Delivery(_), None) if claimed.is_some() => Err(AttemptError::OtherIdentity),
            (Encoding::Delivery(_), None) => Ok(Self::Unknown),
        }
    }

    /// Whether an entity tag names the form of `layout`; nothing if it names none, as those of plain file servers.
    fn named(layout: &Layout, etag: Option<&str>) -> Option<bool> {
        let tag = etag?.parse::<ETag>().ok()?.as_delivery()?;
        let identity = layout.identity()?;
        Some(tag.id == layout.id() && identity.as_bytes().starts_with(&tag.identity_prefix))
    }
}

fn other_length(claimed_bytes: u64, proven: String) -> AttemptError {
    AttemptError::OtherLength { claimed_bytes, proven }.shown(0, &[])
}

fn prove_whole(id: BlobId, encoding: Encoding, blob: &Bytes) -> Result<OpenedBlob, AttemptError> {
    let tree = match encoding {
        Encoding::Raw => merkle::build(blob),
        Encoding::Delivery(_) => {
            let mut builder = Builder::new();
            let mut content = 0;
            let decoded = delivery::decode_frames(blob, |piece| {
                content += piece.len() as u64;
                builder.push(piece);
                if content > CONTENT_WITHOUT_LEAVES_BYTES_MAX {
                    return Err(DeliveryError::ContentTooLarge(content));
                }
                Ok(())
            });
            match decoded {
                Err(DeliveryError::ContentTooLarge(bytes)) => {
                    return Err(AttemptError::Unexpected(format!(
                        "has no leaves and decodes to {bytes} bytes or more"
                    )));
                }
                decoded => decoded.map_err(|error| AttemptError::BadForm(error).shown(0, blob))?,
            }
            builder.finish()
        }
    };
    if tree.id != id {
        return Err(AttemptError::WrongContent { expected: id, found: tree.id }.shown(0, blob));
    }
    let layout = match encoding {
        Encoding::Raw => Layout::raw(tree.leaves, tree.length.into())?,
        Encoding::Delivery(kind) => {
            Layout::from_unit_h(kind, tree.leaves, blob).map_err(|error| AttemptError::from(error).shown(0, blob))?
        }
    };
    let start = ByteRange::new(0, layout.piece_range(0).start()).within(0).end;
    let pieces = verify_all(&layout, 0..layout.piece_count(), &blob[start..])?;
    opened(layout, pieces)
}

/// The opened blob, if the pieces prove its length.
fn opened(layout: Layout, early: Vec<VerifiedPieces>) -> Result<OpenedBlob, AttemptError> {
    let length = early.iter().find_map(VerifiedPieces::length);
    let length = length.ok_or_else(|| AttemptError::Unexpected("its last piece does not end the blob".to_owned()))?;
    Ok(OpenedBlob { layout, length, early })
}

/// Verifies consecutive pieces that are wholly in memory; `encoded` is exactly their bytes. No run crosses the border of a
/// unit.
fn verify_all(
    layout: &Layout,
    pieces: std::ops::Range<u32>,
    mut encoded: &[u8],
) -> Result<Vec<VerifiedPieces>, Refused> {
    let (offset, all) = (layout.piece_range(pieces.start).start(), encoded);
    let not_whole = || Refused::new(offset, all, StrictError::NotWholePieces { offset, got: all.len() as u64 });
    let mut verified = Vec::new();
    let mut next = pieces.start;
    while next < pieces.end {
        let end = layout.pieces_of(layout.unit_of(next)).end.min(pieces.end);
        let mut assembler = Assembler::new(layout, next..end);
        let taken = assembler.push(encoded, &mut |run| verified.push(run))?;
        if !assembler.is_done() {
            return Err(not_whole());
        }
        (encoded, next) = (&encoded[taken..], end);
    }
    if encoded.is_empty() { Ok(verified) } else { Err(not_whole()) }
}
