//! Content codings: which one a request gets, and what an answer says of itself.

use colibri_api::{ApiError, Coding, ETag, Representation, cache, head_for, negotiate};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

fn accepting(fields: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(field).unwrap());
    }
    headers
}

#[test]
fn what_each_accept_encoding_gets() {
    use Coding::{Gzip, Identity, Zstd};
    let cases: &[(&[&str], Option<Coding>)] = &[
        (&[], Some(Identity)),
        (&[""], Some(Identity)),
        (&["gzip"], Some(Gzip)),
        (&["zstd"], Some(Zstd)),
        (&["X-GZip"], Some(Gzip)),
        (&["GZIP"], Some(Gzip)),
        (&["gzip, zstd"], Some(Zstd)),
        (&["zstd, gzip"], Some(Zstd)),
        (&["gzip", "zstd"], Some(Zstd)),
        (&["gzip, deflate, br, zstd"], Some(Zstd)),
        (&["gzip, deflate"], Some(Gzip)),
        (&["gzip;q=1.0, zstd;q=0.9"], Some(Gzip)),
        (&["gzip ; q=0.5 , zstd ; Q=0.501"], Some(Zstd)),
        (&["gzip;q=0"], Some(Identity)),
        (&["gzip;q=0.000, zstd;q=0"], Some(Identity)),
        (&["zstd;q=0, *"], Some(Gzip)),
        (&["*"], Some(Zstd)),
        (&["*;q=0.1"], Some(Zstd)),
        (&["gzip, *;q=0"], Some(Gzip)),
        (&["*;q=0, gzip"], Some(Gzip)),
        (&["identity"], Some(Identity)),
        (&["identity, gzip"], Some(Gzip)),
        (&["identity, gzip;q=0.9"], Some(Identity)),
        (&["identity;q=0.1, gzip;q=0.001"], Some(Identity)),
        (&["gzip;q=0.001"], Some(Gzip)),
        (&["identity;q=0, gzip"], Some(Gzip)),
        (&["identity;q=0, *"], Some(Zstd)),
        (&["br"], Some(Identity)),
        (&["br, *;q=0"], None),
        (&["identity;q=0"], None),
        (&["identity;q=0, br"], None),
        (&["identity;q=0, gzip;q=0, zstd;q=0"], None),
        (&["*;q=0"], None),
        // What is not a quality: the element is not there.
        (&["gzip;q=2"], Some(Identity)),
        (&["gzip;q=-1, zstd;q=0.1234"], Some(Identity)),
        (&["gzip;q=, zstd;q=0.1"], Some(Zstd)),
        (&[", ,gzip,,"], Some(Gzip)),
        (&["gzipp, xzstd"], Some(Identity)),
    ];
    for (fields, expected) in cases {
        let got = negotiate(&accepting(fields));
        assert_eq!(got, expected.ok_or(ApiError::NotAcceptable), "{fields:?}");
    }
    let refusal = ApiError::NotAcceptable.respond(7);
    assert_eq!(refusal.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(
        (&refusal.headers[header::VARY], &refusal.headers[header::CACHE_CONTROL]),
        (&"accept-encoding".parse().unwrap(), &"no-store".parse().unwrap())
    );
}

#[test]
fn what_an_answer_is_coded_as() {
    let coded = |fields: &[&str]| {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_str(field).unwrap());
        }
        Coding::of(&headers)
    };
    for (fields, coding) in [
        (&[][..], Coding::Identity),
        (&[""], Coding::Identity),
        (&["identity"], Coding::Identity),
        (&["gzip"], Coding::Gzip),
        (&[" x-gzip "], Coding::Gzip),
        (&["ZSTD"], Coding::Zstd),
    ] {
        assert_eq!(coded(fields), Ok(coding), "{fields:?}");
    }
    let long = "x".repeat(1000);
    for fields in [&["br"][..], &["gzip, gzip"], &["gzip", "zstd"], &["identity, gzip"], &[&long]] {
        let error = coded(fields).unwrap_err();
        assert!(error.0.len() <= 64 && error.to_string().contains(&error.0), "{fields:?}: {error}");
    }
}

/// Architecture §5: a tag per coding; `If-None-Match` compares with what would be sent; `Range` is ignored.
#[test]
fn a_coded_representation() {
    let sha256 = [0xab; 32];
    for (coding, tag) in [
        (Coding::Identity, "\"abababababababab\""),
        (Coding::Gzip, "\"abababababababab-gzip\""),
        (Coding::Zstd, "\"abababababababab-zstd\""),
    ] {
        let representation = Representation {
            length: 10,
            etag: Some(ETag::coded(&sha256, coding)),
            cache_control: cache::IMMUTABLE,
            content_type: HeaderValue::from_static("application/json"),
            accept_ranges: false,
            coding,
            vary: Some(HeaderValue::from_static("accept-encoding")),
        };
        let plan = |method: &Method, none_match: Option<&str>| {
            let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=0-3"))]);
            headers.extend(none_match.map(|tag| (header::IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap())));
            head_for(&representation, method, &headers)
        };
        let (get, head) = (plan(&Method::GET, None), plan(&Method::HEAD, None));
        assert_eq!((get.status, &get.headers), (StatusCode::OK, &head.headers));
        assert_eq!((get.body.unwrap().len(), head.body), (10, None));
        assert_eq!(get.headers[header::ETAG], tag);
        assert_eq!(get.headers.get(header::CONTENT_ENCODING).cloned(), coding.content_encoding());
        for (asked, status) in [
            ("\"abababababababab\"", if coding == Coding::Identity { 304 } else { 200 }),
            ("W/\"abababababababab-gzip\"", if coding == Coding::Gzip { 304 } else { 200 }),
            ("\"abababababababab-zstd\"", if coding == Coding::Zstd { 304 } else { 200 }),
        ] {
            let plan = plan(&Method::GET, Some(asked));
            assert_eq!(plan.status, status, "{asked} of {tag}");
            assert_eq!(
                (&plan.headers[header::VARY], &plan.headers[header::ETAG]),
                (&"accept-encoding".parse().unwrap(), &tag.parse().unwrap())
            );
        }
    }
}
