//! `Range` and `Content-Range`.

use std::path::Path;

use colibri_api::limits::RANGES_MAX;
use colibri_api::range::{ByteRangeSpec, ContentRange, ContentRangeError, RangeRequest, Unsatisfiable, resolve_all};
use colibri_common::ByteRange;
use http::{HeaderMap, HeaderValue, header};

type Positions = Option<(u64, u64)>;

#[derive(serde::Deserialize)]
struct Vectors {
    ok: Vec<(String, Positions, Option<u64>)>,
    err: Vec<(String, String)>,
}

#[test]
fn content_range_vectors() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/http-content-range.json");
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((vectors.ok.len(), vectors.err.len()), (4, 15));
    for (text, inclusive, complete) in vectors.ok {
        let parsed: ContentRange = text.parse().unwrap();
        assert_eq!(parsed.range(), inclusive.map(|(first, last)| ByteRange::new(first, last + 1)), "{text}");
        assert_eq!(parsed.complete(), complete, "{text}");
        assert_eq!(parsed.to_string(), text);
        assert_eq!(parsed.to_value(), text);
    }
    for (text, name) in vectors.err {
        let error = text.parse::<ContentRange>().unwrap_err();
        assert_eq!(format!("{error:?}"), name, "{text}");
    }
}

#[test]
fn content_range_beyond_the_vectors() {
    let cases = [
        ("bytes 0-9/9", ContentRangeError::InvalidByteRange),
        ("bytes +1-2/9", ContentRangeError::FirstBytePos),
        ("bytes 0-18446744073709551615/*", ContentRangeError::LastBytePos),
        ("bytes 0-18446744073709551616/*", ContentRangeError::LastBytePos),
        ("bytes 0-1/18446744073709551616", ContentRangeError::CompleteLength),
        ("bytes 0-1/ 9", ContentRangeError::CompleteLength),
        ("é", ContentRangeError::UnsupportedRangeUnit),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<ContentRange>(), Err(error), "{text}");
    }
    assert_eq!("BYTES 0-8/9".parse::<ContentRange>().unwrap().to_string(), "bytes 0-8/9");
    assert_eq!(ContentRange::satisfied(ByteRange::new(5, 5), None).to_string(), "bytes */*");
    assert_eq!(ContentRange::unsatisfied(0).to_string(), "bytes */0");
}

#[test]
fn range_fields() {
    use ByteRangeSpec::{From, FromTo, Suffix};
    use RangeRequest::{Invalid, Multiple, Single};
    let cases = [
        ("bytes=0-0", Single(FromTo { first: 0, last: 0 })),
        ("bytes=5-9", Single(FromTo { first: 5, last: 9 })),
        ("Bytes=5-", Single(From { first: 5 })),
        ("bytes=-7", Single(Suffix { bytes: 7 })),
        ("bytes= 5-9 ,", Single(FromTo { first: 5, last: 9 })),
        ("bytes=0-99999999999999999999999", Single(FromTo { first: 0, last: u64::MAX })),
        ("bytes=0-1,3-4", Multiple(vec![FromTo { first: 0, last: 1 }, FromTo { first: 3, last: 4 }])),
        ("bytes=0-1, ,-4", Multiple(vec![FromTo { first: 0, last: 1 }, Suffix { bytes: 4 }])),
        ("bytes=0-1,x", Invalid),
        ("bytes=9-5", Invalid),
        ("bytes=-", Invalid),
        ("bytes=", Invalid),
        ("bytes=,", Invalid),
        ("bytes=a-b", Invalid),
        ("bytes=1 - 2", Invalid),
        ("bytes=+1-2", Invalid),
        ("bytes 1-2", Invalid),
        ("lines=1-2", Invalid),
        ("", Invalid),
    ];
    for (text, expected) in cases {
        assert_eq!(RangeRequest::parse(text), expected, "{text}");
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_str(text).unwrap())]);
        assert_eq!(RangeRequest::from_headers(&headers), expected, "{text}");
    }
    assert_eq!(RangeRequest::from_headers(&HeaderMap::new()), RangeRequest::Whole);
    let twice =
        HeaderMap::from_iter(["bytes=0-1", "bytes=0-1"].map(|text| (header::RANGE, HeaderValue::from_static(text))));
    assert_eq!(RangeRequest::from_headers(&twice), Invalid);
    let opaque = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_bytes(b"bytes=0-\xff").unwrap())]);
    assert_eq!(RangeRequest::from_headers(&opaque), Invalid);
}

