//! HTTP/3 over QUIC.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::Code;
use h3::server::{RequestResolver, RequestStream};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::admission::{Bucket, Seat};
use super::bounds::Place;
use super::counters::count;
use super::dispatch::Origin;
use super::identity::{QuicNow, TlsHandle};
use crate::body::Body;
use crate::handler::{ClientCertificate, EarlyData, Hangup, Protocol, Response};
use crate::http3_body;
use crate::limits::{PIECE_BYTES, RESETS_PER_S_MAX};
use crate::priority::Priority;
use crate::quic::{BidiStream, Connection, RecvStream, SendStream, Shared};
use crate::tls::pin_of;

/// How long a connection that said GOAWAY waits for its client to close it, once all responses have been acknowledged.
const GOAWAY_LINGER: Duration = Duration::from_millis(500);

type Send = RequestStream<SendStream<Bytes>, Bytes>;
type Receive = RequestStream<RecvStream, Bytes>;

/// Accepts connections until they are to be refused.
pub(super) async fn accept(endpoint: quinn::Endpoint, tls: Option<TlsHandle>, context: Arc<Context>) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = context.refuse.cancelled() => return,
            () = context.abort.cancelled() => return,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        if context.bounds.is_crowded() && !incoming.remote_address_validated() {
            // Under load a client first proves that it can receive at its address (RFC 9000 §8.1.2).
            count(&context.counters.retries);
            _ = incoming.retry();
            continue;
        }
        let now = tls.as_ref().and_then(TlsHandle::quic);
        let Some(seat) = context.bounds.admission.connection(incoming.remote_address()) else {
            count(&context.counters.refused_client);
            incoming.refuse();
            continue;
        };
        match context.bounds.connections.try_enter() {
            Some(place) => drop(context.tracker.spawn(connection(incoming, now, seat, context.clone(), place))),
            None => {
                count(&context.counters.refused_full);
                incoming.refuse();
            }
        }
    }
}

/// Refuses connections for as long as it is polled, so that clients go elsewhere at once; never completes.
pub(super) async fn refuse(endpoints: &[quinn::Endpoint], context: &Context) {
    let refusing = endpoints.iter().map(async |endpoint| {
        while let Some(incoming) = endpoint.accept().await {
            count(&context.counters.refused_draining);
            incoming.refuse();
        }
    });
    futures_util::future::join_all(refusing).await;
    std::future::pending::<()>().await;
}

async fn connection(incoming: quinn::Incoming, now: Option<QuicNow>, seat: Seat, context: Arc<Context>, _place: Place) {
    let peer = incoming.remote_address();
    let farewell = context.farewell();
    count(&context.counters.quic_connections);
    let handshake = async {
        // With the certificate of now, which may have been replaced since the endpoint was made.
        let early = now.as_ref().is_some_and(|now| now.early);
        let connecting = match now {
            Some(now) => incoming.accept_with(now.config),
            None => incoming.accept(),
        };
        let connecting = connecting.map_err(|error| error.to_string())?;
        let (quic, proven) = match early {
            true => connecting.into_0rtt().map(|(quic, proven)| (quic, Some(proven))).map_err(|_| "it is refused")?,
            false => (connecting.await.map_err(|error| error.to_string())?, None),
        };
        let connection = Connection::new(quic.clone(), context.limits.header_bytes_read_max());
        let shared = connection.shared();
        let mut builder = h3::server::builder();
        builder.max_field_section_size(context.limits.header_bytes_read_max() as u64).send_grease(false);
        let http3 = builder.build::<_, Bytes>(connection).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((quic, proven, shared, http3))
    };
    let (quic, proven, shared, http3) = match timeout(context.limits.header_timeout, handshake).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            count(&context.counters.quic_handshake_failures);
            return tracing::debug!(%peer, error, "QUIC handshake failed");
        }
        Err(_) => {
            count(&context.counters.quic_handshake_failures);
            return tracing::debug!(%peer, "QUIC handshake took too long");
        }
    };
    let origin = Origin { protocol: Protocol::Http3, peer, secure: true, client: client_certificate(&quic) };
    let established = CancellationToken::new();
    tokio::select! {
        () = context.abort.cancelled() => {}
        () = establish(proven, &quic, &established, &context) => {}
        () = serve(http3, (&quic, &shared, &established), (origin, Arc::new(seat)), &context, &farewell) => {}
    }
    // Whatever still runs was aborted with `serve`; the peer learns of the end now and not after a time-out.
    close(&quic, Code::H3_NO_ERROR);
}

/// Says when the handshake is over. Completes only if it does not come to a good end.
async fn establish(
    proven: Option<quinn::ZeroRttAccepted>,
    quic: &quinn::Connection,
    established: &CancellationToken,
    context: &Context,
) {
    if let Some(proven) = proven {
        let in_time = timeout(context.limits.header_timeout, proven).await.is_ok();
        if !in_time || quic.close_reason().is_some() {
            count(&context.counters.quic_handshake_failures);
            return tracing::debug!(peer = %quic.remote_address(), "QUIC handshake failed after early data");
        }
    }
    established.cancel();
    std::future::pending::<()>().await;
}

