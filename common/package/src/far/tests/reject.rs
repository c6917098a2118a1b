//! Every case of `far-reject.json`: the malformed archive is built here and must give exactly the named error.

use super::super::*;
use super::vector;
use bytes::Bytes;

/// An archive put together field by field.
#[derive(Default)]
struct Parts {
    magic: Option<[u8; 8]>,
    index_bytes: Option<u64>,
    /// Type, offset, length.
    index: Vec<([u8; 8], u64, u64)>,
    /// Name offset, name length, data offset, data length.
    directory: Vec<(u32, u16, u64, u64)>,
    /// Bytes before the directory, between it and the names, and the names.
    before: usize,
    between: usize,
    names: Vec<u8>,
    size: Option<usize>,
}

impl Parts {
    fn build(&self) -> Vec<u8> {
        let mut archive = self.magic.unwrap_or(MAGIC).to_vec();
        let index_bytes = self.index_bytes.unwrap_or(24 * self.index.len() as u64);
        archive.extend_from_slice(&index_bytes.to_le_bytes());
        for (chunk, offset, length) in &self.index {
            archive.extend_from_slice(chunk);
            archive.extend_from_slice(&offset.to_le_bytes());
            archive.extend_from_slice(&length.to_le_bytes());
        }
        archive.resize(archive.len() + self.before, 0);
        for (name_offset, name_length, offset, length) in &self.directory {
            archive.extend_from_slice(&name_offset.to_le_bytes());
            archive.extend_from_slice(&name_length.to_le_bytes());
            archive.extend_from_slice(&[0; 2]);
            archive.extend_from_slice(&offset.to_le_bytes());
            archive.extend_from_slice(&length.to_le_bytes());
            archive.extend_from_slice(&[0; 8]);
        }
        archive.resize(archive.len() + self.between, 0);
        archive.extend_from_slice(&self.names);
        if let Some(size) = self.size {
            archive.resize(size, 0);
        }
        archive
    }
}

/// The two usual chunks with a directory of these lengths.
fn chunks(directory: u64, names: u64) -> Vec<([u8; 8], u64, u64)> {
    vec![(DIRECTORY, 64, directory), (NAMES, 64 + directory, names)]
}

/// An archive whose one file has this name (at most 8 bytes) and no content.
fn named(name: &[u8]) -> Parts {
    let mut names = name.to_vec();
    names.resize(8, 0);
    Parts {
        index: chunks(32, 8),
        directory: vec![(0, name.len() as u16, 4096, 0)],
        names,
        size: Some(4096),
        ..Parts::default()
    }
}

/// An archive of files `a`, `b`, ... with these places of content.
fn placed(content: &[(u64, u64)], size: usize) -> Parts {
    let directory = content.iter().enumerate().map(|(i, (at, length))| (i as u32, 1, *at, *length)).collect();
    let chunks = chunks(32 * content.len() as u64, 8);
    Parts { index: chunks, directory, names: b"ab\0\0\0\0\0\0".to_vec(), size: Some(size), ..Parts::default() }
}

fn index_only(index: &[([u8; 8], u64, u64)]) -> Parts {
    Parts { index: index.to_vec(), ..Parts::default() }
}

fn index_case(case: &str) -> Option<(Parts, FarError)> {
    let order = |previous, next| FarError::IndexEntriesOutOfOrder { previous, next };
    Some(match case {
        "invalid-magic-bytes" => {
            (Parts { magic: Some([0; 8]), ..index_only(&chunks(0, 0)) }, FarError::InvalidMagic([0; 8]))
        }
        "index-entries-length-not-a-multiple-of-24-bytes" => {
            let parts = Parts { index_bytes: Some(49), size: Some(100), ..index_only(&chunks(0, 0)) };
            (parts, FarError::InvalidIndexEntriesLen(49))
        }
        "directory-names-index-entry-before-directory-index-entry" => {
            (index_only(&[(NAMES, 64, 0), (DIRECTORY, 64, 0)]), order(NAMES, DIRECTORY))
        }
        "two-directory-index-entries" => {
            let index = [(DIRECTORY, 88, 0), (DIRECTORY, 88, 0), (NAMES, 88, 0)];
            (index_only(&index), order(DIRECTORY, DIRECTORY))
        }
        "two-directory-names-index-entries" => {
            let index = [(DIRECTORY, 88, 0), (NAMES, 88, 0), (NAMES, 88, 0)];
            (index_only(&index), order(NAMES, NAMES))
        }
        "duplicate-index-entries-of-unknown-type" => {
            let index = [([0; 8], 112, 0), ([0; 8], 112, 0), (DIRECTORY, 112, 0), (NAMES, 112, 0)];
            (index_only(&index), order([0; 8], [0; 8]))
        }
        "no-index-entries" => (index_only(&[]), FarError::MissingDirectoryChunkIndexEntry),
        "no-directory-index-entry" => (index_only(&[(NAMES, 40, 0)]), FarError::MissingDirectoryChunkIndexEntry),
        "no-directory-names-index-entry" => {
            (index_only(&[(DIRECTORY, 40, 0)]), FarError::MissingDirectoryNamesChunkIndexEntry)
        }
        _ => return None,
    })
}

