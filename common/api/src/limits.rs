//! Every bound of this package: what a peer could otherwise make long.

/// Longest request path that is looked at, in bytes, before percent-decoding.
pub const PATH_BYTES_MAX: usize = 8192;

/// Longest decoded path segment in bytes: the longest file name that common file systems hold.
pub const SEGMENT_BYTES_MAX: usize = 255;

/// Most entity tags that are compared in one `If-None-Match` or `If-Match`; the rest of the list is ignored.
pub const ENTITY_TAGS_MAX: usize = 64;

/// Longest `Cache-Status` inherited from upstream, in bytes; of a longer one, the entries furthest away are left out before a hop
/// adds its own.
pub const CACHE_STATUS_BYTES_MAX: usize = 2048;

/// Most ranges in one `Range` field; a longer list is ignored and the whole is sent.
pub const RANGES_MAX: usize = 64;

/// Longest boundary of `multipart/byteranges` in bytes (RFC 2046 §5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;

/// Longest `tracestate` that is passed on, in bytes.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Longest `detail` of a problem document in bytes.
pub const PROBLEM_DETAIL_BYTES_MAX: usize = 1024;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("PATH_BYTES_MAX", PATH_BYTES_MAX as u64),
    ("SEGMENT_BYTES_MAX", SEGMENT_BYTES_MAX as u64),
    ("ENTITY_TAGS_MAX", ENTITY_TAGS_MAX as u64),
    ("CACHE_STATUS_BYTES_MAX", CACHE_STATUS_BYTES_MAX as u64),
    ("RANGES_MAX", RANGES_MAX as u64),
    ("BOUNDARY_BYTES_MAX", BOUNDARY_BYTES_MAX as u64),
    ("TRACESTATE_BYTES_MAX", TRACESTATE_BYTES_MAX as u64),
    ("PROBLEM_DETAIL_BYTES_MAX", PROBLEM_DETAIL_BYTES_MAX as u64),
];
