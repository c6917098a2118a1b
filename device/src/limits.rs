//! Every bound of this package.

/// Packages in one resolve, subpackages included.
pub const PACKAGES_PER_RESOLVE_MAX: usize = 4096;

/// Blobs in one resolve.
pub const BLOBS_PER_RESOLVE_MAX: usize = 1 << 20;

/// Packages that are looked at for an earlier version of one that is fetched.
pub const PREVIOUS_LOOKED_AT_MAX: usize = 256;

/// A blob of fewer bytes is fetched whole: looking for an earlier version of it costs more.
pub const REUSED_BLOB_BYTES_MIN: u64 = 128 << 10;

/// Bytes of an earlier version that are copied at a time.
pub const REUSE_STEP_BYTES: u64 = 256 << 10;

/// Configured repositories.
pub const REPOSITORIES_MAX: usize = 256;

/// How long after a refresh that no mirror answered the next one is put off, if there is trusted metadata, seconds.
pub const REFRESH_AGAIN_S: u64 = 10;

/// A fallback to the cache packages that took so long is told, seconds.
pub const SLOW_FALLBACK_S: u64 = 10;

/// But not again before so long, seconds.
pub const SLOW_FALLBACK_AGAIN_S: u64 = 600;

/// Lengths of meta.fars that repositories list, remembered for fetching them.
pub const LISTED_SIZES_MAX: usize = 4096;

/// Bytes of the document that says which mirrors lag behind.
pub const LAGGING_BYTES_MAX: u64 = 1 << 20;

/// Archives of boot packages.
pub const BOOT_ARCHIVES_MAX: usize = 1024;

/// Boot packages, with their subpackages.
pub const BOOT_PACKAGES_MAX: usize = 16_384;

/// Packages and repositories in a developer overlay.
pub const OVERLAY_MAX: usize = 1024;

/// Bytes of the document of the developer overlay.
pub const OVERLAY_BYTES_MAX: u64 = 1 << 20;

/// Packages that can be fetched at a time.
pub const WRITING_MAX: usize = 4096;

/// Packages that can be open at a time.
pub const LEASES_MAX: usize = 4096;

/// Bytes that name the holder of a lease.
pub const LEASE_HOLDER_BYTES_MAX: usize = 256;

/// Packages whose contents are remembered before those that no index leads to are forgotten.
pub const KNOWN_PACKAGES_MIN: usize = 1024;

/// Packages that an updater can retain.
pub const RETAINED_PACKAGES_MAX: u64 = 100_000;

/// Blobs that an updater can retain.
pub const RETAINED_BLOBS_MAX: u64 = 1_000_000;

/// Packages on demand whose last use is remembered.
pub const USES_MAX: usize = 16_384;

/// How much later than the one before a use is written down, seconds.
pub const USE_AGAIN_S: u64 = 3600;

/// Bytes of the document of what is kept and why.
pub const KEPT_BYTES_MAX: u64 = 128 << 20;

/// Bytes of the document that says how late it was at least.
pub const FLOOR_BYTES_MAX: u64 = 4096;

/// How much later than what is durable it must be before that is written down again, seconds.
pub const FLOOR_STEP_S: u64 = 600;

/// Rewrite rules in one list.
pub const RULES_MAX: usize = 4096;

/// Bytes of a list of rewrite rules.
pub const RULES_BYTES_MAX: u64 = 1 << 20;

/// Bytes that a verification reads at a time.
pub const VERIFY_STEP_BYTES: u64 = 1 << 20;

/// After so many bytes a verification that the daemon began by itself writes down how far it is.
pub const VERIFY_SAVE_BYTES: u64 = 64 << 20;

/// Bytes of the document of what a daemon does by itself.
pub const CHORES_BYTES_MAX: u64 = 64 << 10;

/// Bytes of what is remembered of how one of these things went.
pub const CHORE_SAID_BYTES_MAX: usize = 1024;

/// How often the clock is looked at for them, ms: it may be set.
pub const CHORES_LOOK_MS: u64 = 30_000;

/// Bytes of an image that are read and written at a time.
pub const IMAGE_PIECE_BYTES: u64 = 1 << 20;

/// Bytes of each file that says what an update is.
pub const UPDATE_FILE_BYTES_MAX: u64 = colibri_release::limits::UPDATE_FILE_BYTES_MAX;

