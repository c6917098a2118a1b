//! Every bound of this package that is not configuration.

use colibri_fetch::limits::SEGMENT_BYTES_MAX;
use colibri_transport::limits::BODY_CHANNEL_CHUNKS;

/// Leaves and seek tables of opened blobs have a budget of one byte for so many of units in memory; and besides there is the newest
/// that is too large for it.
pub const SHAPES_SHARE: u64 = 4;

/// The least that budget is, bytes.
pub const SHAPES_BYTES_MIN: u64 = 16 << 20;

/// The most that budget is, bytes.
pub const SHAPES_BYTES_MAX: u64 = 1 << 30;

/// Budget for metadata documents, bytes.
pub const DOCUMENTS_BYTES_MAX: u64 = 64 << 20;

/// Budget for coded forms of metadata documents, bytes.
pub const FORMS_BYTES_MAX: u64 = 48 << 20;

/// Largest metadata file or TUF target passed on, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 32 << 20;

/// Budget for names of documents that upstream does not have, bytes.
pub const ABSENT_BYTES_MAX: u64 = 4 << 20;

/// A client that insists gets the answer "absent" without a question upstream if upstream said so this recently, ms.
pub const ABSENT_FLOOR_MS: u64 = 1000;

/// A numbered document is checked upstream at most this often when clients insist, ms: should upstream have sent a bad one
/// once, it does not stay.
pub const NUMBERED_RECHECK_MS: u64 = 60_000;

/// So long upstream may take over a document of which something old is here: then that is served, and the question goes on, ms.
pub const STALE_AFTER_MS: u64 = 1500;

/// Until upstream has answered for the first time, a request for a document waits for it this long, ms: edge and upstream may
/// start in any order, and a name may need a moment to become known.
pub const FIRST_CONTACT_MS: u64 = 3000;

/// Pause between two attempts of that, ms.
pub const FIRST_CONTACT_PAUSE_MS: u64 = 200;

/// After a refresh that failed, requests do not cause another for this long, ms.
pub const AWAY_MS: u64 = 1000;

/// A request waits for a refresh of followed metadata at most this long, ms; then it gets what is here.
pub const REFRESH_WAIT_MS: u64 = 3000;

/// Shortest time between two refreshes that the clock causes, ms (before jitter, which takes up to half).
pub const REFRESH_MS_MIN: u64 = 1000;

/// Longest such time while refreshes fail, ms.
pub const REFRESH_MS_MAX: u64 = 60_000;

/// Threads that take a folder of files that an earlier process left into the books.
pub const DISK_LOADERS: usize = 4;

/// Fewer files than this are not worth a thread.
pub const DISK_LOADED_TOGETHER_MIN: usize = 64;

/// The operator is told of an upstream that signs nothing new this often, seconds.
pub const FREEZE_TOLD_EVERY_S: u64 = 3600;

/// An answer for another edge that is silent for this long, ms, has upstream asked whether it leads in a circle; then after twice
/// as long, and so on.
pub const CIRCLE_PROBE_MS: u64 = 500;

/// Such a question waits for its answer at most this long, ms: circles answer at once, or after so many pauses as they have edges.
pub const CIRCLE_PROBE_MS_MAX: u64 = 10_000;

/// Such questions at a time.
pub const CIRCLE_PROBES_MAX: usize = 32;

/// After a refresh, events of upstream are not heeded for up to this long, ms.
pub const NEWS_PAUSE_MS: u64 = 250;

/// Delegated roles that are fetched with a set, so that it is served whole; of more, each when it is asked for.
pub const DELEGATED_WITH_SET_MAX: usize = 64;

/// Verified metadata files of one repository that no set holds, bytes.
pub const EXTRA_BYTES_MAX: u64 = 64 << 20;

/// Roots of one repository that are kept; of more, the newest.
pub const ROOTS_KEPT_MAX: usize = 4096;

/// Sets of one repository that were served and stay reachable, at most.
pub const PAST_SETS_MAX: usize = 4096;

/// What such sets take in memory for each repository, bytes.
pub const PAST_BYTES_MAX: u64 = 256 << 20;

