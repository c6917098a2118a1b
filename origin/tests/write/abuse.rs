//! Requests nobody honest sends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use colibri_common::merkle;
use colibri_transport::Body;
use http::{Method, StatusCode};
use serde_json::json;

use crate::site::{NAME, Site, content};

/// Sends bytes as they are and gives the status, or nothing if the connection was closed without an answer.
fn raw(site: &Site, text: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(site.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // Whatever the other side does with the connection, what counts is what it said.
    _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split_whitespace().nth(1).and_then(|status| status.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_headers_that_try_something() {
    let site = Site::start().await;
    let token = site.admin.clone();
    let id = "ab".repeat(32);
    for target in [
        "/v1/../etc/passwd",
        "/v1/..%2f..%2fetc/status",
        &format!("/v1/{NAME}/blobs/raw/../../../x"),
        &format!("/v1/{NAME}/blobs/raw/%2e%2e"),
        &format!("/v1/{NAME}/blobs/raw/{id}%00"),
        &format!("/v1/{NAME}//status"),
        &format!("//v1/{NAME}/status"),
        &format!("/v1/{NAME}/status?x=1"),
        &format!("/v1/{}/status", "a".repeat(2000)),
        "/v1/.hidden/status",
        "*",
        &format!("/v1/{NAME}/status/"),
    ] {
        let text =
            format!("GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
        let status = raw(&site, &text);
        assert!(matches!(status, Some(400 | 404 | 405 | 414)), "{target}: {status:?}");
    }
    for headers in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999\r\n",
        &format!("x: {}\r\n", "y".repeat(100_000)),
        &"x: y\r\n".repeat(500),
        "bad header\r\n",
        "x: \u{1}\r\n",
    ] {
        let text = format!(
            "POST /v1/{NAME}/targets HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\nconnection: close\r\n{headers}\r\nhello!"
        );
        let status = raw(&site, &text);
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{}: {status:?}",
            &headers[..20.min(headers.len())]
        );
    }
    for method in ["CONNECT", "TRACE", "OPTIONS", "PUT", "BREW"] {
        let text = format!(
            "{method} /v1/{NAME}/targets HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        let status = raw(&site, &text);
        assert!(matches!(status, Some(400 | 404 | 405)), "{method}: {status:?}");
    }
    assert_eq!(site.get(&token, "status").await.status, StatusCode::OK, "it is well");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_or_not_what_is_asked_for() {
    let site = Site::with(|write| write.upload_bytes_max = 100_000).await;
    let blob = content(1, 200_000);
    let id = merkle::build(&blob).id;
    let announced = site.patch("raw", id, 0, 200_000, &blob).await;
    assert_eq!(announced.status, StatusCode::PAYLOAD_TOO_LARGE);
    let more = site.patch("raw", id, 0, 50_000, &blob[..60_000]).await;
    assert_eq!(more.status, StatusCode::PAYLOAD_TOO_LARGE, "more than announced: {more:?}");
    let url = site.url(&format!("blobs/raw/{id}"));
    for (name, value) in [
        ("upload-length", "-1"),
        ("upload-length", "1e3"),
        ("upload-length", ""),
        ("upload-length", "99999999999999999999999"),
        ("upload-offset", "x"),
        ("upload-length", "0x10"),
        ("upload-length", " 5 5"),
    ] {
        let mut headers = vec![(name, value)];
        if name == "upload-offset" {
            headers.push(("upload-length", "5"));
        }
        let answer = site.ask(&site.publisher, Method::PATCH, &url, &headers, Body::full("hello")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}: {value}");
    }
    let answer = site.ask(&site.publisher, Method::PATCH, &url, &[], Body::full("hello")).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "no length");
    let hashes = vec![id; 100_001];
    let many = site.post(&site.publisher, "blobs/missing", &json!({ "blobs": hashes })).await;
    assert_eq!(many.status, StatusCode::BAD_REQUEST, "{many:?}");
    for (path, body) in [
        ("blobs/missing", "{}"),
        ("blobs/missing", ""),
        ("blobs/missing", "[]"),
        ("blobs/missing", r#"{"blobs":["../x"]}"#),
        ("blobs/missing", r#"{"blobs":[],"more":1}"#),
        ("targets", r#"{"add":[{"name":"../x","variant":"0","package":""}]}"#),
        ("targets", r#"{"surprise":true}"#),
        ("targets", "\u{0}"),
        ("targets", &"[".repeat(100_000)),
    ] {
        let json = [("content-type", "application/json")];
        let answer = site.ask(&site.publisher, Method::POST, &site.url(path), &json, Body::full(body.to_owned())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {}: {answer:?}", &body[..20.min(body.len())]);
        let plain = site.ask(&site.publisher, Method::POST, &site.url(path), &[], Body::full(body.to_owned())).await;
        assert_eq!(plain.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
}
