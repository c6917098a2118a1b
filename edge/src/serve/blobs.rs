//! Blobs and leaves: what is proven first, then the head, then the body from the cache, whole or in parts.

use std::sync::Arc;

use colibri_api::{ApiError, ETag, Multipart, Piece, Representation, cache as cache_control, head_for};
use colibri_common::{BlobId, ByteRange};
use colibri_fetch::FetchError;
use colibri_package::delivery::Encoding;
use colibri_transport::{Body, BodySender, Response};

use super::{Asked, OCTETS, ReadApi, api_error, built};
use crate::freshness::Freshness;
use crate::reader::Reader;
use crate::shapes::Opened;

impl ReadApi {
    pub(super) async fn leaves(&self, place: &str, id: BlobId, asked: &Asked) -> Result<Response, ApiError> {
        let (leaves, freshness) = self.parts.cache.leaves(&asked.fetcher, place, id).await;
        let wire = leaves.map_err(|error| api_error(&error))?.wire();
        let representation = blob_representation(wire.len() as u64, ETag::leaves(id));
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let body = Body::segments(plan.segments(&wire));
        Ok(self.finish(plan, body, freshness, asked))
    }

    pub(super) async fn blob(
        &self,
        place: &str,
        id: BlobId,
        encoding: Encoding,
        asked: &Asked,
    ) -> Result<Response, ApiError> {
        match self.try_blob(place, id, encoding, asked).await {
            // The form that was opened is no longer to be had, and is forgotten by now: there may be another.
            Err(FetchError::AllFailed { other_form: true, .. }) => self.try_blob(place, id, encoding, asked).await,
            answer => answer,
        }
        .map_err(|error| api_error(&error))
    }

    async fn try_blob(
        &self,
        place: &str,
        id: BlobId,
        encoding: Encoding,
        asked: &Asked,
    ) -> Result<Response, FetchError> {
        let (opened, open_freshness) = self.parts.cache.open(&asked.fetcher, place, id, encoding).await;
        let opened = opened?;
        let layout = &opened.layout;
        let etag = match (encoding, layout.identity()) {
            (Encoding::Delivery(kind), Some(identity)) => ETag::delivery(id, kind.number(), identity.as_bytes()),
            _ => ETag::raw(id),
        };
        // The length was proven when the blob was opened.
        let representation = blob_representation(layout.encoded_length().0, etag);
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let (body, freshness) = match (&plan.body, &plan.parts) {
            (Some(range), _) => self.one(place, opened, *range, asked).await?,
            (None, Some(parts)) => self.several(place, &opened, parts.clone(), asked).await?,
            (None, None) => (Body::full(plan.problem.clone()), None),
        };
        // Small blobs come whole when they are opened, and are in memory by the time their unit is asked for.
        let freshness = freshness.map_or(open_freshness, |freshness| freshness.max(open_freshness));
        Ok(self.finish(plan, body, freshness, asked))
    }

    /// One stretch of a blob. Nothing is announced before there is something to send: an upstream that is away is an answer,
    /// not a broken body.
    async fn one(
        &self,
        place: &str,
        opened: Arc<Opened>,
        range: ByteRange,
        asked: &Asked,
    ) -> Result<Sendable, FetchError> {
        let mut reader = Reader::new(self.parts.cache.clone(), &asked.fetcher, place, opened, range);
        reader.wait().await?;
        let freshness = reader.freshness();
        let body = match reader.whole() {
            Some(segments) => Body::segments(segments),
            None => {
                let (sender, body) = Body::channel(Some(range.len()));
                self.tasks.spawn(reader.stream(sender));
                body
            }
        };
        Ok((body, freshness))
    }

    /// Several stretches of a blob, one after the other; none is asked for before the reader has come to it.
    async fn several(
        &self,
        place: &str,
        opened: &Arc<Opened>,
        parts: Multipart,
        asked: &Asked,
    ) -> Result<Sendable, FetchError> {
        let (cache, fetcher, place) = (self.parts.cache.clone(), asked.fetcher.clone(), place.to_owned());
        let opened = opened.clone();
        let reader = move |range| Reader::new(cache.clone(), &fetcher, &place, opened.clone(), range);
        let first = parts.pieces().iter().find_map(|piece| match piece {
            Piece::Content(range) => Some(reader(*range)),
            Piece::Text(_) => None,
        });
        let Some(mut first) = first else { return Ok((Body::empty(), None)) };
        first.wait().await?;
        let freshness = first.freshness();
        let (sender, body) = Body::channel(Some(parts.length()));
        self.tasks.spawn(send_parts(parts, first, reader, sender));
        Ok((body, freshness))
    }
}

/// A body, and where its first unit comes from, if it needs one.
type Sendable = (Body, Option<Freshness>);

async fn send_parts(
    parts: Multipart,
    first: Reader,
    reader: impl Fn(ByteRange) -> Reader + Send,
    mut sender: BodySender,
) {
    let mut first = Some(first);
    for piece in parts.pieces() {
        let range = match piece {
            Piece::Content(range) => *range,
            Piece::Text(text) => match sender.send(text.clone()).await {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let reader = first.take().unwrap_or_else(|| reader(range));
        let (part, body) = Body::channel(Some(range.len()));
        let ((), sent) = tokio::join!(reader.stream(part), forward(body, &mut sender));
        match sent {
            Sent::All => {}
            Sent::ReaderGone => return,
            Sent::Failed(reason) => return sender.abort(reason),
        }
    }
    sender.finish();
}

/// How one part ended.
enum Sent {
    All,
    ReaderGone,
    Failed(String),
}

async fn forward(mut body: Body, sender: &mut BodySender) -> Sent {
    loop {
        match body.next().await {
            None => return Sent::All,
            Some(Err(error)) => return Sent::Failed(error.to_string()),
            Some(Ok(bytes)) => {
                if sender.send(bytes).await.is_err() {
                    return Sent::ReaderGone;
                }
            }
        }
    }
}

fn blob_representation(length: u64, etag: ETag) -> Representation {
    let cache_control = cache_control::IMMUTABLE;
    Representation { etag: Some(etag), accept_ranges: true, ..built(length, cache_control, OCTETS) }
}