/// What was served stays reachable at least this long, s; longer if its timestamp lives longer.
pub const PAST_LIFE_S_MIN: u64 = 24 * 3600;

/// How often somebody who listens to `/REPO/auto` hears that the connection lives, ms.
pub const AUTO_HEARTBEAT_MS: u64 = 15_000;

/// When somebody who found no place there may come back, s.
pub const AUTO_RETRY_AFTER_S: u64 = 30;

/// Longest pause before upstream's events are asked for again, ms.
pub const AUTO_BACKOFF_MS_MAX: u64 = 30_000;

/// The same, when no upstream has events, ms.
pub const AUTO_ABSENT_MS: u64 = 300_000;

/// A stream of events that is silent for this long is given up, ms.
pub const AUTO_SILENCE_MS_MAX: u64 = 90_000;

/// Budget for blobs that upstream does not have, bytes.
pub const UNKNOWN_BYTES_MAX: u64 = 4 << 20;

/// Blobs of which is known that trusted sets reach them, for each repository; of more, none is refused.
pub const REACH_BLOBS_MAX: usize = 1 << 20;

/// Packages of one set that are walked, and subpackages of one package.
pub const WARM_PACKAGES_MAX: usize = 1 << 17;

/// Content blobs of one package with its subpackages that are walked.
pub const WARM_PACKAGE_BLOBS_MAX: usize = 1 << 18;

/// When what could not be warmed is tried again, ms.
pub const WARM_AGAIN_MS: u64 = 30_000;

/// Longest such time while it fails again and again, ms.
pub const WARM_AGAIN_MS_MAX: u64 = 3_600_000;

/// Releases of one repository that can be pinned.
pub const PINNED_RELEASES_MAX: usize = 64;

/// Largest document of pins, bytes.
pub const PINS_BYTES_MAX: u64 = 64 << 10;

/// Largest body of a request on the admin port, bytes.
pub const CONTROL_BYTES_MAX: u64 = 16 << 10;

/// An import waits for the disk to take a unit at most this long, ms.
pub const IMPORT_WAIT_MS_MAX: u64 = 10_000;

/// Fills of units under way at once, and openings of blobs, and fetches of documents; more wait for a place.
pub const FLIGHTS_MAX: u32 = 256;

/// The memory budget is divided into this many shares.
pub const SHARES: u64 = 16;

/// Of these, for the memory tier.
pub const TIER_SHARES: u64 = 11;

/// For units that are being filled.
pub const FILL_SHARES: u64 = 3;

/// Fills have at least this, bytes.
pub const FILL_BYTES_MIN: u64 = 8 << 20;

/// For units that readers are at though memory has let them go.
pub const PIN_SHARES: u64 = 1;

/// For parts of units on their way to clients; when more is on its way, each further reader gets copies of a leaf.
pub const LENT_SHARES: u64 = 1;

/// Each of these two has at least this, bytes.
pub const PIN_BYTES_MIN: u64 = 4 << 20;

const _: () = assert!(TIER_SHARES + FILL_SHARES + PIN_SHARES + LENT_SHARES == SHARES);

/// Units waiting to be written to disk, bytes; more are dropped and counted.
pub const DISK_QUEUE_BYTES_MAX: u64 = 32 << 20;

/// Units being read from disk at once; more come from upstream.
pub const DISK_READS_MAX: usize = 64;

/// A unit that the disk has not given after this comes from upstream, and the disk is left alone for a while, ms.
pub const DISK_READ_MS_MAX: u64 = 2000;

/// Longest that a clean stop waits for the disk, ms; after that the next start verifies more.
pub const DISK_CLOSE_MS_MAX: u64 = 10_000;

/// Units being written to disk at once; more wait.
pub const DISK_WRITERS: usize = 4;

/// After a failed write nothing is written for this long, and nothing read after a read that took too long, ms.
pub const DISK_PAUSE_MS: u64 = 5000;

/// Open files of the disk tier, at most; and at most a quarter of the files that the process may open.
pub const DISK_OPEN_FILES_MAX: u64 = 4096;

