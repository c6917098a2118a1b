//! `Cache-Status` (RFC 9211): one entry per hop, the one nearest the origin first.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::CACHE_STATUS_BYTES_MAX;

/// The field's name.
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache is configured not to handle it.
    Bypass,
    /// The method demands it.
    Method,
    /// Nothing is stored under this path.
    UriMiss,
    /// Nothing is stored that fits, whyever.
    Miss,
    /// The request demands it.
    Request,
    /// What is stored is too old.
    Stale,
    /// A part is stored, not all that was asked for.
    Partial,
}

impl Forward {
    const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// What one cache did with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheStatus {
    /// The cache's name.
    pub cache: String,
    /// Answered without going upstream.
    pub hit: bool,
    /// Why it went upstream.
    pub forward: Option<Forward>,
    /// The status upstream answered.
    pub forward_status: Option<u16>,
    /// Remaining freshness in seconds; negative when stale.
    pub ttl_s: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// The request joined another one's fetch.
    pub collapsed: bool,
    /// Anything for people.
    pub detail: Option<String>,
}

impl CacheStatus {
    /// `cache; hit`.
    pub fn hit(cache: &str) -> Self {
        Self { hit: true, ..Self::entry(cache) }
    }

    /// `cache; fwd=reason`.
    pub fn forwarded(cache: &str, reason: Forward) -> Self {
        Self { forward: Some(reason), ..Self::entry(cache) }
    }

    /// An entry that says only who answered.
    pub fn entry(cache: &str) -> Self {
        Self {
            cache: cache.to_owned(),
            hit: false,
            forward: None,
            forward_status: None,
            ttl_s: None,
            stored: false,
            collapsed: false,
            detail: None,
        }
    }

    /// With a `detail`.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds this hop behind those that answered before it, as far as [`inherited`] keeps them: one field line, one list.
    pub fn append_to(&self, headers: &mut HeaderMap) {
        let own = self.to_string();
        let list = match inherited(headers) {
            Some(before) => format!("{before}, {own}"),
            None => own,
        };
        headers.insert(CACHE_STATUS, HeaderValue::try_from(list).expect("printed in visible ASCII"));
    }
}

/// What the caches before said, the one nearest the origin first, for the next to add itself to; nothing if it is no list (our own
/// entry could not be read behind it). Of one that has grown too long, those furthest away are left out.
pub fn inherited(headers: &HeaderMap) -> Option<String> {
    let lines: Result<Vec<&str>, _> = headers.get_all(CACHE_STATUS).iter().map(HeaderValue::to_str).collect();
    let list = lines.ok()?.join(", ");
    let members = members(&list)?;
    let mut bytes = 0;
    let kept = members.iter().rev().take_while(|member| {
        bytes += member.len() + 2;
        bytes <= CACHE_STATUS_BYTES_MAX
    });
    let kept = &members[members.len() - kept.count()..];
    (!kept.is_empty()).then(|| kept.join(", "))
}

/// The members of a structured-field list (RFC 9651 §4.2.1), as far as their ends go: each begins as a token or a string does,
/// and no string is left open.
fn members(list: &str) -> Option<Vec<&str>> {
    let (mut members, mut start, mut in_string, mut escaped) = (Vec::new(), 0, false, false);
    let is_whole =
        |member: &str| member.starts_with(|first: char| first.is_ascii_alphabetic() || "*\"".contains(first));
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' if !in_string => {
                members.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    members.push(list[start..].trim());
    (!in_string && members.iter().all(|member| is_whole(member))).then_some(members)
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&token_or_string(&self.cache))?;
        if self.hit {
            f.write_str("; hit")?;
        }
        if let Some(forward) = self.forward {
            write!(f, "; fwd={}", forward.token())?;
        }
        if let Some(status) = self.forward_status {
            write!(f, "; fwd-status={status}")?;
        }
        if let Some(ttl_s) = self.ttl_s {
            write!(f, "; ttl={ttl_s}")?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, "; detail={}", token_or_string(detail))?;
        }
        Ok(())
    }
}

/// A structured-field token (RFC 9651 §3.3.4) if the text is one, else a string; what a string cannot hold becomes `?`.
fn token_or_string(text: &str) -> String {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
    let token =
        text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'*') && text.bytes().all(inner);
    if token {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}
