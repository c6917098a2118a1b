//! Every path of the read API, its inverse, and everything that must not be a path.

use colibri_api::limits::{PATH_BYTES_MAX, SEGMENT_BYTES_MAX};
use colibri_api::{BlobForm, MetadataFile, PathError, RepositoryName, Route, parse_path};

const HASH: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

fn repository(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

fn metadata(role: &str, version: Option<u32>) -> Route {
    Route::Metadata { repository: repository("r"), file: MetadataFile::new(role, version).unwrap() }
}

fn blob(in_repository: Option<&str>, form: BlobForm) -> Route {
    Route::Blob { repository: in_repository.map(repository), id: HASH.parse().unwrap(), form }
}

fn target(name: &str) -> Route {
    Route::Target { repository: repository("r"), name: name.to_owned() }
}

#[test]
fn every_route_parses_and_prints() {
    let cases = [
        ("/".to_owned(), Route::Index),
        ("/config.json".to_owned(), Route::PmConfig),
        ("/fuchsia.com/".to_owned(), Route::RepositoryIndex { repository: repository("fuchsia.com") }),
        ("/r/repo.config".to_owned(), Route::RepoConfig { repository: repository("r") }),
        ("/r/auto".to_owned(), Route::Auto { repository: repository("r") }),
        ("/r/root.json".to_owned(), metadata("root", None)),
        ("/r/1.root.json".to_owned(), metadata("root", Some(1))),
        ("/r/4294967295.targets.json".to_owned(), metadata("targets", Some(u32::MAX))),
        ("/r/timestamp.json".to_owned(), metadata("timestamp", None)),
        ("/r/7.snapshot.json".to_owned(), metadata("snapshot", Some(7))),
        ("/r/3.rollout.beta.json".to_owned(), metadata("rollout.beta", Some(3))),
        ("/r/a%20role.json".to_owned(), metadata("a role", None)),
        (format!("/r/blobs/{HASH}"), blob(Some("r"), BlobForm::Raw)),
        (format!("/r/blobs/1/{HASH}"), blob(Some("r"), BlobForm::Delivery(1))),
        (format!("/r/blobs/2/{HASH}"), blob(Some("r"), BlobForm::Delivery(2))),
        (format!("/r/blobs/leaves/{HASH}"), blob(Some("r"), BlobForm::Leaves)),
        (format!("/blobs/{HASH}"), blob(None, BlobForm::Raw)),
        (format!("/blobs/1/{HASH}"), blob(None, BlobForm::Delivery(1))),
        (format!("/blobs/leaves/{HASH}"), blob(None, BlobForm::Leaves)),
        ("/r/targets/package1/c1e4.0".to_owned(), target("package1/c1e4.0")),
        ("/r/targets/a%20b/%25c%C3%A9".to_owned(), target("a b/%cé")),
    ];
    for (path, route) in cases {
        assert_eq!(parse_path(&path), Ok(route.clone()), "{path}");
        assert_eq!(route.path(), path);
    }
}

#[test]
fn other_spellings_of_the_same_route() {
    let index = Route::RepositoryIndex { repository: repository("r") };
    assert_eq!(parse_path("/r"), Ok(index));
    assert_eq!(parse_path("/r/root.json?x=/../y"), Ok(metadata("root", None)));
    assert_eq!(parse_path("/?"), Ok(Route::Index));
    // Escapes are decoded once, whatever they stand for.
    assert_eq!(parse_path("/%72/ro%6ft.json"), Ok(metadata("root", None)));
    assert_eq!(parse_path("/r/targets/%252e%252e"), Ok(target("%2e%2e")));
}

#[test]
fn nothing_there() {
    let upper = HASH.to_uppercase();
    let cases = [
        format!("/r/blobs/{upper}"),
        format!("/r/blobs/{}", &HASH[1..]),
        format!("/r/blobs/{HASH}0"),
        format!("/r/blobs/g{}", &HASH[1..]),
        format!("/r/blobs/0/{HASH}"),
        format!("/r/blobs/3/{HASH}"),
        format!("/r/blobs/01/{HASH}"),
        format!("/r/blobs/+1/{HASH}"),
        format!("/r/blobs/leaves/1/{HASH}"),
        format!("/r/blobs/{HASH}/"),
        format!("/r/x/{HASH}"),
        "/r/blobs".to_owned(),
        "/r/blobs/".to_owned(),
        "/blobs/1".to_owned(),
        "/r/targets".to_owned(),
        "/r/targets/".to_owned(),
        "/r/root.json/".to_owned(),
        "/r/root.jso".to_owned(),
        "/r/.json".to_owned(),
        "/r/.hidden.json".to_owned(),
        "/r/0.root.json".to_owned(),
        "/r/01.root.json".to_owned(),
        "/r/1..json".to_owned(),
        "/r/1.2.root.json".to_owned(),
        "/r/4294967296.root.json".to_owned(),
        "/config.json/x".to_owned(),
        "/.repository.lock".to_owned(),
        "/.well-known/x".to_owned(),
        "/blobs".to_owned(),
        "/blobs/".to_owned(),
        "/config.json/".to_owned(),
        "/r%20x/root.json".to_owned(),
        "/r:x/root.json".to_owned(),
        "/é/root.json".to_owned(),
    ];
    for path in cases {
        let error = parse_path(&path).expect_err(&path);
        assert!(matches!(error, PathError::NotFound | PathError::NotARepository), "{path}: {error}");
    }
}

#[test]
fn attempts_to_leave_the_directory() {
    let cases = [
        ("/../etc/passwd", PathError::Traversal),
        ("/r/../s/root.json", PathError::Traversal),
        ("/r/./root.json", PathError::Traversal),
        ("/r/targets/../../keys/root.json", PathError::Traversal),
        ("/r/targets/%2e%2e/x", PathError::Traversal),
        ("/r/targets/%2E./x", PathError::Traversal),
        ("/r/targets/a%2f..%2fb", PathError::ForbiddenCharacter),
        ("/r/targets/..%5cx", PathError::ForbiddenCharacter),
        ("/r/targets/..\\x", PathError::ForbiddenCharacter),
        ("/r/targets/x%00.json", PathError::ForbiddenCharacter),
        ("/r/targets/x%0a", PathError::ForbiddenCharacter),
        ("/r/targets/x%7f", PathError::ForbiddenCharacter),
        ("/r/targets/%c0%ae%c0%ae/x", PathError::Encoding),
        ("/r/targets/%zz", PathError::Encoding),
        ("/r/targets/%2", PathError::Encoding),
        ("/r/targets/%", PathError::Encoding),
        ("//r/root.json", PathError::EmptySegment),
        ("/r//root.json", PathError::EmptySegment),
        ("/r/targets//x", PathError::EmptySegment),
        ("//", PathError::EmptySegment),
        ("", PathError::NotAbsolute),
        ("r/root.json", PathError::NotAbsolute),
        ("http://h/r/root.json", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
    ];
    for (path, error) in cases {
        assert_eq!(parse_path(path), Err(error), "{path}");
    }
}

#[test]
fn long_paths_are_refused() {
    assert_eq!(
        parse_path(&format!("/r/targets/{}", "x".repeat(SEGMENT_BYTES_MAX))).map(|route| route.kind()),
        Ok("target")
    );
    assert_eq!(parse_path(&format!("/r/targets/{}", "x".repeat(SEGMENT_BYTES_MAX + 1))), Err(PathError::TooLong));
    assert_eq!(parse_path(&format!("/r/targets{}", "/x".repeat(PATH_BYTES_MAX / 2))), Err(PathError::TooLong));
}

#[test]
fn repository_names() {
    for good in ["devhost", "fuchsia.com", "A_b-9", "repo.config"] {
        assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
    }
    for bad in ["", "blobs", "config.json", ".x", "..", "a/b", "a b", "a\0", "é", &"x".repeat(256)] {
        assert_eq!(bad.parse::<RepositoryName>(), Err(PathError::NotARepository), "{bad}");
        let json = serde_json::to_string(bad).unwrap();
        assert!(serde_json::from_str::<RepositoryName>(&json).is_err(), "{bad}");
    }
}

#[test]
fn a_role_has_one_unnumbered_and_one_numbered_spelling() {
    assert!(MetadataFile::new("1.root", None).is_err(), "would read back as version 1 of root");
    assert!(MetadataFile::new("root", Some(0)).is_err());
    for bad in ["", ".x", "a/b", "a\\b", "a\0"] {
        assert!(MetadataFile::new(bad, None).is_err(), "{bad:?}");
    }
    assert_eq!("12.json".parse::<MetadataFile>().unwrap(), MetadataFile::new("12", None).unwrap());
}

#[test]
fn random_paths_never_panic_and_what_parses_prints_back() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let pieces = [
        "/", "r", "blobs", "1", "leaves", HASH, "targets", ".", "..", "%", "%2e", "%2f", "%00", "é", "1.", "root",
        ".json", "?",
    ];
    let mut parsed = 0;
    for _ in 0..20_000 {
        let path: String =
            std::iter::once("/").chain((0..random.usize(..9)).map(|_| *random.choice(&pieces).unwrap())).collect();
        if let Ok(route) = parse_path(&path) {
            parsed += 1;
            assert_eq!(parse_path(&route.path()), Ok(route), "{path}");
        }
    }
    assert!(parsed > 100, "only {parsed} paths parsed");
}