#[test]
fn fitting_a_range_to_a_length() {
    let none = |length| Err(Unsatisfiable { length });
    let cases = [
        ("bytes=0-", 10, Ok((0, 10))),
        ("bytes=9-9", 10, Ok((9, 10))),
        ("bytes=9-10", 10, Ok((9, 10))),
        ("bytes=3-99999999999999999999999", 10, Ok((3, 10))),
        ("bytes=0-18446744073709551615", u64::MAX, Ok((0, u64::MAX))),
        ("bytes=10-", 10, none(10)),
        ("bytes=10-12", 10, none(10)),
        ("bytes=99999999999999999999999-", u64::MAX, none(u64::MAX)),
        ("bytes=-1", 10, Ok((9, 10))),
        ("bytes=-10", 10, Ok((0, 10))),
        ("bytes=-11", 10, Ok((0, 10))),
        ("bytes=-0", 10, none(10)),
        ("bytes=0-", 0, none(0)),
        ("bytes=0-0", 0, none(0)),
        ("bytes=-0", 0, none(0)),
        ("bytes=-5", 0, Ok((0, 0))),
    ];
    for (text, length, expected) in cases {
        let RangeRequest::Single(spec) = RangeRequest::parse(text) else { panic!("{text}") };
        assert_eq!(spec.resolve(length), expected.map(|(start, end)| ByteRange::new(start, end)), "{text} of {length}");
    }
}

#[test]
fn a_client_writes_what_the_server_reads() {
    for range in [ByteRange::new(0, 1), ByteRange::new(0, 32_796), ByteRange::new(7, u64::MAX)] {
        let spec = ByteRangeSpec::exactly(range).unwrap();
        assert_eq!(RangeRequest::parse(&spec.to_string()), RangeRequest::Single(spec));
        assert_eq!(spec.resolve(u64::MAX), Ok(range));
    }
    assert_eq!(ByteRangeSpec::exactly(ByteRange::new(3, 3)), None);
    assert_eq!(ByteRangeSpec::From { first: 3 }.to_string(), "bytes=3-");
    assert_eq!(ByteRangeSpec::Suffix { bytes: 3 }.to_string(), "bytes=-3");
}

/// Ranges of a text such as `bytes=0-1,5-` fitted to a length, as pairs of start and end.
fn resolved(text: &str, length: u64) -> Result<Vec<(u64, u64)>, Unsatisfiable> {
    let RangeRequest::Multiple(specs) = RangeRequest::parse(text) else { panic!("{text}") };
    Ok(resolve_all(&specs, length)?.into_iter().map(|range| (range.start(), range.end())).collect())
}

#[test]
fn several_ranges_are_clamped_joined_and_kept_in_order() {
    let none = |length| Err(Unsatisfiable { length });
    let cases = [
        ("bytes=0-1,5-6", 10, Ok(vec![(0, 2), (5, 7)])),
        ("bytes=5-6,0-1", 10, Ok(vec![(5, 7), (0, 2)])),
        ("bytes=0-1,2-3", 10, Ok(vec![(0, 4)])),
        ("bytes=8-99,0-0", 10, Ok(vec![(8, 10), (0, 1)])),
        ("bytes=6-9,0-0,5-7", 10, Ok(vec![(5, 10), (0, 1)])),
        ("bytes=2-3,0-,4-4", 10, Ok(vec![(0, 10)])),
        ("bytes=0-0,20-30,-1", 10, Ok(vec![(0, 1), (9, 10)])),
        ("bytes=10-,20-", 10, none(10)),
        ("bytes=0-,-0", 0, none(0)),
        ("bytes=-3,-4", 0, Ok(vec![])),
        ("bytes=0-18446744073709551615,-1", u64::MAX, Ok(vec![(0, u64::MAX)])),
    ];
    for (text, length, expected) in cases {
        assert_eq!(resolved(text, length), expected, "{text} of {length}");
    }
}

#[test]
fn however_many_ranges_overlap_the_answer_is_never_longer_than_the_whole() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..500 {
        let length = random.u64(1..2000);
        let list: Vec<String> = (0..random.usize(2..=RANGES_MAX))
            .map(|_| match random.u8(0..3) {
                0 => format!("{}-", random.u64(..length * 2)),
                1 => format!("-{}", random.u64(..length * 2)),
                _ => {
                    let first = random.u64(..length * 2);
                    format!("{first}-{}", first + random.u64(..100))
                }
            })
            .collect();
        let text = format!("bytes={}", list.join(","));
        let Ok(ranges) = resolved(&text, length) else { continue };
        let mut covered = vec![false; length as usize];
        for (start, end) in ranges {
            for byte in &mut covered[start as usize..end as usize] {
                assert!(!*byte, "{text} of {length} sends a byte twice");
                *byte = true;
            }
        }
        let RangeRequest::Multiple(specs) = RangeRequest::parse(&text) else { panic!("{text}") };
        let mut wanted = vec![false; length as usize];
        for range in specs.iter().filter_map(|spec| spec.resolve(length).ok()) {
            wanted[range.start() as usize..range.end() as usize].fill(true);
        }
        assert!(covered == wanted, "{text} of {length}");
    }
}

#[test]
fn too_many_ranges_are_ignored() {
    let list = |count: usize| format!("bytes={}", vec!["0-0"; count].join(","));
    assert!(
        matches!(RangeRequest::parse(&list(RANGES_MAX)), RangeRequest::Multiple(specs) if specs.len() == RANGES_MAX)
    );
    assert_eq!(RangeRequest::parse(&list(RANGES_MAX + 1)), RangeRequest::Invalid);
}