fn chunk_case(case: &str) -> Option<(Parts, FarError)> {
    let misplaced = |chunk_type, expected, actual| FarError::InvalidChunkOffset { chunk_type, expected, actual };
    let one = || placed(&[(4096, 0)], 4096);
    Some(match case {
        "directory-chunk-length-not-a-multiple-of-32-bytes" => {
            let parts = Parts { index: chunks(40, 8), between: 8, ..one() };
            (parts, FarError::InvalidDirectoryChunkLen(40))
        }
        "directory-chunk-not-tightly-packed" => {
            let index = vec![(DIRECTORY, 72, 32), (NAMES, 104, 8)];
            (Parts { index, before: 8, ..one() }, misplaced(DIRECTORY, 64, 72))
        }
        "directory-names-chunk-length-not-a-multiple-of-8-bytes" => {
            (Parts { index: chunks(32, 1), ..one() }, FarError::InvalidDirectoryNamesChunkLen(1))
        }
        "directory-names-chunk-not-tightly-packed" => {
            let index = vec![(DIRECTORY, 64, 32), (NAMES, 104, 8)];
            (Parts { index, between: 8, ..one() }, misplaced(NAMES, 96, 104))
        }
        "directory-names-chunk-before-directory-chunk" => {
            let index = vec![(DIRECTORY, 72, 32), (NAMES, 64, 8)];
            (Parts { index, before: 8, ..one() }, misplaced(DIRECTORY, 64, 72))
        }
        "directory-names-chunk-overlaps-directory-chunk" => {
            let index = vec![(DIRECTORY, 64, 32), (NAMES, 88, 16)];
            (Parts { index, ..one() }, misplaced(NAMES, 96, 88))
        }
        "path-data-offset-too-large" => {
            let parts = Parts { directory: vec![(9, 1, 4096, 0)], ..one() };
            (parts, FarError::PathDataOffsetTooLarge { entry_index: 0, offset: 9, chunk_size: 8 })
        }
        "path-data-length-too-large" => {
            let parts = Parts { directory: vec![(0, 9, 4096, 0)], ..one() };
            (parts, FarError::PathDataLengthTooLarge { entry_index: 0, offset: 0, length: 9, chunk_size: 8 })
        }
        _ => return None,
    })
}

fn name_case(case: &str) -> Option<(Parts, FarError)> {
    let order = |second: (u32, u16, u64, u64), previous_name: &str| {
        let directory = vec![(u32::from(previous_name == "b"), 1, 4096, 0), second];
        let parts = Parts { directory, ..placed(&[(4096, 0), (4096, 0)], 4096) };
        let error = FarError::DirectoryEntriesOutOfOrder {
            entry_index: 1,
            name: "a".into(),
            previous_name: previous_name.into(),
        };
        (parts, error)
    };
    Some(match case {
        "directory-entries-not-sorted" => order((0, 1, 4096, 0), "b"),
        "directory-entries-with-same-name" => order((0, 1, 4096, 0), "a"),
        "zero-length-name" => (named(b""), FarError::ZeroLengthName),
        "name-with-null-character" => (named(b"\0"), FarError::NameContainsNull("\0".into())),
        "name-with-leading-slash" => (named(b"/a"), FarError::NameStartsWithSlash("/a".into())),
        "name-with-trailing-slash" => (named(b"a/"), FarError::NameEndsWithSlash("a/".into())),
        "name-with-empty-segment" => (named(b"a//a"), FarError::NameContainsEmptySegment("a//a".into())),
        "name-with-dot-segment" => (named(b"a/./a"), FarError::NameContainsDotSegment("a/./a".into())),
        "name-with-dot-dot-segment" => (named(b"a/../a"), FarError::NameContainsDotDotSegment("a/../a".into())),
        _ => return None,
    })
}

