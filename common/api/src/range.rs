//! `Range` and `Content-Range` (RFC 9110 §14): HTTP's inclusive notation on one side, [`ByteRange`] on the other.
//!
//! Of several ranges in one request those that overlap or touch are joined ([`resolve_all`]), so that no answer is longer than
//! the whole and the heads of its parts.

use std::fmt;
use std::str::FromStr;

use colibri_common::ByteRange;
use http::{HeaderMap, HeaderValue, header};

use crate::limits::RANGES_MAX;

/// What the `Range` field of a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeRequest {
    /// No `Range` field.
    Whole,
    /// One range.
    Single(ByteRangeSpec),
    /// Several ranges, in the order asked for.
    Multiple(Vec<ByteRangeSpec>),
    /// Malformed, repeated, another unit than bytes, or more than [`RANGES_MAX`] ranges: ignored, as RFC 9110 §14.2 has it.
    Invalid,
}

/// One byte range as written, not yet fitted to a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRangeSpec {
    /// `first-last`, both inclusive, `first <= last`.
    FromTo {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte.
        last: u64,
    },
    /// `first-`: from there to the end.
    From {
        /// Offset of the first byte.
        first: u64,
    },
    /// `-bytes`: the end of the representation.
    Suffix {
        /// How many bytes.
        bytes: u64,
    },
}

/// No byte of the range exists: 416.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the range lies outside the {length} bytes there are")]
pub struct Unsatisfiable {
    /// Length of the representation in bytes.
    pub length: u64,
}

impl RangeRequest {
    /// Reads the `Range` field of a request.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut fields = headers.get_all(header::RANGE).iter();
        match (fields.next(), fields.next()) {
            (None, _) => Self::Whole,
            (Some(field), None) => field.to_str().map_or(Self::Invalid, Self::parse),
            (Some(_), Some(_)) => Self::Invalid,
        }
    }

    /// Reads the value of a `Range` field.
    pub fn parse(value: &str) -> Self {
        let Some((unit, set)) = value.split_once('=') else { return Self::Invalid };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return Self::Invalid;
        }
        let elements = set.split(',').map(trim_ows).filter(|element| !element.is_empty());
        // One more than is served, to see that there are too many.
        let specs: Option<Vec<_>> = elements.take(RANGES_MAX + 1).map(ByteRangeSpec::parse).collect();
        match specs {
            Some(specs) if specs.len() > RANGES_MAX => Self::Invalid,
            Some(specs) => match specs[..] {
                [] => Self::Invalid,
                [spec] => Self::Single(spec),
                _ => Self::Multiple(specs),
            },
            None => Self::Invalid,
        }
    }
}

impl ByteRangeSpec {
    /// The spec for the bytes of `range`, or nothing if it is empty, which HTTP cannot say.
    pub const fn exactly(range: ByteRange) -> Option<Self> {
        if range.is_empty() { None } else { Some(Self::FromTo { first: range.start(), last: range.end() - 1 }) }
    }

    fn parse(element: &str) -> Option<Self> {
        let (first, last) = element.split_once('-')?;
        match (first, last) {
            ("", bytes) => Some(Self::Suffix { bytes: position(bytes)? }),
            (first, "") => Some(Self::From { first: position(first)? }),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::FromTo { first, last })
            }
        }
    }

    /// Fits the range to a representation of `length` bytes, clamping its end. The suffix of an empty representation is
    /// satisfiable (RFC 9110 §14.1.2) and empty: it is answered with 200, since no `Content-Range` can name it.
    pub fn resolve(self, length: u64) -> Result<ByteRange, Unsatisfiable> {
        let unsatisfiable = Unsatisfiable { length };
        match self {
            Self::FromTo { first, .. } | Self::From { first } if first >= length => Err(unsatisfiable),
            Self::Suffix { bytes: 0 } => Err(unsatisfiable),
            Self::FromTo { first, last } => Ok(ByteRange::new(first, last.saturating_add(1).min(length))),
            Self::From { first } => Ok(ByteRange::new(first, length)),
            Self::Suffix { bytes } => Ok(ByteRange::new(length.saturating_sub(bytes), length)),
        }
    }
}

