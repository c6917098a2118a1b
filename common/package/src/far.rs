//! FAR archives (reference "Fuchsia formats" §2): numbers, entries and errors here; reading and writing in the files below.
//!
//! Names are bytes, as FAR allows; packages ask for UTF-8 later. There is deliberately no repair of malformed archives: a
//! reader accepts exactly what the format allows and names the rule that was broken.

mod error;
mod name;
mod read;
#[cfg(test)]
mod tests;
mod write;

use colibri_common::ByteRange;

pub use error::FarError;
pub use name::check_name;
pub use read::{FarBytes, FarReader};
pub use write::{Content, to_bytes, write};

/// First bytes of every archive.
pub const MAGIC: [u8; 8] = [0xc8, 0xbf, 0x0b, 0x48, 0xad, 0xab, 0xc5, 0x11];
/// Magic and index length, in bytes.
pub(crate) const HEAD_BYTES: u64 = 16;
/// One index entry, in bytes.
pub(crate) const INDEX_ENTRY_BYTES: u64 = 24;
/// One directory entry, in bytes.
pub(crate) const DIRECTORY_ENTRY_BYTES: u64 = 32;
/// Alignment of content, in bytes.
pub(crate) const CONTENT_ALIGNMENT_BYTES: u64 = 4096;
/// The names chunk is padded to this, in bytes.
pub(crate) const NAMES_ALIGNMENT_BYTES: u64 = 8;
/// Type of the directory chunk.
pub(crate) const DIRECTORY: [u8; 8] = *b"DIR-----";
/// Type of the chunk of names.
pub(crate) const NAMES: [u8; 8] = *b"DIRNAMES";

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    name: Box<[u8]>,
    offset: u64,
    length: u64,
}

impl Entry {
    /// The name, as bytes.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The name as text, or nothing if it is not UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }

    /// Where the content lies in the archive.
    pub const fn range(&self) -> ByteRange {
        ByteRange::new(self.offset, self.offset + self.length)
    }

    /// Length of the content in bytes.
    pub const fn length(&self) -> u64 {
        self.length
    }
}
