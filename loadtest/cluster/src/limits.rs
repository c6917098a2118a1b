//! Every bound of this package.

/// Spans of blobs the origin log remembers; more are counted as bytes only.
pub const SPANS_MAX: usize = 1 << 20;

/// Free ports tried for a node that needs TCP and UDP of one number.
pub const PORT_ATTEMPTS_MAX: u32 = 16;

/// How often a node that was killed tries to get its port back.
pub const REVIVAL_ATTEMPTS_MAX: u32 = 100;

/// A timestamp that a node in trouble remembers, bytes.
pub const FROZEN_BYTES_MAX: u64 = 1 << 20;

/// Clients of a gate whose datagrams it carries; those of others are lost.
pub const GATE_CLIENTS_MAX: usize = 65_536;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("SPANS_MAX", SPANS_MAX as u64),
    ("PORT_ATTEMPTS_MAX", PORT_ATTEMPTS_MAX as u64),
    ("REVIVAL_ATTEMPTS_MAX", REVIVAL_ATTEMPTS_MAX as u64),
    ("FROZEN_BYTES_MAX", FROZEN_BYTES_MAX),
    ("GATE_CLIENTS_MAX", GATE_CLIENTS_MAX as u64),
];
