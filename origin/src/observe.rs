//! Counters and observers of answered requests.
//!
//! An observer is told of every request once, when its body has been handed over or has ended early.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use colibri_api::Route;
use colibri_common::ByteRange;
use http::{Method, StatusCode};

/// One answered request.
#[derive(Debug, Clone)]
pub struct ObservedRequest {
    /// The method.
    pub method: Method,
    /// What was asked for; nothing if the path is none of ours.
    pub route: Option<Route>,
    /// The part that was sent, for a 206 of one part.
    pub range: Option<ByteRange>,
    /// The status.
    pub status: StatusCode,
    /// Body bytes handed to the connection, of errors too.
    pub body_bytes: u64,
    /// Remote address, if the request came over a socket.
    pub peer: Option<SocketAddr>,
    /// What the client calls itself.
    pub user_agent: Option<String>,
}

/// Something that is told of each answered request, on the task that answered it: it must not block.
pub trait RequestObserver: Send + Sync {
    /// One request was answered.
    fn observe(&self, request: &ObservedRequest);
}

impl<F: Fn(&ObservedRequest) + Send + Sync> RequestObserver for F {
    fn observe(&self, request: &ObservedRequest) {
        self(request);
    }
}

/// What was counted under one route kind and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Requests answered.
    pub requests: u64,
    /// Body bytes handed over.
    pub body_bytes: u64,
}

/// Requests and body bytes by route kind (see [`Route::kind`]; `none` for paths that are none of ours) and status.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<(&'static str, u16), Count>>);

impl Counters {
    /// All counts so far.
    pub fn snapshot(&self) -> BTreeMap<(&'static str, u16), Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Body bytes handed over for one route kind, errors included.
    pub fn body_bytes(&self, kind: &str) -> u64 {
        self.snapshot().iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count.body_bytes).sum()
    }

    fn add(&self, request: &ObservedRequest) {
        let kind = request.route.as_ref().map_or("none", Route::kind);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((kind, request.status.as_u16())).or_default();
        count.requests += 1;
        count.body_bytes += request.body_bytes;
    }
}

/// A request whose answer is under way.
pub(crate) struct Observation {
    pub request: ObservedRequest,
    pub counters: Arc<Counters>,
    pub observers: Arc<[Arc<dyn RequestObserver>]>,
}

impl Observation {
    /// The body has been handed over, wholly or in part.
    pub fn finish(mut self, body_bytes: u64) {
        self.request.body_bytes = body_bytes;
        self.counters.add(&self.request);
        for observer in self.observers.iter() {
            observer.observe(&self.request);
        }
    }
}
