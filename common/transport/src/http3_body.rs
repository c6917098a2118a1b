//! Bodies that arrive over HTTP/3, as our own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::body::{Body, PieceStream};
use crate::error::BodyError;
use crate::quic::{RecvStream, StreamState, take_all};

macro_rules! stream {
    ($name:ident, $receive:ty) => {
        struct $name {
            receive: $receive,
            state: Arc<StreamState>,
        }

        impl PieceStream for $name {
            fn poll_piece(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
                loop {
                    return Poll::Ready(match std::task::ready!(self.receive.poll_recv_data(cx)) {
                        Ok(Some(buffer)) => Some(Ok(take_all(buffer))),
                        // An empty frame or trailers; the end is still to come.
                        Ok(None) if !self.state.received_all() => continue,
                        Ok(None) => None,
                        Err(error) => Some(Err(BodyError::Connection(error.to_string()))),
                    });
                }
            }
        }
    };
}

#[cfg(feature = "server")]
stream!(ServerStream, h3::server::RequestStream<RecvStream, Bytes>);
#[cfg(feature = "client")]
stream!(ClientStream, h3::client::RequestStream<RecvStream, Bytes>);

/// The body of a request.
#[cfg(feature = "server")]
pub(crate) fn server(receive: h3::server::RequestStream<RecvStream, Bytes>, state: Arc<StreamState>) -> Body {
    Body::stream(Box::pin(ServerStream { receive, state }))
}

/// The body of a response.
#[cfg(feature = "client")]
pub(crate) fn client(receive: h3::client::RequestStream<RecvStream, Bytes>, state: Arc<StreamState>) -> Body {
    Body::stream(Box::pin(ClientStream { receive, state }))
}
