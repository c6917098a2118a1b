//! Every bound of this package, with the relations between them asserted.

use colibri_common::limits::BLOB_BYTES_MAX;
use colibri_common::merkle::LEAF_BYTES;

/// Most frames in a chunked archive of version 2 (reference "Fuchsia formats" §4).
pub const FRAMES_MAX: u32 = 1023;

/// Largest unit H in bytes: delivery header, archive header and a full seek table.
pub const UNIT_H_BYTES_MAX: u64 = 28 + 32 + 32 * FRAMES_MAX as u64;

/// Largest content of one frame in bytes, unless the blob is so large that 1023 frames of this size would not hold it.
pub const FRAME_CONTENT_BYTES_MAX: u64 = 8 << 20;

/// Largest content that is decoded into one buffer, in bytes; larger blobs are decoded frame by frame.
pub const DECODED_IN_MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Longest index of a FAR in bytes (a writer makes two entries; others are chunks of unknown types).
pub const FAR_INDEX_BYTES_MAX: u64 = 24 * 256;

/// Most files in a FAR.
pub const FAR_ENTRIES_MAX: u64 = 1 << 20;

/// Most bytes of names in a FAR.
pub const FAR_NAMES_BYTES_MAX: u64 = 128 << 20;

/// Longest package name or variant in bytes.
pub const NAME_BYTES_MAX: u64 = 255;

/// Longest segment of a resource path in bytes.
pub const RESOURCE_SEGMENT_BYTES_MAX: u64 = 255;

/// Longest URL in bytes.
pub const URL_BYTES_MAX: u64 = 64 << 10;

/// Longest host (repository name) in bytes.
pub const HOST_BYTES_MAX: u64 = 253;

/// Largest meta.far in bytes.
pub const META_FAR_BYTES_MAX: u64 = 64 << 20;

/// Most packages in a package with all its subpackages.
pub const CLOSURE_PACKAGES_MAX: u64 = 4096;

/// Most bytes of meta.fars in a package with all its subpackages.
pub const CLOSURE_META_FARS_BYTES_MAX: u64 = 1 << 30;

/// Largest `meta/package` in bytes.
pub const META_PACKAGE_BYTES_MAX: u64 = 64 << 10;

/// Largest `meta/contents` in bytes.
pub const META_CONTENTS_BYTES_MAX: u64 = 32 << 20;

/// Largest `meta/fuchsia.pkg/subpackages` in bytes.
pub const SUBPACKAGES_BYTES_MAX: u64 = 8 << 20;

/// Largest package manifest, build manifest or list of manifests in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(UNIT_H_BYTES_MAX == 32_796, "one request of bytes=0-32795 holds every unit H");
const _: () = assert!(FRAME_CONTENT_BYTES_MAX.is_multiple_of(LEAF_BYTES), "frames begin at leaves");

/// Largest content of one frame in a blob of `content_bytes`.
pub const fn frame_content_bytes_max(content_bytes: u64) -> u64 {
    let needed = content_bytes.div_ceil(FRAMES_MAX as u64).next_multiple_of(LEAF_BYTES);
    if needed > FRAME_CONTENT_BYTES_MAX { needed } else { FRAME_CONTENT_BYTES_MAX }
}

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("FRAMES_MAX", FRAMES_MAX as u64),
    ("UNIT_H_BYTES_MAX", UNIT_H_BYTES_MAX),
    ("FRAME_CONTENT_BYTES_MAX", FRAME_CONTENT_BYTES_MAX),
    ("LARGEST_FRAME_CONTENT_BYTES", frame_content_bytes_max(BLOB_BYTES_MAX)),
    ("DECODED_IN_MEMORY_BYTES_MAX", DECODED_IN_MEMORY_BYTES_MAX),
    ("FAR_INDEX_BYTES_MAX", FAR_INDEX_BYTES_MAX),
    ("FAR_ENTRIES_MAX", FAR_ENTRIES_MAX),
    ("FAR_NAMES_BYTES_MAX", FAR_NAMES_BYTES_MAX),
    ("NAME_BYTES_MAX", NAME_BYTES_MAX),
    ("RESOURCE_SEGMENT_BYTES_MAX", RESOURCE_SEGMENT_BYTES_MAX),
    ("URL_BYTES_MAX", URL_BYTES_MAX),
    ("HOST_BYTES_MAX", HOST_BYTES_MAX),
    ("META_FAR_BYTES_MAX", META_FAR_BYTES_MAX),
    ("CLOSURE_PACKAGES_MAX", CLOSURE_PACKAGES_MAX),
    ("CLOSURE_META_FARS_BYTES_MAX", CLOSURE_META_FARS_BYTES_MAX),
    ("META_PACKAGE_BYTES_MAX", META_PACKAGE_BYTES_MAX),
    ("META_CONTENTS_BYTES_MAX", META_CONTENTS_BYTES_MAX),
    ("SUBPACKAGES_BYTES_MAX", SUBPACKAGES_BYTES_MAX),
    ("MANIFEST_BYTES_MAX", MANIFEST_BYTES_MAX),
];
