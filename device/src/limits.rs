//! Every bound of this package.

/// Packages in one resolve, subpackages included.
pub const PACKAGES_PER_RESOLVE_MAX: usize = 4096;

/// Blobs in one resolve.
pub const BLOBS_PER_RESOLVE_MAX: usize = 1 << 20;

/// Configured repositories.
pub const REPOSITORIES_MAX: usize = 256;

/// How long after a refresh that no mirror answered the next one is put off, if there is trusted metadata, seconds.
pub const REFRESH_AGAIN_S: u64 = 10;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("PACKAGES_PER_RESOLVE_MAX", PACKAGES_PER_RESOLVE_MAX as u64),
    ("BLOBS_PER_RESOLVE_MAX", BLOBS_PER_RESOLVE_MAX as u64),
    ("REPOSITORIES_MAX", REPOSITORIES_MAX as u64),
    ("REFRESH_AGAIN_S", REFRESH_AGAIN_S),
];
