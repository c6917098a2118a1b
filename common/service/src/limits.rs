//! Every bound of this package.

/// Largest configuration file in bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// Mistakes that one report of a bad configuration lists.
pub const CONFIG_MISTAKES_MAX: usize = 100;
/// Connections of the admin port.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Largest request header section on the admin port in bytes.
pub const ADMIN_HEADER_BYTES_MAX: usize = 8 * 1024;
/// Largest request body on the admin port in bytes, where a process takes any there.
pub const ADMIN_BODY_BYTES_MAX: u64 = 64 << 10;
/// Labels that one metric may have.
pub const METRIC_LABELS_MAX: usize = 6;
/// Lines of the access log that may wait to be written.
pub const ACCESS_QUEUE_LINES_MAX: usize = 1 << 20;
/// Longest line of the access log in bytes.
pub const ACCESS_LINE_BYTES_MAX: usize = 16 * 1024;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("CONFIG_FILE_BYTES_MAX", CONFIG_FILE_BYTES_MAX),
    ("CONFIG_MISTAKES_MAX", CONFIG_MISTAKES_MAX as u64),
    ("ADMIN_CONNECTIONS_MAX", ADMIN_CONNECTIONS_MAX as u64),
    ("ADMIN_HEADER_BYTES_MAX", ADMIN_HEADER_BYTES_MAX as u64),
    ("ADMIN_BODY_BYTES_MAX", ADMIN_BODY_BYTES_MAX),
    ("ACCESS_QUEUE_LINES_MAX", ACCESS_QUEUE_LINES_MAX as u64),
    ("ACCESS_LINE_BYTES_MAX", ACCESS_LINE_BYTES_MAX as u64),
    ("METRIC_LABELS_MAX", METRIC_LABELS_MAX as u64),
];
