//! Every bound of this package.

use std::time::Duration;

use colibri_common::limits::LEAVES_LIST_BYTES_MAX;

/// Times the whole list of sources is tried for one thing that somebody waits for, before giving up.
pub const PASSES_MAX: u32 = crate::class::Class::Demand.passes_max();

/// Sources in one set.
pub const SOURCES_MAX: usize = 64;

/// Blames kept for reading; older ones are forgotten, counters are not.
pub const BLAMES_KEPT_MAX: usize = 256;

/// What is shown of one piece that a source sent and that is bad, bytes: all of a leaf, and of most frames.
pub const BAD_PIECE_BYTES_MAX: usize = 64 << 10;

/// How long a source that served bad bytes is asked only when nobody else is left.
pub const BLAME_DEMOTION: Duration = Duration::from_secs(300);

/// How long a source that failed otherwise is asked after the others; doubled with each failure that follows.
pub const FAILURE_DEMOTION: Duration = Duration::from_secs(5);

/// A blob of at most this is fetched whole when it is opened, bytes; of a larger one the last piece comes first, which proves the
/// length, so that a reader gets the first as soon as it is here.
pub const OPEN_WHOLE_BYTES_MAX: u64 = 64 << 10;

/// Largest such time.
pub const FAILURE_DEMOTION_MAX: Duration = Duration::from_secs(60);

/// Largest time for which a source that keeps serving bad bytes is asked only when nobody else is left.
pub const BLAME_DEMOTION_MAX: Duration = Duration::from_secs(3600);

/// After this long without new trouble, half of what a source did is forgotten.
pub const DEMOTION_HALF_LIFE: Duration = Duration::from_secs(300);

/// How long a source that said that it is about to stop is not asked for anything new while there are others.
pub const LEAVING_MEMORY: Duration = Duration::from_secs(60);

/// Requests in flight at one source, bodies being read included, unless configured otherwise.
pub const SOURCE_IN_FLIGHT_MAX: u32 = 256;

/// Latencies of one source that are kept for quantiles.
pub const LATENCIES_KEPT: usize = 128;

/// With fewer latencies than this there are no quantiles, and no hedges.
pub const LATENCIES_MIN: usize = 20;

/// A mean latency is believed for this long after the last measurement.
pub const LATENCY_LIFE: Duration = Duration::from_secs(60);

/// Hedges that may follow each other at once, when the share was not used for long.
pub const HEDGES_SAVED_MAX: u32 = 4;

/// Largest verified segment handed on in one piece, bytes.
pub const SEGMENT_BYTES_MAX: usize = 64 * 1024;

/// Largest blob taken from a source that has no leaves: it is held in memory until wholly verified. Bytes.
pub const BLOB_WITHOUT_LEAVES_BYTES_MAX: u64 = 256 << 20;

/// Largest content of a delivery blob that is decoded to find out what it is, because its source has no leaves. Bytes.
pub const CONTENT_WITHOUT_LEAVES_BYTES_MAX: u64 = 1 << 30;

/// Bytes that are received and thrown away to get at a range of a source that ignores ranges.
pub const SKIPPED_BYTES_MAX: u64 = BLOB_WITHOUT_LEAVES_BYTES_MAX;

/// Bytes by which a coded document may be longer than its content, besides a 256th of it.
pub const CODED_EXTRA_BYTES_MAX: u64 = 1024;

/// Unverified bytes that one fetcher holds at a time (bodies of up to 64 KiB are not counted).
pub const UNVERIFIED_BYTES_MAX: u64 = 512 << 20;

const _: () = assert!(BLOB_WITHOUT_LEAVES_BYTES_MAX <= UNVERIFIED_BYTES_MAX, "the largest body finds room");
const _: () = assert!(LEAVES_LIST_BYTES_MAX <= UNVERIFIED_BYTES_MAX, "the largest body finds room");

/// Bytes that may pass at once after a pause, as time at the bound on bytes per second.
pub const BANDWIDTH_BURST: Duration = Duration::from_millis(100);

/// Shares of a bound on bytes per second: what somebody waits for, what is likely wanted soon, and the rest.
pub const BANDWIDTH_SHARES: [u32; 3] = [8, 3, 1];

/// Attempts at one thing, at all sources together, unless configured otherwise.
pub const ATTEMPTS_MAX: u32 = 256;