/// Fits several ranges to a representation of `length` bytes: those that no byte answers to are left out, those that overlap or
/// touch become one, which stands where the first of them was asked for (RFC 9110 §15.3.7.2). Empty only if no byte is asked for
/// of an empty representation.
///
/// # Errors
/// None of them has a byte.
pub fn resolve_all(specs: &[ByteRangeSpec], length: u64) -> Result<Vec<ByteRange>, Unsatisfiable> {
    let mut found: Vec<(usize, ByteRange)> = Vec::with_capacity(specs.len());
    for (place, spec) in specs.iter().enumerate() {
        if let Ok(range) = spec.resolve(length) {
            found.push((place, range));
        }
    }
    if found.is_empty() {
        return Err(Unsatisfiable { length });
    }
    found.retain(|(_, range)| !range.is_empty());
    found.sort_unstable_by_key(|(_, range)| range.start());
    let mut joined: Vec<(usize, ByteRange)> = Vec::with_capacity(found.len());
    for (place, range) in found {
        match joined.last_mut() {
            Some((first, last)) if range.start() <= last.end() => {
                *first = place.min(*first);
                *last = ByteRange::new(last.start(), range.end().max(last.end()));
            }
            _ => joined.push((place, range)),
        }
    }
    joined.sort_unstable_by_key(|(place, _)| *place);
    Ok(joined.into_iter().map(|(_, range)| range).collect())
}

impl fmt::Display for ByteRangeSpec {
    /// The value of a `Range` field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromTo { first, last } => write!(f, "bytes={first}-{last}"),
            Self::From { first } => write!(f, "bytes={first}-"),
            Self::Suffix { bytes } => write!(f, "bytes=-{bytes}"),
        }
    }
}

/// The value of a `Content-Range` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    range: Option<ByteRange>,
    complete: Option<u64>,
}

/// Why a text is not a `Content-Range`; the names are those of the Fuchsia resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentRangeError {
    /// It does not start with `bytes `.
    #[error("Content-Range has another unit than bytes")]
    UnsupportedRangeUnit,
    /// It has no slash.
    #[error("Content-Range has no complete length")]
    MalformedHeader,
    /// What follows the slash is neither a number nor `*`.
    #[error("Content-Range has a bad complete length")]
    CompleteLength,
    /// No dash, last before first, or last beyond the complete length.
    #[error("Content-Range has a bad byte range")]
    InvalidByteRange,
    /// The last position is not a number.
    #[error("Content-Range has a bad last position")]
    LastBytePos,
    /// The first position is not a number.
    #[error("Content-Range has a bad first position")]
    FirstBytePos,
}

impl ContentRange {
    /// Says which bytes a 206 carries. An empty range prints as `*`.
    pub const fn satisfied(range: ByteRange, complete: Option<u64>) -> Self {
        Self { range: if range.is_empty() { None } else { Some(range) }, complete }
    }

    /// Says in a 416 how long the representation is.
    pub const fn unsatisfied(length: u64) -> Self {
        Self { range: None, complete: Some(length) }
    }

    /// The bytes carried; nothing for `*`.
    pub const fn range(self) -> Option<ByteRange> {
        self.range
    }

    /// The length of the whole representation; nothing for `*`.
    pub const fn complete(self) -> Option<u64> {
        self.complete
    }

    /// As a header value.
    pub fn to_value(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("digits and punctuation")
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<Self, ContentRangeError> {
        let unit = text.get(..6).ok_or(ContentRangeError::UnsupportedRangeUnit)?;
        if !unit.eq_ignore_ascii_case("bytes ") {
            return Err(ContentRangeError::UnsupportedRangeUnit);
        }
        let (range, complete) = text[6..].split_once('/').ok_or(ContentRangeError::MalformedHeader)?;
        let range = if range == "*" { None } else { Some(parse_content_bytes(range)?) };
        let complete = match complete {
            "*" => None,
            digits => Some(exact_position(digits).ok_or(ContentRangeError::CompleteLength)?),
        };
        if let (Some(range), Some(complete)) = (range, complete)
            && range.end() > complete
        {
            return Err(ContentRangeError::InvalidByteRange);
        }
        Ok(Self { range, complete })
    }
}

fn parse_content_bytes(text: &str) -> Result<ByteRange, ContentRangeError> {
    let (first, last) = text.split_once('-').ok_or(ContentRangeError::InvalidByteRange)?;
    let first = exact_position(first).ok_or(ContentRangeError::FirstBytePos)?;
    let end = exact_position(last).and_then(|last| last.checked_add(1)).ok_or(ContentRangeError::LastBytePos)?;
    if end <= first { Err(ContentRangeError::InvalidByteRange) } else { Ok(ByteRange::new(first, end)) }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes ")?;
        match self.range {
            Some(range) => write!(f, "{}-{}", range.start(), range.end() - 1)?,
            None => f.write_str("*")?,
        }
        match self.complete {
            Some(complete) => write!(f, "/{complete}"),
            None => f.write_str("/*"),
        }
    }
}

/// A request's number: digits only; beyond 64 bits it means "very far".
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// A response's number: digits only, and it must fit.
fn exact_position(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn trim_ows(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
