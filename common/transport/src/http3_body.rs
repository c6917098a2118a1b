//! Bodies that arrive over HTTP/3, as our own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h3::error::StreamError;

use crate::body::{Body, PieceStream};
use crate::error::BodyError;
use crate::quic::{RecvStream, StreamState, take_all};

fn piece(
    polled: Poll<Result<Option<impl Buf>, StreamError>>,
    state: &StreamState,
) -> Poll<Option<Result<Bytes, BodyError>>> {
    polled.map(|result| match result {
        Ok(Some(buffer)) => {
            let bytes = take_all(buffer);
            state.delivered(bytes.len());
            Some(Ok(bytes))
        }
        Ok(None) => None,
        Err(error) => Some(Err(BodyError::Connection(error.to_string()))),
    })
}

macro_rules! stream {
    ($name:ident, $receive:ty) => {
        struct $name {
            receive: $receive,
            state: Arc<StreamState>,
        }

        impl PieceStream for $name {
            fn poll_piece(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
                let this = &mut *self;
                piece(this.receive.poll_recv_data(cx), &this.state)
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
