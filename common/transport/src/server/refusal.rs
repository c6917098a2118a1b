//! [`Refusal`]: what a server answers by itself, before any handler sees the request, as a problem document (RFC 9457) in the
//! manner of the read API. What is no HTTP at all, or goes far beyond the bounds, gets the bare answer of its protocol, or none.

use std::time::Duration;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode, Version};

use super::ServerLimits;
use crate::body::Body;
use crate::content_length::content_length;
use crate::handler::{Request, Response};
use crate::limits::HEADER_FIELDS_MAX;

/// What a header field takes besides its name and value (RFC 9113 §6.5.2, RFC 9114 §4.2.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// Why a request goes no further. Each message is the `detail` the client reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("CONNECT is not offered here")]
    Connect,
    #[error("Content-Length is not one decimal number")]
    ContentLength,
    #[error("request bodies may have {bytes_max} bytes")]
    BodyTooLarge { bytes_max: u64 },
    #[error("header sections may have {bytes_max} bytes, with {FIELD_OVERHEAD_BYTES} more counted for each field")]
    HeaderTooLarge { bytes_max: usize },
    #[error("header sections may have {HEADER_FIELDS_MAX} fields")]
    TooManyFields,
    #[error("this server has too much to do: ask again in {wait_s} s")]
    TooManyRequests { wait_s: u64 },
}

impl Refusal {
    /// The server, or this client's part of it, has enough to do (RFC 6585 §4).
    pub(super) fn busy_for(wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        Self::TooManyRequests { wait_s: u64::try_from(seconds).unwrap_or(u64::MAX) }
    }

    /// Looks at the head of a request; gives the announced length of its body.
    pub(super) fn check(request: &Request, limits: &ServerLimits) -> Result<Option<u64>, Self> {
        if request.method() == Method::CONNECT {
            return Err(Self::Connect);
        }
        let headers = request.headers();
        if request.version() <= Version::HTTP_11 && headers.len() > HEADER_FIELDS_MAX {
            return Err(Self::TooManyFields);
        }
        let field = |name: usize, value: usize| name + value + FIELD_OVERHEAD_BYTES;
        let fields: usize = headers.iter().map(|(name, value)| field(name.as_str().len(), value.len())).sum();
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let bytes_max = limits.header_bytes_max;
        if fields + field(0, target) > bytes_max {
            return Err(Self::HeaderTooLarge { bytes_max });
        }
        let length = content_length(headers).map_err(|()| Self::ContentLength)?;
        let bytes_max = limits.request_body_bytes_max;
        if length.is_some_and(|length| length > bytes_max) {
            return Err(Self::BodyTooLarge { bytes_max });
        }
        Ok(length)
    }

    /// Status, last part of the type URI, and title.
    const fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Connect => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Self::ContentLength => (StatusCode::BAD_REQUEST, "bad-request", "Bad request"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "content-too-large", "Content too large"),
            Self::HeaderTooLarge { .. } | Self::TooManyFields => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header-too-large", "Header too large")
            }
            Self::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
        }
    }

    /// The answer.
    pub(super) fn respond(&self) -> Response {
        let (status, name, title) = self.kind();
        // Nothing in these texts needs to be escaped.
        let text = format!(
            r#"{{"type":"urn:colibri:problem:{name}","title":"{title}","status":{},"detail":"{self}"}}"#,
            status.as_u16()
        );
        let mut response = Response::new(Body::full(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            // There is no resource behind an authority (RFC 9110 §10.2.1).
            Self::Connect => _ = headers.insert(ALLOW, HeaderValue::from_static("")),
            Self::TooManyRequests { wait_s } => _ = headers.insert(RETRY_AFTER, HeaderValue::from(*wait_s)),
            _ => {}
        }
        response
    }
}
