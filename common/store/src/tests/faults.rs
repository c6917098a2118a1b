//! Full and broken disks: a clear error at every place one can come from, nothing lost, success later.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use colibri_common::ByteRange;

use super::{add, painted};
use crate::testing::{CrashDisk, Fault};
use crate::{DocumentName, Documents, Store, StoreError};

/// Fails `work` at its first change, then at its second, and so on until it gets through; after each failure the disk is
/// healed and `check` looks. Gives how often it failed.
fn at_every_change(
    disk: &CrashDisk,
    fault: Fault,
    mut work: impl FnMut() -> Result<(), StoreError>,
    check: impl Fn(usize),
) -> usize {
    for changes in 0.. {
        disk.fail_after(changes, fault);
        let outcome = work();
        disk.heal();
        match (outcome, fault) {
            (Ok(()), _) => return changes,
            (Err(StoreError::NoSpace { path }), Fault::NoSpace) => assert!(path.starts_with("/"), "{path:?}"),
            (Err(StoreError::Io { path, .. }), Fault::Broken) => assert!(path.starts_with("/"), "{path:?}"),
            (Err(error), _) => panic!("{fault:?} after {changes} changes gave: {error}"),
        }
        check(changes);
    }
    unreachable!("the work has fewer changes than there are numbers")
}

fn open(disk: &CrashDisk) -> (Store, Documents) {
    let shared: Arc<CrashDisk> = Arc::new(disk.clone());
    let documents = Documents::open(shared.clone(), Path::new("/documents")).unwrap();
    (Store::open(shared, Path::new("/store")).unwrap().0, documents)
}

#[test]
fn adding_a_blob_while_the_disk_fails() {
    for fault in [Fault::NoSpace, Fault::Broken] {
        let disk = CrashDisk::new();
        let (store, _) = open(&disk);
        let (old, old_tree) = painted(20_000, 1);
        add(&store, &old, &old_tree).unwrap();
        store.pin("base", &[old_tree.id]).unwrap();
        let (content, tree) = painted(300_000, 2);
        let work = || match add(&store, &content, &tree) {
            // The commit's last step failed after it had happened: acknowledged now.
            Err(StoreError::AlreadyStored { .. }) => Ok(()),
            outcome => outcome,
        };
        let failures = at_every_change(&disk, fault, work, |_| {
            assert_eq!(store.read(old_tree.id, ByteRange::whole(20_000)).unwrap(), old);
            assert_eq!(store.pins().unwrap().len(), 1);
        });
        assert!(failures >= 5, "{fault:?}: only {failures} places failed");
        assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
        drop(store);
        let (store, _) = open(&disk);
        assert_eq!(store.ids().unwrap().len(), 2);
        assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
    }
}

#[test]
fn a_blob_whose_index_row_failed_need_not_be_fetched_again() {
    let disk = CrashDisk::new();
    let (store, _) = open(&disk);
    let (content, tree) = painted(100_000, 2);
    let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
    partial.write(&tree.leaves.verify(0, content).unwrap()).unwrap();
    // Sync, rename, sync of the folder, and then the index.
    disk.fail_after(3, Fault::NoSpace);
    assert!(matches!(partial.commit(), Err(StoreError::NoSpace { .. })));
    disk.heal();
    assert_eq!(store.contains(tree.id).unwrap(), None);
    let partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
    assert_eq!(partial.missing_units(), Vec::<u32>::new());
    partial.commit().unwrap();
    assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
}

/// A removal that failed half way is finished by the next one; whoever wants the blob meanwhile gets it, and keeps it.
#[test]
fn a_removal_that_failed_is_finished_or_given_up() {
    let (content, tree) = painted(9000, 1);
    for (comes_back, reopened) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut failures = 0;
        loop {
            let disk = CrashDisk::new();
            let (mut store, _) = open(&disk);
            add(&store, &content, &tree).unwrap();
            disk.fail_after(failures, Fault::Broken);
            let swept = store.sweep(&HashSet::new());
            disk.heal();
            if swept.is_ok() {
                break;
            }
            failures += 1;
            if comes_back {
                drop(add(&store, &content, &tree));
            } else {
                store.sweep(&HashSet::new()).unwrap();
            }
            if reopened {
                drop(store);
                store = open(&disk).0;
            }
            assert_eq!(store.contains(tree.id).unwrap().is_some(), comes_back, "{failures}, reopened: {reopened}");
            assert_eq!(disk_files(&disk, "/store/blobs"), usize::from(comes_back), "{failures}, reopened: {reopened}");
            assert_eq!(disk_files(&disk, "/store/partial"), 0, "{failures}, reopened: {reopened}");
        }
        assert!(failures > 5, "only {failures} places failed");
    }
}

