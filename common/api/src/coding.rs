//! Content codings of metadata: what a client accepts ([`negotiate`], RFC 9110 §12.5.3) and what an answer says it is coded
//! as ([`Coding::of`]). The bytes themselves are coded in `colibri-transport`; blobs are never coded.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::accept::parse_quality;
use crate::problem::ApiError;

/// How the bytes of a representation are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878, with a window of at most 8 MiB (RFC 9659).
    Zstd,
}

/// An answer is coded in a way that was not asked for; the text is its `Content-Encoding`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer is coded as `{0}`, which nobody asked for")]
pub struct UnknownCoding(pub String);

impl Coding {
    /// All, the one we would rather send first.
    pub const BY_PREFERENCE: [Self; 3] = [Self::Zstd, Self::Gzip, Self::Identity];

    /// What our clients ask for where a coding may be used.
    pub const ACCEPTED: HeaderValue = HeaderValue::from_static("zstd, gzip");

    /// The name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// `Content-Encoding` of what is coded so; nothing for what is not coded.
    pub const fn content_encoding(self) -> Option<HeaderValue> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some(HeaderValue::from_static("gzip")),
            Self::Zstd => Some(HeaderValue::from_static("zstd")),
        }
    }

    /// What an answer with these headers is coded as.
    ///
    /// # Errors
    /// It is coded in another way, or several times over.
    pub fn of(headers: &HeaderMap) -> Result<Self, UnknownCoding> {
        let list = joined(headers, &header::CONTENT_ENCODING);
        let mut names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        match (names.next(), names.next()) {
            (None, _) => Ok(Self::Identity),
            (Some(name), None) => Self::named(name).ok_or_else(|| UnknownCoding(clip(&list))),
            _ => Err(UnknownCoding(clip(&list))),
        }
    }

    fn named(name: &str) -> Option<Self> {
        // RFC 9110 §8.4.1.3: `x-gzip` is `gzip`.
        let is = |word: &str| name.eq_ignore_ascii_case(word);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("zstd") => Some(Self::Zstd),
            () if is("identity") => Some(Self::Identity),
            () => None,
        }
    }
}

/// The coding to answer a request with these headers in: the one of highest quality; among equals the one we prefer. Without
/// `Accept-Encoding` nothing is coded, as clients expect that cannot decode.
///
/// # Errors
/// The client refuses all, also an answer that is not coded (`identity;q=0` or `*;q=0`).
pub fn negotiate(headers: &HeaderMap) -> Result<Coding, ApiError> {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return Ok(Coding::Identity);
    }
    let list = joined(headers, &header::ACCEPT_ENCODING);
    // Of equal maxima the last is taken: the preferred one has to come last.
    let accepted = Coding::BY_PREFERENCE.into_iter().rev().filter_map(|coding| Some((coding, quality(&list, coding)?)));
    let best = accepted.max_by_key(|(_, quality)| *quality);
    best.map(|(coding, _)| coding).ok_or(ApiError::NotAcceptable)
}

/// Quality of a coding in thousandths; nothing if it is refused. What is not named counts as `*` says. Without that it is
/// refused, but for not coding at all, which is the last resort.
fn quality(list: &str, coding: Coding) -> Option<u16> {
    let mut star = None;
    for element in list.split(',') {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        // What cannot be read is as if it were not there.
        let Some(thousandths) = quality.map_or(Some(1000), parse_quality) else { continue };
        if name == "*" {
            star = star.or(Some(thousandths));
        } else if Coding::named(name) == Some(coding) {
            return (thousandths > 0).then_some(thousandths);
        }
    }
    match star {
        Some(thousandths) => (thousandths > 0).then_some(thousandths),
        None => (coding == Coding::Identity).then_some(0),
    }
}

fn joined(headers: &HeaderMap, field: &HeaderName) -> String {
    let values: Vec<&str> = headers.get_all(field).iter().filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// At most 64 characters of a text from outside.
fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
