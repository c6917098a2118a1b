//! Bodies that arrive through `hyper`, as our own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;

use crate::body::{Body, PieceStream};
use crate::error::{BodyError, one_line};

struct HyperStream(Incoming);

impl PieceStream for HyperStream {
    fn poll_piece(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let frame = std::task::ready!(Pin::new(&mut self.0).poll_frame(cx));
            return Poll::Ready(match frame {
                None => None,
                Some(Err(error)) => Some(Err(BodyError::Connection(one_line(&error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    // Trailers carry nothing for us.
                    Err(_) => continue,
                },
            });
        }
    }
}

/// Wraps a received body, with its length where the protocol knows it.
pub(crate) fn incoming(body: Incoming) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    let length = body.size_hint().exact();
    Body::stream(Box::pin(HyperStream(body))).expecting(length)
}
