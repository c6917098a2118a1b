//! Every bound of this package that is not configuration.

/// Budget for leaves and seek tables of opened blobs, bytes.
pub const CATALOG_BYTES_MAX: u64 = 64 << 20;

/// Budget for metadata documents, bytes.
pub const DOCUMENTS_BYTES_MAX: u64 = 64 << 20;

/// Largest metadata file or TUF target passed on, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 32 << 20;

/// Fills under way at once; more readers of cold units wait for a place.
pub const FLIGHTS_MAX: usize = 256;

/// Units waiting to be written to disk; more are dropped and counted.
pub const DISK_QUEUE_MAX: usize = 64;

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("CATALOG_BYTES_MAX", CATALOG_BYTES_MAX),
    ("DOCUMENTS_BYTES_MAX", DOCUMENTS_BYTES_MAX),
    ("DOCUMENT_BYTES_MAX", DOCUMENT_BYTES_MAX),
    ("FLIGHTS_MAX", FLIGHTS_MAX as u64),
    ("DISK_QUEUE_MAX", DISK_QUEUE_MAX as u64),
];
