//! The contract of [`Documents`], on both disks.

use std::path::Path;
use std::sync::Arc;

use super::on_both_disks;
use crate::disk::{Disk, OpenMode};
use crate::testing::{CrashDisk, Fault};
use crate::{DocumentName, Documents, StoreError};

fn name(text: &str) -> DocumentName {
    DocumentName::new(text).unwrap()
}

fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Documents {
    Documents::open(disk.clone(), &dir.join("some/folder")).unwrap()
}

fn left_overs(disk: &dyn Disk, documents: &Documents) -> usize {
    disk.list_dir(&documents.dir().join(".colibri-temp")).unwrap().len() - 1
}

#[test]
fn put_get_replace_remove() {
    on_both_disks(|disk, dir| {
        let documents = open(&disk, dir);
        let deep = name("a/b/c.json");
        assert_eq!(documents.get(&deep, 100).unwrap(), None);
        documents.put(&deep, b"one").unwrap();
        documents.put(&name("empty"), b"").unwrap();
        assert_eq!(documents.get(&deep, 100).unwrap().unwrap(), "one");
        let old = documents.open_document(&deep).unwrap().unwrap();
        documents.put(&deep, b"two!").unwrap();
        assert_eq!(documents.get(&deep, 4).unwrap().unwrap(), "two!");
        assert_eq!(
            old.read(colibri_common::ByteRange::new(1, 99)).unwrap(),
            "ne",
            "an open document stays what it was"
        );
        assert_eq!(documents.length(&deep).unwrap(), Some(4));
        assert_eq!(documents.get(&name("empty"), 0).unwrap().unwrap(), "");
        assert!(documents.remove(&deep).unwrap());
        assert!(!documents.remove(&deep).unwrap());
        assert_eq!(documents.get(&deep, 100).unwrap(), None);
        assert_eq!(left_overs(disk.as_ref(), &documents), 0);
    });
}

#[test]
fn a_name_that_is_a_folder_or_below_a_file_is_no_document() {
    on_both_disks(|disk, dir| {
        let documents = open(&disk, dir);
        documents.put(&name("a/b"), b"x").unwrap();
        assert_eq!(documents.get(&name("a"), 9).unwrap(), None);
        assert_eq!(documents.get(&name("a/b/c"), 9).unwrap(), None);
        assert_eq!(documents.length(&name("a")).unwrap(), None);
        assert!(!documents.remove(&name("a/b/c")).unwrap());
        assert!(matches!(documents.put(&name("a"), b"y"), Err(StoreError::Io { .. })));
        assert!(matches!(documents.put(&name("a/b/c"), b"y"), Err(StoreError::Io { .. })));
        assert_eq!(documents.get(&name("a/b"), 9).unwrap().unwrap(), "x");
        assert_eq!(left_overs(disk.as_ref(), &documents), 0);
    });
}

#[test]
fn only_one_of_many_makes_a_new_document() {
    on_both_disks(|disk, dir| {
        let target = name("commits/1");
        let wins: Vec<usize> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8_usize)
                .map(|racer| {
                    // Each its own `Documents`, as separate processes would have.
                    let (documents, target) = (open(&disk, dir), &target);
                    scope.spawn(move || (racer, documents.put_new(target, &[racer as u8]).unwrap()))
                })
                .collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .filter(|(_, won)| *won)
                .map(|(racer, _)| racer)
                .collect()
        });
        assert_eq!(wins.len(), 1);
        let documents = open(&disk, dir);
        assert_eq!(documents.get(&target, 9).unwrap().unwrap(), vec![wins[0] as u8]);
        assert!(!documents.put_new(&target, b"late").unwrap());
        assert_eq!(left_overs(disk.as_ref(), &documents), 0);
    });
}

#[test]
fn many_make_the_same_new_folders_at_once() {
    on_both_disks(|disk, dir| {
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let disk = &disk;
                scope.spawn(move || {
                    for round in 0..20 {
                        // Nothing of the path is there when each round begins.
                        let documents = Documents::open(disk.clone(), &dir.join(format!("{round}/x/y"))).unwrap();
                        documents.put(&name(&format!("a/b/{writer}")), b"x").unwrap();
                    }
                });
            }
        });
        for round in 0..20 {
            let documents = Documents::open(disk.clone(), &dir.join(format!("{round}/x/y"))).unwrap();
            assert_eq!(documents.list("a/b/").unwrap().len(), 8);
        }
    });
}

