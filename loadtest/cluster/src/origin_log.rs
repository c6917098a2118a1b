//! [`OriginLog`]: what the origin was asked, by whom: the measure of "one upstream fetch per unit".
//!
//! Units tile the encoded form of a blob, so a unit that was fetched twice shows as two overlapping spans. Two kinds of span
//! overlap a unit and are none: the probe for unit H at the start, and the probe for the last piece, which ends where the
//! blob does; of these only exact repetitions count.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use colibri_api::{BlobForm, Route};
use colibri_common::{BlobId, ByteRange};
use colibri_origin::{ObservedRequest, RequestObserver};
use colibri_package::delivery::UNIT_H_PROBE_BYTES;
use http::{Method, StatusCode};

use crate::limits::SPANS_MAX;

/// One form of one blob, as one client fetches it.
type Fetched = (Option<String>, BlobForm, BlobId);

/// Completed blob fetches and bytes that left the origin.
#[derive(Debug, Default)]
pub struct OriginLog {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    spans: HashMap<Fetched, Vec<ByteRange>>,
    spans_kept: usize,
    body_bytes: u64,
}

impl OriginLog {
    /// The most completed fetches of one unit by one client.
    pub fn fetches_per_unit_max(&self) -> u64 {
        let counts = self.lock();
        counts.spans.iter().map(|((_, form, _), spans)| repetitions(*form, spans)).max().unwrap_or(0)
    }

    /// Body bytes sent.
    pub fn body_bytes(&self) -> u64 {
        self.lock().body_bytes
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the most fetched unit among these spans was fetched.
fn repetitions(form: BlobForm, spans: &[ByteRange]) -> u64 {
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let exact = sorted.chunk_by(|a, b| a == b).map(|same| same.len() as u64).max().unwrap_or(0);
    let end = sorted.iter().map(|span| span.end()).max().unwrap_or(0);
    let head_probe = |span: &ByteRange| form != BlobForm::Raw && span.start() == 0 && span.end() <= UNIT_H_PROBE_BYTES;
    let units = sorted.iter().filter(|span| !head_probe(span) && span.end() < end && !span.is_empty());
    // Depth of overlap, counted at each start: every deepest place begins with one.
    let units: Vec<_> = units.collect();
    let depth = |at: u64| units.iter().filter(|span| span.start() <= at && at < span.end()).count() as u64;
    exact.max(units.iter().map(|span| depth(span.start())).max().unwrap_or(0))
}

impl RequestObserver for OriginLog {
    fn observe(&self, request: &ObservedRequest) {
        let mut counts = self.lock();
        counts.body_bytes += request.body_bytes;
        let Some(Route::Blob { id, form, .. }) = &request.route else { return };
        let whole = ByteRange::whole(request.body_bytes);
        let span = match request.status {
            StatusCode::OK => whole,
            StatusCode::PARTIAL_CONTENT => request.range.unwrap_or(whole),
            _ => return,
        };
        // A body that was cut off is no completed fetch: its rest will be asked for.
        if request.method == Method::GET && request.body_bytes == span.len() && counts.spans_kept < SPANS_MAX {
            counts.spans_kept += 1;
            counts.spans.entry((request.user_agent.clone(), *form, *id)).or_default().push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(spans: &[(u64, u64)]) -> Vec<ByteRange> {
        spans.iter().map(|(start, end)| ByteRange::new(*start, *end)).collect()
    }

    #[test]
    fn units_once_with_their_probes() {
        let delivery = BlobForm::Delivery(1);
        let once = [(0, 32_796), (990_000, 1_000_000), (40_000, 500_000), (500_000, 1_000_000)];
        assert_eq!(repetitions(delivery, &spans(&once)), 1);
        assert_eq!(repetitions(BlobForm::Raw, &spans(&[(0, 100)])), 1);
    }

    #[test]
    fn a_second_fetch_is_seen_whole_resumed_or_overlapping() {
        let delivery = BlobForm::Delivery(1);
        let whole = [(40_000, 500_000), (40_000, 500_000), (500_000, 1_000_000)];
        assert_eq!(repetitions(delivery, &spans(&whole)), 2);
        let resumed = [(40_000, 500_000), (100_000, 500_000), (500_000, 1_000_000)];
        assert_eq!(repetitions(delivery, &spans(&resumed)), 2);
        assert_eq!(repetitions(delivery, &spans(&[(0, 32_796), (0, 32_796)])), 2);
        assert_eq!(repetitions(BlobForm::Leaves, &spans(&[(0, 64), (0, 64), (0, 64)])), 3);
    }
}
