//! Entity tags and the conditional fields of a request: what of a representation is to be sent ([`Decision`]).
//!
//! RFC 9110 §8.8.3 and §13. There are no modification dates in this API, so the date forms never match: `If-Range` with a
//! date means "send the whole", `If-Modified-Since` and `If-Unmodified-Since` are not looked at.

use std::fmt;
use std::str::FromStr;

use colibri_common::{BlobId, ByteRange, Digest, hex, unhex};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::coding::Coding;
use crate::limits::ENTITY_TAGS_MAX;
use crate::range::{RangeRequest, resolve_all};

/// Bytes of a SHA-256 digest that show in an entity tag.
const SHOWN_BYTES: usize = 8;

/// An entity tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag {
    weak: bool,
    opaque: String,
}

/// A text that is not an entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entity tag")]
pub struct ETagError;

/// What the entity tag of a delivery blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryTag {
    /// The blob.
    pub id: BlobId,
    /// The delivery type.
    pub delivery_type: u32,
    /// The first 8 bytes of the SHA-256 of unit H: which of the many encodings of the blob this is.
    pub identity_prefix: [u8; SHOWN_BYTES],
}

impl ETag {
    /// `"<blobid>"`: the raw content.
    pub fn raw(id: BlobId) -> Self {
        Self::strong(id.to_string())
    }

    /// `"<blobid>.<type>.<16 hex>"`: a delivery blob whose unit H has this SHA-256.
    pub fn delivery(id: BlobId, delivery_type: u32, identity: &Digest) -> Self {
        Self::strong(format!("{id}.{delivery_type}.{}", hex(&identity[..SHOWN_BYTES])))
    }

    /// `"<blobid>.leaves"`: the leaf list.
    pub fn leaves(id: BlobId) -> Self {
        Self::strong(format!("{id}.leaves"))
    }

    /// `"<16 hex>"`: a file with this SHA-256 (metadata, targets).
    pub fn metadata(sha256: &Digest) -> Self {
        Self::strong(hex(&sha256[..SHOWN_BYTES]))
    }

    /// `"<16 hex>"`, `"<16 hex>-gzip"` or `"<16 hex>-zstd"`: metadata with this SHA-256 when decoded, coded so.
    pub fn coded(sha256: &Digest, coding: Coding) -> Self {
        match coding {
            Coding::Identity => Self::metadata(sha256),
            coding => Self::strong(format!("{}-{}", hex(&sha256[..SHOWN_BYTES]), coding.name())),
        }
    }

    const fn strong(opaque: String) -> Self {
        Self { weak: false, opaque }
    }

    /// True for `W/"..."`.
    pub const fn is_weak(&self) -> bool {
        self.weak
    }

    /// The text between the quotes.
    pub fn opaque(&self) -> &str {
        &self.opaque
    }

    /// Same bytes for sure: both strong and equal.
    pub fn matches_strongly(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Same for the purposes of a cache: equal, weak or not.
    pub fn matches_weakly(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// Takes a delivery blob's tag apart; nothing for any other tag, also for a weak one.
    pub fn as_delivery(&self) -> Option<DeliveryTag> {
        let mut parts = self.opaque.split('.');
        let (id, number, prefix) = (parts.next()?, parts.next()?, parts.next()?);
        if self.weak || parts.next().is_some() {
            return None;
        }
        let delivery_type: u32 = number.parse().ok()?;
        if delivery_type.to_string() != number {
            return None;
        }
        let identity_prefix = unhex(prefix)?.try_into().ok()?;
        Some(DeliveryTag { id: id.parse().ok()?, delivery_type, identity_prefix })
    }

    /// As a header value.
    pub fn to_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(self.to_string().as_bytes())
            .expect("the parser and the makers allow only legal characters")
    }
}

impl FromStr for ETag {
    type Err = ETagError;

    fn from_str(text: &str) -> Result<Self, ETagError> {
        let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |rest| (true, rest));
        let opaque = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(ETagError)?;
        // RFC 9110 §8.8.3: visible characters but the quote; bytes from 0x80 on are allowed there and used by nobody.
        if opaque.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
            Ok(Self { weak, opaque: opaque.to_owned() })
        } else {
            Err(ETagError)
        }
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\"{}\"", if self.weak { "W/" } else { "" }, self.opaque)
    }
}