#[test]
fn limits_hold_for_reading_and_writing() {
    on_both_disks(|disk, dir| {
        let documents = open(&disk, dir);
        let big = name("big");
        assert_eq!(documents.put_from(&big, &mut &[7; 600_000][..], 600_000).unwrap(), 600_000);
        let refused = documents.get(&big, 599_999).unwrap_err();
        assert!(
            matches!(refused, StoreError::TooLarge { length_bytes: 600_000, limit_bytes: 599_999, .. }),
            "{refused}"
        );
        let refused = documents.put_from(&big, &mut &[8; 600_001][..], 600_000).unwrap_err();
        assert!(matches!(refused, StoreError::TooLarge { .. }), "{refused}");
        assert_eq!(documents.get(&big, 600_000).unwrap().unwrap(), vec![7; 600_000], "the old one is still there");
        assert_eq!(left_overs(disk.as_ref(), &documents), 0);
    });
}

#[test]
fn lists_by_prefix_and_leaves_strangers_out() {
    on_both_disks(|disk, dir| {
        let documents = open(&disk, dir);
        for text in ["root.json", "commits/1", "commits/10", "commits/2", "commit", "blobs/1/aa", "blobs/bb"] {
            documents.put(&name(text), b"x").unwrap();
        }
        disk.open(&documents.dir().join("line\nfeed"), OpenMode::CreateNew).unwrap();
        let list =
            |prefix| documents.list(prefix).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(list(""), "blobs/1/aa blobs/bb commit commits/1 commits/10 commits/2 root.json");
        assert_eq!(list("commits/"), "commits/1 commits/10 commits/2");
        assert_eq!(list("commits/1"), "commits/1 commits/10");
        assert_eq!(list("commit"), "commit commits/1 commits/10 commits/2");
        assert_eq!(list("blobs/1/"), "blobs/1/aa");
        assert_eq!(list("none/"), "");
        assert_eq!(list("../"), "");
    });
}

#[test]
fn left_overs_go_when_nobody_else_writes() {
    on_both_disks(|disk, dir| {
        let first = open(&disk, dir);
        let mut unfinished = first.writer().unwrap();
        unfinished.write(b"half").unwrap();
        // Another process comes along: it must leave the unfinished file alone.
        let second = open(&disk, dir);
        second.put(&name("a"), b"x").unwrap();
        assert_eq!(left_overs(disk.as_ref(), &first), 1);
        unfinished.commit(&name("b")).unwrap();
        assert_eq!(second.get(&name("b"), 9).unwrap().unwrap(), "half");
        // One died without cleaning up.
        disk.open(&first.dir().join(".colibri-temp/12-0"), OpenMode::CreateNew).unwrap();
        drop((first, second));
        let third = open(&disk, dir);
        assert_eq!(third.get(&name("a"), 9).unwrap().unwrap(), "x");
        assert_eq!(left_overs(disk.as_ref(), &third), 1, "reading does not write");
        third.put(&name("a"), b"y").unwrap();
        assert_eq!(left_overs(disk.as_ref(), &third), 0);
    });
}

#[test]
fn format_is_written_once_and_a_newer_one_refused() {
    on_both_disks(|disk, dir| {
        let documents = open(&disk, dir);
        assert_eq!(documents.check_format("thing", 2).unwrap(), 2);
        assert_eq!(documents.check_format("thing", 3).unwrap(), 2, "an older one is told to the caller");
        let refused = documents.check_format("thing", 1).unwrap_err();
        assert!(matches!(refused, StoreError::TooNew { found: 2, known: 1, .. }), "{refused}");
        let refused = documents.check_format("other", 2).unwrap_err();
        assert!(matches!(refused, StoreError::UnknownFormat { .. }), "{refused}");
        documents.put(&name("format"), b"thing two").unwrap();
        assert!(matches!(documents.check_format("thing", 2), Err(StoreError::UnknownFormat { .. })));
    });
}

#[test]
fn reading_never_writes() {
    let disk = CrashDisk::new();
    disk.create_dir(Path::new("/plain")).unwrap();
    disk.fail_after(0, Fault::Broken);
    let plain = Documents::open(Arc::new(disk.clone()), Path::new("/plain")).unwrap();
    assert_eq!(plain.get(&name("a"), 9).unwrap(), None);
    assert_eq!(plain.list("").unwrap(), []);
    assert!(!plain.remove(&name("a")).unwrap());
    assert!(matches!(plain.put(&name("a"), b"x"), Err(StoreError::Io { .. })));
    assert_eq!(disk.list_dir(Path::new("/plain")).unwrap(), []);
}
