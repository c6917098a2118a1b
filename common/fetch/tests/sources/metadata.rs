//! Metadata from several sources: an old set, a set of another root, expired sets and broken files are refused at the source
//! that has them, and the next one is asked.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_fetch::metadata::{Directory, Unfinished, refresh, refresh_from};
use colibri_fetch::{FetchError, SourceOrder, Sources};
use colibri_metadata::{Start, TrustAnchor, TrustedSet};
use colibri_repository::{CreateOptions, Repository};
use http::header::CACHE_CONTROL;

use crate::client;
use crate::site::{Lie, Node, Site, status};

const NOW: UnixSeconds = UnixSeconds(1_768_435_200);

/// A repository and what it served at each point in time.
struct Desk {
    _dir: tempfile::TempDir,
    repository: Repository,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::create(&dir.path().join("repository"), CreateOptions::new(NOW)).unwrap();
        Self { _dir: dir, repository }
    }

    fn site(&self) -> Site {
        let mut site = Site::default();
        for entry in std::fs::read_dir(self.repository.served_dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = Path::new("/repo").join(path.file_name().unwrap());
                site.put(name.to_str().unwrap(), std::fs::read(path).unwrap(), None);
            }
        }
        site
    }

    /// Signs again, so that everything before is old.
    fn moves_on(&self, days: u64) -> UnixSeconds {
        let now = UnixSeconds(NOW.0 + days * 86_400);
        self.repository.refresh(now).unwrap();
        now
    }

    fn anchor(&self) -> Start {
        Start::FromAnchor(TrustAnchor::RootFile(self.repository.trusted_root_bytes().unwrap()))
    }
}

async fn refreshed(nodes: &[&Node], start: Start, now: UnixSeconds) -> Result<TrustedSet, Unfinished<FetchError>> {
    let sources = Sources::new(nodes.iter().map(|node| node.source()).collect(), SourceOrder::Listed);
    refresh(&client(), &sources, "/repo", "test", start, now).await
}

fn timestamp_version(set: &TrustedSet) -> Bytes {
    set.files().find(|(role, _)| *role == "timestamp.json").unwrap().1.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_an_old_set_is_refused_and_the_next_source_asked() {
    let desk = Desk::new();
    let old = Node::honest(desk.site());
    let seen = desk.moves_on(1);
    let set = refreshed(&[&Node::honest(desk.site())], desk.anchor(), seen).await.unwrap();
    let now = desk.moves_on(2);
    let new = Node::honest(desk.site());
    let newest = refreshed(&[&old, &new], Start::FromSet(set.clone()), now).await.unwrap();
    assert_ne!(timestamp_version(&newest), timestamp_version(&set));
    assert!(!old.asked().is_empty());
    let error = refreshed(&[&old], Start::FromSet(newest.clone()), now).await.unwrap_err();
    assert!(matches!(&error.error, FetchError::Metadata { .. }), "{}", error.error);
    assert!(error.error.to_string().starts_with(old.source.url.authority()), "{}", error.error);
    // Whatever it got as far as, the floor is not lower than what we had.
    let floor = error.floor.unwrap();
    assert_eq!(timestamp_version(&floor), timestamp_version(&newest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_of_another_root_is_refused_and_the_next_source_asked() {
    let (desk, other) = (Desk::new(), Desk::new());
    let (evil, good) = (Node::honest(other.site()), Node::honest(desk.site()));
    for start in [desk.anchor(), Start::FromSet(desk.repository.metadata().unwrap())] {
        refreshed(&[&evil, &good], start.clone(), NOW).await.unwrap();
        let error = refreshed(&[&evil], start, NOW).await.unwrap_err().error;
        assert!(matches!(&error, FetchError::Metadata { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_source_is_refused_once_its_set_has_expired() {
    let desk = Desk::new();
    let frozen = Node::honest(desk.site());
    let later = UnixSeconds(NOW.0 + 20 * 365 * 86_400);
    let error = refreshed(&[&frozen], desk.anchor(), later).await.unwrap_err().error;
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_or_missing_files_are_taken_from_the_next_source() {
    let desk = Desk::new();
    let good = Node::honest(desk.site());
    let lies: [(&str, Lie); 4] = [
        (
            "HTML",
            Arc::new(|_, _, _| Some(http::Response::new(b"<html>".to_vec()).map(|text| Bytes::from(text).into()))),
        ),
        ("500", Arc::new(|_, _, _| Some(status(500)))),
        ("no snapshot", Arc::new(|_, asked, _| asked.path.contains("snapshot").then(|| status(404)))),
        (
            "flipped targets",
            Arc::new(|site, asked, _| {
                let (bytes, _) = site.files.get(&asked.path).filter(|_| asked.path.contains("targets"))?;
                let mut bytes = bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                Some(http::Response::new(Bytes::from(bytes).into()))
            }),
        ),
    ];
    for (name, lie) in lies {
        let liar = Node::lying(desk.site(), lie);
        let set = refreshed(&[&liar, &good], desk.anchor(), NOW).await;
        set.unwrap_or_else(|error| panic!("{name}: {}", error.error));
        let error = refreshed(&[&liar], desk.anchor(), NOW).await.unwrap_err().error;
        assert!(error.to_string().contains(liar.source.url.authority()), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_on_the_way_are_asked_to_revalidate() {
    let desk = Desk::new();
    let lie: Lie = Arc::new(|_, asked, request| {
        let asks = request.headers().get(CACHE_CONTROL).is_some_and(|value| value == "no-cache");
        (!asks).then(|| panic!("{} without no-cache", asked.path))
    });
    refreshed(&[&Node::lying(desk.site(), lie)], desk.anchor(), NOW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_a_source_too() {
    let desk = Desk::new();
    refresh_from(&Directory(desk.repository.served_dir()), desk.anchor(), NOW).await.unwrap();
    let error = refresh_from(&Directory("/nonexistent".into()), desk.anchor(), NOW).await.unwrap_err();
    assert!(error.error.to_string().contains("timestamp.json"), "{}", error.error);
}
