//! Every golden root of `tests/vectors/merkle.json`, the 512 MiB ones too (content generated piece by piece).

use std::path::Path;

use colibri_common::merkle::Builder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    repeated_byte: Vec<RepeatedByte>,
    text: Vec<Text>,
}

#[derive(Deserialize)]
struct RepeatedByte {
    byte: String,
    len: u64,
    root: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    #[serde(default = "one")]
    repeat: usize,
    root: String,
}

fn one() -> usize {
    1
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/merkle.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn repeated_bytes() {
    let cases = golden().repeated_byte;
    assert!(cases.iter().any(|case| case.len > 512 << 20), "the 512 MiB vectors are part of this test");
    for case in cases {
        let byte = u8::from_str_radix(&case.byte, 16).unwrap();
        let piece = vec![byte; usize::try_from(case.len.min(32 << 20)).unwrap()];
        let mut builder = Builder::new();
        while builder.length() < case.len {
            let left = usize::try_from(case.len - builder.length()).unwrap();
            builder.push(&piece[..left.min(piece.len())]);
        }
        assert_eq!(builder.finish().id.to_string(), case.root, "{} x {}", case.byte, case.len);
    }
}

#[test]
fn texts() {
    for case in golden().text {
        let mut builder = Builder::new();
        builder.push(case.text.repeat(case.repeat).as_bytes());
        assert_eq!(builder.finish().id.to_string(), case.root, "{:?}", case.text);
    }
}
