//! Writing archives, byte-reproducibly: same names and content, same bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use super::name::{check_name, shown};
use super::{
    CONTENT_ALIGNMENT_BYTES, DIRECTORY, DIRECTORY_ENTRY_BYTES, FarError, HEAD_BYTES, INDEX_ENTRY_BYTES, MAGIC, NAMES,
    NAMES_ALIGNMENT_BYTES,
};
use crate::limits::{FAR_ENTRIES_MAX, FAR_NAMES_BYTES_MAX};

/// What goes into one file of an archive.
pub struct Content<'a> {
    /// Length in bytes; the reader must give exactly that.
    pub length: u64,
    /// Where the bytes come from; opened when it is their turn.
    pub open: Box<dyn FnOnce() -> std::io::Result<Box<dyn Read + 'a>> + 'a>,
}

impl<'a> Content<'a> {
    /// Content that is in memory.
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self { length: bytes.len() as u64, open: Box::new(move || Ok(Box::new(bytes))) }
    }
}

/// An archive of files in memory.
pub fn to_bytes<K: AsRef<[u8]> + Ord, V: AsRef<[u8]>>(files: &BTreeMap<K, V>) -> Result<Vec<u8>, FarError> {
    let files = files.iter().map(|(name, content)| (name.as_ref(), Content::bytes(content.as_ref()))).collect();
    let mut archive = Vec::new();
    write(&mut archive, files)?;
    Ok(archive)
}

/// Writes an archive. Every content is padded to 4096 bytes, the last too; an archive without files has 4096 bytes.
pub fn write<W: Write>(out: &mut W, files: BTreeMap<&[u8], Content<'_>>) -> Result<(), FarError> {
    let head = head(&files)?;
    let padding = padding(head.len() as u64, CONTENT_ALIGNMENT_BYTES);
    out.write_all(&head).map_err(FarError::io("writing the archive"))?;
    pad(out, padding)?;
    for (name, content) in files {
        let length = content.length;
        // One byte more than announced is enough to notice a file that grew.
        let mut source = (content.open)().map_err(FarError::io("opening a file for the archive"))?.take(length + 1);
        let found = std::io::copy(&mut source, out).map_err(FarError::io("copying a file into the archive"))?;
        if found != length {
            return Err(FarError::ContentLength { name: shown(name), expected: length, found });
        }
        pad(out, self::padding(length, CONTENT_ALIGNMENT_BYTES))?;
    }
    Ok(())
}

/// Everything before the content, unpadded.
fn head(files: &BTreeMap<&[u8], Content<'_>>) -> Result<Vec<u8>, FarError> {
    if files.len() as u64 > FAR_ENTRIES_MAX {
        return Err(FarError::TooManyEntries(files.len() as u64));
    }
    let mut names = Vec::new();
    for name in files.keys() {
        check_name(name)?;
        names.extend_from_slice(name);
    }
    names.resize(names.len().next_multiple_of(NAMES_ALIGNMENT_BYTES as usize), 0);
    if names.len() as u64 > FAR_NAMES_BYTES_MAX {
        return Err(FarError::NamesTooLarge(names.len() as u64));
    }
    let directory_at = HEAD_BYTES + 2 * INDEX_ENTRY_BYTES;
    let directory_bytes = DIRECTORY_ENTRY_BYTES * files.len() as u64;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&(2 * INDEX_ENTRY_BYTES).to_le_bytes());
    for (chunk, at, bytes) in
        [(DIRECTORY, directory_at, directory_bytes), (NAMES, directory_at + directory_bytes, names.len() as u64)]
    {
        head.extend_from_slice(&chunk);
        head.extend_from_slice(&at.to_le_bytes());
        head.extend_from_slice(&bytes.to_le_bytes());
    }
    let mut content_at = directory_at + directory_bytes + names.len() as u64;
    let mut name_at: u32 = 0;
    for (name, content) in files {
        let overflow = FarError::Overflow("content");
        content_at = content_at.checked_next_multiple_of(CONTENT_ALIGNMENT_BYTES).ok_or(overflow.clone())?;
        head.extend_from_slice(&name_at.to_le_bytes());
        // Fits: names were checked to be at most 65535 bytes, all of them at most the limit.
        head.extend_from_slice(&(name.len() as u16).to_le_bytes());
        head.extend_from_slice(&[0; 2]);
        head.extend_from_slice(&content_at.to_le_bytes());
        head.extend_from_slice(&content.length.to_le_bytes());
        head.extend_from_slice(&[0; 8]);
        name_at += name.len() as u32;
        content_at = content_at.checked_add(content.length).ok_or(overflow)?;
    }
    head.extend_from_slice(&names);
    Ok(head)
}

const fn padding(length: u64, alignment: u64) -> u64 {
    (alignment - length % alignment) % alignment
}

fn pad<W: Write>(out: &mut W, bytes: u64) -> Result<(), FarError> {
    const ZEROS: [u8; CONTENT_ALIGNMENT_BYTES as usize] = [0; CONTENT_ALIGNMENT_BYTES as usize];
    out.write_all(&ZEROS[..bytes as usize]).map_err(FarError::io("writing the archive"))
}