/// The certificate that the client showed. Only one that the handshake has verified gets here.
fn client_certificate(quic: &quinn::Connection) -> Option<ClientCertificate> {
    let shown = quic.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    pin_of(shown.first()?).ok().map(ClientCertificate)
}

async fn serve(
    mut http3: h3::server::Connection<Connection, Bytes>,
    (quic, shared, established): (&quinn::Connection, &Arc<Shared>, &CancellationToken),
    (origin, seat): (Origin, Arc<Seat>),
    context: &Arc<Context>,
    farewell: &CancellationToken,
) {
    let given_up = Bucket::new(RESETS_PER_S_MAX);
    let mut requests = JoinSet::new();
    let mut draining = false;
    loop {
        let idle = requests.is_empty();
        tokio::select! {
            accepted = http3.accept() => match accepted {
                Ok(Some(resolver)) => {
                    let stream = (shared.clone(), established.clone());
                    requests.spawn(request(resolver, stream, (origin, seat.clone()), context.clone()));
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(peer = %origin.peer, %error, "HTTP/3 connection ended");
                    return;
                }
            },
            Some(ended) = requests.join_next() => {
                if matches!(ended, Ok(Ended::GivenUp)) && given_up.take(0).is_err() {
                    count(&context.counters.refused_resets);
                    tracing::debug!(peer = %origin.peer, "closed: the client gives up requests without end");
                    return close(quic, Code::H3_EXCESSIVE_LOAD);
                }
            }
            () = ending(context, farewell, idle), if !draining => {
                draining = true;
                // One more than the last accepted: no request that is being answered may seem refused.
                if http3.shutdown(1).await.is_err() {
                    return;
                }
            }
            () = sleep(GOAWAY_LINGER), if draining && idle => return,
        }
    }
    while requests.join_next().await.is_some() {}
}

fn close(quic: &quinn::Connection, code: Code) {
    quic.close(code.value().try_into().unwrap_or_default(), b"");
}

/// How a request ended.
enum Ended {
    Answered,
    /// The client no longer wanted it.
    GivenUp,
}

/// Completes when the server drains, or when an idle connection has been so for too long.
async fn ending(context: &Context, farewell: &CancellationToken, idle: bool) {
    tokio::select! {
        () = farewell.cancelled() => {}
        () = sleep(context.limits.idle_timeout), if idle => {}
    }
}

async fn request(
    resolver: RequestResolver<Connection, Bytes>,
    (shared, established): (Arc<Shared>, CancellationToken),
    (origin, seat): (Origin, Arc<Seat>),
    context: Arc<Context>,
) -> Ended {
    let peer = origin.peer;
    let resolved = timeout(context.limits.header_timeout, resolver.resolve_request()).await;
    let (mut head, stream): (http::Request<()>, RequestStream<BidiStream<Bytes>, Bytes>) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "request refused");
            return Ended::GivenUp;
        }
        Err(_) => {
            tracing::debug!(%peer, "request header took too long");
            return Ended::GivenUp;
        }
    };
    let state = shared.stream(stream.id());
    let mut stopped = state.stopped();
    state.ask_urgency(Priority::of(head.headers()).urgency);
    let (mut send, receive): (Send, Receive) = stream.split();
    if state.is_early() && !established.is_cancelled() {
        if context.early.as_ref().is_some_and(|rule| rule.allows(&head)) {
            count(&context.counters.early_answered);
            head.extensions_mut().insert(EarlyData);
        } else {
            count(&context.counters.early_delayed);
            tokio::select! {
                () = established.cancelled() => {}
                () = &mut stopped => return Ended::GivenUp,
            }
        }
    }
    let request = head.map(|()| http3_body::server(receive, state));
    let respond = async {
        let response = context.dispatch.answer(request, origin, &seat).await.map(Body::in_pieces);
        respond(&mut send, response, context.limits.stall_timeout).await
    };
    // The handler, and what it holds, goes when the client no longer wants the answer.
    let result = tokio::select! {
        result = respond => result,
        () = &mut stopped => return Ended::GivenUp,
    };
    match result {
        // The request counts as in flight until the client has acknowledged every byte.
        Ok(()) => drop(timeout(context.limits.stall_timeout, stopped).await),
        Err(reason) => {
            tracing::debug!(%peer, reason, "response broke off");
            send.stop_stream(Code::H3_INTERNAL_ERROR);
        }
    }
    Ended::Answered
}

async fn respond(send: &mut Send, response: Response, stall: Duration) -> Result<(), String> {
    if response.extensions().get::<Hangup>().is_some() {
        return Err("the handler hung up".to_owned());
    }
    let (mut head, mut body) = response.into_parts();
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        head.headers.remove(name);
    }
    let stalled = |_| "the client has stopped reading".to_owned();
    let text = |error: h3::error::StreamError| error.to_string();
    timeout(stall, send.send_response(http::Response::from_parts(head, ()))).await.map_err(stalled)?.map_err(text)?;
    while let Some(piece) = body.next_gathered(PIECE_BYTES).await {
        let piece = piece.map_err(|error| error.to_string())?;
        timeout(stall, send.send_data(piece)).await.map_err(stalled)?.map_err(text)?;
    }
    send.finish().await.map_err(text)
}
