//! [`Trouble`]: what a node can be made to answer wrong while it runs, each with its switch; more than one at a time if need be.
//!
//! What bytes are spoilt is in [`crate::fault`]; killing a node is [`crate::Node::kill`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use colibri_transport::{Body, Handler, Request, Response, handler};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::kind::FaultKind;
use crate::limits::FROZEN_BYTES_MAX;

/// How long each answer of a slow node is delayed.
pub const SLOW: Duration = Duration::from_millis(250);

/// Switches of one node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Switches>);

#[derive(Debug)]
struct Switches {
    on: [AtomicBool; FaultKind::ALL.len()],
    stalled: watch::Sender<bool>,
    done: AtomicU64,
    /// Timestamps as they were last answered, by path and accepted codings.
    timestamps: Mutex<HashMap<(String, String), (http::response::Parts, Bytes)>>,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            on: Default::default(),
            stalled: watch::Sender::new(false),
            done: AtomicU64::new(0),
            timestamps: Mutex::default(),
        }
    }
}

impl Trouble {
    /// Begins or ends a trouble. Kinds that are not about answers do nothing here.
    pub fn set(&self, kind: FaultKind, on: bool) {
        self.0.on[kind as usize].store(on, Ordering::SeqCst);
        if kind == FaultKind::Stall {
            self.0.stalled.send_replace(on);
        }
    }

    /// Answers that were touched so far.
    pub fn done(&self) -> u64 {
        self.0.done.load(Ordering::SeqCst)
    }

    fn is(&self, kind: FaultKind) -> bool {
        let on = self.0.on[kind as usize].load(Ordering::SeqCst);
        self.0.done.fetch_add(u64::from(on), Ordering::SeqCst);
        on
    }

    fn timestamps(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), (http::response::Parts, Bytes)>> {
        self.0.timestamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wraps `inner` in the troubles of its node.
pub fn troubled(inner: Handler, trouble: Trouble, tasks: TaskTracker) -> Handler {
    handler(move |request: Request| {
        let (inner, trouble, tasks) = (inner.clone(), trouble.clone(), tasks.clone());
        async move {
            if trouble.is(FaultKind::Stall) {
                let mut stalled = trouble.0.stalled.subscribe();
                // The sender lives as long as the switches.
                _ = stalled.wait_for(|stalled| !stalled).await;
            }
            if trouble.is(FaultKind::Slow) {
                tokio::time::sleep(SLOW).await;
            }
            if trouble.is(FaultKind::Refuse) {
                return refused(StatusCode::TOO_MANY_REQUESTS);
            }
            if trouble.is(FaultKind::Error) {
                return refused(StatusCode::SERVICE_UNAVAILABLE);
            }
            answer(inner, request, &trouble, &tasks).await
        }
    })
}

async fn answer(inner: Handler, request: Request, trouble: &Trouble, tasks: &TaskTracker) -> Response {
    let path = request.uri().path().to_owned();
    if path.ends_with("/timestamp.json") {
        return timestamp(inner, request, path, trouble).await;
    }
    let response = inner(request).await;
    let is_blob = path.contains("/blobs/") && !path.contains("/leaves/");
    if is_blob && response.status().is_success() && trouble.is(FaultKind::Truncate) {
        return truncated(response, tasks);
    }
    response
}

fn refused(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

async fn timestamp(inner: Handler, request: Request, path: String, trouble: &Trouble) -> Response {
    let codings = request.headers().get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = (path, codings.to_owned());
    if trouble.is(FaultKind::Freeze)
        && let Some((parts, bytes)) = trouble.timestamps().get(&key)
    {
        return Response::from_parts(parts.clone(), Body::full(bytes.clone()));
    }
    let response = inner(request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = body.read_all(FROZEN_BYTES_MAX).await else { return refused(StatusCode::BAD_GATEWAY) };
    let mut kept = trouble.timestamps();
    // Few paths and codings are asked for in a test; what is beyond is not remembered.
    if kept.len() < 64 || kept.contains_key(&key) {
        kept.insert(key, (parts.clone(), bytes.clone()));
    }
    Response::from_parts(parts, Body::full(bytes))
}

/// The first half of a body, ended as if that were all.
fn truncated(response: Response, tasks: &TaskTracker) -> Response {
    let (mut parts, mut body) = response.into_parts();
    let Some(length) = body.exact_length().filter(|length| *length > 1) else {
        return Response::from_parts(parts, body);
    };
    parts.headers.remove(CONTENT_LENGTH);
    let (mut sender, short) = Body::channel(None);
    tasks.spawn(async move {
        let mut left = length / 2;
        while left > 0
            && let Some(Ok(mut piece)) = body.next().await
        {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= piece.len() as u64;
            if sender.send(piece).await.is_err() {
                return;
            }
        }
        sender.finish();
    });
    Response::from_parts(parts, short)
}
