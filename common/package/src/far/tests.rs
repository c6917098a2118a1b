//! Tests of archives: the golden one, round trips, and the malformed ones in `reject`.

mod reject;

use std::collections::BTreeMap;
use std::io::Cursor;

use bytes::Bytes;

use super::*;

fn vector(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn example() -> BTreeMap<&'static str, &'static [u8]> {
    [("a", &b"a\n"[..]), ("b", b"b\n"), ("dir/c", b"dir/c\n")].into()
}

#[test]
fn the_golden_archive_is_written_byte_for_byte_and_read() {
    let golden = vector("far-example.far");
    assert_eq!(to_bytes(&example()).unwrap(), golden);
    let far = FarBytes::parse(Bytes::from(golden.clone())).unwrap();
    let mut reader = FarReader::open(Cursor::new(golden)).unwrap();
    for (name, content) in example() {
        assert_eq!(far.get(name.as_bytes()).unwrap(), content);
        assert_eq!(reader.read(name.as_bytes(), 6).unwrap(), content);
    }
    assert_eq!(far.entries().iter().map(|entry| entry.text().unwrap()).collect::<Vec<_>>(), ["a", "b", "dir/c"]);
    assert!(far.get(b"c").is_none());
    assert_eq!(reader.read(b"c", 9), Err(FarError::NoSuchFile("c".into())));
    let too_large = FarError::FileTooLarge { name: "dir/c".into(), length: 6, most: 5 };
    assert_eq!(reader.read(b"dir/c", 5), Err(too_large));
}

#[test]
fn sizes_are_padded_to_4096() {
    assert_eq!(to_bytes(&BTreeMap::<&str, &[u8]>::new()).unwrap().len(), 4096);
    for (length, size) in [(0, 4096), (1, 8192), (4096, 8192), (4097, 12_288)] {
        let content = vec![7; length];
        let archive = to_bytes(&BTreeMap::from([("x", &content)])).unwrap();
        assert_eq!(archive.len(), size, "{length}");
        assert_eq!(FarBytes::parse(archive.into()).unwrap().get(b"x").unwrap(), content);
    }
}

#[test]
fn names_are_any_bytes_and_empty_files_share_an_offset() {
    let files = BTreeMap::from([(&b"\xff\x01"[..], &b""[..]), (b"e", b""), (b"f", b"f"), (&[b'n'; 65_535], b"long")]);
    let far = FarBytes::parse(to_bytes(&files).unwrap().into()).unwrap();
    let read: Vec<_> = far.entries().iter().map(|entry| (entry.name(), far.get(entry.name()).unwrap())).collect();
    assert_eq!(read.len(), 4);
    for (name, content) in read {
        assert_eq!(files[name], content);
    }
    assert_eq!(
        far.entries()[0].range(),
        ByteRange::new(far.entries()[1].range().start(), far.entries()[0].range().end())
    );
    assert_eq!(far.entries()[3].text(), None);
}

#[test]
fn writers_refuse_bad_names_and_lying_content() {
    for name in ["", "/a", "a/", "a//b", "./a", "a/..", "a\0b"] {
        assert!(to_bytes(&BTreeMap::from([(name, b"")])).is_err(), "{name:?}");
    }
    let too_long = vec![b'n'; 65_536];
    assert_eq!(to_bytes(&BTreeMap::from([(too_long, b"")])), Err(FarError::NameTooLong(65_536)));
    for (length, found) in [(4, 3), (1, 2)] {
        let lying = Content { length, open: Box::new(|| Ok(Box::new(&b"abc"[..]))) };
        let error = write(&mut Vec::new(), BTreeMap::from([(&b"x"[..], lying)])).unwrap_err();
        assert_eq!(error, FarError::ContentLength { name: "x".into(), expected: length, found });
    }
}

#[test]
fn truncations_and_random_damage_never_panic() {
    let golden = vector("far-example.far");
    for cut in 0..golden.len() {
        assert!(FarBytes::parse(Bytes::copy_from_slice(&golden[..cut])).is_err(), "cut at {cut}");
    }
    let longer = [&golden[..], b"tail"].concat();
    assert!(FarBytes::parse(longer.into()).is_ok(), "bytes after the last content are allowed");
    let mut state = 0xfa5_u64;
    println!("seed {state:#x}");
    for _ in 0..20_000 {
        let mut bad = golden.clone();
        for _ in 0..2 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bad[(state >> 33) as usize % 168] = (state >> 20) as u8;
        }
        if let Ok(far) = FarBytes::parse(bad.into()) {
            for entry in far.entries() {
                assert!(far.get(entry.name()).is_some());
            }
        }
    }
}