/// Disks hand out blocks of this size, bytes; smaller things take one all the same.
pub const DISK_BLOCK_BYTES: u64 = 4096;

/// What a file's name takes in its folder, bytes, rounded up.
pub const DISK_NAME_BYTES: u64 = 160;

/// Largest document about how the last process ended, bytes.
pub const DISK_EPOCH_BYTES_MAX: u64 = 4096;

/// Units that went lately and are remembered, so that those that come back stay longer.
pub const DISK_GHOSTS_MAX: usize = 65_536;

/// Units that somebody is reading which are passed over when room is made; after that there is none.
pub const DISK_HELD_VICTIMS_MAX: u32 = 64;

/// The disk tier is looked after this often, ms.
pub const DISK_UPKEEP_MS: u64 = 500;

/// Leaves and seek tables that files of the disk tier keep in memory, bytes.
pub const DISK_LAYOUT_BYTES_MAX: u64 = 256 << 20;

/// Units asked for ahead of a sequential reader.
pub const READ_AHEAD_UNITS: u32 = 1;

/// Bytes of a unit that a reader must have taken before the next unit is asked for: more than waits in its body anyway.
pub const READ_AHEAD_AFTER_BYTES: u64 = 512 << 10;

/// Largest answer that is handed over at once; larger ones go piece by piece, so that slow readers hold no more than a few.
pub const WHOLE_ANSWER_BYTES_MAX: u64 = 256 << 10;

/// Other edges in a region; more are left out.
pub const PEERS_MAX: usize = 64;

/// Largest list of endpoint slices that is read, bytes.
pub const ENDPOINT_SLICES_BYTES_MAX: u64 = 4 << 20;

/// Units of a blob that are one share of a region: so many that follow each other have the same peer.
pub const PEER_RUN_UNITS: u32 = 4;

/// Requests in flight at a peer that are never too many, however few the others have.
pub const PEER_LOAD_MIN: u32 = 64;

/// Units that wait to be repaired after a scrub found damage; of more, the damaged ones go from the disk.
pub const REPAIRS_QUEUED_MAX: usize = 256;

/// Bad pieces that are kept for people to look at; the oldest go.
pub const QUARANTINED_MAX: usize = 256;

/// Of these, from one source: it pushes out its own first.
pub const QUARANTINE_OF_ONE_SOURCE_MAX: usize = 64;

/// Bytes of all of them.
pub const QUARANTINE_BYTES_MAX: usize = 8 << 20;

/// Hops of a `CDN-Loop` value sent on; those furthest away are left out.
pub const LOOP_HOPS_MAX: usize = 32;

/// Longest `CDN-Loop` value sent on, bytes; the hops furthest away are left out.
pub const LOOP_BYTES_MAX: usize = 2048;

const _: () = assert!(
    READ_AHEAD_AFTER_BYTES > (BODY_CHANNEL_CHUNKS as u64 + 1) * SEGMENT_BYTES_MAX as u64,
    "who reads nothing is not read ahead for"
);
const _: () = assert!(DOCUMENTS_BYTES_MAX / 10 * 9 > DOCUMENT_BYTES_MAX, "the largest document is kept");

/// Longest body of a request that is relayed, in bytes.
pub const RELAY_REQUEST_BYTES_MAX: u64 = 256 << 10;

/// Longest answer that is relayed, in bytes.
pub const RELAY_ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What of a path gets into the access log, in bytes.
pub const LOGGED_PATH_BYTES_MAX: usize = 1024;

/// What of another field gets into the access log, in bytes.
pub const LOGGED_FIELD_BYTES_MAX: usize = 256;

/// Units whose past is remembered.
pub const HISTORY_UNITS_MAX: usize = 65_536;

/// What is remembered of a failure's text, in bytes.
pub const HISTORY_TEXT_BYTES_MAX: usize = 256;

/// Units of one encoding that an explanation lists.
pub const EXPLAINED_UNITS_MAX: u32 = 4096;

/// Longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Path prefixes and blobs in one token.
pub const TOKEN_SCOPES_MAX: usize = 64;

/// Keys that may sign tokens.
pub const TOKEN_KEYS_MAX: usize = 32;

