//! Who may read, and what people who ask why are told.

use std::collections::BTreeMap;

use colibri_edge::EdgeConfig;
use http::Method;
use serde_json::Value;

use crate::site::{build, config, get, request, send, whole};
use crate::upstream::{Fault, Upstream, content, id};

/// Made once with the key whose public half this is: for everything, until the year 2096.
pub const PUBLIC: &str = "ed103440d1cae9021a2f0f3e2e2193f214408653920f8e6596a3a5999f08a7b3";
pub const ALL: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl19.tGLbyJ0iL4fWeNjfAx924U9qBPIs9jCRD_pdRW7w-hIXc0-nUHKq-hdEOclLKlixFO1mKn2ekMsB-Svx3f80DA";
const NOTHING: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwfQ.TW_ax4ozfWgPlAsfeNliMNVGoQv0hKLzNWYt2ev-9Ue33B7X1ryeKDknOdDbyuMiJaAsS3dZ6g_6aC__QwwsAw";

/// Made once with another key: two requests a second, 100,000 bytes a second, and a rate that is nobody's.
const QUOTA_PUBLIC: &str = "7d8774fe065a6f829568ebcc04ccb8c1379691939d48ac85505618c262b6bb7a";
const TWO_REQUESTS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImlkIjoiZmxlZXQtNyIsInJlcXVlc3RzX3Blcl9zIjoyfQ.HcO_38kHLQ3iEbxi5o9lv1DYRwIV1Ou4CEvlYKq7c5BJcOet1wIcuFFj59ACmxQPg_BITu0UAuQ3yPjh-wnRCA";
const BYTES: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sImlkIjoiZmxlZXQtOCIsImJ5dGVzX3Blcl9zIjoxMDAwMDB9.1IJvhDhYKr8qGJBSWfGtpUSNleYIYsOJFiKCeHRY5gSuWJrjWhX01hkjD9UnnlsFQuDbMm-J3Appta8UzgQ9CA";
const NOBODYS: &str = "eyJrZXkiOiJvcHMiLCJleHBpcmVzIjo0MDAwMDAwMDAwLCJwYXRocyI6WyIvIl0sInJlcXVlc3RzX3Blcl9zIjoyfQ.5zpnoPP7vJ9iJ2eZNuZkM5xXO2F3a2YhOzV_awQBP7CksUrrZ0miKRSSQSkCBKgKiusDVU6zRt6zS-f1MnEnCg";

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_only_tokens_open_and_answers_are_private() {
    let content = content(50_000, 41);
    let upstream = Upstream::with(&[&content]).await;
    let mut config = config(&[&upstream]);
    config.tokens.keys = BTreeMap::from([("ops".to_owned(), PUBLIC.to_owned())]);
    let edge = build(&config);
    let path = format!("/blobs/{}", id(&content));
    let bearer = |token: &str| format!("Bearer {token}");
    for path in [&*path, "/", "/devhost/timestamp.json", "/devhost/auto"] {
        let denied = get(&edge, path, &[]).await;
        assert_eq!((denied.status, denied.header("www-authenticate")), (401, "Bearer"), "{path}");
        assert_eq!(denied.header("cache-control"), "no-store");
        assert_eq!(denied.problem()["type"], "urn:colibri:problem:unauthorized");
        let denied = get(&edge, path, &[("authorization", &bearer(NOTHING))]).await;
        assert_eq!((denied.status, denied.problem()["type"].as_str()), (403, Some("urn:colibri:problem:forbidden")));
        assert_eq!(get(&edge, path, &[("authorization", &bearer(&ALL[1..]))]).await.status, 401);
    }
    assert_eq!(upstream.requests(), 0, "nobody was asked on behalf of those");
    let let_in = get(&edge, &path, &[("authorization", &bearer(ALL))]).await;
    assert_eq!((let_in.status, let_in.header("cache-control")), (200, "private, max-age=31536000, immutable"));
    assert!(let_in.bytes() == content);
    assert_eq!(get(&edge, &format!("{path}?token={ALL}"), &[("range", "bytes=0-9")]).await.status, 206);
    let head = send(&edge.handler(), request(Method::HEAD, &path, &[])).await;
    assert_eq!((head.status, head.bytes()), (401, &b""[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_carries_a_rate_is_held_to_it_and_others_are_not() {
    let content = content(400_000, 43);
    let upstream = Upstream::with(&[&content]).await;
    let mut config = config(&[&upstream]);
    config.tokens.keys = BTreeMap::from([("ops".to_owned(), QUOTA_PUBLIC.to_owned())]);
    let edge = build(&config);
    let path = format!("/blobs/{}", id(&content));
    let ask = async |token: &str, method: Method| {
        let bearer = format!("Bearer {token}");
        send(&edge.handler(), request(method, &path, &[("authorization", &bearer)])).await
    };
    let mut answers = Vec::new();
    for _ in 0..9 {
        answers.push(ask(TWO_REQUESTS, Method::HEAD).await);
    }
    assert_eq!((answers[0].status, answers[1].status), (200, 200));
    let refused = answers.iter().find(|answer| answer.status != 200).expect("nine in a row are more than two a second");
    assert_eq!(
        (refused.status, refused.header("retry-after"), refused.header("cache-control")),
        (429, "1", "no-store")
    );
    // Four seconds' worth in one answer: then nothing for three.
    assert!(ask(BYTES, Method::GET).await.bytes() == content);
    let refused = ask(BYTES, Method::GET).await;
    assert_eq!(
        (refused.status, refused.problem()["type"].as_str()),
        (429, Some("urn:colibri:problem:too-many-requests"))
    );
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert!(edge.metrics().quota_refusals.get() >= 2);
    assert_eq!(ask(NOBODYS, Method::GET).await.status, 401, "a rate without a name is no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_where_units_are_where_from_and_why_they_were_fetched() {
    let content = content((4 << 20) + 5, 42);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&EdgeConfig { memory_bytes: 64 << 20, ..config(&[&upstream]) });
    let id = id(&content);
    let explain = || async {
        let got = send(&edge.control(), request(Method::GET, &format!("/explain/{id}"), &[])).await;
        assert_eq!(got.status, 200);
        serde_json::from_slice::<Value>(got.bytes()).unwrap()
    };
    let form = |answer: &Value, encoding: &str| {
        answer["forms"].as_array().unwrap().iter().find(|form| form["encoding"] == encoding).unwrap().clone()
    };
    let cold = explain().await;
    assert_eq!((&cold["blob"], &form(&cold, "raw")["opened"]), (&id.to_string().into(), &false.into()));
    get(&edge, &format!("/blobs/{id}"), &[("range", "bytes=0-9")]).await;
    // The answer does not wait for the end of its unit.
    let mut one = form(&explain().await, "raw");
    for _ in 0..2000 {
        if one["units"][0]["in_memory"] == true {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        one = form(&explain().await, "raw");
    }
    assert_eq!((&one["unit_count"], &one["bytes"]), (&3.into(), &content.len().into()));
    let (first, second) = (&one["units"][0], &one["units"][1]);
    assert_eq!((&first["in_memory"], &first["source"]), (&true.into(), &upstream.name().into()), "{first}");
    assert_eq!((&first["last_miss"], &first["in_flight"]), (&"never-seen".into(), &false.into()));
    assert_eq!((&second["in_memory"], &second["source"]), (&false.into(), &Value::Null), "{second}");
    // A fill that failed is told, and is the reason of the next.
    upstream.faults(|_, _| Some(Fault::Flip(100)));
    let failed = get(&edge, &format!("/blobs/{id}"), &[("range", "bytes=3000000-3000009")]).await;
    assert!(failed.status >= 400);
    let after = explain().await;
    assert!(form(&after, "raw")["units"][1]["failure"].is_string(), "{after}");
    assert!(after["blames"][0].as_str().unwrap().contains(&upstream.name()), "{after}");
    upstream.no_faults();
    whole(&edge, &format!("/blobs/{id}"), &content).await;
    let whole = explain().await;
    let second = &form(&whole, "raw")["units"][1];
    assert_eq!((&second["last_miss"], &second["failure"]), (&"failed".into(), &Value::Null), "{second}");
    let asked = upstream.requests();
    let bad = send(&edge.control(), request(Method::GET, "/explain/nonsense", &[])).await;
    assert_eq!((bad.status, upstream.requests()), (400, asked));
}
