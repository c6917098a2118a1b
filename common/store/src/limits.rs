//! Every bound of this package, with the relations between them asserted.

use colibri_common::merkle::{LEAF_BYTES, UNIT_BYTES};

/// Longest document name in bytes.
pub const DOCUMENT_NAME_BYTES_MAX: usize = 1024;

/// Longest part between slashes of a document name, in bytes: what file systems allow.
pub const DOCUMENT_NAME_PART_BYTES_MAX: usize = 255;

/// Open files that one call for several documents takes at a time.
pub const DOCUMENTS_WRITTEN_AT_A_TIME: usize = 128;

/// Files that are synced at a time when there are several to sync.
pub const SYNCS_AT_A_TIME: usize = 16;

/// Longest `format` document in bytes.
pub const FORMAT_BYTES_MAX: u64 = 256;

/// Memory for the pages of a store's index, in bytes.
pub const INDEX_CACHE_BYTES: usize = 4 << 20;

/// Most pins in a store.
pub const PINS_MAX: u64 = 100_000;

/// Most blobs one pin may protect (32 bytes each).
pub const PINNED_BLOBS_MAX: u64 = 1_000_000;

/// Longest name of a pin in bytes.
pub const PIN_NAME_BYTES_MAX: usize = 1024;

/// Blobs whose rows and files a collection removes at a time: the index grows by no more than their ids before there is space
/// again.
pub const REMOVALS_AT_A_TIME: usize = 1024;

/// Buffer for copying and re-verifying, in bytes.
pub const COPY_BUFFER_BYTES: usize = 256 << 10;

/// Bytes of a partially present file that are read at once; a larger frame is read alone.
pub const RUN_BYTES_MAX: u64 = 64 << 10;

/// Bytes at the end of a partially present file that keeping books about it reads first.
pub const GLANCE_BYTES: u64 = 4096;

const _: () = assert!(UNIT_BYTES.is_multiple_of(COPY_BUFFER_BYTES as u64), "buffers tile a unit");
const _: () = assert!(RUN_BYTES_MAX >= LEAF_BYTES, "a run has at least a leaf");
const _: () = assert!(DOCUMENT_NAME_PART_BYTES_MAX <= DOCUMENT_NAME_BYTES_MAX, "a name has at least one part");

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("DOCUMENT_NAME_BYTES_MAX", DOCUMENT_NAME_BYTES_MAX as u64),
    ("DOCUMENT_NAME_PART_BYTES_MAX", DOCUMENT_NAME_PART_BYTES_MAX as u64),
    ("DOCUMENTS_WRITTEN_AT_A_TIME", DOCUMENTS_WRITTEN_AT_A_TIME as u64),
    ("SYNCS_AT_A_TIME", SYNCS_AT_A_TIME as u64),
    ("FORMAT_BYTES_MAX", FORMAT_BYTES_MAX),
    ("INDEX_CACHE_BYTES", INDEX_CACHE_BYTES as u64),
    ("PINS_MAX", PINS_MAX),
    ("PINNED_BLOBS_MAX", PINNED_BLOBS_MAX),
    ("PIN_NAME_BYTES_MAX", PIN_NAME_BYTES_MAX as u64),
    ("REMOVALS_AT_A_TIME", REMOVALS_AT_A_TIME as u64),
    ("RUN_BYTES_MAX", RUN_BYTES_MAX),
    ("GLANCE_BYTES", GLANCE_BYTES),
    ("COPY_BUFFER_BYTES", COPY_BUFFER_BYTES as u64),
];
