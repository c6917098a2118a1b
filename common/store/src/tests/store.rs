//! The contract of [`Store`], on both disks.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::{LEAF_BYTES, UNIT_BYTES};
use colibri_common::{ByteRange, ClaimedLength};

use super::{add, flip_bit, on_both_disks, painted};
use crate::disk::{Disk, OpenMode};
use crate::{Recovery, Store, StoreError};

fn open(disk: &Arc<dyn Disk>, dir: &Path) -> (Store, Recovery) {
    Store::open(disk.clone(), &dir.join("store")).unwrap()
}

/// Lengths around the boundaries of leaves, buffers and units.
const LENGTHS: &[usize] = &[0, 1, 8191, 8192, 8193, 262_144, 262_145, 2_097_152, 2_097_153, 4_300_000];

#[test]
fn blobs_of_every_shape_come_back_whole() {
    on_both_disks(|disk, dir| {
        let (store, recovery) = open(&disk, dir);
        assert_eq!(recovery, Recovery::default());
        let blobs: Vec<_> = LENGTHS.iter().map(|length| painted(*length, 3)).collect();
        for (content, tree) in &blobs {
            assert_eq!(store.contains(tree.id).unwrap(), None);
            assert!(matches!(store.read(tree.id, ByteRange::whole(0)), Err(StoreError::NotFound { .. })));
            add(&store, content, tree).unwrap();
            assert!(matches!(add(&store, content, tree), Err(StoreError::AlreadyStored { .. })));
        }
        drop(store);
        let (store, recovery) = open(&disk, dir);
        assert_eq!(recovery, Recovery::default());
        for (content, tree) in &blobs {
            let length = content.len() as u64;
            assert_eq!(store.contains(tree.id).unwrap(), Some(length));
            assert_eq!(store.read(tree.id, ByteRange::whole(length)).unwrap(), content);
            assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
            let reader = store.open_blob(tree.id).unwrap();
            assert_eq!((reader.length(), reader.leaves()), (length, &tree.leaves));
            for range in [ByteRange::new(length / 3, length / 2), ByteRange::new(length, length)] {
                assert_eq!(reader.read(range).unwrap(), content[range.within(0)]);
            }
            assert!(matches!(reader.read(ByteRange::new(0, length + 1)), Err(StoreError::OutOfRange { .. })));
            assert_eq!(disk.file_len(&store.path(tree.id)).unwrap(), Some(length));
        }
        let mut ids: Vec<_> = blobs.iter().map(|(_, tree)| tree.id).collect();
        ids.sort_unstable();
        assert_eq!(store.ids().unwrap(), ids);
        let stats = store.stats().unwrap();
        assert_eq!((stats.blobs, stats.blob_bytes), (10, LENGTHS.iter().sum::<usize>() as u64));
        assert!(stats.free_bytes > 0);
    });
}

#[test]
fn a_partial_resumes_with_what_was_right() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let (content, tree) = painted(3 * UNIT_BYTES as usize + 5, 1);
        let run = |start: usize, end: usize| tree.leaves.verify(start as u64, content.slice(start..end)).unwrap();
        let unit = UNIT_BYTES as usize;
        let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
        assert_eq!(partial.missing_units(), [0, 1, 2, 3]);
        assert!(matches!(store.begin(tree.leaves.clone(), tree.length.into()), Err(StoreError::BusyWriting { .. })));
        partial.write(&run(2 * unit, 3 * unit)).unwrap();
        partial.write(&run(0, unit)).unwrap();
        partial.write(&run(unit, unit + LEAF_BYTES as usize)).unwrap();
        assert_eq!(partial.missing_units(), [1, 3]);
        let refused = partial.commit().unwrap_err();
        let hole = UNIT_BYTES + LEAF_BYTES;
        assert!(matches!(refused, StoreError::Incomplete { offset, .. } if offset == hole), "{refused}");
        drop(store);
        // A bit of unit 2 rots meanwhile.
        flip_bit(disk.as_ref(), &dir.join("store/partial").join(tree.id.to_string()), 2 * UNIT_BYTES + 9);
        let (store, recovery) = open(&disk, dir);
        assert_eq!(recovery.partials, [tree.id]);
        assert_eq!(store.stats().unwrap().partials, 1);
        // Two units and a leaf; a file system counts in blocks.
        let unfinished = store.unfinished_bytes().unwrap();
        assert!((2 * UNIT_BYTES + LEAF_BYTES..3 * UNIT_BYTES).contains(&unfinished), "{unfinished}");
        let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
        assert_eq!(store.unfinished_bytes().unwrap(), 0, "somebody writes it");
        assert_eq!(partial.missing_units(), [1, 2, 3]);
        partial.write(&run(2 * unit, 2 * unit + LEAF_BYTES as usize)).unwrap();
        assert_eq!(partial.missing_units(), [1, 3], "only the bad leaf was missing of unit 2");
        partial.write(&run(unit, content.len())).unwrap();
        assert_eq!(partial.commit().unwrap(), tree.length);
        assert_eq!(store.read(tree.id, ByteRange::whole(tree.length.bytes())).unwrap(), content);
        assert_eq!(store.stats().unwrap().partials, 0);
    });
}

