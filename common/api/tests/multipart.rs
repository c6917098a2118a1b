//! Answers to several ranges, read back by a parser of their own.

use bytes::Bytes;
use colibri_api::{Coding, ETag, Representation, cache, head_for};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn representation() -> Representation {
    Representation {
        length: CONTENT.len() as u64,
        etag: Some(ETag::metadata(&[0x5a; 32])),
        cache_control: cache::IMMUTABLE,
        content_type: HeaderValue::from_static("application/octet-stream"),
        accept_ranges: true,
        coding: Coding::Identity,
        vary: None,
    }
}

fn ask(method: &Method, fields: &[(&'static str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let plan = head_for(&representation(), method, &headers);
    let body = plan.segments(&Bytes::from_static(CONTENT)).concat();
    (plan.status, plan.headers, body)
}

/// Content-Range and bytes of each part.
fn parts(headers: &HeaderMap, body: &[u8]) -> Vec<(String, String)> {
    let body = std::str::from_utf8(body).unwrap();
    let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.len() <= 70 && !boundary.is_empty());
    let body = body.strip_prefix(&format!("--{boundary}\r\n")).unwrap();
    let body = body.strip_suffix(&format!("\r\n--{boundary}--\r\n")).unwrap();
    body.split(&format!("\r\n--{boundary}\r\n"))
        .map(|part| {
            let (head, content) = part.split_once("\r\n\r\n").unwrap();
            let (kind, range) = head.split_once("\r\n").unwrap();
            assert_eq!(kind, "Content-Type: application/octet-stream");
            (range.strip_prefix("Content-Range: ").unwrap().to_owned(), content.to_owned())
        })
        .collect()
}

#[test]
fn parts_come_as_asked_with_their_own_heads() {
    let (status, headers, body) = ask(&Method::GET, &[("range", "bytes=-3,0-1,10-12,90-")]);
    assert_eq!(status, StatusCode::PARTIAL_CONTENT);
    assert!(!headers.contains_key(header::CONTENT_RANGE), "that stands in the parts");
    assert_eq!(headers[header::CONTENT_LENGTH], body.len().to_string().as_str());
    assert_eq!(headers[header::ETAG], "\"5a5a5a5a5a5a5a5a\"");
    let expected = [("bytes 33-35/36", "xyz"), ("bytes 0-1/36", "01"), ("bytes 10-12/36", "abc")];
    let expected = expected.map(|(range, content)| (range.to_owned(), content.to_owned()));
    assert_eq!(parts(&headers, &body), expected);
}

#[test]
fn one_part_that_is_left_is_a_plain_answer() {
    let (status, headers, body) = ask(&Method::GET, &[("range", "bytes=2-3,4-5")]);
    assert_eq!((status, &body[..]), (StatusCode::PARTIAL_CONTENT, &b"2345"[..]));
    assert_eq!(headers[header::CONTENT_RANGE], "bytes 2-5/36");
}

#[test]
fn conditions_rule_over_several_ranges_too() {
    let range = ("range", "bytes=0-0,5-5");
    let tag = "\"5a5a5a5a5a5a5a5a\"";
    assert_eq!(ask(&Method::GET, &[range, ("if-range", tag)]).0, StatusCode::PARTIAL_CONTENT);
    for full in [
        ask(&Method::GET, &[range, ("if-range", "\"other\"")]),
        ask(&Method::GET, &[("range", &format!("bytes={}", vec!["0-0"; 65].join(",")))]),
    ] {
        assert_eq!((full.0, &full.2[..]), (StatusCode::OK, CONTENT));
    }
    assert_eq!(ask(&Method::GET, &[range, ("if-none-match", tag)]).0, StatusCode::NOT_MODIFIED);
    let (status, headers, body) = ask(&Method::HEAD, &[range]);
    assert_eq!(
        (status, &body[..], headers[header::CONTENT_LENGTH].to_str().unwrap()),
        (StatusCode::OK, &b""[..], "36")
    );
    let (status, headers, _) = ask(&Method::GET, &[("range", "bytes=36-,40-50")]);
    assert_eq!(
        (status, &headers[header::CONTENT_RANGE]),
        (StatusCode::RANGE_NOT_SATISFIABLE, &"bytes */36".parse::<HeaderValue>().unwrap())
    );
}
