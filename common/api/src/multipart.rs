//! [`Multipart`]: the body of an answer to several ranges, `multipart/byteranges` (RFC 9110 §14.6), as a plan: which texts and
//! which bytes of the representation follow each other. The bytes themselves are the sender's business.

use bytes::Bytes;
use colibri_common::ByteRange;
use http::HeaderValue;

use crate::conditional::ETag;
use crate::limits::BOUNDARY_BYTES_MAX;
use crate::range::ContentRange;

/// What comes next in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text: a boundary with the head of a part, or the end.
    Text(Bytes),
    /// These bytes of the representation.
    Content(ByteRange),
}

/// A body of several parts. Its length is known before its first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipart {
    boundary: String,
    pieces: Vec<Piece>,
    length: u64,
}

impl Multipart {
    /// Plans a body of the parts `ranges` of a representation of `complete` bytes.
    ///
    /// The boundary is made of the entity tag: that names a hash of the content, and nobody can write content that holds its
    /// own hash.
    pub fn new(ranges: &[ByteRange], complete: u64, etag: &ETag, content_type: &HeaderValue) -> Self {
        let boundary = boundary(etag);
        let content_type = content_type.to_str().unwrap_or("application/octet-stream");
        let mut pieces = Vec::with_capacity(ranges.len() * 2 + 1);
        let mut line_end = "";
        for range in ranges {
            let content_range = ContentRange::satisfied(*range, Some(complete));
            let head = format!(
                "{line_end}--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: {content_range}\r\n\r\n"
            );
            pieces.push(Piece::Text(head.into()));
            pieces.push(Piece::Content(*range));
            line_end = "\r\n";
        }
        pieces.push(Piece::Text(format!("{line_end}--{boundary}--\r\n").into()));
        let length = pieces.iter().map(Piece::length).sum();
        Self { boundary, pieces, length }
    }

    /// `Content-Type` of the whole.
    pub fn content_type(&self) -> HeaderValue {
        HeaderValue::try_from(format!("multipart/byteranges; boundary={}", self.boundary)).expect("a token")
    }

    /// Length of the whole in bytes, heads of the parts included.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// What to send, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The whole body, of a representation that is in memory.
    pub fn segments(&self, representation: &Bytes) -> Vec<Bytes> {
        let segment = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Content(range) => representation.slice(range.within(0)),
        };
        self.pieces.iter().map(segment).collect()
    }
}

impl Piece {
    const fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Content(range) => range.len(),
        }
    }
}

fn boundary(etag: &ETag) -> String {
    let token = etag.opaque().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    "part-".chars().chain(token).take(BOUNDARY_BYTES_MAX).collect()
}
