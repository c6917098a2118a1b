//! [`Content`] and [`Reader`]: the bytes of an answer, read from memory or disk a piece at a time, and the body made of them.
//!
//! A stored delivery blob is sent as it lies; raw content is verified leaf by leaf as it is read, also when it is decoded
//! from a delivery blob, so that a damaged disk ends an answer instead of lengthening it with wrong bytes.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use colibri_api::{Multipart, Piece};
use colibri_common::ByteRange;
use colibri_package::delivery::Layout;
use colibri_transport::{Body, BodySender};

use crate::blob_folders::StoredBlob;
use crate::error::OriginError;
use crate::file::blocking;
use crate::limits::PIECE_BYTES;
use crate::observe::Observation;
use crate::proof::corrupt;

/// Where the bytes of a representation come from.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// From memory.
    Memory(Bytes),
    /// The file as it lies.
    Stored(StoredBlob),
    /// The content of the stored form, which has this layout.
    Decoded(StoredBlob, Layout),
}

/// Reads a range of a [`Content`] in order. Blocks.
#[derive(Debug)]
enum Reader {
    Memory(Option<Bytes>),
    Stored { blob: StoredBlob, left: ByteRange },
    Decoded { blob: StoredBlob, layout: Layout, range: ByteRange, pieces: Range<u32>, ready: VecDeque<Bytes> },
    Parts { content: Content, left: VecDeque<Piece>, now: Option<Box<Reader>> },
}

impl Content {
    fn reader(self, range: ByteRange) -> Reader {
        match self {
            Self::Memory(bytes) => Reader::Memory((!range.is_empty()).then(|| bytes.slice(range.within(0)))),
            Self::Stored(blob) => Reader::Stored { blob, left: range },
            Self::Decoded(blob, layout) => {
                let pieces = layout.pieces_of_content(range);
                Reader::Decoded { blob, layout, range, pieces, ready: VecDeque::new() }
            }
        }
    }
}

impl Reader {
    /// The next bytes; nothing at the end.
    fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        match self {
            Self::Memory(bytes) => Ok(bytes.take()),
            Self::Stored { left, .. } if left.is_empty() => Ok(None),
            Self::Stored { blob, left } => {
                let now = ByteRange::new(left.start(), left.end().min(left.start() + PIECE_BYTES));
                *left = ByteRange::new(now.end(), left.end());
                blob.file.read(now).map(Some)
            }
            Self::Decoded { blob, layout, range, pieces, ready } => {
                if ready.is_empty() && pieces.start < pieces.end {
                    let run = next_run(layout, pieces);
                    let encoded = blob.file.read(layout.pieces_range(run.clone()))?;
                    let verified = layout.verify(run.start, encoded).map_err(|error| corrupt(blob, &error))?;
                    for run in verified.content() {
                        let here =
                            ByteRange::new(run.offset(), run.offset() + run.bytes().len() as u64).intersect(*range);
                        ready.push_back(run.bytes().slice(here.within(run.offset())));
                    }
                }
                Ok(ready.pop_front())
            }
            Self::Parts { content, left, now } => loop {
                if let Some(bytes) = now.as_mut().map(|now| now.next()).transpose()?.flatten() {
                    return Ok(Some(bytes));
                }
                match left.pop_front() {
                    None => return Ok(None),
                    Some(Piece::Text(text)) => {
                        *now = None;
                        return Ok(Some(text));
                    }
                    Some(Piece::Content(range)) => *now = Some(Box::new(content.clone().reader(range))),
                }
            },
        }
    }
}

/// Takes the next run off `pieces`: as many as have [`PIECE_BYTES`] together, at least one.
fn next_run(layout: &Layout, pieces: &mut Range<u32>) -> Range<u32> {
    let first = pieces.start;
    let limit = layout.piece_range(first).start() + PIECE_BYTES;
    let mut next = first + 1;
    while next < pieces.end && layout.piece_range(next).end() <= limit {
        next += 1;
    }
    pieces.start = next;
    first..next
}

/// Makes the body that sends `range` of `content`. The first bytes are read before this returns, so a file that cannot be read
/// at all is an error and not a broken answer.
pub(crate) async fn send(content: Content, range: ByteRange, observation: Observation) -> Result<Body, OriginError> {
    let mut reader = content.reader(range);
    if let Reader::Memory(bytes) = &mut reader {
        let bytes = bytes.take().unwrap_or_default();
        observation.finish(bytes.len() as u64);
        return Ok(Body::full(bytes));
    }
    stream(reader, range.len(), observation).await
}

/// Makes the body that sends several ranges of `content`, each with its head. Of the first a byte is read before this returns.
pub(crate) async fn send_parts(
    content: Content,
    parts: &Multipart,
    observation: Observation,
) -> Result<Body, OriginError> {
    if let Content::Memory(bytes) = &content {
        observation.finish(parts.length());
        return Ok(Body::segments(parts.segments(bytes)));
    }
    // The head of the first part is put back in front of its first bytes.
    let mut reader = Reader::Parts { content, left: parts.pieces().iter().cloned().collect(), now: None };
    let head = reader.next()?.unwrap_or_default();
    let (reader, first) = blocking(move || reader.next().map(|first| (reader, first))).await?;
    let first = [&head[..], &first.unwrap_or_default()[..]].concat();
    Ok(stream_from(reader, first.into(), parts.length(), observation))
}

async fn stream(mut reader: Reader, length: u64, observation: Observation) -> Result<Body, OriginError> {
    let (reader, first) = blocking(move || reader.next().map(|first| (reader, first))).await?;
    Ok(stream_from(reader, first.unwrap_or_default(), length, observation))
}

fn stream_from(reader: Reader, first: Bytes, length: u64, observation: Observation) -> Body {
    if first.len() as u64 == length {
        observation.finish(length);
        return Body::full(first);
    }
    let (sender, body) = Body::channel(Some(length));
    tokio::spawn(pump(sender, reader, first, observation));
    body
}

/// Feeds a body until its end, an error, or the reader's departure.
async fn pump(mut sender: BodySender, mut reader: Reader, first: Bytes, observation: Observation) {
    let mut next = first;
    let mut sent_bytes = 0;
    let error = loop {
        let length = next.len() as u64;
        if sender.send(next).await.is_err() {
            break None;
        }
        sent_bytes += length;
        match blocking(move || reader.next().map(|next| (reader, next))).await {
            Ok((same, Some(bytes))) => (reader, next) = (same, bytes),
            Ok((_, None)) => {
                observation.finish(sent_bytes);
                return sender.finish();
            }
            Err(error) => break Some(error),
        }
    };
    observation.finish(sent_bytes);
    if let Some(error) = error {
        tracing::error!(%error, "an answer ends early");
        sender.abort(error.to_client());
    }
}
