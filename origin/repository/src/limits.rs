//! Every bound of this package.

/// Largest package manifest, list or key file in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Largest key file in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// Most keys in one key file.
pub const KEYS_PER_FILE_MAX: u64 = 16;
/// Most key files of one role in a folder of keys, and most commands that sign.
pub const KEY_FILES_PER_ROLE_MAX: u64 = 64;
/// Most that decrypting a key file may cost, as scrypt's N: 1 GiB of memory.
pub const KEY_SCRYPT_COST_MAX: u64 = 1 << 20;
/// Largest signature in bytes.
pub const SIGNATURE_BYTES_MAX: u64 = 4096;
/// Seconds that a command that signs may take, if its entry says nothing else.
pub const SIGN_COMMAND_S: u64 = 60;
/// Most that is repeated of what a command that failed said, in bytes.
pub const SIGN_COMMAND_WORDS_BYTES_MAX: u64 = 1024;
/// Most lines in one document of the audit log.
pub const AUDIT_PART_LINES_MAX: u64 = 64;
/// Most targets files signed together of which each has a line in the audit log.
pub const AUDIT_FILES_NAMED_MAX: u64 = 16;
/// Largest document of the audit log in bytes.
pub const AUDIT_PART_BYTES_MAX: u64 = AUDIT_PART_LINES_MAX * AUDIT_LINE_BYTES_MAX;
/// Longest line of the audit log in bytes.
pub const AUDIT_LINE_BYTES_MAX: u64 = 32 << 10;
/// Most hash bins that are looked up one by one when a change touches them; for more, all are read.
pub const BINS_SEARCHED_MAX: u64 = 256;
/// Largest file that collects signatures, in bytes.
pub const CEREMONY_BYTES_MAX: u64 = 64 << 20;
/// Deepest chain of subpackages.
pub const SUBPACKAGE_DEPTH_MAX: u64 = 64;
/// Most packages, subpackages included, in one publish.
pub const PACKAGES_PER_PUBLISH_MAX: u64 = 100_000;
/// Largest content of one blob in bytes: a blob is encoded in memory.
pub const BLOB_CONTENT_BYTES_MAX: u64 = 4 << 30;
/// Largest package archive in bytes: an archive is read into memory.
pub const ARCHIVE_BYTES_MAX: u64 = 4 << 30;
/// Most blobs whose work is done and waits to be heard of.
pub const RESULTS_WAITING_MAX: usize = 1024;
/// Most bytes of blobs worked on at a time, by their content; a larger blob is worked on alone.
pub const IN_WORK_BYTES_MAX: u64 = 512 << 20;
/// Most blobs worked on at a time; waiting for the disk is most of the work for small ones.
pub const WORKERS_MAX: u64 = 8;
/// Largest commit in bytes: two small metadata files and a line for each unnumbered one.
pub const COMMIT_BYTES_MAX: u64 = 4 << 20;
/// How often a publish starts anew because another one was first.
pub const COMMIT_ATTEMPTS_MAX: u64 = 100;
/// Largest segment of receipts in bytes: some three million blobs.
pub const RECEIPTS_BYTES_MAX: u64 = 1 << 30;
/// Most segments of receipts before they are written into one.
pub const RECEIPT_SEGMENTS_MAX: u64 = 64;
/// Bytes of new blobs that are written, synced and read back together.
pub const INGEST_BATCH_BYTES: u64 = 32 << 20;
/// Most new blobs that are written, synced and read back together.
pub const INGEST_BATCH_BLOBS_MAX: u64 = 128;
/// Most blobs named in one answer about what is absent or wrong.
pub const UNREADY_NAMED_MAX: u64 = 1000;
/// Up to this many packages, also those that a publish leaves as they are have their receipts and lengths looked at; beyond,
/// only when metadata is refreshed.
pub const CARRIED_PACKAGES_CHECKED_MAX: u64 = 10_000;
/// Largest announcement of a publish in bytes: two million blobs.
pub const ANNOUNCEMENT_BYTES_MAX: u64 = 64 << 20;
/// Seconds after which an announcement no longer keeps blobs from being collected.
pub const ANNOUNCEMENT_LIFE_S: u64 = 24 * 3600;
/// Most blobs in one question which of them are missing.
pub const BLOBS_ASKED_MAX: u64 = 100_000;
/// Most unfinished uploads.
pub const UPLOADS_MAX: u64 = 1024;
/// Bytes of an upload that become durable together.
pub const UPLOAD_PIECE_BYTES: u64 = 4 << 20;
/// Longest note of when an upload began, in bytes.
pub const UPLOAD_BEGAN_BYTES_MAX: u64 = 64;
/// Seconds for which metadata stays after a newer timestamp took the place of the one that leads to it, at least.
pub const METADATA_KEPT_S: u64 = 24 * 3600;
/// Longest name of a pin in bytes.
pub const PIN_NAME_BYTES_MAX: u64 = 100;
/// Most hashes in one pin.
pub const PINNED_HASHES_MAX: u64 = 100_000;
/// Largest pin in bytes.
pub const PIN_BYTES_MAX: u64 = 16 << 20;
/// Longest reason for publishing what is not proven, in bytes.
pub const REASON_BYTES_MAX: u64 = 512;
/// Largest targets file that the stock client reads, in bytes: a repository of the profile `compat` stays below.
pub const STOCK_TARGETS_BYTES_MAX: u64 = 5_000_000;
/// Largest snapshot file that the stock client reads, in bytes.
pub const STOCK_SNAPSHOT_BYTES_MAX: u64 = 2_000_000;
/// Seconds to wait for another publish to end.
pub const LOCK_WAIT_S: u64 = 120;
/// Seconds after which waiting is said.
pub const LOCK_NOTICE_S: u64 = 30;

