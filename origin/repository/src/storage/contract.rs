//! What every backend must do. A new backend is one more line in `backends`.

use std::sync::Arc;

use bytes::Bytes;
use colibri_common::ByteRange;
use colibri_store::testing::CrashDisk;
use colibri_store::{DocumentName, OsDisk, StoreError};
use tempfile::TempDir;

use super::bucket_twin::BucketTwin;
use super::{LocalStorage, Storage};

/// Every backend, empty. The folder lives as long as the test.
fn backends() -> Vec<(&'static str, Arc<dyn Storage>, Option<TempDir>)> {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalStorage::open(Arc::new(OsDisk), &dir.path().join("made")).unwrap();
    let in_memory = LocalStorage::open(Arc::new(CrashDisk::new()), "/repo".as_ref()).unwrap();
    vec![
        ("folder", Arc::new(local), Some(dir)),
        ("folder on the crash disk", Arc::new(in_memory), None),
        ("bucket", Arc::new(BucketTwin::default()), None),
    ]
}

fn name(text: &str) -> DocumentName {
    DocumentName::new(text).unwrap()
}

const A: Bytes = Bytes::from_static(b"first");
const B: Bytes = Bytes::from_static(b"second, longer");

#[test]
fn what_was_written_is_read_and_what_was_not_is_absent() {
    for (backend, storage, _dir) in backends() {
        let at = name("folder/below/document");
        assert_eq!(storage.read(&at, 100).unwrap(), None, "{backend}");
        assert_eq!(storage.read_range(&at, ByteRange::new(0, 5)).unwrap(), None, "{backend}");
        assert_eq!(storage.read_at_rest(&at, 100).unwrap(), None, "{backend}");
        assert_eq!(storage.length(&at).unwrap(), None, "{backend}");
        storage.make_durable(&at).unwrap();
        storage.replace(&at, &A).unwrap();
        storage.make_durable(&at).unwrap();
        assert_eq!(storage.read(&at, 5).unwrap(), Some(A), "{backend}");
        storage.replace(&at, &B).unwrap();
        assert_eq!(storage.read(&at, 14).unwrap(), Some(B), "{backend}");
        assert_eq!(storage.read_at_rest(&at, 14).unwrap(), Some(B), "{backend}");
        assert_eq!(storage.length(&at).unwrap(), Some(14), "{backend}");
        assert_eq!(storage.read_range(&at, ByteRange::new(8, 100)).unwrap(), Some(B.slice(8..)), "{backend}");
        assert_eq!(storage.read_range(&at, ByteRange::new(0, 3)).unwrap(), Some(B.slice(..3)), "{backend}");
        assert_eq!(storage.read_range(&at, ByteRange::new(50, 60)).unwrap(), Some(Bytes::new()), "{backend}");
        for too_long in [storage.read(&at, 13), storage.read_at_rest(&at, 13)] {
            assert!(matches!(too_long, Err(StoreError::TooLarge { length_bytes: 14, .. })), "{backend}");
        }
        // A name that is a folder for others is no document.
        assert_eq!(storage.read(&name("folder"), 100).unwrap(), None, "{backend}");
        assert_eq!(storage.length(&name("folder")).unwrap(), None, "{backend}");
        storage.replace(&name("empty"), &Bytes::new()).unwrap();
        assert_eq!(storage.read(&name("empty"), 0).unwrap(), Some(Bytes::new()), "{backend}");
    }
}

#[test]
fn a_name_is_made_once() {
    for (backend, storage, _dir) in backends() {
        assert!(storage.create(&name("commits/1"), &A).unwrap(), "{backend}");
        assert!(!storage.create(&name("commits/1"), &B).unwrap(), "{backend}");
        assert_eq!(storage.read(&name("commits/1"), 100).unwrap(), Some(A), "{backend}");
        let both = [(name("commits/1"), B), (name("commits/2"), B)];
        assert_eq!(storage.create_all(&both).unwrap(), [false, true], "{backend}");
        assert_eq!(storage.read(&name("commits/1"), 100).unwrap(), Some(A), "{backend}");
        assert_eq!(storage.read(&name("commits/2"), 100).unwrap(), Some(B), "{backend}");
    }
}

#[test]
fn of_many_that_make_a_name_one_wins() {
    for (backend, storage, _dir) in backends() {
        for round in 0..20 {
            let at = name(&format!("commits/{round}"));
            let made: Vec<bool> = std::thread::scope(|scope| {
                let make = |n: u8| storage.create(&at, &Bytes::from(vec![n; 100])).unwrap();
                let makers: Vec<_> = (0..4).map(|n| scope.spawn(move || make(n))).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            let winner = made.iter().position(|made| *made).unwrap();
            assert_eq!(made.iter().filter(|made| **made).count(), 1, "{backend}");
            let winner = u8::try_from(winner).unwrap();
            assert_eq!(storage.read(&at, 100).unwrap().unwrap(), vec![winner; 100], "{backend}");
        }
    }
}

#[test]
fn several_are_written_and_removed_and_listed_in_order() {
    for (backend, storage, _dir) in backends() {
        let all: Vec<_> = (0..300).map(|n| (name(&format!("a/{n:03}")), Bytes::from(vec![1; n]))).collect();
        storage.replace_all(&all).unwrap();
        storage.replace_all(&[(name("a/000"), B), (name("ab"), A), (name("b/c/d"), A)]).unwrap();
        let listed = |prefix: &str| -> Vec<String> {
            storage.list(prefix).unwrap().iter().map(|name| name.as_str().to_owned()).collect()
        };
        assert_eq!(listed("a/").len(), 300, "{backend}");
        assert_eq!(listed("a").len(), 301, "{backend}");
        assert_eq!(listed("a/01"), (10..20).map(|n| format!("a/{n:03}")).collect::<Vec<_>>(), "{backend}");
        assert_eq!(listed("b/"), ["b/c/d"], "{backend}");
        assert!(listed("nothing/").is_empty(), "{backend}");
        assert_eq!(storage.read(&name("a/000"), 100).unwrap(), Some(B), "{backend}");
        assert_eq!(storage.length(&name("a/299")).unwrap(), Some(299), "{backend}");
        storage.remove_all(&[name("a/000"), name("b/c/d"), name("never/was")]).unwrap();
        assert_eq!(listed("").len(), 300, "{backend}");
        assert_eq!(storage.read(&name("a/000"), 100).unwrap(), None, "{backend}");
        assert!(storage.create(&name("b/c/d"), &B).unwrap(), "{backend}: a removed name is free");
    }
}

#[test]
fn a_lock_excludes_or_says_that_it_does_not() {
    for (backend, storage, _dir) in backends() {
        let held = storage.lock().unwrap();
        assert_eq!(storage.try_lock().unwrap().is_none(), held.excludes(), "{backend}");
        drop(held);
        assert!(storage.try_lock().unwrap().is_some(), "{backend}");
    }
}
