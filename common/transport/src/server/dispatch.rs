//! What happens to every request and response whatever the protocol: context, bounds, and the rules on bodies.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALT_SVC, CONTENT_LENGTH, HeaderValue};
use http::{Method, StatusCode};

use super::ServerLimits;
use super::counters::{ServerCounters, count};
use crate::body::Body;
use crate::content_length::content_length;
use crate::handler::{ClientCertificate, Handler, Peer, Protocol, Request, Response, Secure};

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
    pub(super) async fn answer(&self, mut request: Request, origin: Origin) -> Response {
        count(&self.counters.requests[origin.protocol as usize]);
        let head = request.method() == Method::HEAD;
        let mut response = match self.admit(&mut request) {
            Ok(()) => {
                let extensions = request.extensions_mut();
                extensions.insert(origin.protocol);
                extensions.insert(Peer(origin.peer));
                extensions.insert(Secure(origin.secure));
                if let Some(client) = origin.client {
                    extensions.insert(client);
                }
                (self.handler)(request).await
            }
            Err(refusal) => *refusal,
        };
        settle_body(&mut response, head);
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

fn refusal(status: StatusCode, reason: &str) -> Box<Response> {
    let mut response = Response::new(Body::full(format!("{reason}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Box::new(response)
}
