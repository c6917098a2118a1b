//! What the demo measured, as JSON keys and as a table.

use std::io::{self, Write};

use serde::Serialize;

use crate::progress::bytes;

/// Measurements of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct DemoReport {
    /// Named packages published.
    pub packages: usize,
    /// Of these, resolved on the device and re-hashed file by file.
    pub packages_verified: usize,
    /// Distinct blobs of release 1.
    pub blobs: usize,
    /// Raw bytes that release 1 names.
    pub bytes_published: u64,
    /// Of these, bytes stored once although named several times.
    pub bytes_deduplicated: u64,
    /// Bytes stored by the origin for release 1, compressed.
    pub bytes_stored: u64,
    /// Body bytes the device received to install release 1.
    pub release1_bytes_fetched: u64,
    /// Body bytes the device received to update to release 2.
    pub release2_bytes_fetched: u64,
    /// Body bytes the origin sent.
    pub origin_bytes_sent: u64,
    /// Body bytes all clients received from the edges.
    pub edge_bytes_sent: u64,
    /// Address of the edge that the device blamed.
    pub corrupt_edge_named: Option<String>,
    /// The blame in full.
    pub blame: Option<String>,
    /// Bytes on the device that do not belong to the blob they are stored as.
    pub unverified_bytes_accepted: u64,
    /// Most successful origin fetches of one unit by one edge.
    pub max_origin_fetches_per_unit_and_edge: u64,
    /// Units that edges answered without the origin, of those they were asked for.
    pub edge_hit_ratio: f64,
    /// Devices of the synthetic fleet.
    pub fleet_devices: u64,
    /// Resolves of the fleet that failed.
    pub fleet_failures: u64,
    /// 99th percentile of a fleet device's whole work, milliseconds.
    pub fleet_p99_ms: f64,
    /// Median of the same.
    pub fleet_p50_ms: f64,
    /// Requests of device and fleet over HTTP/3.
    pub h3_requests: u64,
    /// Over HTTP/2.
    pub h2_requests: u64,
    /// Over HTTP/1.1.
    pub h1_requests: u64,
    /// The whole run, seconds.
    pub duration_s: f64,
    /// Which edge was made to lie; what `corrupt_edge_named` must be.
    pub lying_edge: String,
}

impl DemoReport {
    /// Whether the run showed what it is meant to show.
    pub fn is_good(&self) -> bool {
        self.packages_verified == self.packages
            && self.release2_bytes_fetched < self.release1_bytes_fetched
            && self.corrupt_edge_named.as_ref() == Some(&self.lying_edge)
            && self.unverified_bytes_accepted == 0
            && self.max_origin_fetches_per_unit_and_edge <= 1
            && self.fleet_failures == 0
    }

    /// The table.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let blamed = self.corrupt_edge_named.as_deref().unwrap_or("nobody");
        let rows = [
            ("packages", format!("{} published, {} resolved and verified", self.packages, self.packages_verified)),
            ("blobs", format!("{} in release 1", self.blobs)),
            ("bytes published", format!("{} raw, {} stored", bytes(self.bytes_published), bytes(self.bytes_stored))),
            ("deduplicated", bytes(self.bytes_deduplicated)),
            ("release 1 → device", bytes(self.release1_bytes_fetched)),
            ("release 2 → device", format!("{} (only what changed)", bytes(self.release2_bytes_fetched))),
            ("origin → edges", bytes(self.origin_bytes_sent)),
            ("edges → devices", bytes(self.edge_bytes_sent)),
            ("edge hit ratio", format!("{:.3}", self.edge_hit_ratio)),
            ("origin fetches", format!("at most {} per unit and edge", self.max_origin_fetches_per_unit_and_edge)),
            ("fleet", format!("{} devices, {} failures", self.fleet_devices, self.fleet_failures)),
            ("fleet latency", format!("p50 {:.0} ms, p99 {:.0} ms", self.fleet_p50_ms, self.fleet_p99_ms)),
            ("requests", format!("{} h3, {} h2, {} h1", self.h3_requests, self.h2_requests, self.h1_requests)),
            ("lying edge", format!("{} lied; the device blamed {blamed}", self.lying_edge)),
            ("unverified bytes", format!("{} accepted", self.unverified_bytes_accepted)),
            ("time", format!("{:.1} s", self.duration_s)),
        ];
        writeln!(out)?;
        for (name, value) in rows {
            writeln!(out, "{name:<20} {value}")?;
        }
        if let Some(blame) = &self.blame {
            writeln!(out, "\n{blame}")?;
        }
        let verdict = if self.is_good() { "Everything that arrived was proven." } else { "NOT what was expected." };
        writeln!(out, "\n{verdict}")
    }
}
