//! What happens to every request and response whatever the protocol: context, bounds, and the rules on bodies.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALT_SVC, CONTENT_LENGTH, HeaderValue};
use http::{Method, StatusCode};

use super::ServerLimits;
use super::admission::Seat;
use super::counters::{ServerCounters, count};
use super::refusal::Refusal;
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
                let mut response = Refusal::busy_for(wait).respond();
                settle_body(&mut response, head);
                return response;
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
            Err(refusal) => refusal.respond(),
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
    fn admit(&self, request: &mut Request) -> Result<(), Refusal> {
        let length = Refusal::check(request, &self.limits)?;
        let body = std::mem::take(request.body_mut()).expecting(length).at_most(self.limits.request_body_bytes_max);
        *request.body_mut() = body.idle_limit(self.limits.stall_timeout);
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