/// Bytes of a signed manifest of an update, with its signatures.
pub const UPDATE_MANIFEST_BYTES_MAX: u64 =
    colibri_release::limits::OTA_MANIFEST_BYTES_MAX + colibri_release::limits::OTA_SIGNATURES_BYTES_MAX + 16;

/// Keys that may sign manifests of updates.
pub const UPDATE_KEYS_MAX: usize = 64;

/// Bytes of the file of those keys.
pub const UPDATE_KEYS_BYTES_MAX: u64 = 64 << 10;

/// Eager packages.
pub const EAGER_PACKAGES_MAX: usize = 32;

/// Bytes of the list of eager packages that a device is shipped with.
pub const EAGER_CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Bytes of the signed answers about them that are kept.
pub const EAGER_BYTES_MAX: u64 = 256 << 20;

/// Attempts at updates that are remembered.
pub const UPDATE_ATTEMPTS_MAX: usize = 50;

/// Bytes of the document of systems and updates.
pub const UPDATE_RECORD_BYTES_MAX: u64 = 64 << 20;

/// Bytes of a list of packages in a system image.
pub const IMAGE_FILE_BYTES_MAX: u64 = 16 << 20;

/// What a forecast adds to each blob for a last block that is not full, bytes.
pub const MARGIN_BYTES_PER_BLOB: u64 = 8192;

/// What a forecast adds for leaves: one byte of so many of content.
pub const MARGIN_LEAVES_SHARE: u64 = 128;

/// Things that a daemon does at a time for those who ask: resolves, verifications, installations.
pub const DAEMON_OPERATIONS_MAX: usize = 64;

/// Bytes of a request to a daemon that is no release.
pub const DAEMON_DOCUMENT_BYTES_MAX: u64 = 2 << 20;

/// How often a daemon tells how far it is, ms.
pub const DAEMON_PROGRESS_MS: u64 = 250;

/// From how many of these the rate is made.
pub const DAEMON_RATE_SAMPLES: usize = 12;

/// Packages that one request to a daemon can open.
pub const DAEMON_OPEN_MAX: usize = 256;

/// Packages that one user, other than root and the device's own, can have open.
pub const DAEMON_LEASES_OF_USER_MAX: usize = 256;

/// Bytes of a blob that a daemon reads at a time for whoever asked for it.
pub const DAEMON_BLOB_STEP_BYTES: u64 = 1 << 20;

/// Longest pause before a mirror's events are asked for again, ms.
pub const SUBSCRIBE_PAUSE_MS_MAX: u64 = 60_000;

/// The same, when no mirror has events, ms.
pub const SUBSCRIBE_ABSENT_MS: u64 = 600_000;

/// A stream of events that is silent for this long is given up, ms.
pub const SUBSCRIBE_SILENCE_MS_MAX: u64 = 90_000;

/// After a refresh, events are not heeded for this long, ms.
pub const SUBSCRIBE_NEWS_PAUSE_MS: u64 = 1000;

