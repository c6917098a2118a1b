//! [`OriginLog`]: what the origin was asked, by whom: the measure of "one upstream fetch per unit".

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use colibri_api::{BlobForm, Route};
use colibri_common::{BlobId, ByteRange};
use colibri_origin::{ObservedRequest, RequestObserver};
use http::{Method, StatusCode};

/// A unit as the origin sees it: who asked, for which form of which blob, for which span. Units tile a blob, so the same
/// unit asked twice is the same span asked twice; leaves, unit H and last-piece probes are spans of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Span {
    agent: Option<String>,
    form: BlobForm,
    id: BlobId,
    range: Option<ByteRange>,
}

/// Successful blob fetches and bytes that left the origin.
#[derive(Debug, Default)]
pub struct OriginLog {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    spans: HashMap<Span, u64>,
    requests: u64,
    body_bytes: u64,
}

impl OriginLog {
    /// The most successful fetches of one unit by one client.
    pub fn fetches_per_unit_max(&self) -> u64 {
        self.lock().spans.values().copied().max().unwrap_or(0)
    }

    /// Different units fetched, summed over clients.
    pub fn units_fetched(&self) -> usize {
        self.lock().spans.len()
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Body bytes sent.
    pub fn body_bytes(&self) -> u64 {
        self.lock().body_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestObserver for OriginLog {
    fn observe(&self, request: &ObservedRequest) {
        let mut counts = self.lock();
        counts.requests += 1;
        counts.body_bytes += request.body_bytes;
        let succeeded = matches!(request.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        if let (Some(Route::Blob { id, form, .. }), true, &Method::GET) = (&request.route, succeeded, &request.method) {
            let span = Span { agent: request.user_agent.clone(), form: *form, id: *id, range: request.range };
            *counts.spans.entry(span).or_default() += 1;
        }
    }
}
