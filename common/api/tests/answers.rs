//! Entity tags, conditionals in every combination, and the answers planned from them.

use colibri_api::conditional::{Decision, ETag, decide};
use colibri_api::problem::Problem;
use colibri_api::{ApiError, Coding, PathError, Representation, cache, head_for};
use colibri_common::{BlobId, ByteRange};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

const HASH: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";
const LENGTH: u64 = 100;

fn id() -> BlobId {
    HASH.parse().unwrap()
}

fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

fn representation() -> Representation {
    Representation {
        length: LENGTH,
        etag: Some("\"a\"".parse().unwrap()),
        cache_control: cache::IMMUTABLE,
        content_type: HeaderValue::from_static("application/octet-stream"),
        accept_ranges: true,
        coding: Coding::Identity,
        vary: None,
    }
}

fn field<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn tags_of_each_representation() {
    let identity = [0xab; 32];
    assert_eq!(ETag::raw(id()).to_string(), format!("\"{HASH}\""));
    assert_eq!(ETag::leaves(id()).to_string(), format!("\"{HASH}.leaves\""));
    assert_eq!(ETag::metadata(&identity).to_string(), "\"abababababababab\"");
    let delivery = ETag::delivery(id(), 2, &identity);
    assert_eq!(delivery.to_string(), format!("\"{HASH}.2.abababababababab\""));
    let tag = delivery.to_string().parse::<ETag>().unwrap().as_delivery().unwrap();
    assert_eq!((tag.id, tag.delivery_type, tag.identity_prefix), (id(), 2, [0xab; 8]));
    for other in [
        format!("\"{HASH}\""),
        format!("\"{HASH}.leaves\""),
        format!("W/\"{HASH}.1.abababababababab\""),
        format!("\"{HASH}.1.abababababababab.x\""),
        format!("\"{HASH}.01.abababababababab\""),
        format!("\"{HASH}.1.ababababababab\""),
        format!("\"{HASH}.1.ABABABABABABABAB\""),
        format!("\"{}.1.abababababababab\"", HASH.to_uppercase()),
    ] {
        assert_eq!(other.parse::<ETag>().unwrap().as_delivery(), None, "{other}");
    }
}

#[test]
fn tags_parse_strictly_and_compare_as_rfc_9110_says() {
    for bad in ["", "a", "\"", "\"a", "a\"", "w/\"a\"", "W/a", "\"a\"b\"", "\"a b\"", "\"\u{7f}\"", " \"a\""] {
        assert!(bad.parse::<ETag>().is_err(), "{bad:?}");
    }
    // RFC 9110 §8.8.3.2: strong, weak.
    for (left, right, strong, weak) in [
        ("W/\"1\"", "W/\"1\"", false, true),
        ("W/\"1\"", "W/\"2\"", false, false),
        ("W/\"1\"", "\"1\"", false, true),
        ("\"1\"", "\"1\"", true, true),
    ] {
        let (left, right): (ETag, ETag) = (left.parse().unwrap(), right.parse().unwrap());
        assert_eq!((left.matches_strongly(&right), left.matches_weakly(&right)), (strong, weak), "{left} {right}");
    }
}

/// Effect of each spelling of one conditional field on a representation with the strong tag "a".
const NONE_MATCH: &[(Option<&str>, bool)] = &[
    (None, false),
    (Some("\"a\""), true),
    (Some("W/\"a\""), true),
    (Some("\"b\""), false),
    (Some("\"b\", \"a\""), true),
    (Some(" ,\"b\",,W/\"a\" , \"c\""), true),
    (Some("\"b,\"a\""), false),
    (Some("\"b\" \"a\""), false),
    (Some("a"), false),
    (Some("*"), true),
    (Some("\"x,y\", \"a\""), true),
];
const MATCH: &[(Option<&str>, bool)] = &[
    (None, true),
    (Some("\"a\""), true),
    (Some("\"b\", \"a\""), true),
    (Some("*"), true),
    (Some("W/\"a\""), false),
    (Some("\"b\""), false),
    (Some("junk"), true),
];
const IF_RANGE: &[(Option<&str>, bool)] = &[
    (None, true),
    (Some("\"a\""), true),
    (Some("W/\"a\""), false),
    (Some("\"b\""), false),
    (Some("\"a\", \"b\""), false),
    (Some("Sat, 29 Oct 1994 19:43:31 GMT"), false),
    (Some("*"), false),
];
const RANGE: &[(Option<&str>, Decision)] = &[
    (None, Decision::Full),
    (Some("bytes=0-9"), Decision::Partial(ByteRange::new(0, 10))),
    (Some("bytes=90-200"), Decision::Partial(ByteRange::new(90, 100))),
    (Some("bytes=-1"), Decision::Partial(ByteRange::new(99, 100))),
    (Some("bytes=100-"), Decision::RangeNotSatisfiable { length: LENGTH }),
    (Some("bytes=0-1,1-6"), Decision::Partial(ByteRange::new(0, 7))),
    (Some("bytes=100-,200-300,-0"), Decision::RangeNotSatisfiable { length: LENGTH }),
    (Some("bytes=x"), Decision::Full),
];