/// How often repositories are looked at that nobody told of, ms.
pub const SUBSCRIBE_LOOK_MS: u64 = 30_000;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("PACKAGES_PER_RESOLVE_MAX", PACKAGES_PER_RESOLVE_MAX as u64),
    ("BLOBS_PER_RESOLVE_MAX", BLOBS_PER_RESOLVE_MAX as u64),
    ("PREVIOUS_LOOKED_AT_MAX", PREVIOUS_LOOKED_AT_MAX as u64),
    ("REUSED_BLOB_BYTES_MIN", REUSED_BLOB_BYTES_MIN),
    ("REUSE_STEP_BYTES", REUSE_STEP_BYTES),
    ("REPOSITORIES_MAX", REPOSITORIES_MAX as u64),
    ("REFRESH_AGAIN_S", REFRESH_AGAIN_S),
    ("SLOW_FALLBACK_S", SLOW_FALLBACK_S),
    ("SLOW_FALLBACK_AGAIN_S", SLOW_FALLBACK_AGAIN_S),
    ("LISTED_SIZES_MAX", LISTED_SIZES_MAX as u64),
    ("LAGGING_BYTES_MAX", LAGGING_BYTES_MAX),
    ("BOOT_ARCHIVES_MAX", BOOT_ARCHIVES_MAX as u64),
    ("BOOT_PACKAGES_MAX", BOOT_PACKAGES_MAX as u64),
    ("OVERLAY_MAX", OVERLAY_MAX as u64),
    ("OVERLAY_BYTES_MAX", OVERLAY_BYTES_MAX),
    ("WRITING_MAX", WRITING_MAX as u64),
    ("LEASES_MAX", LEASES_MAX as u64),
    ("LEASE_HOLDER_BYTES_MAX", LEASE_HOLDER_BYTES_MAX as u64),
    ("KNOWN_PACKAGES_MIN", KNOWN_PACKAGES_MIN as u64),
    ("RETAINED_PACKAGES_MAX", RETAINED_PACKAGES_MAX),
    ("RETAINED_BLOBS_MAX", RETAINED_BLOBS_MAX),
    ("USES_MAX", USES_MAX as u64),
    ("USE_AGAIN_S", USE_AGAIN_S),
    ("KEPT_BYTES_MAX", KEPT_BYTES_MAX),
    ("VERIFY_STEP_BYTES", VERIFY_STEP_BYTES),
    ("VERIFY_SAVE_BYTES", VERIFY_SAVE_BYTES),
    ("CHORES_BYTES_MAX", CHORES_BYTES_MAX),
    ("CHORE_SAID_BYTES_MAX", CHORE_SAID_BYTES_MAX as u64),
    ("CHORES_LOOK_MS", CHORES_LOOK_MS),
    ("IMAGE_PIECE_BYTES", IMAGE_PIECE_BYTES),
    ("UPDATE_FILE_BYTES_MAX", UPDATE_FILE_BYTES_MAX),
    ("UPDATE_MANIFEST_BYTES_MAX", UPDATE_MANIFEST_BYTES_MAX),
    ("UPDATE_KEYS_MAX", UPDATE_KEYS_MAX as u64),
    ("UPDATE_KEYS_BYTES_MAX", UPDATE_KEYS_BYTES_MAX),
    ("EAGER_PACKAGES_MAX", EAGER_PACKAGES_MAX as u64),
    ("EAGER_CONFIG_BYTES_MAX", EAGER_CONFIG_BYTES_MAX),
    ("EAGER_BYTES_MAX", EAGER_BYTES_MAX),
    ("UPDATE_ATTEMPTS_MAX", UPDATE_ATTEMPTS_MAX as u64),
    ("UPDATE_RECORD_BYTES_MAX", UPDATE_RECORD_BYTES_MAX),
    ("FLOOR_BYTES_MAX", FLOOR_BYTES_MAX),
    ("FLOOR_STEP_S", FLOOR_STEP_S),
    ("RULES_MAX", RULES_MAX as u64),
    ("RULES_BYTES_MAX", RULES_BYTES_MAX),
    ("SUBSCRIBE_PAUSE_MS_MAX", SUBSCRIBE_PAUSE_MS_MAX),
    ("SUBSCRIBE_ABSENT_MS", SUBSCRIBE_ABSENT_MS),
    ("SUBSCRIBE_SILENCE_MS_MAX", SUBSCRIBE_SILENCE_MS_MAX),
    ("SUBSCRIBE_NEWS_PAUSE_MS", SUBSCRIBE_NEWS_PAUSE_MS),
    ("SUBSCRIBE_LOOK_MS", SUBSCRIBE_LOOK_MS),
    ("DAEMON_OPERATIONS_MAX", DAEMON_OPERATIONS_MAX as u64),
    ("DAEMON_DOCUMENT_BYTES_MAX", DAEMON_DOCUMENT_BYTES_MAX),
    ("DAEMON_PROGRESS_MS", DAEMON_PROGRESS_MS),
    ("DAEMON_RATE_SAMPLES", DAEMON_RATE_SAMPLES as u64),
    ("DAEMON_OPEN_MAX", DAEMON_OPEN_MAX as u64),
    ("DAEMON_LEASES_OF_USER_MAX", DAEMON_LEASES_OF_USER_MAX as u64),
    ("DAEMON_BLOB_STEP_BYTES", DAEMON_BLOB_STEP_BYTES),
    ("IMAGE_FILE_BYTES_MAX", IMAGE_FILE_BYTES_MAX),
    ("MARGIN_BYTES_PER_BLOB", MARGIN_BYTES_PER_BLOB),
    ("MARGIN_LEAVES_SHARE", MARGIN_LEAVES_SHARE),
];
