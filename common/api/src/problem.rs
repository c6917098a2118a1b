//! Errors of the read API and their bodies: `application/problem+json` (RFC 9457).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::cache;
use crate::limits::PROBLEM_DETAIL_BYTES_MAX;
use crate::path::PathError;
use crate::range::ContentRange;

/// Media type of a problem document.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The methods of the read API, as `Allow` lists them.
pub const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// `Vary` of what may be coded.
pub const VARY_CODING: HeaderValue = HeaderValue::from_static("accept-encoding");

/// Why a request gets no representation. Each message is the `detail` the client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The path cannot be understood or names nothing.
    #[error("{0}")]
    Path(#[from] PathError),
    /// What the path names is not here; the text says what.
    #[error("{0}")]
    NotFound(String),
    /// Who asks has not shown that he may; the text says what is missing.
    #[error("{0}")]
    Unauthorized(String),
    /// Who asks may do other things, not this.
    #[error("{0}")]
    Forbidden(String),
    /// Only GET and HEAD are served.
    #[error("this address answers GET and HEAD only")]
    MethodNotAllowed,
    /// The client refuses every coding there is.
    #[error("Accept-Encoding refuses every form there is: identity, gzip and zstd")]
    NotAcceptable,
    /// No byte of the range exists.
    #[error("the range lies outside the {length} bytes there are")]
    RangeNotSatisfiable {
        /// Length of the representation in bytes.
        length: u64,
    },
    /// `If-Match` names other representations only.
    #[error("the representation is not the one that If-Match names")]
    PreconditionFailed,
    /// The request itself lacks something; the text says what.
    #[error("{0}")]
    BadRequest(String),
    /// Shedding load.
    #[error("too many requests: try again in {retry_after_s} s")]
    TooManyRequests {
        /// When to come back, in seconds.
        retry_after_s: u64,
    },
    /// No upstream gave usable bytes; the text says why.
    #[error("{0}")]
    BadGateway(String),
    /// The question leads back to where it has been; the text says where.
    #[error("{0}")]
    Circle(String),
    /// No upstream answered in time; the text says which.
    #[error("{0}")]
    GatewayTimeout(String),
    /// Not able to serve now, as while starting or stopping.
    #[error("{0}")]
    Unavailable(String),
    /// Our own fault, such as an unreadable disk; the text must not tell secrets.
    #[error("{0}")]
    Internal(String),
}

/// An error as a whole answer.
#[derive(Debug, Clone)]
pub struct ProblemResponse {
    /// The status.
    pub status: StatusCode,
    /// All its headers, `Content-Length` included.
    pub headers: HeaderMap,
    /// The document; not to be sent to HEAD.
    pub body: Bytes,
}

/// A problem document as read from the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:colibri:problem:NAME`, for programs.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The kind of problem, for people.
    #[serde(default)]
    pub title: String,
    /// The HTTP status again.
    #[serde(default)]
    pub status: u16,
    /// What happened this time.
    #[serde(default)]
    pub detail: String,
}

impl ApiError {
    /// Status, last part of the type URI, and title.
    const fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Path(PathError::NotFound | PathError::NotARepository) | Self::NotFound(_) => {
                (StatusCode::NOT_FOUND, "not-found", "Not found")
            }
            Self::Path(PathError::TooLong) => (StatusCode::URI_TOO_LONG, "path-too-long", "Path too long"),
            Self::Path(_) => (StatusCode::BAD_REQUEST, "bad-path", "Bad path"),
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad-request", "Bad request"),
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", "Forbidden"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not acceptable"),
            Self::RangeNotSatisfiable { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "Range not satisfiable")
            }
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition-failed", "Precondition failed"),
            Self::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
            Self::BadGateway(_) => (StatusCode::BAD_GATEWAY, "bad-gateway", "Bad gateway"),
            Self::Circle(_) => (StatusCode::LOOP_DETECTED, "loop", "Loop detected"),
            Self::GatewayTimeout(_) => (StatusCode::GATEWAY_TIMEOUT, "gateway-timeout", "Gateway timeout"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    /// The status this error is answered with.
    pub const fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// The whole answer. A 404 may be kept as long as a timestamp lives, which is given in seconds.
    pub fn respond(&self, timestamp_max_age_s: u64) -> ProblemResponse {
        let (status, name, title) = self.kind();
        let mut detail = self.to_string();
        while detail.len() > PROBLEM_DETAIL_BYTES_MAX {
            detail.pop();
        }
        let problem = Problem {
            kind: format!("urn:colibri:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
        };
        let body = Bytes::from(serde_json::to_vec(&problem).expect("strings and a number"));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(header::CACHE_CONTROL, cache::for_error(status, timestamp_max_age_s));
        match self {
            Self::MethodNotAllowed => {
                headers.insert(header::ALLOW, ALLOW);
            }
            Self::Unauthorized(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::NotAcceptable => {
                headers.insert(header::VARY, VARY_CODING);
            }
            Self::RangeNotSatisfiable { length } => {
                headers.insert(header::CONTENT_RANGE, ContentRange::unsatisfied(*length).to_value());
            }
            Self::TooManyRequests { retry_after_s } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*retry_after_s));
            }
            _ => {}
        }
        ProblemResponse { status, headers, body }
    }
}
