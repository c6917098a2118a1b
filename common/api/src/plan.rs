//! [`head_for`]: status and headers for a representation and a request, in one place for origin and edge alike.

use bytes::Bytes;
use colibri_common::ByteRange;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::coding::Coding;
use crate::conditional::{Decision, ETag, decide};
use crate::multipart::Multipart;
use crate::problem::ApiError;
use crate::range::ContentRange;

/// What is known of a representation before its first byte is sent. Its length must be a proven one.
#[derive(Debug, Clone)]
pub struct Representation {
    /// Length in bytes, coded.
    pub length: u64,
    /// Entity tag; nothing for answers built from the request.
    pub etag: Option<ETag>,
    /// From [`crate::cache`].
    pub cache_control: HeaderValue,
    /// Media type.
    pub content_type: HeaderValue,
    /// Whether `Range` is honoured: blobs and targets yes, metadata no.
    pub accept_ranges: bool,
    /// How it is coded.
    pub coding: Coding,
    /// The request fields that choose between this and other representations of the same thing.
    pub vary: Option<HeaderValue>,
}

/// How to answer: status and headers are complete, `Content-Length` included.
#[derive(Debug, Clone)]
pub struct ResponsePlan {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The bytes of the representation to send; nothing if none are, as for HEAD or 304, or if they are in `parts`.
    pub body: Option<ByteRange>,
    /// What to send where several ranges were asked for.
    pub parts: Option<Multipart>,
    /// The body of an error; empty if there is none.
    pub problem: Bytes,
}

/// Plans the answer to `method` with `headers`: 200, 206, 304, 405, 412 or 416.
pub fn head_for(representation: &Representation, method: &Method, headers: &HeaderMap) -> ResponsePlan {
    if method != Method::GET && method != Method::HEAD {
        return refuse(&ApiError::MethodNotAllowed, None, method);
    }
    let Representation { length, etag, accept_ranges, .. } = representation;
    let error = match decide(etag.as_ref(), *length, *accept_ranges, method, headers) {
        Decision::NotModified => {
            return ResponsePlan {
                status: StatusCode::NOT_MODIFIED,
                headers: validators(representation),
                body: None,
                parts: None,
                problem: Bytes::new(),
            };
        }
        Decision::Full => return send(representation, ByteRange::whole(*length), method),
        Decision::Partial(range) => return send_part(representation, range, method),
        Decision::Parts(ranges) => return send_parts(representation, &ranges, method),
        Decision::RangeNotSatisfiable { length } => ApiError::RangeNotSatisfiable { length },
        Decision::PreconditionFailed => ApiError::PreconditionFailed,
    };
    refuse(&error, Some(representation), method)
}

/// The headers that every answer about a representation carries, 304 included (RFC 9110 §15.4.5).
fn validators(representation: &Representation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, representation.cache_control.clone());
    if let Some(etag) = &representation.etag {
        headers.insert(header::ETAG, etag.to_value());
    }
    if let Some(vary) = &representation.vary {
        headers.insert(header::VARY, vary.clone());
    }
    headers
}

fn send(representation: &Representation, range: ByteRange, method: &Method) -> ResponsePlan {
    let mut headers = validators(representation);
    headers.insert(header::CONTENT_TYPE, representation.content_type.clone());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.len()));
    if let Some(coding) = representation.coding.content_encoding() {
        headers.insert(header::CONTENT_ENCODING, coding);
    }
    if representation.accept_ranges {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    let body = (method != Method::HEAD).then_some(range);
    ResponsePlan { status: StatusCode::OK, headers, body, parts: None, problem: Bytes::new() }
}

fn send_part(representation: &Representation, range: ByteRange, method: &Method) -> ResponsePlan {
    let mut plan = send(representation, range, method);
    plan.status = StatusCode::PARTIAL_CONTENT;
    let content_range = ContentRange::satisfied(range, Some(representation.length));
    plan.headers.insert(header::CONTENT_RANGE, content_range.to_value());
    plan
}

fn send_parts(representation: &Representation, ranges: &[ByteRange], method: &Method) -> ResponsePlan {
    let Representation { length, etag: Some(etag), content_type, .. } = representation else {
        return send(representation, ByteRange::whole(representation.length), method);
    };
    let parts = Multipart::new(ranges, *length, etag, content_type);
    let mut plan = send(representation, ByteRange::whole(*length), method);
    plan.status = StatusCode::PARTIAL_CONTENT;
    plan.headers.insert(header::CONTENT_TYPE, parts.content_type());
    plan.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(parts.length()));
    plan.body = None;
    plan.parts = Some(parts);
    plan
}

fn refuse(error: &ApiError, representation: Option<&Representation>, method: &Method) -> ResponsePlan {
    // None of these errors may be stored, so the life of the timestamp plays no part.
    let answer = error.respond(0);
    let mut headers = answer.headers;
    if let Some(representation) = representation
        && representation.accept_ranges
    {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    let problem = if method == Method::HEAD { Bytes::new() } else { answer.body };
    ResponsePlan { status: answer.status, headers, body: None, parts: None, problem }
}

impl ResponsePlan {
    /// The body, of a representation that is in memory: its bytes, its parts or the problem, in order.
    pub fn segments(&self, representation: &Bytes) -> Vec<Bytes> {
        match (&self.body, &self.parts) {
            (Some(range), _) => vec![representation.slice(range.within(0))],
            (None, Some(parts)) => parts.segments(representation),
            (None, None) => vec![self.problem.clone()],
        }
    }
}
