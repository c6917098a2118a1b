//! `traceparent` and `tracestate` (W3C Trace Context): one request's name across all hops. Nothing is measured or sent anywhere
//! here, and random numbers are the caller's.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::TRACESTATE_BYTES_MAX;

/// The field that names trace and caller.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The field of what others remember about a trace.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length of version 00, bytes.
const LENGTH: usize = 55;

/// A trace, and this hop's span in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    flags: u8,
    state: Option<HeaderValue>,
}

impl Trace {
    /// The trace that a request with these headers belongs to, else one that begins here, not sampled. `span` names this hop in
    /// it, `id` a trace that begins; neither is zero (zero counts as one).
    pub fn continued(headers: &HeaderMap, id: u128, span: u64) -> Self {
        let span = span.max(1);
        let mut fields = headers.get_all(&TRACEPARENT).iter();
        let parsed = match (fields.next(), fields.next()) {
            (Some(field), None) => field.to_str().ok().and_then(parse),
            _ => None,
        };
        let Some((id, flags)) = parsed else { return Self { id: id.max(1), span, flags: 0, state: None } };
        let mut states = headers.get_all(&TRACESTATE).iter();
        // What is too long or in several fields may be dropped, and the trace goes on.
        let state = match (states.next(), states.next()) {
            (Some(state), None) if state.len() <= TRACESTATE_BYTES_MAX => Some(state.clone()),
            _ => None,
        };
        Self { id, span, flags, state }
    }

    /// Adds the fields for requests that are made on behalf of this one.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, HeaderValue::try_from(self.to_string()).expect("hex digits"));
        if let Some(state) = &self.state {
            headers.insert(TRACESTATE, state.clone());
        }
    }
}

impl fmt::Display for Trace {
    /// The value of `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.span, self.flags)
    }
}

/// Trace id and flags. Later versions may be longer; what is known of them is read as in version 00.
fn parse(text: &str) -> Option<(u128, u8)> {
    let known = text.get(..LENGTH)?;
    let mut parts = known.split('-');
    let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex =
        |part: &str, digits| part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let well_formed = lower_hex(version, 2) && lower_hex(id, 32) && lower_hex(span, 16) && lower_hex(flags, 2);
    let rest = &text[LENGTH..];
    let fits_version = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
    if !well_formed || !fits_version || version == "ff" || parts.next().is_some() {
        return None;
    }
    let (id, span) = (u128::from_str_radix(id, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
    // Of the flags only "sampled" has a meaning that is known.
    (id != 0 && span != 0).then_some((id, u8::from_str_radix(flags, 16).ok()? & 1))
}