/// How long one thing is asked for without any progress, unless configured otherwise.
pub const PERSISTENCE_MAX: Duration = Duration::from_secs(300);

/// Largest pause before a source that asked for one (`Retry-After`) is asked for the same thing again, unless configured
/// otherwise: who asks for more is not asked for it again.
pub const PAUSE_MAX: Duration = Duration::from_secs(5);

/// For how long a source that asks to be left alone is not asked at all, at most: nobody is silenced for ever by an answer.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Largest TUF target that is fetched, bytes: it is held in memory until its hashes are checked.
pub const TARGET_BYTES_MAX: u64 = 256 << 20;

/// Files of delegated roles that are fetched at a time when all are wanted.
pub const ROLES_AT_ONCE: usize = 32;

/// Bytes that all delegated roles of a repository may have together, when all are wanted.
pub const DELEGATED_BYTES_MAX: u64 = 512 << 20;

/// Largest stored set of trusted metadata: the caps of all roles, with room for their escaping in JSON. Bytes.
pub const TRUSTED_SET_BYTES_MAX: u64 = 32 << 20;

/// Name and value of each limit, for the documentation and its test (durations in milliseconds).
pub const ALL: &[(&str, u64)] = &[
    ("OPEN_WHOLE_BYTES_MAX", OPEN_WHOLE_BYTES_MAX),
    ("PASSES_MAX", PASSES_MAX as u64),
    ("SOURCES_MAX", SOURCES_MAX as u64),
    ("BLAMES_KEPT_MAX", BLAMES_KEPT_MAX as u64),
    ("BAD_PIECE_BYTES_MAX", BAD_PIECE_BYTES_MAX as u64),
    ("BLAME_DEMOTION", BLAME_DEMOTION.as_millis() as u64),
    ("FAILURE_DEMOTION", FAILURE_DEMOTION.as_millis() as u64),
    ("FAILURE_DEMOTION_MAX", FAILURE_DEMOTION_MAX.as_millis() as u64),
    ("BLAME_DEMOTION_MAX", BLAME_DEMOTION_MAX.as_millis() as u64),
    ("DEMOTION_HALF_LIFE", DEMOTION_HALF_LIFE.as_millis() as u64),
    ("LEAVING_MEMORY", LEAVING_MEMORY.as_millis() as u64),
    ("SOURCE_IN_FLIGHT_MAX", SOURCE_IN_FLIGHT_MAX as u64),
    ("LATENCIES_KEPT", LATENCIES_KEPT as u64),
    ("LATENCIES_MIN", LATENCIES_MIN as u64),
    ("LATENCY_LIFE", LATENCY_LIFE.as_millis() as u64),
    ("HEDGES_SAVED_MAX", HEDGES_SAVED_MAX as u64),
    ("SEGMENT_BYTES_MAX", SEGMENT_BYTES_MAX as u64),
    ("BLOB_WITHOUT_LEAVES_BYTES_MAX", BLOB_WITHOUT_LEAVES_BYTES_MAX),
    ("CONTENT_WITHOUT_LEAVES_BYTES_MAX", CONTENT_WITHOUT_LEAVES_BYTES_MAX),
    ("SKIPPED_BYTES_MAX", SKIPPED_BYTES_MAX),
    ("CODED_EXTRA_BYTES_MAX", CODED_EXTRA_BYTES_MAX),
    ("UNVERIFIED_BYTES_MAX", UNVERIFIED_BYTES_MAX),
    ("BANDWIDTH_BURST", BANDWIDTH_BURST.as_millis() as u64),
    ("ATTEMPTS_MAX", ATTEMPTS_MAX as u64),
    ("PERSISTENCE_MAX", PERSISTENCE_MAX.as_millis() as u64),
    ("PAUSE_MAX", PAUSE_MAX.as_millis() as u64),
    ("RETRY_AFTER_MAX", RETRY_AFTER_MAX.as_millis() as u64),
    ("TARGET_BYTES_MAX", TARGET_BYTES_MAX),
    ("ROLES_AT_ONCE", ROLES_AT_ONCE as u64),
    ("DELEGATED_BYTES_MAX", DELEGATED_BYTES_MAX),
    ("TRUSTED_SET_BYTES_MAX", TRUSTED_SET_BYTES_MAX),
];
