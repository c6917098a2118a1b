//! Power loss and a full disk at every operation of a publish (architecture §2, invariants 3 and 6).

use colibri_common::BlobId;
use colibri_store::StoreError;
use colibri_store::testing::{CrashDisk, Fault};

use crate::RepositoryError;
use crate::test_desk::{Desk, offered};

#[test]
fn after_power_loss_at_any_operation_one_whole_release_is_offered() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let repository = desk.create(&disk).unwrap();
    let created = disk.operations();
    let first = desk.publish(&repository, 1).unwrap();
    let published_first = disk.operations();
    let second = desk.publish(&repository, 2).unwrap();
    let end = disk.operations();
    for operations in created..=end {
        for seed in [0, 1] {
            let survivor = disk.crash(operations, seed);
            let repository = desk.open(&survivor).unwrap();
            let found = offered(&repository);
            let expected: &[Option<BlobId>] = match operations {
                n if n == end => &[Some(second)],
                n if n > published_first => &[Some(first), Some(second)],
                n if n == published_first => &[Some(first)],
                _ => &[None, Some(first)],
            };
            assert!(expected.contains(&found), "crash after {operations} of {end}, seed {seed}: {found:?}");
            // And the work goes on from there.
            assert_eq!(desk.publish(&repository, 2).unwrap(), second, "crash after {operations}, seed {seed}");
            assert_eq!(offered(&repository), Some(second));
        }
    }
}

#[test]
fn a_create_that_was_cut_short_can_be_done_again() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    desk.create(&disk).unwrap();
    for operations in 0..=disk.operations() {
        let survivor = disk.crash(operations, 3);
        match desk.create(&survivor) {
            Ok(_) | Err(RepositoryError::Exists { .. }) => {}
            Err(error) => panic!("crash after {operations}: {error}"),
        }
        assert_eq!(offered(&desk.open(&survivor).unwrap()), None, "crash after {operations}");
    }
}

#[test]
fn a_full_disk_at_any_operation_is_said_and_loses_nothing() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let first = desk.publish(&desk.create(&disk).unwrap(), 1).unwrap();
    let before = disk.operations();
    let probe = disk.crash(before, 0);
    let second = desk.publish(&desk.open(&probe).unwrap(), 2).unwrap();
    for changes in 0..probe.operations() {
        let disk = disk.crash(before, 0);
        let repository = desk.open(&disk).unwrap();
        disk.fail_after(changes, Fault::NoSpace);
        match desk.publish(&repository, 2) {
            Ok(hash) => assert_eq!(hash, second),
            Err(RepositoryError::Store(StoreError::NoSpace { .. })) => {
                assert!([Some(first), Some(second)].contains(&offered(&repository)));
            }
            Err(RepositoryError::Read { source, .. }) => {
                assert_eq!(source.kind(), std::io::ErrorKind::StorageFull, "after {changes}");
            }
            Err(error) => panic!("after {changes}: {error}"),
        }
        disk.heal();
        assert_eq!(desk.publish(&repository, 2).unwrap(), second, "after {changes}");
    }
}
