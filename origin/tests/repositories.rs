//! Metadata, targets, device configuration, pages, refusals, observers, configuration.

mod fixture;

use std::path::Path;
use std::sync::{Arc, Mutex};

use colibri_common::{ManualClock, SystemClock, UnixSeconds, sha256, unhex};
use colibri_metadata::RepoConfig;
use colibri_origin::{ObservedRequest, Origin, OriginConfig, OriginError, RepositoryConfig};
use colibri_package::delivery::DeliveryType;
use colibri_transport::{Secure, coding};
use fixture::{Folder, ask, content, get, open, replace, send, vectors};
use http::{Method, StatusCode};

#[tokio::test]
async fn metadata_files() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    let cases = [
        ("timestamp.json", "public, max-age=7, stale-if-error=86400"),
        ("root.json", "public, max-age=7"),
        ("snapshot.json", "public, max-age=7"),
        ("targets.json", "public, max-age=7"),
        ("1.root.json", "public, max-age=31536000, immutable"),
        ("1.snapshot.json", "public, max-age=31536000, immutable"),
        ("1.targets.json", "public, max-age=31536000, immutable"),
    ];
    for (name, cache_control) in cases {
        let expected = std::fs::read(vectors().join("tuf-repo").join(name)).unwrap();
        let path = format!("/devhost/{name}");
        // Asked with a range: metadata is sent whole.
        let answer = get(&handler, &path, &[("range", "bytes=0-9")]).await;
        assert!(answer.status == StatusCode::OK && answer.body == expected, "{name}");
        let etag = format!("\"{}\"", colibri_common::hex(&sha256(&expected)[..8]));
        assert_eq!((answer.header("etag"), answer.header("cache-control")), (&*etag, cache_control));
        assert_eq!((answer.header("content-type"), answer.header("accept-ranges")), ("application/json", ""));
        let head = ask(&handler, Method::HEAD, &path, &[]).await;
        assert_eq!((head.status, &head.headers, head.body.len()), (StatusCode::OK, &answer.headers, 0));
        let same = get(&handler, &path, &[("if-none-match", &format!("W/{etag}"))]).await;
        assert_eq!((same.status, same.header("etag"), same.body.len()), (StatusCode::NOT_MODIFIED, &*etag, 0));
    }
    for absent in ["2.root.json", "1.timestamp.json", "other.json"] {
        let answer = get(&handler, &format!("/devhost/{absent}"), &[]).await;
        assert_eq!(
            (answer.status, answer.header("cache-control")),
            (StatusCode::NOT_FOUND, "public, max-age=7"),
            "{absent}"
        );
        assert!(answer.json()["detail"].as_str().unwrap().contains(absent));
    }
}

#[tokio::test]
async fn metadata_in_the_coding_that_is_asked_for() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    for name in ["timestamp.json", "1.root.json", "1.targets.json"] {
        let plain = std::fs::read(vectors().join("tuf-repo").join(name)).unwrap();
        let (path, hash) = (format!("/devhost/{name}"), colibri_common::hex(&sha256(&plain)[..8]));
        for (accepted, encoding, suffix) in
            [("zstd, gzip", "zstd", "-zstd"), ("gzip", "gzip", "-gzip"), ("br", "", ""), ("gzip;q=0", "", "")]
        {
            let fields = [("accept-encoding", accepted), ("range", "bytes=0-9")];
            let answer = get(&handler, &path, &fields).await;
            assert_eq!((answer.status, answer.header("content-encoding")), (StatusCode::OK, encoding), "{accepted}");
            let decoded = match encoding {
                "zstd" => coding::unzstd(&answer.body, plain.len() as u64).unwrap(),
                "gzip" => coding::gunzip(&answer.body, plain.len() as u64).unwrap(),
                _ => answer.body.clone(),
            };
            assert!(decoded == plain && (encoding.is_empty() || answer.body.len() < plain.len()), "{name} {accepted}");
            let etag = format!("\"{hash}{suffix}\"");
            assert_eq!((answer.header("etag"), answer.header("vary")), (&*etag, "accept-encoding"));
            let head = ask(&handler, Method::HEAD, &path, &fields).await;
            assert_eq!((head.status, &head.headers, head.body.len()), (StatusCode::OK, &answer.headers, 0));
            for tag in [format!("\"{hash}\""), format!("W/\"{hash}-gzip\""), format!("\"{hash}-zstd\"")] {
                let same = get(&handler, &path, &[("accept-encoding", accepted), ("if-none-match", &tag)]).await;
                let expected = if tag.ends_with(&etag) { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
                assert_eq!((same.status, same.header("vary")), (expected, "accept-encoding"), "{accepted} {tag}");
            }
        }
        let refused = get(&handler, &path, &[("accept-encoding", "identity;q=0")]).await;
        assert_eq!((refused.status, refused.header("vary")), (StatusCode::NOT_ACCEPTABLE, "accept-encoding"));
        assert!(refused.json()["detail"].as_str().unwrap().contains("Accept-Encoding"));
    }
    // What replaces a file is coded anew.
    replace(&folder.metadata().join("timestamp.json"), b"{\"version\":2}");
    let answer = get(&handler, "/devhost/timestamp.json", &[("accept-encoding", "zstd")]).await;
    assert_eq!(coding::unzstd(&answer.body, 100).unwrap(), "{\"version\":2}");
}

