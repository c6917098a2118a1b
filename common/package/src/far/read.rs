//! Reading archives: the directory with all its rules, then content by name, from bytes or from anything seekable.

use std::io::{Cursor, Read, Seek, SeekFrom, Write};

use bytes::Bytes;
use colibri_common::ByteRange;

use super::name::{check_name, shown};
use super::{
    CONTENT_ALIGNMENT_BYTES, DIRECTORY, DIRECTORY_ENTRY_BYTES, Entry, FarError, HEAD_BYTES, INDEX_ENTRY_BYTES, MAGIC,
    NAMES, NAMES_ALIGNMENT_BYTES,
};
use crate::limits::{FAR_ENTRIES_MAX, FAR_INDEX_BYTES_MAX, FAR_NAMES_BYTES_MAX};

/// An archive in memory.
#[derive(Debug, Clone)]
pub struct FarBytes {
    bytes: Bytes,
    entries: Vec<Entry>,
}

impl FarBytes {
    /// Parses an archive.
    pub fn parse(bytes: Bytes) -> Result<Self, FarError> {
        let entries = read_directory(&mut Cursor::new(&bytes))?;
        Ok(Self { bytes, entries })
    }

    /// The files, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The content of a file, sharing the archive's memory.
    pub fn get(&self, name: &[u8]) -> Option<Bytes> {
        find(&self.entries, name).map(|entry| self.bytes.slice(entry.range().within(0)))
    }
}

/// An archive in something seekable.
#[derive(Debug)]
pub struct FarReader<R> {
    source: R,
    entries: Vec<Entry>,
}

impl<R: Read + Seek> FarReader<R> {
    /// Reads the directory of an archive that begins at the source's first byte.
    pub fn open(mut source: R) -> Result<Self, FarError> {
        let entries = read_directory(&mut source)?;
        Ok(Self { source, entries })
    }

    /// The files, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The file of that name.
    pub fn find(&self, name: &[u8]) -> Option<&Entry> {
        find(&self.entries, name)
    }

    /// The content of a file of at most `most` bytes.
    pub fn read(&mut self, name: &[u8], most: u64) -> Result<Vec<u8>, FarError> {
        let length = self.entry(name)?.length();
        if length > most {
            return Err(FarError::FileTooLarge { name: shown(name), length, most });
        }
        let mut content = Vec::new();
        self.copy(name, &mut content)?;
        Ok(content)
    }

    /// Part of the content of a file, cut at its end. It is held in memory: read large files in parts.
    pub fn read_range(&mut self, name: &[u8], part: ByteRange) -> Result<Bytes, FarError> {
        let range = self.entry(name)?.range();
        let part = part.intersect(ByteRange::whole(range.len()));
        let length = usize::try_from(part.len()).map_err(|_| FarError::Overflow("a part of a file"))?;
        let mut content = vec![0; length];
        let start = SeekFrom::Start(range.start() + part.start());
        self.source.seek(start).map_err(FarError::io("seeking in the archive"))?;
        self.source.read_exact(&mut content).map_err(FarError::io("reading the archive"))?;
        Ok(content.into())
    }

    /// Copies the content of a file.
    pub fn copy<W: Write>(&mut self, name: &[u8], out: &mut W) -> Result<(), FarError> {
        let range = self.entry(name)?.range();
        self.source.seek(SeekFrom::Start(range.start())).map_err(FarError::io("seeking in the archive"))?;
        let copied = std::io::copy(&mut (&mut self.source).take(range.len()), out)
            .map_err(FarError::io("copying a file out of the archive"))?;
        if copied != range.len() {
            return Err(FarError::ContentLength { name: shown(name), expected: range.len(), found: copied });
        }
        Ok(())
    }

    fn entry(&self, name: &[u8]) -> Result<&Entry, FarError> {
        self.find(name).ok_or_else(|| FarError::NoSuchFile(shown(name)))
    }
}

fn find<'a>(entries: &'a [Entry], name: &[u8]) -> Option<&'a Entry> {
    entries.binary_search_by(|entry| entry.name().cmp(name)).ok().map(|index| &entries[index])
}

/// Reads and checks index, directory and names. Nothing is allocated for a length that the source does not have.
fn read_directory<R: Read + Seek>(source: &mut R) -> Result<Vec<Entry>, FarError> {
    let archive_size = source.seek(SeekFrom::End(0)).map_err(FarError::io("seeking in the archive"))?;
    let mut at = |what, range: ByteRange| read_span(source, what, range, archive_size);
    let head = at("head", ByteRange::whole(HEAD_BYTES))?;
    if head[..8] != MAGIC {
        return Err(FarError::InvalidMagic(eight(&head)));
    }
    let index_bytes = u64_at(&head, 8);
    if !index_bytes.is_multiple_of(INDEX_ENTRY_BYTES) {
        return Err(FarError::InvalidIndexEntriesLen(index_bytes));
    }
    if index_bytes > FAR_INDEX_BYTES_MAX {
        return Err(FarError::IndexTooLarge(index_bytes));
    }
    let chunks = parse_index(&at("index", ByteRange::new(HEAD_BYTES, HEAD_BYTES + index_bytes))?)?;
    let (directory, names) = (chunks.directory, chunks.names);
    if !directory.len().is_multiple_of(DIRECTORY_ENTRY_BYTES) {
        return Err(FarError::InvalidDirectoryChunkLen(directory.len()));
    }
    if directory.len() / DIRECTORY_ENTRY_BYTES > FAR_ENTRIES_MAX {
        return Err(FarError::TooManyEntries(directory.len() / DIRECTORY_ENTRY_BYTES));
    }
    if !names.len().is_multiple_of(NAMES_ALIGNMENT_BYTES) {
        return Err(FarError::InvalidDirectoryNamesChunkLen(names.len()));
    }
    if names.len() > FAR_NAMES_BYTES_MAX {
        return Err(FarError::NamesTooLarge(names.len()));
    }
    let directory = at("directory", directory)?;
    let names = at("names", names)?;
    parse_directory(&directory, &names, chunks.end, archive_size)
}

