//! `Range` and `Content-Range`.

use std::path::Path;

use colibri_api::range::{ByteRangeSpec, ContentRange, ContentRangeError, RangeRequest, Unsatisfiable};
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
        ("bytes=0-1,3-4", Multiple),
        ("bytes=0-1, ,-4", Multiple),
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
