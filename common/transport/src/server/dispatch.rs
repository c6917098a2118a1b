//! What happens to every request and response whatever the protocol: context, bounds, and the rules on bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALT_SVC, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};

use super::ServerLimits;
use super::admission::Seat;
use super::counters::{ServerCounters, count};
use crate::body::Body;
use crate::content_length::content_length;
use crate::handler::{ClientCertificate, Handler, Peer, Protocol, Request, Response, Secure};
use crate::priority::Priority;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) protocol: Protocol,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    /// The client's certificate, if it showed one and was believed.
    pub(super) client: Option<ClientCertificate>,
}

/// The handler with the rules around it.
pub(super) struct Dispatch {
    pub(super) handler: Handler,
    pub(super) limits: ServerLimits,
    pub(super) alt_svc: Option<HeaderValue>,
    pub(super) counters: Arc<ServerCounters>,
}

impl Dispatch {
    /// Answers one request.
    pub(super) async fn answer(&self, mut request: Request, origin: Origin, seat: &Seat) -> Response {
        count(&self.counters.requests[origin.protocol as usize]);
        let head = request.method() == Method::HEAD;
        let priority = Priority::of(request.headers());
        let admitted = match seat.request(priority.class()) {
            Ok(admitted) => admitted,
            Err(wait) => {
                count(&self.counters.shed[priority.class() as usize]);
                return too_many_requests(wait, head);
            }
        };
        let mut response = match self.admit(&mut request) {
            Ok(()) => {
                let extensions = request.extensions_mut();
                extensions.insert(origin.protocol);
                extensions.insert(Peer(origin.peer));
                extensions.insert(Secure(origin.secure));
                extensions.insert(priority);
                if let Some(client) = origin.client {
                    extensions.insert(client);
                }
                (self.handler)(request).await
            }
            Err(refusal) => *refusal,
        };
        settle_body(&mut response, head);
        let mut response = response.map(|body| seat.metered(body, admitted));
        if let Some(alt_svc) = &self.alt_svc
            && origin.secure
            && origin.protocol != Protocol::Http3
        {
            response.headers_mut().entry(ALT_SVC).or_insert_with(|| alt_svc.clone());
        }
        response
    }

    /// Bounds the request body, or says why the request is refused.
    fn admit(&self, request: &mut Request) -> Result<(), Box<Response>> {
        if request.method() == Method::CONNECT {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not offered here"));
        }
        let length = content_length(request.headers())
            .map_err(|()| refusal(StatusCode::BAD_REQUEST, "Content-Length is not one decimal number"))?;
        let bytes_max = self.limits.request_body_bytes_max;
        if length.is_some_and(|length| length > bytes_max) {
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &format!("request bodies may have {bytes_max} bytes")));
        }
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = body.expecting(length).at_most(bytes_max).idle_limit(self.limits.stall_timeout);
        Ok(())
    }
}

/// Makes body and `Content-Length` agree; takes the body off responses that must not have one (RFC 9110 §6.4.1, §9.3.2).
fn settle_body(response: &mut Response, head: bool) {
    let body = std::mem::take(response.body_mut());
    let status = response.status();
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    if bodiless {
        response.headers_mut().remove(CONTENT_LENGTH);
        return;
    }
    let announced = content_length(response.headers()).unwrap_or_default();
    if status == StatusCode::NOT_MODIFIED {
        return;
    }
    if announced.is_none()
        && let Some(length) = body.exact_length()
    {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !head {
        *response.body_mut() = body.expecting(announced);
    }
}

/// The server, or this client's part of it, has enough to do (RFC 6585 §4).
fn too_many_requests(wait: Duration, head: bool) -> Response {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    let detail = format!("this server has too much to do: ask again in {seconds} s");
    let text = format!(r#"{{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"{detail}"}}"#);
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds as u64));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    settle_body(&mut response, head);
    response
}

fn refusal(status: StatusCode, reason: &str) -> Box<Response> {
    let mut response = Response::new(Body::full(format!("{reason}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Box::new(response)
}