fn read_span<R: Read + Seek>(
    source: &mut R,
    what: &'static str,
    range: ByteRange,
    archive_size: u64,
) -> Result<Vec<u8>, FarError> {
    if range.end() > archive_size {
        return Err(FarError::Truncated { what, needed: range.end(), archive_size });
    }
    let length = usize::try_from(range.len()).map_err(|_| FarError::Overflow(what))?;
    let mut bytes = vec![0; length];
    source.seek(SeekFrom::Start(range.start())).map_err(FarError::io("seeking in the archive"))?;
    source.read_exact(&mut bytes).map_err(FarError::io("reading the archive"))?;
    Ok(bytes)
}

struct Chunks {
    directory: ByteRange,
    names: ByteRange,
    /// End of the last chunk.
    end: u64,
}

fn parse_index(index: &[u8]) -> Result<Chunks, FarError> {
    let mut previous = None;
    let mut end = HEAD_BYTES + index.len() as u64;
    let (mut directory, mut names) = (None, None);
    for entry in index.chunks_exact(INDEX_ENTRY_BYTES as usize) {
        let chunk_type = eight(entry);
        let (actual, length) = (u64_at(entry, 8), u64_at(entry, 16));
        if let Some(previous) = previous.replace(chunk_type).filter(|previous| *previous >= chunk_type) {
            return Err(FarError::IndexEntriesOutOfOrder { previous, next: chunk_type });
        }
        if actual != end {
            return Err(FarError::InvalidChunkOffset { chunk_type, expected: end, actual });
        }
        end = end.checked_add(length).ok_or(FarError::Overflow("chunks"))?;
        match chunk_type {
            DIRECTORY => directory = Some(ByteRange::new(actual, end)),
            NAMES => names = Some(ByteRange::new(actual, end)),
            _ => {}
        }
    }
    let directory = directory.ok_or(FarError::MissingDirectoryChunkIndexEntry)?;
    let names = names.ok_or(FarError::MissingDirectoryNamesChunkIndexEntry)?;
    Ok(Chunks { directory, names, end })
}

fn parse_directory(directory: &[u8], names: &[u8], chunks_end: u64, archive_size: u64) -> Result<Vec<Entry>, FarError> {
    let mut entries: Vec<Entry> = Vec::with_capacity(directory.len() / DIRECTORY_ENTRY_BYTES as usize);
    let mut content_end = chunks_end;
    for (index, record) in directory.chunks_exact(DIRECTORY_ENTRY_BYTES as usize).enumerate() {
        let name = entry_name(index as u64, record, names)?;
        check_name(name)?;
        if let Some(previous) = entries.last().filter(|previous| previous.name() >= name) {
            return Err(FarError::DirectoryEntriesOutOfOrder {
                entry_index: index as u64,
                name: shown(name),
                previous_name: shown(previous.name()),
            });
        }
        let (offset, length) = (u64_at(record, 8), u64_at(record, 16));
        let aligned =
            |end: u64| end.checked_next_multiple_of(CONTENT_ALIGNMENT_BYTES).ok_or(FarError::Overflow("content"));
        let expected = aligned(content_end)?;
        if offset != expected {
            return Err(FarError::InvalidContentChunkOffset { name: shown(name), expected, actual: offset });
        }
        content_end = offset.checked_add(length).ok_or(FarError::Overflow("content"))?;
        let lower_bound = aligned(content_end)?;
        if lower_bound > archive_size {
            return Err(FarError::ContentChunkBeyondArchive { name: shown(name), lower_bound, archive_size });
        }
        entries.push(Entry { name: name.into(), offset, length });
    }
    Ok(entries)
}

fn entry_name<'a>(entry_index: u64, record: &[u8], names: &'a [u8]) -> Result<&'a [u8], FarError> {
    let offset = u64::from(u32::from_le_bytes([record[0], record[1], record[2], record[3]]));
    let length = u64::from(u16::from_le_bytes([record[4], record[5]]));
    let chunk_size = names.len() as u64;
    if offset >= chunk_size {
        return Err(FarError::PathDataOffsetTooLarge { entry_index, offset, chunk_size });
    }
    let end = offset + length;
    if end > chunk_size {
        return Err(FarError::PathDataLengthTooLarge { entry_index, offset, length, chunk_size });
    }
    Ok(&names[offset as usize..end as usize])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(eight(&bytes[at..]))
}

fn eight(bytes: &[u8]) -> [u8; 8] {
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]]
}
