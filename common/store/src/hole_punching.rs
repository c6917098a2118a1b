//! [`HolePunching`]: whether a file system gives space in the middle of a file back, found out by trying.

use std::io;
use std::path::Path;

use colibri_common::ByteRange;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{AtPath, StoreError};

/// What a file system can do about holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HolePunching {
    /// Whole aligned blocks of this many bytes can be given back.
    Blocks {
        /// Bytes in a block, a power of two.
        bytes: u64,
    },
    /// Only whole files can be given back.
    Unsupported,
}

/// Block sizes that are tried, the smallest first.
const BLOCK_BYTES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];

impl HolePunching {
    /// Tries it in `dir`, with a file that is removed again. Call it once, at start.
    pub fn probe(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(format!(".probe-{}", std::process::id()));
        match disk.remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.at(&path)?,
        }
        let file = disk.open(&path, OpenMode::CreateNew).at(&path)?;
        let found = try_blocks(file.as_ref());
        disk.remove_file(&path).at(&path)?;
        found.at(&path)
    }

    /// The part of `range` that can be given back: whole blocks.
    pub(crate) const fn whole_blocks(self, range: ByteRange) -> ByteRange {
        match self {
            Self::Blocks { bytes } => {
                ByteRange::new(range.start().next_multiple_of(bytes), range.end() - range.end() % bytes)
            }
            Self::Unsupported => ByteRange::new(range.start(), range.start()),
        }
    }

    /// `range` grown to whole blocks.
    pub(crate) const fn grown(self, range: ByteRange) -> ByteRange {
        match self {
            Self::Blocks { bytes } => {
                ByteRange::new(range.start() - range.start() % bytes, range.end().next_multiple_of(bytes))
            }
            Self::Unsupported => range,
        }
    }
}

/// Writes the same blocks again for each size: which of them makes the file smaller?
fn try_blocks(file: &dyn DiskFile) -> io::Result<HolePunching> {
    let content = vec![0xa5; 4 * BLOCK_BYTES[BLOCK_BYTES.len() - 1] as usize];
    for bytes in BLOCK_BYTES {
        file.write_at(0, &content)?;
        // Space is handed out when data reaches the disk.
        file.sync()?;
        let before = file.allocated_bytes()?;
        match file.punch(ByteRange::new(bytes, 2 * bytes)) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
            Err(_) => return Ok(HolePunching::Unsupported),
            Ok(()) => {}
        }
        file.sync()?;
        if file.allocated_bytes()? < before {
            return Ok(HolePunching::Blocks { bytes });
        }
    }
    Ok(HolePunching::Unsupported)
}