fn content_case(case: &str) -> Option<(Parts, FarError)> {
    let misplaced =
        |name: &str, expected, actual| FarError::InvalidContentChunkOffset { name: name.into(), expected, actual };
    let beyond =
        |lower_bound, archive_size| FarError::ContentChunkBeyondArchive { name: "a".into(), lower_bound, archive_size };
    let second = |at| placed(&[(4096, 1), (at, 1)], 12_288);
    Some(match case {
        "content-chunk-starts-early" => (placed(&[(4095, 1)], 8192), misplaced("a", 4096, 4095)),
        "content-chunk-starts-late" => (placed(&[(4097, 1)], 8192), misplaced("a", 4096, 4097)),
        "second-content-chunk-starts-early" => (second(8191), misplaced("b", 8192, 8191)),
        "second-content-chunk-starts-late" => (second(8193), misplaced("b", 8192, 8193)),
        "content-chunk-not-zero-padded" => (placed(&[(4096, 1)], 4097), beyond(8192, 4097)),
        "content-chunk-overlap" => (placed(&[(4096, 4097), (8192, 4096)], 12_288), misplaced("b", 12_288, 8192)),
        "content-chunk-not-tightly-packed" => (placed(&[(8192, 1)], 12_288), misplaced("a", 4096, 8192)),
        "content-chunk-offset-past-end-of-file" => (placed(&[(4096, 0)], 104), beyond(4096, 104)),
        _ => return None,
    })
}

#[test]
fn every_malformed_archive_gives_its_named_error() {
    let json: serde_json::Value = serde_json::from_slice(&vector("far-reject.json")).unwrap();
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 34);
    for case in cases {
        let (name, expected_name) = (case[0].as_str().unwrap(), case[1].as_str().unwrap());
        let (parts, expected) = [index_case, chunk_case, name_case, content_case]
            .iter()
            .find_map(|builder| builder(name))
            .unwrap_or_else(|| panic!("no archive for case {name}"));
        let found = FarBytes::parse(Bytes::from(parts.build())).unwrap_err();
        assert_eq!(found, expected, "{name}");
        let variant = expected_name.split('(').next().unwrap();
        assert!(format!("{found:?}").starts_with(variant), "{name}: {found:?} is not {expected_name}");
    }
}

#[test]
fn lengths_are_capped_before_anything_is_allocated() {
    let huge = Parts { index_bytes: Some(24 << 40), ..Parts::default() };
    assert_eq!(FarBytes::parse(huge.build().into()).unwrap_err(), FarError::IndexTooLarge(24 << 40));
    let parse = |directory, names| FarBytes::parse(index_only(&chunks(directory, names)).build().into()).unwrap_err();
    assert_eq!(parse(32 << 40, 0), FarError::TooManyEntries(1 << 40));
    assert_eq!(parse(0, 8 << 40), FarError::NamesTooLarge(8 << 40));
    assert_eq!(parse(64, 0), FarError::Truncated { what: "directory", needed: 128, archive_size: 64 });
    assert_eq!(parse(u64::MAX - 64, 64), FarError::Overflow("chunks"));
}

#[test]
fn unknown_chunks_and_overlapping_names_are_allowed() {
    let index = vec![(*b"AAAAAAAA", 88, 8), (DIRECTORY, 96, 64), (NAMES, 160, 8)];
    let directory = vec![(0, 1, 4096, 0), (0, 2, 4096, 0)];
    let parts = Parts { index, before: 8, directory, ..placed(&[], 4096) };
    let far = FarBytes::parse(parts.build().into()).unwrap();
    assert_eq!(far.entries().iter().map(|entry| entry.text().unwrap()).collect::<Vec<_>>(), ["a", "ab"]);
}
