//! One GET at one source: the request as the read API wants it, the answer's head checked against what was asked.
//!
//! No bytes are verified here; they leave as an unverified [`Answer`] for [`crate::blob`] and [`crate::metadata`].

use std::time::Duration;

use bytes::Bytes;
use colibri_api::range::ContentRange;
use colibri_common::ByteRange;
use colibri_transport::{Body, Client};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_NONE_MATCH, RANGE, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};

use crate::error::AttemptError;
use crate::source::Source;

/// What a source answered, head checked, body still unverified.
#[derive(Debug)]
pub struct Answer {
    /// Offset of the body's first byte in the representation.
    pub offset: u64,
    /// Claimed length of the whole representation, if it was said.
    pub total_claimed: Option<u64>,
    /// The source said 304 to a conditional request.
    pub not_modified: bool,
    /// `ETag`, if it was sent.
    pub etag: Option<String>,
    /// The body.
    pub body: Body,
}

/// Sends a GET for `url`, for the bytes in `range` only if given.
///
/// A source that ignores the range is accepted when the range starts at zero: the caller stops reading where it wants.
pub async fn get(
    client: &Client,
    source: &Source,
    agent: &HeaderValue,
    url: &str,
    range: Option<ByteRange>,
    extra: &HeaderMap,
) -> Result<Answer, AttemptError> {
    let mut request = http::Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = url.parse().map_err(|error| AttemptError::Unexpected(format!("`{url}`: {error}")))?;
    *request.headers_mut() = extra.clone();
    request.headers_mut().insert(USER_AGENT, agent.clone());
    if let Some(range) = range {
        let value = format!("bytes={}-{}", range.start(), range.end() - 1);
        request.headers_mut().insert(RANGE, HeaderValue::from_str(&value).expect("digits"));
    }
    source.count_request();
    let response = client.send(request).await?;
    let (head, body) = response.into_parts();
    let etag = head.headers.get(ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (offset, total_claimed) = match head.status {
        StatusCode::OK => {
            if let Some(range) = range.filter(|range| range.start() > 0) {
                return Err(AttemptError::Unexpected(format!("ignores the range {range}: answered 200")));
            }
            (0, content_length(&head.headers))
        }
        StatusCode::PARTIAL_CONTENT => partial(&head.headers, range)?,
        StatusCode::NOT_MODIFIED if extra.contains_key(IF_NONE_MATCH) => (0, None),
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(AttemptError::NotFound),
        status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            return Err(AttemptError::Busy { status: status.as_u16(), retry_after: retry_after(&head.headers) });
        }
        status => return Err(AttemptError::Unexpected(format!("answered {status}"))),
    };
    let not_modified = head.status == StatusCode::NOT_MODIFIED;
    Ok(Answer { offset, total_claimed, not_modified, etag, body })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A 206 must answer the range that was asked: same start, and short only where the representation ends.
fn partial(headers: &HeaderMap, asked: Option<ByteRange>) -> Result<(u64, Option<u64>), AttemptError> {
    let unfit = |why: &str| AttemptError::Unexpected(format!("answered 206 {why}"));
    let asked = asked.ok_or_else(|| unfit("to a request without a range"))?;
    let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let value = value.ok_or_else(|| unfit("without a Content-Range"))?;
    let answered =
        value.parse::<ContentRange>().map_err(|error| unfit(&format!("with Content-Range `{value}`: {error}")))?;
    let total = answered.complete();
    let range = answered.range().ok_or_else(|| unfit("with an unsatisfied Content-Range"))?;
    let end = total.map_or(asked.end(), |total| asked.end().min(total));
    if range.start() != asked.start() || range.end() != end {
        return Err(unfit(&format!("with {range} when asked for {asked}")));
    }
    Ok((range.start(), total))
}

/// Reads a body that must not be longer than `bytes_max`, counting it for its source.
pub async fn read_all(source: &Source, mut body: Body, bytes_max: u64) -> Result<Bytes, AttemptError> {
    let mut first: Option<Bytes> = None;
    let mut joined: Vec<u8> = Vec::new();
    let mut length = 0_u64;
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        source.count_body_bytes(chunk.len());
        length += chunk.len() as u64;
        if length > bytes_max {
            return Err(AttemptError::Unexpected(format!("sent more than {bytes_max} bytes")));
        }
        match &first {
            None => first = Some(chunk),
            Some(head) => {
                if joined.is_empty() {
                    joined.extend_from_slice(head);
                }
                joined.extend_from_slice(&chunk);
            }
        }
    }
    Ok(if joined.is_empty() { first.unwrap_or_default() } else { joined.into() })
}