#[test]
fn pinning_and_sweeping_while_the_disk_fails() {
    for fault in [Fault::NoSpace, Fault::Broken] {
        let disk = CrashDisk::new();
        let (store, _) = open(&disk);
        let (kept, kept_tree) = painted(9000, 1);
        let (loose, loose_tree) = painted(9000, 2);
        add(&store, &kept, &kept_tree).unwrap();
        add(&store, &loose, &loose_tree).unwrap();
        let pinned = at_every_change(
            &disk,
            fault,
            || store.pin("base", &[kept_tree.id]),
            |_| {
                assert_eq!(store.scrub(kept_tree.id).unwrap(), kept_tree.length);
            },
        );
        assert!(pinned >= 2, "{fault:?}: only {pinned} places failed");
        at_every_change(
            &disk,
            fault,
            || store.sweep(&HashSet::new()).map(drop),
            |_| {
                assert_eq!(store.scrub(kept_tree.id).unwrap(), kept_tree.length);
            },
        );
        assert_eq!(store.ids().unwrap(), [kept_tree.id]);
        drop(store);
        // What a failed sweep left of files goes at the next open.
        let (store, _) = open(&disk);
        assert_eq!(disk_files(&disk, "/store/blobs"), 1);
        assert_eq!(store.pins().unwrap()["base"], [kept_tree.id]);
    }
}

fn disk_files(disk: &CrashDisk, dir: &str) -> usize {
    crate::Disk::list_dir(disk, Path::new(dir)).unwrap().len()
}

#[test]
fn documents_while_the_disk_fails() {
    for fault in [Fault::NoSpace, Fault::Broken] {
        let disk = CrashDisk::new();
        let (_store, documents) = open(&disk);
        let (name, fresh) = (DocumentName::new("a/b").unwrap(), DocumentName::new("c/d").unwrap());
        let failures = at_every_change(
            &disk,
            fault,
            || documents.put(&name, b"one"),
            |_| {
                // The rename may have happened although its sync failed: one of the two, whole.
                assert!([None, Some("one".into())].contains(&documents.get(&name, 9).unwrap()));
            },
        );
        assert!(failures >= 3, "{fault:?}: only {failures} places failed");
        at_every_change(
            &disk,
            fault,
            || documents.put(&name, b"two"),
            |_| {
                let seen = documents.get(&name, 9).unwrap().unwrap();
                assert!(seen == "one" || seen == "two", "{seen:?}");
            },
        );
        at_every_change(&disk, fault, || documents.put_new(&fresh, b"new").map(drop), |_| ());
        assert_eq!(documents.get(&fresh, 9).unwrap().unwrap(), "new");
    }
}

#[test]
fn opening_while_the_disk_fails() {
    for fault in [Fault::NoSpace, Fault::Broken] {
        let disk = CrashDisk::new();
        let shared: Arc<CrashDisk> = Arc::new(disk.clone());
        let opened = || Store::open(shared.clone(), Path::new("/deep/store")).map(drop);
        let failures = at_every_change(&disk, fault, opened, |_| ());
        assert!(failures >= 10, "{fault:?}: only {failures} places failed");
        opened().unwrap();
    }
}

#[test]
fn the_message_of_a_full_disk_says_what_to_do() {
    let disk = CrashDisk::new();
    let (_store, documents) = open(&disk);
    disk.fail_after(0, Fault::NoSpace);
    let text = documents.put(&DocumentName::new("a").unwrap(), b"x").unwrap_err().to_string();
    assert!(text.starts_with("/documents") && text.contains("free some"), "{text}");
}
