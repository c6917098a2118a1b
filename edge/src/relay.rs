//! [`Relay`]: `POST /REPO/authority` and `POST /REPO/reports`, passed on to the upstream, uncached.
//!
//! What answers there is signed, and clients look at the signature before the status. So an edge never authors an answer on these
//! paths: when it cannot relay one it hangs up. A request is bounded and read whole first; once a byte of it was sent to an
//! upstream it is not sent to another.

use std::time::Duration;

use bytes::Bytes;
use colibri_api::{CacheStatus, Forward, RepositoryName};
use colibri_fetch::{BlobFetcher, SourceUrl};
use colibri_transport::{Body, ClientErrorKind, Hangup, Response};
use http::header::{
    ALT_SVC, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Uri};

use crate::limits::{RELAY_ANSWER_BYTES_MAX, RELAY_REQUEST_BYTES_MAX};
use crate::metrics::Metrics;

/// The last segments of the paths that are relayed.
const RELAYED: [&str; 2] = ["authority", "reports"];

/// What concerns one connection only, and what the transport makes itself.
const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HOST,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    ALT_SVC,
];

/// Passes requests on.
#[derive(Debug)]
pub(crate) struct Relay {
    name: String,
    patience: Duration,
    metrics: Metrics,
}

/// True if this request is to be relayed, whatever becomes of it.
pub(crate) fn is_relayed(method: &Method, uri: &Uri) -> bool {
    let segments: Vec<&str> = uri.path().split('/').collect();
    matches!(segments[..], ["", repository, last] if *method == Method::POST
        && RELAYED.contains(&last) && repository.parse::<RepositoryName>().is_ok())
}

/// No answer.
pub(crate) fn hang_up() -> Response {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(Hangup);
    response
}

impl Relay {
    /// A relay of the edge called `name`, which waits for an answer this long.
    pub const fn new(name: String, patience: Duration, metrics: Metrics) -> Self {
        Self { name, patience, metrics }
    }

    /// The upstream's answer, or the end of the stream.
    pub async fn pass_on(&self, fetcher: &BlobFetcher, uri: &Uri, headers: &HeaderMap, body: Body) -> Response {
        self.metrics.relayed.inc();
        match self.try_pass_on(fetcher, uri, headers, body).await {
            Ok(response) => response,
            Err(reason) => {
                tracing::warn!(path = uri.path(), reason, "a request could not be relayed: its stream is closed");
                self.metrics.relay_failures.inc();
                hang_up()
            }
        }
    }

    async fn try_pass_on(
        &self,
        fetcher: &BlobFetcher,
        uri: &Uri,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, String> {
        let body = body.read_all(RELAY_REQUEST_BYTES_MAX).await.map_err(|error| format!("its body: {error}"))?;
        let path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
        let mut reason = "there is no upstream".to_owned();
        for source in fetcher.sources().list() {
            match tokio::time::timeout(self.patience, self.ask(fetcher, &source.url, path, headers, &body)).await {
                Ok(Ok(response)) => return Ok(response),
                // Nothing was sent: there was nobody to send it to.
                Ok(Err(Failure::NotSent(error))) => reason = error,
                Ok(Err(Failure::Sent(error))) => return Err(error),
                Err(_) => return Err(format!("{} does not answer", source.url.authority())),
            }
        }
        Err(reason)
    }

    async fn ask(
        &self,
        fetcher: &BlobFetcher,
        upstream: &SourceUrl,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, Failure> {
        let mut request = http::Request::new(Body::full(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = upstream.join(path).parse().map_err(|error| Failure::NotSent(format!("{error}")))?;
        *request.headers_mut() = end_to_end(headers);
        request.headers_mut().extend(fetcher.headers().clone());
        let response = fetcher.client().send(request).await.map_err(|error| match error.kind {
            ClientErrorKind::Unreachable | ClientErrorKind::Tls | ClientErrorKind::Request => {
                Failure::NotSent(error.to_string())
            }
            _ => Failure::Sent(error.to_string()),
        })?;
        let (head, body) = response.into_parts();
        let body = body.read_all(RELAY_ANSWER_BYTES_MAX).await.map_err(|error| Failure::Sent(error.to_string()))?;
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = end_to_end(&head.headers);
        let entry = CacheStatus {
            forward_status: Some(head.status.as_u16()),
            ..CacheStatus::forwarded(&self.name, Forward::Method)
        };
        entry.append_to(response.headers_mut());
        Ok(response)
    }
}

enum Failure {
    /// No byte of the request left this machine for an upstream that could act on it.
    NotSent(String),
    /// It may have been acted on.
    Sent(String),
}

/// The fields that are meant for the other end.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|value| value.split(',')) {
        kept.remove(name.trim());
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept.remove("keep-alive");
    kept.remove("proxy-connection");
    kept
}