/// Subjects of tokens whose rates are held at a time; of more, those that are new are turned away.
pub const QUOTA_SUBJECTS_MAX: usize = 65_536;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("SHAPES_SHARE", SHAPES_SHARE),
    ("SHAPES_BYTES_MIN", SHAPES_BYTES_MIN),
    ("SHAPES_BYTES_MAX", SHAPES_BYTES_MAX),
    ("DOCUMENTS_BYTES_MAX", DOCUMENTS_BYTES_MAX),
    ("FORMS_BYTES_MAX", FORMS_BYTES_MAX),
    ("DOCUMENT_BYTES_MAX", DOCUMENT_BYTES_MAX),
    ("ABSENT_BYTES_MAX", ABSENT_BYTES_MAX),
    ("ABSENT_FLOOR_MS", ABSENT_FLOOR_MS),
    ("NUMBERED_RECHECK_MS", NUMBERED_RECHECK_MS),
    ("STALE_AFTER_MS", STALE_AFTER_MS),
    ("FIRST_CONTACT_MS", FIRST_CONTACT_MS),
    ("FIRST_CONTACT_PAUSE_MS", FIRST_CONTACT_PAUSE_MS),
    ("AWAY_MS", AWAY_MS),
    ("REFRESH_WAIT_MS", REFRESH_WAIT_MS),
    ("REFRESH_MS_MIN", REFRESH_MS_MIN),
    ("REFRESH_MS_MAX", REFRESH_MS_MAX),
    ("DISK_LOADERS", DISK_LOADERS as u64),
    ("DISK_LOADED_TOGETHER_MIN", DISK_LOADED_TOGETHER_MIN as u64),
    ("FREEZE_TOLD_EVERY_S", FREEZE_TOLD_EVERY_S),
    ("CIRCLE_PROBE_MS", CIRCLE_PROBE_MS),
    ("CIRCLE_PROBE_MS_MAX", CIRCLE_PROBE_MS_MAX),
    ("CIRCLE_PROBES_MAX", CIRCLE_PROBES_MAX as u64),
    ("NEWS_PAUSE_MS", NEWS_PAUSE_MS),
    ("DELEGATED_WITH_SET_MAX", DELEGATED_WITH_SET_MAX as u64),
    ("EXTRA_BYTES_MAX", EXTRA_BYTES_MAX),
    ("ROOTS_KEPT_MAX", ROOTS_KEPT_MAX as u64),
    ("PAST_SETS_MAX", PAST_SETS_MAX as u64),
    ("PAST_BYTES_MAX", PAST_BYTES_MAX),
    ("PAST_LIFE_S_MIN", PAST_LIFE_S_MIN),
    ("AUTO_HEARTBEAT_MS", AUTO_HEARTBEAT_MS),
    ("AUTO_RETRY_AFTER_S", AUTO_RETRY_AFTER_S),
    ("AUTO_BACKOFF_MS_MAX", AUTO_BACKOFF_MS_MAX),
    ("AUTO_ABSENT_MS", AUTO_ABSENT_MS),
    ("AUTO_SILENCE_MS_MAX", AUTO_SILENCE_MS_MAX),
    ("UNKNOWN_BYTES_MAX", UNKNOWN_BYTES_MAX),
    ("REACH_BLOBS_MAX", REACH_BLOBS_MAX as u64),
    ("WARM_PACKAGES_MAX", WARM_PACKAGES_MAX as u64),
    ("WARM_PACKAGE_BLOBS_MAX", WARM_PACKAGE_BLOBS_MAX as u64),
    ("WARM_AGAIN_MS", WARM_AGAIN_MS),
    ("WARM_AGAIN_MS_MAX", WARM_AGAIN_MS_MAX),
    ("PINNED_RELEASES_MAX", PINNED_RELEASES_MAX as u64),
    ("PINS_BYTES_MAX", PINS_BYTES_MAX),
    ("CONTROL_BYTES_MAX", CONTROL_BYTES_MAX),
    ("IMPORT_WAIT_MS_MAX", IMPORT_WAIT_MS_MAX),
    ("FLIGHTS_MAX", FLIGHTS_MAX as u64),
    ("SHARES", SHARES),
    ("TIER_SHARES", TIER_SHARES),
    ("FILL_SHARES", FILL_SHARES),
    ("FILL_BYTES_MIN", FILL_BYTES_MIN),
    ("PIN_SHARES", PIN_SHARES),
    ("LENT_SHARES", LENT_SHARES),
    ("PIN_BYTES_MIN", PIN_BYTES_MIN),
    ("DISK_QUEUE_BYTES_MAX", DISK_QUEUE_BYTES_MAX),
    ("DISK_READS_MAX", DISK_READS_MAX as u64),
    ("DISK_READ_MS_MAX", DISK_READ_MS_MAX),
    ("DISK_PAUSE_MS", DISK_PAUSE_MS),
    ("DISK_CLOSE_MS_MAX", DISK_CLOSE_MS_MAX),
    ("DISK_WRITERS", DISK_WRITERS as u64),
    ("DISK_OPEN_FILES_MAX", DISK_OPEN_FILES_MAX),
    ("DISK_BLOCK_BYTES", DISK_BLOCK_BYTES),
    ("DISK_NAME_BYTES", DISK_NAME_BYTES),
    ("DISK_EPOCH_BYTES_MAX", DISK_EPOCH_BYTES_MAX),
    ("DISK_GHOSTS_MAX", DISK_GHOSTS_MAX as u64),
    ("DISK_HELD_VICTIMS_MAX", DISK_HELD_VICTIMS_MAX as u64),
    ("DISK_UPKEEP_MS", DISK_UPKEEP_MS),
    ("DISK_LAYOUT_BYTES_MAX", DISK_LAYOUT_BYTES_MAX),
    ("READ_AHEAD_UNITS", READ_AHEAD_UNITS as u64),
    ("READ_AHEAD_AFTER_BYTES", READ_AHEAD_AFTER_BYTES),
    ("WHOLE_ANSWER_BYTES_MAX", WHOLE_ANSWER_BYTES_MAX),
    ("PEERS_MAX", PEERS_MAX as u64),
    ("ENDPOINT_SLICES_BYTES_MAX", ENDPOINT_SLICES_BYTES_MAX),
    ("PEER_RUN_UNITS", PEER_RUN_UNITS as u64),
    ("PEER_LOAD_MIN", PEER_LOAD_MIN as u64),
    ("REPAIRS_QUEUED_MAX", REPAIRS_QUEUED_MAX as u64),
    ("QUARANTINED_MAX", QUARANTINED_MAX as u64),
    ("QUARANTINE_OF_ONE_SOURCE_MAX", QUARANTINE_OF_ONE_SOURCE_MAX as u64),
    ("QUARANTINE_BYTES_MAX", QUARANTINE_BYTES_MAX as u64),
    ("LOOP_HOPS_MAX", LOOP_HOPS_MAX as u64),
    ("LOOP_BYTES_MAX", LOOP_BYTES_MAX as u64),
    ("RELAY_REQUEST_BYTES_MAX", RELAY_REQUEST_BYTES_MAX),
    ("RELAY_ANSWER_BYTES_MAX", RELAY_ANSWER_BYTES_MAX),
    ("LOGGED_PATH_BYTES_MAX", LOGGED_PATH_BYTES_MAX as u64),
    ("LOGGED_FIELD_BYTES_MAX", LOGGED_FIELD_BYTES_MAX as u64),
    ("HISTORY_UNITS_MAX", HISTORY_UNITS_MAX as u64),
    ("HISTORY_TEXT_BYTES_MAX", HISTORY_TEXT_BYTES_MAX as u64),
    ("EXPLAINED_UNITS_MAX", EXPLAINED_UNITS_MAX as u64),
    ("TOKEN_BYTES_MAX", TOKEN_BYTES_MAX as u64),
    ("TOKEN_SCOPES_MAX", TOKEN_SCOPES_MAX as u64),
    ("TOKEN_KEYS_MAX", TOKEN_KEYS_MAX as u64),
    ("QUOTA_SUBJECTS_MAX", QUOTA_SUBJECTS_MAX as u64),
];
