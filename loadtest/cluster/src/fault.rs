//! Faults, as wrappers around a handler. What they spoil left the real part in good order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use colibri_transport::{Body, Handler, Request, handler};
use tokio_util::task::TaskTracker;

/// Switch and count of a lying wrapper. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lies(Arc<(AtomicBool, AtomicU64)>);

impl Lies {
    /// Begins or ends lying.
    pub fn set(&self, lying: bool) {
        self.0.0.store(lying, Ordering::SeqCst);
    }

    fn lying(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Bodies spoiled so far.
    pub fn told(&self) -> u64 {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// Wraps `inner` so that, while the switch is on, one bit of every piece of every blob body is flipped. Leaf lists are left
/// alone: a liar that keeps to the content is the harder one to catch.
pub fn lying(inner: Handler, lies: Lies, tasks: TaskTracker) -> Handler {
    handler(move |request: Request| {
        let path = request.uri().path();
        let is_blob = path.contains("/blobs/") && !path.contains("/leaves/");
        let (inner, lies, tasks) = (inner.clone(), lies.clone(), tasks.clone());
        async move {
            let response = inner(request).await;
            if !(is_blob && lies.lying() && response.status().is_success()) {
                return response;
            }
            response.map(|body| flipped(body, lies, &tasks))
        }
    })
}

fn flipped(mut body: Body, lies: Lies, tasks: &TaskTracker) -> Body {
    if body.exact_length() == Some(0) {
        return body;
    }
    let (mut sender, spoiled) = Body::channel(body.exact_length());
    tasks.spawn(async move {
        lies.0.1.fetch_add(1, Ordering::SeqCst);
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) if sender.send(flip(&piece)).await.is_ok() => {}
                Ok(_) => return,
                Err(error) => return sender.abort(error),
            }
        }
        sender.finish();
    });
    spoiled
}

fn flip(piece: &Bytes) -> Bytes {
    let mut piece = BytesMut::from(&piece[..]);
    let middle = piece.len() / 2;
    if let Some(byte) = piece.get_mut(middle) {
        *byte ^= 1;
    }
    piece.freeze()
}
