//! Every bound of this package.

/// Devices in one fleet.
pub const DEVICES_MAX: u32 = 1_000_000;

/// Devices at work at once; later arrivals wait, and their waiting counts.
pub const DEVICES_AT_ONCE_MAX: usize = 512;

/// meta.fars kept for parsing by the whole fleet, bytes.
pub const META_FARS_BYTES_MAX: u64 = 256 << 20;

/// Different failures kept with their text.
pub const FAILURE_TEXTS_MAX: usize = 16;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("DEVICES_MAX", DEVICES_MAX as u64),
    ("DEVICES_AT_ONCE_MAX", DEVICES_AT_ONCE_MAX as u64),
    ("META_FARS_BYTES_MAX", META_FARS_BYTES_MAX),
    ("FAILURE_TEXTS_MAX", FAILURE_TEXTS_MAX as u64),
];
