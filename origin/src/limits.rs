//! Every bound of this package, with the relations between them asserted.

use colibri_common::merkle::LEAF_BYTES;

/// Most repositories one origin serves.
pub const REPOSITORIES_MAX: usize = 256;

/// Largest metadata or target file served, in bytes: they are read, hashed and kept whole.
pub const SMALL_FILE_BYTES_MAX: u64 = 64 << 20;

/// Memory for metadata and target files, in bytes.
pub const SMALL_FILES_CACHE_BYTES: u64 = 128 << 20;

/// Memory for metadata in gzip and zstd, in bytes.
pub const FORMS_CACHE_BYTES: u64 = 64 << 20;

/// Memory for what has been proven of stored blobs (layouts with their leaves), in bytes.
pub const PROOFS_CACHE_BYTES: u64 = 128 << 20;

/// Memory for summaries of repositories shown to people, in bytes.
pub const SUMMARIES_CACHE_BYTES: u64 = 8 << 20;

/// Most packages listed on a repository's page; the page says when there are more.
pub const PAGE_PACKAGES_MAX: usize = 10_000;

/// Bytes of a blob read from disk, checked and sent at a time (a frame may be larger).
pub const PIECE_BYTES: u64 = 256 << 10;

/// Largest delivery blob whose leaves are computed because none are stored, in bytes: it is read into memory for that.
pub const LEAVES_FROM_DELIVERY_BYTES_MAX: u64 = 1 << 30;

/// Blobs whose leaves are computed at the same time.
pub const LEAVES_COMPUTED_AT_ONCE: usize = 1;

/// Times a small file that changes while it is read is read again.
pub const SMALL_FILE_READ_ATTEMPTS: usize = 4;

/// Longest `User-Agent` handed to observers, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 256;

/// Most listeners to `/REPO/auto`, of all repositories together.
pub const AUTO_LISTENERS_MAX: usize = 1024;

/// How often a timestamp somebody listens to is looked at, in milliseconds.
pub const AUTO_POLL_MS: u64 = 100;

/// How often a listener hears something though nothing happens, in milliseconds.
pub const AUTO_HEARTBEAT_MS: u64 = 15_000;

/// When a listener that found no place may come back, in seconds.
pub const AUTO_RETRY_AFTER_S: u64 = 30;
/// Largest token file in bytes.
pub const TOKEN_FILE_BYTES_MAX: u64 = 4 << 20;

/// Most tokens in one file, dead ones included: each is compared with what is presented.
pub const TOKENS_MAX: usize = 1024;

/// Longest name of a token in bytes.
pub const TOKEN_NAME_BYTES_MAX: usize = 128;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

/// People and addresses whose requests are counted at a time, each.
pub const RATE_KEYS_MAX: usize = 10_000;

/// Longest path of the write API in bytes.
pub const WRITE_PATH_BYTES_MAX: usize = 512;

/// Largest JSON body of the write API in bytes.
pub const WRITE_JSON_BYTES_MAX: u64 = 32 << 20;

/// Longest time to receive a JSON body, in seconds.
pub const WRITE_JSON_S_MAX: u64 = 60;

/// Bytes of a refused request's body that are still read, so that its sender sees the answer.
pub const LINGER_BYTES_MAX: u64 = 4 << 20;

/// Longest time to read them, in milliseconds.
pub const LINGER_MS_MAX: u64 = 2000;

/// Longest wait for an older request of the same sender to let go of an upload, in milliseconds.
pub const TURN_WAIT_MS_MAX: u64 = 5000;

/// Bytes of an upload that are gathered before they are written.
pub const UPLOAD_PIECE_BYTES: usize = 256 << 10;

/// Pieces of one upload that wait to be written.
pub const UPLOAD_PIECES_WAITING: usize = 4;

/// Memory for blobs that are being proven after their upload, in bytes; one larger than this is proven alone.
pub const PROVING_BYTES_MAX: u64 = 1 << 30;

/// How often is looked whether metadata is due to be signed again, in seconds.
pub const REFRESH_LOOK_S: u64 = 60;

/// How long after a failure signing is tried again, in seconds.
pub const REFRESH_RETRY_S: u64 = 300;

const _: () = assert!(PIECE_BYTES.is_multiple_of(LEAF_BYTES), "whole leaves are read and checked");
const _: () = assert!(SMALL_FILE_BYTES_MAX <= SMALL_FILES_CACHE_BYTES, "the largest file fits its cache");

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("REPOSITORIES_MAX", REPOSITORIES_MAX as u64),
    ("SMALL_FILE_BYTES_MAX", SMALL_FILE_BYTES_MAX),
    ("SMALL_FILES_CACHE_BYTES", SMALL_FILES_CACHE_BYTES),
    ("FORMS_CACHE_BYTES", FORMS_CACHE_BYTES),
    ("PROOFS_CACHE_BYTES", PROOFS_CACHE_BYTES),
    ("SUMMARIES_CACHE_BYTES", SUMMARIES_CACHE_BYTES),
    ("PAGE_PACKAGES_MAX", PAGE_PACKAGES_MAX as u64),
    ("PIECE_BYTES", PIECE_BYTES),
    ("LEAVES_FROM_DELIVERY_BYTES_MAX", LEAVES_FROM_DELIVERY_BYTES_MAX),
    ("LEAVES_COMPUTED_AT_ONCE", LEAVES_COMPUTED_AT_ONCE as u64),
    ("SMALL_FILE_READ_ATTEMPTS", SMALL_FILE_READ_ATTEMPTS as u64),
    ("AUTO_LISTENERS_MAX", AUTO_LISTENERS_MAX as u64),
    ("AUTO_POLL_MS", AUTO_POLL_MS),
    ("AUTO_HEARTBEAT_MS", AUTO_HEARTBEAT_MS),
    ("AUTO_RETRY_AFTER_S", AUTO_RETRY_AFTER_S),
    ("USER_AGENT_BYTES_MAX", USER_AGENT_BYTES_MAX as u64),
    ("TOKEN_FILE_BYTES_MAX", TOKEN_FILE_BYTES_MAX),
    ("TOKENS_MAX", TOKENS_MAX as u64),
    ("TOKEN_NAME_BYTES_MAX", TOKEN_NAME_BYTES_MAX as u64),
    ("TOKEN_BYTES_MAX", TOKEN_BYTES_MAX as u64),
    ("RATE_KEYS_MAX", RATE_KEYS_MAX as u64),
    ("WRITE_PATH_BYTES_MAX", WRITE_PATH_BYTES_MAX as u64),
    ("WRITE_JSON_BYTES_MAX", WRITE_JSON_BYTES_MAX),
    ("WRITE_JSON_S_MAX", WRITE_JSON_S_MAX),
    ("LINGER_BYTES_MAX", LINGER_BYTES_MAX),
    ("LINGER_MS_MAX", LINGER_MS_MAX),
    ("TURN_WAIT_MS_MAX", TURN_WAIT_MS_MAX),
    ("UPLOAD_PIECE_BYTES", UPLOAD_PIECE_BYTES as u64),
    ("UPLOAD_PIECES_WAITING", UPLOAD_PIECES_WAITING as u64),
    ("PROVING_BYTES_MAX", PROVING_BYTES_MAX),
    ("REFRESH_LOOK_S", REFRESH_LOOK_S),
    ("REFRESH_RETRY_S", REFRESH_RETRY_S),
];
