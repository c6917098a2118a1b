//! Several ranges in one request (RFC 9110 §14): joined, bounded, streamed, proven before they are announced.

use crate::site::{Got, build, config, get, request};
use crate::upstream::{Fault, Upstream, content, id};
use http::Method;

const LENGTH: usize = (4 << 20) + 54_321;

/// First and last byte and content of each part, cut by the announced boundary and the length that its range tells.
fn parts(got: &Got, whole: usize) -> Vec<(usize, usize, Vec<u8>)> {
    let boundary = got.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.len() <= 70);
    assert_eq!(got.header("content-length"), got.bytes().len().to_string());
    let mut rest = got.bytes();
    let mut parts = Vec::new();
    let mut line_end = "";
    loop {
        rest = rest.strip_prefix(format!("{line_end}--{boundary}").as_bytes()).unwrap();
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let (_, range) = head.split_once("Content-Range: bytes ").unwrap();
        let (range, complete) = range.split_once('/').unwrap();
        assert_eq!(complete, whole.to_string());
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let (part, after) = rest[end + 4..].split_at(last - first + 1);
        parts.push((first, last, part.to_vec()));
        (rest, line_end) = (after, "\r\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_every_form_come_right_and_fetch_only_their_units() {
    let content = content(LENGTH, 11);
    let upstream = Upstream::with(&[&content]).await;
    for form in ["", "1/", "leaves/"] {
        let edge = build(&config(&[&upstream]));
        let path = format!("/blobs/{form}{}", id(&content));
        let file = upstream.file(&path);
        let length = file.len();
        let range = format!("bytes={}-{},0-9,-7,{}-", length / 2, length / 2 + 4, length + 5);
        let got = get(&edge, &path, &[("range", &range)]).await;
        assert_eq!((got.status, got.header("content-range")), (206, ""), "{path}");
        let parts = parts(&got, length);
        let bounds: Vec<_> = parts.iter().map(|(first, last, _)| (*first, *last)).collect();
        assert_eq!(bounds, [(length / 2, length / 2 + 4), (0, 9), (length - 7, length - 1)], "{path}");
        for (first, last, bytes) in parts {
            assert!(bytes == file[first..=last], "{path} {first}-{last}: wrong bytes");
        }
    }
    assert!(upstream.asked_max() <= 3, "{:?}", upstream.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_joined_ignored_or_refused_as_the_rfc_says() {
    let content = content(100_000, 12);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let path = format!("/blobs/{}", id(&content));
    let etag = get(&edge, &path, &[("range", "bytes=0-0")]).await.header("etag").to_owned();
    // Overlapping: one part, once.
    let got = get(&edge, &path, &[("range", "bytes=10-20,15-30,0-")]).await;
    assert_eq!((got.status, got.header("content-range")), (206, "bytes 0-99999/100000"));
    assert!(got.bytes() == content);
    // The whole, many times over: sent once.
    let all = format!("bytes={}", vec!["0-"; 64].join(","));
    assert_eq!(get(&edge, &path, &[("range", &all)]).await.bytes().len(), content.len());
    let many = format!("bytes={}", (0..65).map(|at| format!("{0}-{0}", at * 9)).collect::<Vec<_>>().join(","));
    assert_eq!(get(&edge, &path, &[("range", &many)]).await.status, 200);
    let beyond = get(&edge, &path, &[("range", "bytes=100000-,200000-300000")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */100000"));
    beyond.problem();
    let two = ("range", "bytes=0-0,9-9");
    assert_eq!(get(&edge, &path, &[two, ("if-range", &etag)]).await.status, 206);
    assert_eq!(get(&edge, &path, &[two, ("if-range", "\"another\"")]).await.status, 200);
    assert_eq!(get(&edge, &path, &[two, ("if-none-match", &etag)]).await.status, 304);
    let head = crate::site::send(&edge.handler(), request(Method::HEAD, &path, &[two])).await;
    assert_eq!((head.status, head.header("content-length")), (200, "100000"));
}

/// An upstream that dies in the middle breaks the body off; it never ends cleanly short.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_had_breaks_the_body_off() {
    let content = content(LENGTH, 13);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let path = format!("/blobs/{}", id(&content));
    let first = get(&edge, &path, &[("range", "bytes=0-9")]).await;
    assert_eq!(first.status, 206);
    upstream.faults(|_, _| Some(Fault::Status(404)));
    let got = get(&edge, &path, &[("range", "bytes=0-9,3000000-3000009")]).await;
    assert_eq!(got.status, 206);
    let came = got.body.expect_err("the second part is not to be had");
    assert!(came.windows(10).any(|window| window == &content[..10]));
    // And when not even the first is there, it is an answer.
    let got = get(&edge, &path, &[("range", "bytes=3000000-3000009,0-9")]).await;
    assert_eq!(got.status, 404);
}