#[test]
fn a_wrong_claim_about_the_length_is_corrected_by_the_last_leaf() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let (content, tree) = painted(10_000, 2);
        assert!(matches!(store.begin(tree.leaves.clone(), ClaimedLength(5)), Err(StoreError::Leaves { .. })));
        for claim in [8193, 16_384, 10_000] {
            let mut partial = store.begin(tree.leaves.clone(), ClaimedLength(claim)).unwrap();
            partial.write(&tree.leaves.verify(0, content.clone()).unwrap()).unwrap();
            assert_eq!(partial.commit().unwrap().bytes(), 10_000);
            assert_eq!(store.contains(tree.id).unwrap(), Some(10_000));
            assert!(store.discard(tree.id).unwrap());
            assert!(!store.discard(tree.id).unwrap());
        }
    });
}

#[test]
fn bytes_of_another_blob_are_refused() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let ((_, tree), (content, other)) = (painted(100, 1), painted(100, 2));
        let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
        let run = other.leaves.verify(0, content).unwrap();
        assert!(matches!(partial.write(&run), Err(StoreError::WrongBlob { .. })));
        partial.discard().unwrap();
        assert_eq!(store.stats().unwrap().partials, 0);
    });
}

#[test]
fn bytes_that_change_before_the_commit_are_found_by_it() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let (content, tree) = painted(300_000, 2);
        let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
        partial.write(&tree.leaves.verify(0, content.clone()).unwrap()).unwrap();
        flip_bit(disk.as_ref(), &dir.join("store/partial").join(tree.id.to_string()), 270_000);
        let refused = partial.commit().unwrap_err();
        assert!(matches!(refused, StoreError::Corrupt { offset: 262_144, .. }), "{refused}");
        assert_eq!(store.contains(tree.id).unwrap(), None);
        add(&store, &content, &tree).unwrap();
    });
}

#[test]
fn bit_rot_is_found_and_healed_by_fetching_again() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let (content, tree) = painted(100_000, 2);
        add(&store, &content, &tree).unwrap();
        flip_bit(disk.as_ref(), &store.path(tree.id), 50_000);
        assert_eq!(store.read(tree.id, ByteRange::new(0, 49_152)).unwrap(), content[..49_152]);
        for damaged in [store.read(tree.id, ByteRange::new(49_152, 49_153)).map(drop), store.scrub(tree.id).map(drop)] {
            let damaged = damaged.unwrap_err();
            assert!(matches!(damaged, StoreError::Corrupt { id, offset: 49_152 } if id == tree.id), "{damaged}");
        }
        store.discard(tree.id).unwrap();
        add(&store, &content, &tree).unwrap();
        assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
        // A file cut short counts as absent, and a begin repairs it.
        disk.open(&store.path(tree.id), OpenMode::Write).unwrap().set_len(99_999).unwrap();
        assert_eq!(store.contains(tree.id).unwrap(), None);
        assert!(matches!(store.read(tree.id, ByteRange::new(99_000, 100_000)), Err(StoreError::Corrupt { .. })));
        let partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
        assert_eq!(partial.missing_units(), [0]);
        drop(partial);
        add(&store, &content, &tree).unwrap();
    });
}

#[test]
fn pins_protect_from_sweeps() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let blobs: Vec<_> = (0..5).map(|colour| painted(9000, colour)).collect();
        let ids: Vec<_> = blobs.iter().map(|(_, tree)| tree.id).collect();
        blobs.iter().for_each(|(content, tree)| add(&store, content, tree).unwrap());
        // The fifth is pinned before it is here.
        store.discard(ids[4]).unwrap();
        store.pin("base", &[ids[0], ids[4]]).unwrap();
        store.pin("eager/1", &[ids[1]]).unwrap();
        let partial = store.begin(blobs[4].1.leaves.clone(), blobs[4].1.length.into()).unwrap();
        drop(partial);
        let open_reader = store.open_blob(ids[3]).unwrap();
        let report = store.sweep(&HashSet::from([ids[2]])).unwrap();
        assert_eq!((report.removed, report.removed_bytes, report.partials_removed), (vec![ids[3]], 9000, 0));
        assert_eq!(open_reader.read(ByteRange::whole(9000)).unwrap(), blobs[3].0, "an open blob stays readable");
        assert_eq!(store.contains(ids[3]).unwrap(), None);
        assert!(disk.file_len(&store.path(ids[3])).unwrap().is_none());
        drop(store);
        let (store, _) = open(&disk, dir);
        assert_eq!(
            store.pins().unwrap().into_iter().collect::<Vec<_>>(),
            [("base".to_owned(), vec![ids[0], ids[4]]), ("eager/1".to_owned(), vec![ids[1]])]
        );
        assert!(store.unpin("base").unwrap());
        assert!(!store.unpin("base").unwrap());
        let busy = store.begin(blobs[3].1.leaves.clone(), blobs[3].1.length.into()).unwrap();
        let report = store.sweep(&HashSet::new()).unwrap();
        assert_eq!(report.removed.iter().collect::<HashSet<_>>(), HashSet::from([&ids[0], &ids[2]]));
        assert_eq!(report.partials_removed, 1, "of the blob whose pin is gone, not of the one being written");
        drop(busy);
        assert_eq!(store.ids().unwrap(), [ids[1]]);
    });
}

