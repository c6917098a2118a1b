//! Every bound of this package.

/// Largest product release document in bytes.
pub const RELEASE_BYTES_MAX: u64 = 64 << 20;
/// Most packages of one release.
pub const PACKAGES_MAX: u64 = 100_000;
/// Most blobs listed in one release.
pub const BLOBS_MAX: u64 = 1_000_000;
/// Most discoverable domains of one release.
pub const DOMAINS_MAX: u64 = 1_000;
/// Longest product name in bytes.
pub const PRODUCT_NAME_BYTES_MAX: u64 = 255;
/// Most numbers in a version.
pub const VERSION_PARTS_MAX: u64 = 4;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("RELEASE_BYTES_MAX", RELEASE_BYTES_MAX),
    ("PACKAGES_MAX", PACKAGES_MAX),
    ("BLOBS_MAX", BLOBS_MAX),
    ("DOMAINS_MAX", DOMAINS_MAX),
    ("PRODUCT_NAME_BYTES_MAX", PRODUCT_NAME_BYTES_MAX),
    ("VERSION_PARTS_MAX", VERSION_PARTS_MAX),
];
