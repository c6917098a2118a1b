//! What a fleet measured: counts, bytes, latencies in microseconds, failures with their texts.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies, microseconds, 3 significant digits.
pub(crate) type Latencies = Histogram<u64>;

/// Longest latency told apart, microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// An empty histogram.
pub(crate) fn new_latencies() -> Latencies {
    Latencies::new_with_bounds(1, LATENCY_US_MAX, 3).expect("fixed bounds")
}

/// The outcome of one run.
#[derive(Debug, Clone, Serialize)]
pub struct FleetReport {
    /// Devices that woke.
    pub devices: u64,
    /// Packages resolved and verified, summed over devices.
    pub packages: u64,
    /// Resolves that failed.
    pub failures: u64,
    /// The first different failures, as texts.
    pub failure_texts: Vec<String>,
    /// Blobs kept, summed over devices.
    pub blobs: u64,
    /// Bytes of verified content, summed over devices.
    pub content_bytes: u64,
    /// Body bytes received, summed over devices.
    pub received_bytes: u64,
    /// Requests by protocol, summed over devices.
    pub h3_requests: u64,
    /// HTTP/2 requests.
    pub h2_requests: u64,
    /// HTTP/1.1 requests.
    pub h1_requests: u64,
    /// Median time from a device's intended start to its last package, milliseconds; of devices without a failure.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Worst.
    pub max_ms: f64,
    /// Whole run, seconds.
    pub duration_s: f64,
    /// Seed of the plan.
    pub seed: u64,
}

impl FleetReport {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            devices: 0,
            packages: 0,
            failures: 0,
            failure_texts: Vec::new(),
            blobs: 0,
            content_bytes: 0,
            received_bytes: 0,
            h3_requests: 0,
            h2_requests: 0,
            h1_requests: 0,
            p50_ms: 0.0,
            p90_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            duration_s: 0.0,
            seed,
        }
    }

    pub(crate) fn set_latencies(&mut self, latencies: &Latencies) {
        let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        (self.p50_ms, self.p90_ms, self.p99_ms) = (ms(0.5), ms(0.9), ms(0.99));
        self.max_ms = latencies.max() as f64 / 1000.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_latencies() {
        let mut latencies = new_latencies();
        (1..=100).for_each(|ms| latencies.saturating_record(ms * 1000));
        latencies.saturating_record(10 * LATENCY_US_MAX);
        let mut report = FleetReport::new(1);
        report.set_latencies(&latencies);
        let close = |found: f64, expected: f64| (found - expected).abs() <= expected / 100.0;
        assert!(close(report.p50_ms, 51.0), "{}", report.p50_ms);
        assert!(close(report.p90_ms, 91.0), "{}", report.p90_ms);
        assert!(close(report.p99_ms, 100.0), "{}", report.p99_ms);
        assert!(report.max_ms >= LATENCY_US_MAX as f64 / 1000.0 * 0.99, "{}", report.max_ms);
    }
}
