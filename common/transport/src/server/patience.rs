//! [`Patience`]: finds response bodies over TCP whose client has stopped reading, and lets go of what feeds them.
//!
//! `hyper` does not ask a body for more while its stream has no room, so such a body cannot notice by itself; over HTTP/2
//! the connection beneath may be busy and well.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::body::{Body, PieceStream};
use crate::error::BodyError;

#[derive(Default)]
struct State {
    /// Gone once patience ended.
    body: Option<Body>,
    /// Since when a piece has been with `hyper` and no other was asked for.
    handed_over: Option<Instant>,
}

type Shared = Arc<Mutex<State>>;

/// The bodies of one connection.
#[derive(Default)]
pub(super) struct Patience(Mutex<Vec<Weak<Mutex<State>>>>);

struct Watched(Shared);

impl PieceStream for Watched {
    fn poll_piece(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(body) = &mut state.body else {
            let reason = "the client had stopped reading".to_owned();
            return Poll::Ready(Some(Err(BodyError::Aborted { reason })));
        };
        let piece = body.poll_next(cx);
        state.handed_over = piece.is_ready().then(Instant::now);
        piece
    }
}

impl Patience {
    /// The same body, watched. Its pieces must be small, for patience is per piece.
    pub(super) fn watch(&self, body: Body) -> Body {
        let length = body.exact_length();
        let state = Arc::new(Mutex::new(State { body: Some(body), handed_over: None }));
        let mut bodies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|body| body.strong_count() > 0);
        bodies.push(Arc::downgrade(&state));
        Body::stream(Box::pin(Watched(state))).expecting(length)
    }

    /// Looks after the bodies for as long as it is polled; never completes.
    pub(super) async fn end_after(&self, limit: Duration) {
        loop {
            sleep(limit / 2).await;
            let bodies: Vec<Shared> =
                self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
            for body in bodies {
                let mut state = body.lock().unwrap_or_else(PoisonError::into_inner);
                if state.handed_over.is_some_and(|since| since.elapsed() >= limit) {
                    state.body = None;
                }
            }
        }
    }
}
