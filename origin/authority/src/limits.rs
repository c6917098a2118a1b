//! Every bound of this package.

/// Longest name of a channel or rollout in bytes.
pub const NAME_BYTES_MAX: u64 = 64;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[("NAME_BYTES_MAX", NAME_BYTES_MAX)];