/// Largest answer of a running origin that is read, in bytes.
pub const REMOTE_ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Times that a running origin is asked in vain before it is given up.
pub const REMOTE_ATTEMPTS_MAX: u32 = 8;
/// Longest time that a running origin may take to answer, in seconds: it compresses and proves first.
pub const REMOTE_HEADER_S_MAX: u64 = 900;
/// Bytes of a file that are read and sent at a time.
pub const REMOTE_PIECE_BYTES: usize = 256 << 10;

/// Blobs remembered of each edge of a publish gate, so that it is not asked for them again.
pub const EDGE_GATE_REMEMBERED_MAX: usize = 100_000;
/// Pause before an edge that has not got a blob is asked again, in milliseconds.
pub const EDGE_GATE_PAUSE_MS: u64 = 500;

const _: () = assert!(LOCK_NOTICE_S < LOCK_WAIT_S);

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("MANIFEST_BYTES_MAX", MANIFEST_BYTES_MAX),
    ("KEY_FILE_BYTES_MAX", KEY_FILE_BYTES_MAX),
    ("KEYS_PER_FILE_MAX", KEYS_PER_FILE_MAX),
    ("KEY_FILES_PER_ROLE_MAX", KEY_FILES_PER_ROLE_MAX),
    ("KEY_SCRYPT_COST_MAX", KEY_SCRYPT_COST_MAX),
    ("SIGNATURE_BYTES_MAX", SIGNATURE_BYTES_MAX),
    ("SIGN_COMMAND_S", SIGN_COMMAND_S),
    ("SIGN_COMMAND_WORDS_BYTES_MAX", SIGN_COMMAND_WORDS_BYTES_MAX),
    ("AUDIT_PART_LINES_MAX", AUDIT_PART_LINES_MAX),
    ("AUDIT_FILES_NAMED_MAX", AUDIT_FILES_NAMED_MAX),
    ("AUDIT_PART_BYTES_MAX", AUDIT_PART_BYTES_MAX),
    ("AUDIT_LINE_BYTES_MAX", AUDIT_LINE_BYTES_MAX),
    ("BINS_SEARCHED_MAX", BINS_SEARCHED_MAX),
    ("CEREMONY_BYTES_MAX", CEREMONY_BYTES_MAX),
    ("SUBPACKAGE_DEPTH_MAX", SUBPACKAGE_DEPTH_MAX),
    ("PACKAGES_PER_PUBLISH_MAX", PACKAGES_PER_PUBLISH_MAX),
    ("BLOB_CONTENT_BYTES_MAX", BLOB_CONTENT_BYTES_MAX),
    ("ARCHIVE_BYTES_MAX", ARCHIVE_BYTES_MAX),
    ("RESULTS_WAITING_MAX", RESULTS_WAITING_MAX as u64),
    ("IN_WORK_BYTES_MAX", IN_WORK_BYTES_MAX),
    ("WORKERS_MAX", WORKERS_MAX),
    ("COMMIT_BYTES_MAX", COMMIT_BYTES_MAX),
    ("COMMIT_ATTEMPTS_MAX", COMMIT_ATTEMPTS_MAX),
    ("RECEIPTS_BYTES_MAX", RECEIPTS_BYTES_MAX),
    ("RECEIPT_SEGMENTS_MAX", RECEIPT_SEGMENTS_MAX),
    ("INGEST_BATCH_BYTES", INGEST_BATCH_BYTES),
    ("INGEST_BATCH_BLOBS_MAX", INGEST_BATCH_BLOBS_MAX),
    ("UNREADY_NAMED_MAX", UNREADY_NAMED_MAX),
    ("CARRIED_PACKAGES_CHECKED_MAX", CARRIED_PACKAGES_CHECKED_MAX),
    ("ANNOUNCEMENT_BYTES_MAX", ANNOUNCEMENT_BYTES_MAX),
    ("ANNOUNCEMENT_LIFE_S", ANNOUNCEMENT_LIFE_S),
    ("BLOBS_ASKED_MAX", BLOBS_ASKED_MAX),
    ("UPLOADS_MAX", UPLOADS_MAX),
    ("UPLOAD_PIECE_BYTES", UPLOAD_PIECE_BYTES),
    ("UPLOAD_BEGAN_BYTES_MAX", UPLOAD_BEGAN_BYTES_MAX),
    ("METADATA_KEPT_S", METADATA_KEPT_S),
    ("PIN_NAME_BYTES_MAX", PIN_NAME_BYTES_MAX),
    ("PINNED_HASHES_MAX", PINNED_HASHES_MAX),
    ("PIN_BYTES_MAX", PIN_BYTES_MAX),
    ("REASON_BYTES_MAX", REASON_BYTES_MAX),
    ("STOCK_TARGETS_BYTES_MAX", STOCK_TARGETS_BYTES_MAX),
    ("STOCK_SNAPSHOT_BYTES_MAX", STOCK_SNAPSHOT_BYTES_MAX),
    ("LOCK_WAIT_S", LOCK_WAIT_S),
    ("LOCK_NOTICE_S", LOCK_NOTICE_S),
    ("REMOTE_ANSWER_BYTES_MAX", REMOTE_ANSWER_BYTES_MAX),
    ("REMOTE_ATTEMPTS_MAX", REMOTE_ATTEMPTS_MAX as u64),
    ("REMOTE_HEADER_S_MAX", REMOTE_HEADER_S_MAX),
    ("REMOTE_PIECE_BYTES", REMOTE_PIECE_BYTES as u64),
    ("EDGE_GATE_REMEMBERED_MAX", EDGE_GATE_REMEMBERED_MAX as u64),
    ("EDGE_GATE_PAUSE_MS", EDGE_GATE_PAUSE_MS),
];
