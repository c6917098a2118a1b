//! `Cache-Control`, `Cache-Status`, `Accept`.

use colibri_api::cache_status::{CACHE_STATUS, CacheStatus, Forward};
use colibri_api::limits::{self, CACHE_STATUS_BYTES_MAX};
use colibri_api::{cache, parse_path, prefers_json};
use http::{HeaderMap, HeaderValue, StatusCode, header};

const HASH: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

#[test]
fn cache_control_of_each_route() {
    const IMMUTABLE: &str = "public, max-age=31536000, immutable";
    let cases = [
        (format!("/blobs/{HASH}"), IMMUTABLE),
        (format!("/r/blobs/1/{HASH}"), IMMUTABLE),
        (format!("/r/blobs/leaves/{HASH}"), IMMUTABLE),
        ("/r/3.targets.json".into(), IMMUTABLE),
        ("/r/targets.json".into(), "public, max-age=5"),
        ("/r/root.json".into(), "public, max-age=5"),
        ("/r/timestamp.json".into(), "public, max-age=5, stale-if-error=86400"),
        (format!("/r/targets/p/{HASH}.0"), IMMUTABLE),
        (format!("/r/targets/p/{HASH}{HASH}.0"), IMMUTABLE),
        (format!("/r/targets/p/{}.0", &HASH[1..]), "public, max-age=5"),
        (format!("/r/targets/{HASH}.0/p"), "public, max-age=5"),
        ("/r/targets/p/0".into(), "public, max-age=5"),
        ("/r/repo.config".into(), "no-store"),
        ("/config.json".into(), "no-store"),
        ("/r/".into(), "public, max-age=5"),
        ("/".into(), "public, max-age=5"),
    ];
    for (path, expected) in cases {
        assert_eq!(cache::for_route(&parse_path(&path).unwrap(), 5), expected, "{path}");
    }
    assert_eq!(cache::for_error(StatusCode::NOT_FOUND, 5), "public, max-age=5");
    assert_eq!(cache::for_error(StatusCode::BAD_GATEWAY, 5), "no-store");
}

#[test]
fn cache_status_of_several_hops() {
    let mut headers = HeaderMap::new();
    CacheStatus::hit("origin").append_to(&mut headers);
    CacheStatus {
        forward_status: Some(200),
        stored: true,
        collapsed: true,
        ttl_s: Some(-3),
        ..CacheStatus::forwarded("edge 1", Forward::Miss)
    }
    .with_detail("say \"hé\\\"")
    .append_to(&mut headers);
    let own = r#""edge 1"; fwd=miss; fwd-status=200; ttl=-3; stored; collapsed; detail="say \"h?\\\"""#;
    let list = format!("origin; hit, {own}");
    assert_eq!(headers.get_all(CACHE_STATUS).iter().collect::<Vec<_>>(), [&*list]);
    // A comma in a string ends nothing.
    CacheStatus::hit("last").append_to(&mut headers);
    assert_eq!(headers[CACHE_STATUS], format!("{list}, last; hit"));
    assert_eq!(CacheStatus::entry("127.0.0.1:80").to_string(), "\"127.0.0.1:80\"");
    assert_eq!(CacheStatus::entry("e").with_detail("memory").to_string(), "e; detail=memory");
    for (reason, token) in [
        (Forward::Bypass, "bypass"),
        (Forward::Method, "method"),
        (Forward::UriMiss, "uri-miss"),
        (Forward::Request, "request"),
        (Forward::Stale, "stale"),
        (Forward::Partial, "partial"),
    ] {
        assert_eq!(CacheStatus::forwarded("e", reason).to_string(), format!("e; fwd={token}"));
    }
}

#[test]
fn of_an_overgrown_cache_status_the_nearest_hops_are_passed_on() {
    let after = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_STATUS, HeaderValue::try_from(*line).unwrap());
        }
        CacheStatus::hit("edge").append_to(&mut headers);
        assert_eq!(headers.get_all(CACHE_STATUS).iter().count(), 1);
        headers[CACHE_STATUS].to_str().unwrap().to_owned()
    };
    assert_eq!(after(&["a; hit", "b; fwd=miss,c; hit"]), "a; hit, b; fwd=miss, c; hit, edge; hit");
    let long = "x".repeat(CACHE_STATUS_BYTES_MAX + 1);
    assert_eq!(after(&[&long]), "edge; hit");
    assert_eq!(after(&[&long, "near; hit"]), "near; hit, edge; hit");
    let mut list = String::new();
    for hop in 0..1000 {
        list = after(&[&list.replace("edge; hit", &format!("hop{hop}; hit"))]);
        assert!(list.len() <= CACHE_STATUS_BYTES_MAX + "edge; hit".len());
    }
    assert!(list.contains("hop999; hit, edge; hit") && !list.contains("hop0; hit"), "{list}");
    for bad in ["", ",", "a; hit,", "\"open", "a, \"b\\\"", "=; hit", "7; hit", "a; detail=\"x"] {
        assert_eq!(after(&[bad]), "edge; hit", "{bad:?} cannot be read");
    }
}

#[test]
fn html_or_json() {
    let cases = [
        (None, false),
        (Some("*/*"), false),
        (Some("application/json"), true),
        (Some("Application/JSON; q=0.5"), true),
        (Some("text/html,application/xhtml+xml,*/*;q=0.8"), false),
        (Some("application/json, text/html"), true),
        (Some("text/html, application/json"), false),
        (Some("text/html;q=0.4, application/json;q=0.5"), true),
        (Some("application/json, */*"), true),
        (Some("application/json;q=0, */*"), false),
        (Some("application/*"), true),
        (Some("application/json;q=0"), false),
        (Some("application/json;q=2"), false),
        (Some("application/json;q=0.1234"), false),
        (Some("application/json;q=x"), false),
        (Some("image/png"), false),
    ];
    for (accept, json) in cases {
        let headers: HeaderMap =
            accept.into_iter().map(|text| (header::ACCEPT, HeaderValue::from_static(text))).collect();
        assert_eq!(prefers_json(&headers), json, "{accept:?}");
    }
}

#[test]
fn limits_are_listed_once() {
    let mut names: Vec<_> = limits::ALL.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), limits::ALL.len());
}