#[test]
fn pins_are_bounded() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let refused = store.pin(&"x".repeat(1025), &[]).unwrap_err();
        assert!(matches!(refused, StoreError::OverLimit { count: 1025, limit: 1024, .. }), "{refused}");
        let many = vec![painted(1, 1).1.id; 1_000_001];
        assert!(matches!(store.pin("x", &many), Err(StoreError::OverLimit { .. })));
    });
}

#[test]
fn strays_are_swept_at_open() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let (content, tree) = painted(20_000, 1);
        add(&store, &content, &tree).unwrap();
        let lost = painted(30_000, 2);
        add(&store, &lost.0, &lost.1).unwrap();
        let blobs = store.path(tree.id).parent().unwrap().to_owned();
        drop(store);
        disk.remove_file(&blobs.join(lost.1.id.to_string())).unwrap();
        let stray = painted(5, 3).1.id.to_string();
        for name in ["junk", &stray, "ABC"] {
            disk.open(&blobs.join(name), OpenMode::CreateNew).unwrap().write_at(0, b"12345").unwrap();
        }
        disk.open(&dir.join("store/partial/junk"), OpenMode::CreateNew).unwrap();
        let twice = dir.join("store/partial").join(tree.id.to_string());
        disk.hard_link(&blobs.join(tree.id.to_string()), &twice).unwrap();
        let (store, recovery) = open(&disk, dir);
        // What has the name of a blob may be one: it is verified before anybody gets a byte of it.
        let unfinished = painted(5, 3).1;
        let partials = vec![unfinished.id];
        assert_eq!(recovery, Recovery { swept_files: 4, swept_bytes: 20_010, lost: vec![lost.1.id], partials });
        assert_eq!(store.ids().unwrap(), [tree.id]);
        assert_eq!(store.contains(unfinished.id).unwrap(), None);
        let partial = store.begin(unfinished.leaves.clone(), unfinished.length.into()).unwrap();
        assert_eq!(partial.missing_units(), [0]);
        drop(partial);
        assert_eq!(store.sweep(&HashSet::from([tree.id])).unwrap().partials_removed, 1);
        assert_eq!(disk.list_dir(&blobs).unwrap().len(), 1);
        assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
        drop(store);
        assert_eq!(open(&disk, dir).1, Recovery::default());
    });
}

#[test]
fn one_process_at_a_time_and_newer_formats_refused() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let refused = Store::open(disk.clone(), &dir.join("store")).unwrap_err();
        assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
        drop(store);
        let format = disk.open(&dir.join("store/format"), OpenMode::Write).unwrap();
        format.write_at(0, b"colibri-store 2\n").unwrap();
        let refused = Store::open(disk.clone(), &dir.join("store")).unwrap_err();
        assert!(matches!(refused, StoreError::TooNew { found: 2, known: 1, .. }), "{refused}");
    });
}

#[test]
fn a_damaged_index_is_named() {
    on_both_disks(|disk, dir| {
        drop(open(&disk, dir));
        let index = disk.open(&dir.join("store/index.redb"), OpenMode::Write).unwrap();
        index.write_at(0, &[0x55; 4096]).unwrap();
        let refused = Store::open(disk.clone(), &dir.join("store")).unwrap_err();
        assert!(refused.to_string().contains("index.redb"), "{refused}");
    });
}

#[test]
fn many_writers_and_sweepers_at_once() {
    on_both_disks(|disk, dir| {
        let (store, _) = open(&disk, dir);
        let blobs: Vec<(Bytes, _)> = (0..8).map(|colour| painted(40_000, colour)).collect();
        store.pin("all", &blobs.iter().map(|(_, tree)| tree.id).collect::<Vec<_>>()).unwrap();
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (store, blobs) = (&store, &blobs);
                scope.spawn(move || {
                    for (content, tree) in blobs.iter().cycle().skip(start * 2).take(blobs.len()) {
                        match add(store, content, tree) {
                            Ok(()) | Err(StoreError::AlreadyStored { .. } | StoreError::BusyWriting { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(store.sweep(&HashSet::new()).unwrap().removed, [])));
        });
        blobs.iter().for_each(|(_, tree)| assert_eq!(store.scrub(tree.id).unwrap(), tree.length));
    });
}
