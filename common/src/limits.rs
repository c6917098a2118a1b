//! Every bound of this package, with the relations between them asserted.

use crate::merkle::{LEAF_BYTES, UNIT_BYTES};

/// Largest blob that Colibri handles, in bytes (64 GiB: its leaf list is then 256 MiB, the largest list held in memory).
pub const BLOB_BYTES_MAX: u64 = 64 << 30;

/// Most leaves a blob may have.
pub const LEAVES_MAX: u64 = BLOB_BYTES_MAX / LEAF_BYTES;

/// Largest encoded leaf list in bytes.
pub const LEAVES_LIST_BYTES_MAX: u64 = LEAVES_MAX * crate::DIGEST_BYTES as u64;

/// From this many bytes on, hashing in one call uses all cores.
pub const PARALLEL_HASHING_FROM_BYTES: usize = 2 * UNIT_BYTES as usize;

const _: () = assert!(BLOB_BYTES_MAX.is_multiple_of(UNIT_BYTES), "units tile the largest blob");
const _: () = assert!(UNIT_BYTES.is_multiple_of(LEAF_BYTES), "leaves tile a unit");

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("BLOB_BYTES_MAX", BLOB_BYTES_MAX),
    ("LEAVES_MAX", LEAVES_MAX),
    ("LEAVES_LIST_BYTES_MAX", LEAVES_LIST_BYTES_MAX),
    ("PARALLEL_HASHING_FROM_BYTES", PARALLEL_HASHING_FROM_BYTES as u64),
];