/// What to send of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// 304: the client has it.
    NotModified,
    /// 200: all of it.
    Full,
    /// 206: a part of it.
    Partial(ByteRange),
    /// 206: several parts, at least two, none of them empty, overlapping or touching.
    Parts(Vec<ByteRange>),
    /// 416: there is no such part.
    RangeNotSatisfiable {
        /// Length of the representation in bytes.
        length: u64,
    },
    /// 412: `If-Match` names only others.
    PreconditionFailed,
}

/// Decides, in the order of RFC 9110 §13.2.2, what a GET or HEAD with these headers gets of a representation of `length`
/// bytes. `Range` counts only for GET and only if `ranges_served`.
pub fn decide(etag: Option<&ETag>, length: u64, ranges_served: bool, method: &Method, headers: &HeaderMap) -> Decision {
    if if_match_fails(etag, headers) {
        return Decision::PreconditionFailed;
    }
    if if_none_match_holds(etag, headers) {
        return Decision::NotModified;
    }
    if !ranges_served || method != Method::GET || !if_range_allows(etag, headers) {
        return Decision::Full;
    }
    let resolved = match RangeRequest::from_headers(headers) {
        RangeRequest::Whole | RangeRequest::Invalid => return Decision::Full,
        // Parts are told apart by a boundary made of the tag.
        RangeRequest::Multiple(_) if etag.is_none() => return Decision::Full,
        RangeRequest::Single(spec) => resolve_all(&[spec], length),
        RangeRequest::Multiple(specs) => resolve_all(&specs, length),
    };
    match resolved {
        Err(unsatisfiable) => Decision::RangeNotSatisfiable { length: unsatisfiable.length },
        Ok(ranges) => match ranges[..] {
            [] => Decision::Full,
            [range] => Decision::Partial(range),
            _ => Decision::Parts(ranges),
        },
    }
}

/// True if the client already has this representation (`If-None-Match`, weak comparison). Needs no length, so a cache may ask
/// before it knows one.
pub fn if_none_match_holds(etag: Option<&ETag>, headers: &HeaderMap) -> bool {
    names(headers, &header::IF_NONE_MATCH, |tag| etag.is_some_and(|etag| etag.matches_weakly(tag))).unwrap_or(false)
}

/// True if the client insists on another representation than this (`If-Match`, strong comparison).
fn if_match_fails(etag: Option<&ETag>, headers: &HeaderMap) -> bool {
    names(headers, &header::IF_MATCH, |tag| etag.is_some_and(|etag| etag.matches_strongly(tag)))
        .is_some_and(|named| !named)
}

/// True if `Range` is to be honoured: no `If-Range`, or one with exactly this strong tag.
fn if_range_allows(etag: Option<&ETag>, headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(header::IF_RANGE).iter();
    match (fields.next(), fields.next()) {
        (None, _) => true,
        (Some(field), None) => {
            let tag = field.to_str().ok().and_then(|text| text.trim().parse::<ETag>().ok());
            tag.zip(etag).is_some_and(|(tag, etag)| tag.matches_strongly(etag))
        }
        (Some(_), Some(_)) => false,
    }
}

/// Whether a list field names a tag that `matches`; `*` names any. Nothing if the field is absent or malformed.
fn names(headers: &HeaderMap, field: &HeaderName, matches: impl Fn(&ETag) -> bool) -> Option<bool> {
    let mut present = false;
    let mut tags_seen = 0;
    for value in headers.get_all(field) {
        let mut rest = value.to_str().ok()?.trim_matches([' ', '\t', ',']);
        if rest == "*" {
            return Some(true);
        }
        present = true;
        while !rest.is_empty() && tags_seen < ENTITY_TAGS_MAX {
            let open = rest.find('"')?;
            let close = open + 1 + rest[open + 1..].find('"')?;
            if matches(&rest[..=close].parse().ok()?) {
                return Some(true);
            }
            tags_seen += 1;
            let after = rest[close + 1..].trim_start_matches([' ', '\t']);
            rest = match after.strip_prefix(',') {
                Some(next) => next.trim_start_matches([' ', '\t', ',']),
                None if after.is_empty() => after,
                None => return None,
            };
        }
    }
    present.then_some(false)
}
