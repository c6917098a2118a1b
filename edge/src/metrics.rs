//! [`Metrics`]: one counter for each arrow of the read path. Cheap to clone.

use colibri_service::metrics::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, MetricsError, Registry};

/// Upper bounds of the time to the head of an answer.
const HEAD_SECONDS: &[f64] = &[0.000_25, 0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0];

/// What an edge counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Answers, by protocol and class of status.
    pub answers: IntCounterVec,
    /// From the arrival of a request to the head of its answer, seconds.
    pub head_seconds: Histogram,
    /// Requests to be relayed to upstream.
    pub relayed: IntCounter,
    /// Of these, hung up on.
    pub relay_failures: IntCounter,
    /// Units that readers asked for.
    pub units_asked: IntCounter,
    /// Of these, answered from memory.
    pub memory_hits: IntCounter,
    /// Of these, joined to a fill under way.
    pub joined: IntCounter,
    /// Of these, read back from disk.
    pub disk_hits: IntCounter,
    /// Units fetched from upstream, those that came with the opening of a small blob included.
    pub fills: IntCounter,
    /// Fills that failed.
    pub fill_failures: IntCounter,
    /// Bad pieces that sources sent.
    pub quarantined: IntCounter,
    /// Bad pieces that are kept to be looked at.
    pub quarantine_pieces: IntGauge,
    /// Their bytes.
    pub quarantine_bytes: IntGauge,
    /// Verified bytes that came from upstream, encoded form.
    pub filled_bytes: IntCounter,
    /// Bytes of blobs sent to readers, without headers.
    pub served_bytes: IntCounter,
    /// Units that memory let go.
    pub evictions: IntCounter,
    /// Readers whose unit was let go before they had read it: it was asked for again.
    pub lapses: IntCounter,
    /// Bytes of units in memory.
    pub memory_bytes: IntGauge,
    /// Bytes of units alive: in the memory tier, coming in, and held by readers though memory has let them go.
    pub live_bytes: IntGauge,
    /// Bytes that the disk tier takes, in blocks of the file system, with what is promised to units being written.
    pub disk_bytes: IntGauge,
    /// Files of the disk tier.
    pub disk_files: IntGauge,
    /// Folders of files that an earlier process left and that are still to be taken into the books.
    pub disk_unseen_folders: IntGauge,
    /// 1 while the disk fails, is full or does not answer.
    pub disk_alarm: IntGauge,
    /// Units that the disk tier let go.
    pub disk_evictions: IntCounter,
    /// Leaves and frames that the disk changed or lost.
    pub disk_damaged: IntCounter,
    /// Of these, fetched again: while the unit was read, or because a scrub found them.
    pub disk_repaired: IntCounter,
    /// Bytes that were verified at rest.
    pub disk_scrubbed_bytes: IntCounter,
    /// How far the scrub under way has come, in thousandths.
    pub disk_scrub_permille: IntGauge,
    /// Seconds that a scrub of everything takes at the configured rate; 0 if none is configured.
    pub disk_scrub_pass_s: IntGauge,
    /// Bytes written to disk.
    pub disk_written_bytes: IntCounter,
    /// Units not written because the disk did not keep up.
    pub disk_dropped: IntCounter,
    /// Reads and writes of the disk tier that failed.
    pub disk_errors: IntCounter,
    /// Other edges of the region that are known.
    pub peers: IntGauge,
    /// Parts of blobs that the best peer was not asked for, because it had too much to do.
    pub peers_overloaded: IntCounter,
    /// Times the members of the region could not be found out; the last ones stayed.
    pub peers_unknown: IntCounter,
    /// Metadata documents that clients asked for.
    pub documents_asked: IntCounter,
    /// Of these, questions upstream.
    pub documents_fetched: IntCounter,
    /// Of these, answered stale because upstream was away.
    pub documents_stale: IntCounter,
    /// Refreshes of followed repositories.
    pub metadata_refreshes: IntCounter,
    /// Of these, failed.
    pub metadata_refresh_failures: IntCounter,
    /// Sources whose metadata was refused: forged, broken or older than what is known.
    pub metadata_refused: IntCounter,
    /// New sets of followed repositories that were taken over.
    pub metadata_swaps: IntCounter,
    /// Versions served, by repository and role.
    pub metadata_version: IntGaugeVec,
    /// Events of upstream that told of something new.
    pub auto_heard: IntCounter,
    /// Bytes that were warmed.
    pub warmed_bytes: IntCounter,
    /// Blobs that could not be warmed.
    pub warm_failures: IntCounter,
    /// Requests for blobs that upstream did not have a moment ago.
    pub unknown_blobs: IntCounter,
    /// Requests for blobs that no trusted set reaches.
    pub unlisted_blobs: IntCounter,
    /// Clients who listen to `/REPO/auto`.
    pub auto_listeners: IntGauge,
    /// Requests turned away because their token's rate was used up.
    pub quota_refusals: IntCounter,
    /// Clients who found no place there.
    pub auto_turned_away: IntCounter,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let counter = |name, help| registry.counter(name, help);
        Ok(Self {
            answers: registry.counter_vec(
                "colibri_edge_answers_total",
                "answers by protocol and class of status",
                &["protocol", "class"],
            )?,
            head_seconds: registry.histogram(
                "colibri_edge_head_seconds",
                "from the arrival of a request to the head of its answer",
                HEAD_SECONDS.to_vec(),
            )?,
            relayed: counter("colibri_edge_relayed_total", "requests to be relayed to upstream")?,
            relay_failures: counter("colibri_edge_relay_failures_total", "of these, hung up on")?,
            units_asked: counter("colibri_edge_units_asked_total", "units that readers asked for")?,
            memory_hits: counter("colibri_edge_memory_hits_total", "units answered from memory")?,
            joined: counter("colibri_edge_joined_total", "readers that joined a fill under way")?,
            disk_hits: counter("colibri_edge_disk_hits_total", "units read back from disk")?,
            fills: counter("colibri_edge_fills_total", "units fetched from upstream")?,
            fill_failures: counter("colibri_edge_fill_failures_total", "fills that failed")?,
            quarantined: counter("colibri_edge_quarantined_total", "bad pieces that sources sent")?,
            quarantine_pieces: registry
                .gauge("colibri_edge_quarantine_pieces", "bad pieces that are kept to be looked at")?,
            quarantine_bytes: registry.gauge("colibri_edge_quarantine_bytes", "bytes of these")?,
            filled_bytes: counter("colibri_edge_filled_bytes_total", "verified bytes that came from upstream")?,
            served_bytes: counter(
                "colibri_edge_served_bytes_total",
                "bytes of blobs sent to readers; colibri_edge_upstream_bytes_total{tier=\"origin\"} over this is the origin amplification",
            )?,
            evictions: counter("colibri_edge_evictions_total", "units that memory let go")?,
            lapses: counter("colibri_edge_lapses_total", "readers whose unit was let go before they had read it")?,
            memory_bytes: registry.gauge("colibri_edge_memory_bytes", "bytes of units in memory")?,
            live_bytes: registry.gauge("colibri_edge_live_bytes", "bytes of units alive, whoever holds them")?,
            disk_bytes: registry.gauge("colibri_edge_disk_bytes", "bytes of disk that the tier takes")?,
            disk_files: registry.gauge("colibri_edge_disk_files", "files of the disk tier")?,
            disk_unseen_folders: registry
                .gauge("colibri_edge_disk_unseen_folders", "folders left by an earlier process, still to be counted")?,
            disk_alarm: registry
                .gauge("colibri_edge_disk_alarms", "1 while the disk fails, is full or does not answer")?,
            disk_evictions: counter("colibri_edge_disk_evictions_total", "units that the disk tier let go")?,
            disk_damaged: counter(
                "colibri_edge_disk_damaged_total",
                "leaves and frames that the disk changed or lost",
            )?,
            disk_repaired: counter("colibri_edge_disk_repaired_total", "of these, fetched again")?,
            disk_scrubbed_bytes: counter("colibri_edge_disk_scrubbed_bytes_total", "bytes verified at rest")?,
            disk_scrub_permille: registry
                .gauge("colibri_edge_disk_scrub_permilles", "how far the scrub under way has come, in thousandths")?,
            disk_scrub_pass_s: registry.gauge(
                "colibri_edge_disk_scrub_pass_seconds",
                "what a scrub of everything takes at the configured rate",
            )?,
            disk_written_bytes: counter("colibri_edge_disk_written_bytes_total", "bytes written to disk")?,
            disk_dropped: counter("colibri_edge_disk_dropped_total", "units the disk did not keep up with")?,
            disk_errors: counter("colibri_edge_disk_errors_total", "failed reads and writes of the disk tier")?,
            peers: registry.gauge("colibri_edge_peers", "other edges of the region")?,
            peers_overloaded: counter("colibri_edge_peers_overloaded_total", "parts not asked of the best peer")?,
            peers_unknown: counter("colibri_edge_peers_unknown_total", "times the members could not be found out")?,
            documents_asked: counter("colibri_edge_documents_asked_total", "metadata documents asked for")?,
            documents_fetched: counter("colibri_edge_documents_fetched_total", "metadata questions upstream")?,
            documents_stale: counter("colibri_edge_documents_stale_total", "metadata answered stale")?,
            metadata_refreshes: counter("colibri_edge_metadata_refreshes_total", "refreshes of followed repositories")?,
            metadata_refresh_failures: counter(
                "colibri_edge_metadata_refresh_failures_total",
                "refreshes that failed",
            )?,
            metadata_refused: counter("colibri_edge_metadata_refused_total", "sources whose metadata was refused")?,
            metadata_swaps: counter("colibri_edge_metadata_swaps_total", "new metadata sets taken over")?,
            metadata_version: registry.gauge_vec(
                "colibri_edge_metadata_versions",
                "version that is served of each role",
                &["repository", "role"],
            )?,
            warmed_bytes: counter("colibri_edge_warmed_bytes_total", "bytes fetched before anybody asked")?,
            warm_failures: counter("colibri_edge_warm_failures_total", "blobs that could not be warmed")?,
            unknown_blobs: counter("colibri_edge_unknown_blobs_total", "answers that upstream has no such blob")?,
            unlisted_blobs: counter("colibri_edge_unlisted_blobs_total", "blobs refused for being in no trusted set")?,
            auto_heard: counter("colibri_edge_auto_heard_total", "events of upstream")?,
            auto_listeners: registry.gauge("colibri_edge_auto_listeners", "clients who listen for new metadata")?,
            quota_refusals: counter(
                "colibri_edge_quota_refusals_total",
                "requests turned away: their token's rate was used up",
            )?,
            auto_turned_away: counter("colibri_edge_auto_turned_away_total", "clients for whom there was no place")?,
        })
    }

    /// Units that readers got without a fill of their own, and units they asked for. A unit that came with the opening of a
    /// small blob was filled for the reader who opened it, though he then finds it in memory.
    pub fn hits_and_asked(&self) -> (u64, u64) {
        let asked = self.units_asked.get();
        (asked.saturating_sub(self.fills.get()), asked)
    }

    /// Units by where they came from: memory, disk, a fill that somebody else had begun, a fill.
    pub fn tiers(&self) -> [u64; 4] {
        [self.memory_hits.get(), self.disk_hits.get(), self.joined.get(), self.fills.get()]
    }
}
