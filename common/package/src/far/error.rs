//! Why an archive is refused, by the names that Fuchsia's own reader uses.

use crate::limits::{FAR_ENTRIES_MAX, FAR_INDEX_BYTES_MAX, FAR_NAMES_BYTES_MAX};

/// Why bytes are not a FAR archive, or why one cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FarError {
    /// It does not begin as an archive does.
    #[error("not a FAR archive: it begins with {0:02x?}")]
    InvalidMagic([u8; 8]),
    /// The index is not made of whole entries.
    #[error("index length {0} is not a multiple of 24")]
    InvalidIndexEntriesLen(u64),
    /// The index is longer than any reader needs.
    #[error("index length {0} is over the limit of {FAR_INDEX_BYTES_MAX}")]
    IndexTooLarge(u64),
    /// Index entries must increase by type.
    #[error("index entry of type {} does not sort after {}", next.escape_ascii(), previous.escape_ascii())]
    IndexEntriesOutOfOrder {
        /// Type before.
        previous: [u8; 8],
        /// Offending type.
        next: [u8; 8],
    },
    /// There is no directory.
    #[error("the index has no DIR----- entry")]
    MissingDirectoryChunkIndexEntry,
    /// There are no names.
    #[error("the index has no DIRNAMES entry")]
    MissingDirectoryNamesChunkIndexEntry,
    /// The directory is not made of whole entries.
    #[error("directory length {0} is not a multiple of 32")]
    InvalidDirectoryChunkLen(u64),
    /// More files than are handled.
    #[error("{0} files are over the limit of {FAR_ENTRIES_MAX}")]
    TooManyEntries(u64),
    /// The names are not padded.
    #[error("length of the names {0} is not a multiple of 8")]
    InvalidDirectoryNamesChunkLen(u64),
    /// More bytes of names than are handled.
    #[error("{0} bytes of names are over the limit of {FAR_NAMES_BYTES_MAX}")]
    NamesTooLarge(u64),
    /// Chunks must be tightly packed.
    #[error("chunk {} begins at {actual}, expected {expected}", chunk_type.escape_ascii())]
    InvalidChunkOffset {
        /// The chunk.
        chunk_type: [u8; 8],
        /// End of what is before it.
        expected: u64,
        /// What the index says.
        actual: u64,
    },
    /// A name begins outside the names.
    #[error("name of entry {entry_index} begins at {offset} of {chunk_size} bytes of names")]
    PathDataOffsetTooLarge {
        /// The file.
        entry_index: u64,
        /// Where its name should begin.
        offset: u64,
        /// Bytes of names.
        chunk_size: u64,
    },
    /// A name ends outside the names.
    #[error("name of entry {entry_index} at {offset} with {length} bytes goes beyond {chunk_size} bytes of names")]
    PathDataLengthTooLarge {
        /// The file.
        entry_index: u64,
        /// Where its name begins.
        offset: u64,
        /// Its length.
        length: u64,
        /// Bytes of names.
        chunk_size: u64,
    },
    /// Names must be strictly increasing.
    #[error("entry {entry_index} '{name}' does not sort after '{previous_name}'")]
    DirectoryEntriesOutOfOrder {
        /// The offending file.
        entry_index: u64,
        /// Its name.
        name: String,
        /// The name before it.
        previous_name: String,
    },
    /// A name is empty.
    #[error("a name has no bytes")]
    ZeroLengthName,
    /// A name is longer than the format can say.
    #[error("a name of {0} bytes is over the limit of 65535")]
    NameTooLong(usize),
    /// A name has a zero byte.
    #[error("name '{}' has a zero byte", .0.escape_debug())]
    NameContainsNull(String),
    /// A name begins with a slash.
    #[error("name '{0}' begins with '/'")]
    NameStartsWithSlash(String),
    /// A name ends with a slash.
    #[error("name '{0}' ends with '/'")]
    NameEndsWithSlash(String),
    /// A name has two slashes in a row.
    #[error("name '{0}' has an empty segment")]
    NameContainsEmptySegment(String),
    /// A name has the segment `.`.
    #[error("name '{0}' has the segment '.'")]
    NameContainsDotSegment(String),
    /// A name has the segment `..`.
    #[error("name '{0}' has the segment '..'")]
    NameContainsDotDotSegment(String),
    /// Content must be packed to 4096 bytes.
    #[error("content of '{name}' begins at {actual}, expected {expected}")]
    InvalidContentChunkOffset {
        /// The file.
        name: String,
        /// Where the content before it ends, rounded up.
        expected: u64,
        /// What the directory says.
        actual: u64,
    },
    /// Content goes beyond the archive.
    #[error("'{name}' needs an archive of at least {lower_bound} bytes; it has {archive_size}")]
    ContentChunkBeyondArchive {
        /// The file.
        name: String,
        /// End of its padded content.
        lower_bound: u64,
        /// Bytes at hand.
        archive_size: u64,
    },
    /// Numbers that do not fit 64 bits when added.
    #[error("offsets and lengths of {0} overflow")]
    Overflow(&'static str),
    /// The archive ends inside its own head.
    #[error("the archive has {archive_size} bytes but its {what} ends at {needed}")]
    Truncated {
        /// Index, directory or names.
        what: &'static str,
        /// Where it ends.
        needed: u64,
        /// Bytes at hand.
        archive_size: u64,
    },
    /// There is no such file.
    #[error("the archive has no '{0}'")]
    NoSuchFile(String),
    /// A file is larger than the caller takes.
    #[error("'{name}' has {length} bytes, over the limit of {most}")]
    FileTooLarge {
        /// The file.
        name: String,
        /// Its length.
        length: u64,
        /// The caller's limit.
        most: u64,
    },
    /// A file did not give as many bytes as announced.
    #[error("'{name}' gave {found} bytes, expected {expected}")]
    ContentLength {
        /// The file.
        name: String,
        /// Announced.
        expected: u64,
        /// Given (or one more than announced).
        found: u64,
    },
    /// Reading or writing failed.
    #[error("{what}: {reason}")]
    Io {
        /// What was done.
        what: &'static str,
        /// The system's words.
        reason: String,
    },
}

impl FarError {
    pub(super) fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Io { what, reason: error.to_string() }
    }
}