#[tokio::test]
async fn a_replaced_file_is_seen_at_once() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    for version in 0..50 {
        let text = format!("{{\"version\":{:02}}}", version);
        replace(&folder.metadata().join("timestamp.json"), text.as_bytes());
        assert_eq!(get(&handler, "/devhost/timestamp.json", &[]).await.body, text);
    }
    std::fs::remove_file(folder.metadata().join("timestamp.json")).unwrap();
    assert_eq!(get(&handler, "/devhost/timestamp.json", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_file_kept_in_memory_is_left_when_it_is_replaced() {
    let folder = Folder::new();
    // Far ahead of the files' times: they count as settled, so they are kept.
    let clock = Arc::new(ManualClock::new(UnixSeconds(1 << 40)));
    let handler = Origin::open(folder.config("devhost"), clock).unwrap().handler();
    let first = get(&handler, "/devhost/timestamp.json", &[]).await;
    assert_eq!(get(&handler, "/devhost/timestamp.json", &[]).await.body, first.body);
    replace(&folder.metadata().join("timestamp.json"), &vec![b' '; first.body.len()]);
    let second = get(&handler, "/devhost/timestamp.json", &[]).await;
    assert!(second.body.iter().all(|byte| *byte == b' ') && second.header("etag") != first.header("etag"));
}

#[tokio::test]
async fn targets_are_served_as_files_with_ranges() {
    let folder = Folder::new();
    let far = std::fs::read(vectors().join("package1.meta.far")).unwrap();
    let hash = colibri_common::hex(&sha256(&far));
    replace(&folder.metadata().join(format!("targets/package1/{hash}.0")), &far);
    replace(&folder.metadata().join("targets/package1/0"), &far);
    let handler = folder.origin().handler();
    let whole = get(&handler, &format!("/devhost/targets/package1/{hash}.0"), &[]).await;
    assert!(whole.body == far && whole.header("accept-ranges") == "bytes");
    assert_eq!(whole.header("cache-control"), "public, max-age=31536000, immutable");
    let part =
        get(&handler, "/devhost/targets/package1/0", &[("range", "bytes=-4"), ("if-range", whole.header("etag"))])
            .await;
    assert_eq!((part.status, part.header("cache-control")), (StatusCode::PARTIAL_CONTENT, "public, max-age=7"));
    assert_eq!(part.body, far[far.len() - 4..]);
    for absent in ["targets/package1", "targets/package1/1", "targets/x"] {
        assert_eq!(get(&handler, &format!("/devhost/{absent}"), &[]).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn nothing_outside_is_reachable() {
    let folder = Folder::new();
    replace(&folder.dir.path().join("keys/root.pem"), b"hush-hush");
    replace(&folder.dir.path().join("secret.json"), b"hush-hush");
    replace(&folder.metadata().join("notes.txt"), b"hush-hush");
    replace(&folder.metadata().join(".hidden.json"), b"hush-hush");
    let handler = folder.origin().handler();
    for (path, status) in [
        ("/devhost/../keys/root.pem", 400),
        ("/devhost/%2e%2e/keys/root.pem", 400),
        ("/devhost/targets/../../keys/root.pem", 400),
        ("/devhost/targets/%2e%2e/%2e%2e/keys/root.pem", 400),
        ("/devhost/targets/..%2f..%2fkeys%2froot.json", 400),
        ("/devhost/targets/..%5c..%5csecret.json", 400),
        ("/devhost/targets/x%00y", 400),
        ("/devhost//root.json", 400),
        ("/devhost/%zz.json", 400),
        ("/keys/root.pem", 404),
        ("/devhost/keys/root.pem", 404),
        ("/devhost/secret.json", 404),
        ("/devhost/notes.txt", 404),
        ("/devhost/.hidden.json", 404),
        ("/.repository.lock", 404),
        ("/devhost/targets/a/b/c", 404),
    ] {
        let answer = get(&handler, path, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!String::from_utf8_lossy(&answer.body).contains("hush"), "{path}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains(folder.dir.path().to_str().unwrap()),
            "{path}: no path of ours"
        );
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let answer = ask(&handler, method.clone(), "/devhost/root.json", &[]).await;
        assert_eq!((answer.status, answer.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD"), "{method}");
    }
}

#[tokio::test]
async fn device_configuration_is_made_from_the_request() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    let keys: serde_json::Value =
        serde_json::from_slice(&std::fs::read(vectors().join("tuf-keys.json")).unwrap()).unwrap();
    for path in ["/devhost/repo.config", "/config.json"] {
        let answer = get(&handler, path, &[]).await;
        assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"));
        let config = RepoConfig::parse(&answer.body).unwrap();
        assert_eq!(config.repo_url, "fuchsia-pkg://devhost");
        assert_eq!(config.mirrors[0].mirror_url, "http://packages.example:8083/devhost");
        assert_eq!((config.root_version, config.root_threshold, config.root_keys.len()), (1, 1, 1));
        let text = answer.json()["root_keys"][0]["value"].as_str().unwrap().to_owned();
        assert!(keys.to_string().contains(&text) && unhex(&text).is_some());
        let head = ask(&handler, Method::HEAD, path, &[]).await;
        assert_eq!((&head.headers, head.body.len()), (&answer.headers, 0));
    }
    // HTTP/2 and 3 name the authority in the request line; TLS changes the scheme.
    let mut request = http::Request::get("https://edge.example/devhost/repo.config").body(Default::default()).unwrap();
    request.extensions_mut().insert(Secure(true));
    let body = handler(request).await.into_body().read_all(1 << 20).await.unwrap();
    assert_eq!(RepoConfig::parse(&body).unwrap().mirrors[0].mirror_url, "https://edge.example/devhost");
    for host in ["user@host", "a b", "", "host/path"] {
        let mut request = http::Request::get("/devhost/repo.config");
        request = request.header("host", host);
        let response = handler(request.body(Default::default()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{host:?}");
    }
}

#[tokio::test]
async fn config_json_needs_a_single_repository() {
    let (left, right) = (Folder::new(), Folder::new());
    let mut config = left.config("left");
    config.repositories.extend(right.config("right").repositories);
    let answer = get(&open(config).handler(), "/config.json", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("/left/repo.config") && detail.contains("/right/repo.config"), "{detail}");
}

#[tokio::test]
async fn pages_for_people_and_programs() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    let index = get(&handler, "/", &[]).await;
    assert_eq!((index.header("content-type"), index.header("vary")), ("text/html; charset=utf-8", "accept"));
    assert!(String::from_utf8_lossy(&index.body).contains("<a href=\"/devhost/\">devhost</a>"));
    let json = [("accept", "application/json")];
    assert_eq!(get(&handler, "/", &json).await.json()["repositories"][0]["name"], "devhost");
    let page = String::from_utf8_lossy(&get(&handler, "/devhost/", &[]).await.body).into_owned();
    assert!(
        page.contains("package1/0")
            && page.contains("2881455493b5870aaea36537d70a2adc635f516ac2092598f4b6056dabc6b25d"),
        "{page}"
    );
    let listed = get(&handler, "/devhost", &json).await;
    assert_eq!(listed.header("cache-control"), "public, max-age=7");
    let listed = listed.json();
    assert_eq!((&listed["package_count"], &listed["targets_version"]), (&2.into(), &1.into()));
    assert_eq!(listed["packages"][1]["name"], "superpackage/0");
    assert_eq!(get(&handler, "/nobody/", &[]).await.status, StatusCode::NOT_FOUND);
    // Metadata that does not verify is an error, not an empty page.
    replace(&folder.metadata().join("root.json"), b"{}");
    let broken = get(&handler, "/devhost/", &json).await;
    assert_eq!(broken.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(broken.json()["detail"].as_str().unwrap().contains("devhost"));
}

#[tokio::test]
async fn observers_and_counters_see_every_request_once() {
    let folder = Folder::new();
    let bytes = content(40, 3 << 20);
    let (id, encoded) = folder.put_delivery(&bytes, DeliveryType::Type1);
    let seen: Arc<Mutex<Vec<ObservedRequest>>> = Arc::default();
    let sink = seen.clone();
    let observer = Arc::new(move |request: &ObservedRequest| sink.lock().unwrap().push(request.clone()));
    let origin = folder.origin().with_observer(observer);
    let handler = origin.handler();
    get(&handler, &format!("/blobs/1/{id}"), &[("user-agent", "edge-1")]).await;
    get(&handler, &format!("/blobs/1/{id}"), &[("range", "bytes=10-19")]).await;
    get(&handler, &format!("/blobs/{id}"), &[]).await;
    ask(&handler, Method::HEAD, &format!("/blobs/{id}"), &[]).await;
    get(&handler, "/x/y/z", &[]).await;
    get(&handler, "/devhost/9.root.json", &[]).await;
    // A reader that leaves after the first piece.
    let mut body = send(&handler, Method::GET, &format!("/blobs/{id}"), &[]).await.into_body();
    body.next().await.unwrap().unwrap();
    drop(body);
    while seen.lock().unwrap().len() < 7 {
        tokio::task::yield_now().await;
    }
    let seen = seen.lock().unwrap();
    let short: Vec<_> =
        seen.iter().map(|one| (one.route.as_ref().map_or("none", |route| route.kind()), one.status.as_u16())).collect();
    let expected =
        [("type1", 200), ("type1", 206), ("raw", 200), ("raw", 200), ("none", 404), ("metadata", 404), ("raw", 200)];
    assert_eq!(short, expected);
    assert_eq!(
        (seen[0].body_bytes, seen[0].user_agent.as_deref(), seen[0].range),
        (encoded.len() as u64, Some("edge-1"), None)
    );
    assert_eq!(seen[1].range.map(|range| (range.start(), range.end())), Some((10, 20)));
    assert_eq!((seen[1].body_bytes, seen[2].body_bytes, seen[3].body_bytes), (10, bytes.len() as u64, 0));
    assert!(seen[6].body_bytes > 0 && seen[6].body_bytes < bytes.len() as u64);
    let counters = origin.counters();
    assert_eq!(counters.body_bytes("type1"), encoded.len() as u64 + 10);
    assert_eq!(counters.snapshot()[&("raw", 200)].requests, 3);
    assert_eq!(counters.snapshot()[&("none", 404)].requests, 1);
}

#[test]
fn mistakes_in_the_configuration_are_named() {
    let folder = Folder::new();
    let clock = || Arc::new(SystemClock);
    let message = |config| Origin::open(config, clock()).err().unwrap();
    assert!(matches!(message(OriginConfig::default()), OriginError::NoRepositories));
    let mut twice = folder.config("a");
    twice.repositories.extend(folder.config("a").repositories);
    assert_eq!(message(twice).to_string(), "repository a is configured twice");
    let mut many = folder.config("a");
    many.repositories = vec![many.repositories[0].clone(); 257];
    assert!(matches!(message(many), OriginError::TooManyRepositories(257)));
    let empty = tempfile::tempdir().unwrap();
    for path in [empty.path(), Path::new("/nonexistent/repository")] {
        let repository = RepositoryConfig::new("a".parse().unwrap(), path);
        let error = message(OriginConfig { repositories: vec![repository], ..OriginConfig::default() }).to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("repo create"), "{error}");
    }
    // The metadata folder itself is a repository too.
    let repository = RepositoryConfig::new("a".parse().unwrap(), folder.metadata());
    assert!(Origin::open(OriginConfig { repositories: vec![repository], ..OriginConfig::default() }, clock()).is_ok());
}

#[test]
fn configuration_has_defaults_and_knows_its_keys() {
    assert_eq!(serde_json::from_str::<OriginConfig>("{}").unwrap(), OriginConfig::default());
    let text = r#"{"repositories":[{"name":"devhost","path":"/srv"}],"timestamp_max_age_s":60}"#;
    let config: OriginConfig = serde_json::from_str(text).unwrap();
    assert_eq!((config.timestamp_max_age_s, config.repositories[0].name.as_str()), (60, "devhost"));
    for bad in [
        r#"{"timestamp_max_age":60}"#,
        r#"{"repositories":[{"name":"devhost","path":"/srv","blobs":"x"}]}"#,
        r#"{"repositories":[{"name":"blobs","path":"/srv"}]}"#,
        r#"{"repositories":[{"name":"a/b","path":"/srv"}]}"#,
        r#"{"repositories":[{"name":"a"}]}"#,
    ] {
        assert!(serde_json::from_str::<OriginConfig>(bad).is_err(), "{bad}");
    }
}