#[test]
fn every_combination_of_conditionals() {
    let mut combinations = 0;
    for method in [Method::GET, Method::HEAD] {
        for (if_match, matched) in MATCH {
            for (if_none_match, held) in NONE_MATCH {
                for (if_range, allowed) in IF_RANGE {
                    for (range, ranged) in RANGE {
                        for ranges_served in [true, false] {
                            let fields = [
                                (header::IF_MATCH, if_match),
                                (header::IF_NONE_MATCH, if_none_match),
                                (header::IF_RANGE, if_range),
                                (header::RANGE, range),
                            ];
                            let present: Vec<_> = fields
                                .into_iter()
                                .filter_map(|(name, value)| value.map(|value| (name, value)))
                                .collect();
                            let request = headers(&present);
                            let expected = if !matched {
                                Decision::PreconditionFailed
                            } else if *held {
                                Decision::NotModified
                            } else if *allowed && ranges_served && method == Method::GET {
                                ranged.clone()
                            } else {
                                Decision::Full
                            };
                            let etag = representation().etag;
                            assert_eq!(
                                decide(etag.as_ref(), LENGTH, ranges_served, &method, &request),
                                expected,
                                "{method} {present:?}"
                            );
                            combinations += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(combinations, 2 * 7 * 11 * 7 * 8 * 2);
}

#[test]
fn conditionals_without_a_tag_or_in_several_fields() {
    let ask = |etag: Option<&str>, fields: &[(HeaderName, &str)]| {
        let etag: Option<ETag> = etag.map(|text| text.parse().unwrap());
        decide(etag.as_ref(), LENGTH, true, &Method::GET, &headers(fields))
    };
    let range = (header::RANGE, "bytes=0-9");
    assert_eq!(ask(None, &[(header::IF_NONE_MATCH, "\"a\"")]), Decision::Full);
    assert_eq!(ask(None, &[(header::IF_NONE_MATCH, "*")]), Decision::NotModified);
    assert_eq!(ask(None, &[(header::IF_MATCH, "\"a\"")]), Decision::PreconditionFailed);
    assert_eq!(ask(None, &[(header::IF_RANGE, "\"a\""), range.clone()]), Decision::Full);
    assert_eq!(
        ask(Some("\"a\""), &[(header::IF_NONE_MATCH, "\"b\""), (header::IF_NONE_MATCH, "\"a\"")]),
        Decision::NotModified
    );
    assert_eq!(
        ask(Some("\"a\""), &[(header::IF_RANGE, "\"a\""), (header::IF_RANGE, "\"a\""), range.clone()]),
        Decision::Full
    );
    assert_eq!(ask(Some("W/\"a\""), &[(header::IF_RANGE, "W/\"a\""), range]), Decision::Full);
    let many = format!("{}\"a\"", "\"b\",".repeat(colibri_api::limits::ENTITY_TAGS_MAX));
    assert_eq!(ask(Some("\"a\""), &[(header::IF_NONE_MATCH, &many)]), Decision::Full, "the list is cut");
    assert_eq!(ask(Some("\"a\""), &[(header::IF_NONE_MATCH, &many[4..])]), Decision::NotModified);
}

#[test]
fn plans_of_each_status() {
    let plan = |method: Method, fields: &[(HeaderName, &str)]| head_for(&representation(), &method, &headers(fields));
    let whole = plan(Method::GET, &[]);
    assert_eq!((whole.status, whole.body), (StatusCode::OK, Some(ByteRange::whole(LENGTH))));
    for (name, value) in [
        (header::CONTENT_LENGTH, "100"),
        (header::ETAG, "\"a\""),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::CONTENT_TYPE, "application/octet-stream"),
    ] {
        assert_eq!(field(&whole.headers, &name), value);
    }

    let head = plan(Method::HEAD, &[(header::RANGE, "bytes=0-9")]);
    assert_eq!(
        (head.status, head.body, &head.headers),
        (StatusCode::OK, None, &whole.headers),
        "HEAD sends GET's headers"
    );

    let part = plan(Method::GET, &[(header::RANGE, "bytes=95-200")]);
    assert_eq!((part.status, part.body), (StatusCode::PARTIAL_CONTENT, Some(ByteRange::new(95, 100))));
    assert_eq!(field(&part.headers, &header::CONTENT_RANGE), "bytes 95-99/100");
    assert_eq!(field(&part.headers, &header::CONTENT_LENGTH), "5");

    for method in [Method::GET, Method::HEAD] {
        let same = plan(method, &[(header::IF_NONE_MATCH, "\"a\"")]);
        assert_eq!((same.status, same.body, same.problem.len()), (StatusCode::NOT_MODIFIED, None, 0));
        assert_eq!(
            (field(&same.headers, &header::ETAG), same.headers.contains_key(header::CONTENT_LENGTH)),
            ("\"a\"", false)
        );
        assert_eq!(field(&same.headers, &header::CACHE_CONTROL), "public, max-age=31536000, immutable");
    }

    let beyond = plan(Method::GET, &[(header::RANGE, "bytes=100-")]);
    assert_eq!((beyond.status, beyond.body), (StatusCode::RANGE_NOT_SATISFIABLE, None));
    assert_eq!(field(&beyond.headers, &header::CONTENT_RANGE), "bytes */100");
    assert_eq!(field(&beyond.headers, &header::CONTENT_LENGTH), beyond.problem.len().to_string());
    assert_eq!(serde_json::from_slice::<Problem>(&beyond.problem).unwrap().status, 416);

    let failed = plan(Method::HEAD, &[(header::IF_MATCH, "\"b\"")]);
    assert_eq!((failed.status, failed.problem.len()), (StatusCode::PRECONDITION_FAILED, 0));

    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let refused = plan(method, &[(header::IF_NONE_MATCH, "*"), (header::RANGE, "bytes=0-1")]);
        assert_eq!((refused.status, refused.body), (StatusCode::METHOD_NOT_ALLOWED, None));
        assert_eq!(field(&refused.headers, &header::ALLOW), "GET, HEAD");
    }

    let without_ranges = Representation { accept_ranges: false, etag: None, length: 0, ..representation() };
    let empty = head_for(&without_ranges, &Method::GET, &headers(&[(header::RANGE, "bytes=0-")]));
    assert_eq!((empty.status, empty.body), (StatusCode::OK, Some(ByteRange::whole(0))));
    assert!(!empty.headers.contains_key(header::ACCEPT_RANGES) && !empty.headers.contains_key(header::ETAG));
}

#[test]
fn an_empty_representation() {
    let empty = Representation { length: 0, ..representation() };
    let suffix = head_for(&empty, &Method::GET, &headers(&[(header::RANGE, "bytes=-5")]));
    assert_eq!((suffix.status, suffix.body), (StatusCode::OK, Some(ByteRange::whole(0))));
    let first = head_for(&empty, &Method::GET, &headers(&[(header::RANGE, "bytes=0-")]));
    assert_eq!(
        (first.status, field(&first.headers, &header::CONTENT_RANGE)),
        (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */0")
    );
}

#[test]
fn problems_name_the_thing_at_fault() {
    let cases = [
        (ApiError::from(PathError::Traversal), 400, "no-store", "bad-path"),
        (ApiError::from(PathError::NotFound), 404, "public, max-age=7", "not-found"),
        (ApiError::from(PathError::NotARepository), 404, "public, max-age=7", "not-found"),
        (ApiError::from(PathError::TooLong), 414, "no-store", "path-too-long"),
        (ApiError::NotFound(format!("there is no blob {HASH}")), 404, "public, max-age=7", "not-found"),
        (ApiError::BadRequest("no Host".into()), 400, "no-store", "bad-request"),
        (ApiError::MethodNotAllowed, 405, "no-store", "method-not-allowed"),
        (ApiError::PreconditionFailed, 412, "no-store", "precondition-failed"),
        (ApiError::RangeNotSatisfiable { length: 5 }, 416, "no-store", "range-not-satisfiable"),
        (ApiError::TooManyRequests { retry_after_s: 3 }, 429, "no-store", "too-many-requests"),
        (ApiError::Internal("disk".into()), 500, "no-store", "internal"),
        (ApiError::BadGateway("lying".into()), 502, "no-store", "bad-gateway"),
        (ApiError::Unavailable("stopping".into()), 503, "no-store", "unavailable"),
        (ApiError::GatewayTimeout("slow".into()), 504, "no-store", "gateway-timeout"),
    ];
    for (error, status, cache_control, name) in cases {
        let answer = error.respond(7);
        let problem: Problem = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status.as_u16(), problem.status, error.status().as_u16()), (status, status, status));
        assert_eq!(problem.kind, format!("urn:colibri:problem:{name}"));
        assert_eq!(problem.detail, error.to_string());
        assert_eq!(field(&answer.headers, &header::CONTENT_TYPE), "application/problem+json");
        assert_eq!(field(&answer.headers, &header::CACHE_CONTROL), cache_control, "{error}");
        assert_eq!(field(&answer.headers, &header::CONTENT_LENGTH), answer.body.len().to_string());
    }
    assert_eq!(field(&ApiError::TooManyRequests { retry_after_s: 3 }.respond(0).headers, &header::RETRY_AFTER), "3");
    let long = ApiError::NotFound("é".repeat(2000)).respond(0);
    let problem: Problem = serde_json::from_slice(&long.body).unwrap();
    assert_eq!(problem.detail, "é".repeat(512));
}
