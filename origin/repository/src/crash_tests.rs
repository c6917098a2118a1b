//! Power loss and a full disk at every operation of a publish and of a collection (architecture §2, invariants 3, 6 and 8).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{BlobId, merkle};
use colibri_metadata::{Answer, Start, Step, TrustAnchor, Update};
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_store::testing::{CrashDisk, Fault};
use colibri_store::{DocumentName, StoreError};

use crate::announce::{Announced, Announcement};
use crate::receipts::Receipts;
use crate::storage::{LocalStorage, Storage};
use crate::test_desk::{Desk, NOW, offered};
use crate::{Collect, Repository, RepositoryError, layout};

/// What a web server that knows nothing of us gives a device out of the folder, before anybody repairs anything: verified
/// metadata, and whether the unnumbered copies agree with it.
fn served(storage: &dyn Storage) -> Result<(Option<BlobId>, bool), String> {
    let read = |name: &str| {
        let name = DocumentName::new(&format!("repository/{name}")).unwrap();
        storage.read(&name, 1 << 20).unwrap()
    };
    let root = read("root.json").ok_or("no root.json")?;
    let mut update = Update::start(Start::FromAnchor(TrustAnchor::RootFile(root)), NOW);
    while let Step::Want(want) = update.next() {
        update.supply(read(&want.name).map_or(Answer::NotFound, Answer::Found)).map_err(|e| e.to_string())?;
    }
    let set = update.finish().map_err(|e| e.to_string())?;
    let same = set.files().all(|(name, bytes)| read(&name).as_ref() == Some(bytes));
    Ok((set.find(&"hello/0".parse().unwrap()).and_then(|target| target.merkle()), same))
}

/// What is offered after power loss, or which promise is broken.
fn look(desk: &Desk, disk: &CrashDisk, acknowledged: bool) -> Result<Option<BlobId>, String> {
    let raw = LocalStorage::open(Arc::new(disk.clone()), "/repo".as_ref()).unwrap();
    let (seen, same) = served(&raw)?;
    let receipts = Receipts::new(Arc::new(raw));
    receipts.read_new().map_err(|e| e.to_string())?;
    let repository = desk.open(disk).map_err(|e| format!("it does not open: {e}"))?;
    let said = |e: RepositoryError| e.to_string();
    let found = repository.packages().map_err(said)?.pop().map(|package| package.hash);
    if acknowledged && (seen != found || !same) {
        return Err(format!("acknowledged, and a web server shows {seen:?}, not {found:?}"));
    }
    // What is seen in the folder is what was offered before or is offered now: both are whole.
    for package in [seen, found].into_iter().flatten().collect::<BTreeSet<_>>() {
        whole(&repository, &receipts, package)?;
    }
    if acknowledged && repository.metadata.head().map_err(said)?.commit.is_none() {
        return Err("acknowledged, and its commit is gone".into());
    }
    let audit = repository.audit_verify().map_err(said)?;
    if !audit.is_good() {
        return Err(format!("the audit log is not whole: {audit:?}"));
    }
    if served(repository.storage.as_ref())? != (found, true) {
        return Err("the unnumbered files are not derived again".into());
    }
    Ok(found)
}

/// Every blob of a package has its receipt, its content and its leaf list, and its meta.far is a target.
fn whole(repository: &Repository, receipts: &Receipts, package: BlobId) -> Result<(), String> {
    let said = |e: RepositoryError| e.to_string();
    let meta = repository.blobs.meta_far(package).map_err(said)?;
    for id in meta.contents().values().chain([&package]) {
        let content = repository.blob_content(*id).map_err(said)?;
        let list = repository.storage.read(&layout::leaves(*id).unwrap(), 1 << 20).unwrap();
        if list != Some(merkle::build(&content).leaves.wire()) {
            return Err(format!("the leaf list of {id} is not there"));
        }
        if receipts.form(*id, DeliveryType::Type1).is_none() {
            return Err(format!("{id} is offered and has no receipt"));
        }
    }
    let targets = repository.named_targets(&[("hello/0".parse().unwrap(), package)]).map_err(said)?;
    let (name, content) = &targets.files[0];
    if repository.storage.read(name, 1 << 20).unwrap().as_ref() != Some(content) {
        return Err(format!("{package} is no target"));
    }
    Ok(())
}

fn at_once() -> Collect {
    Collect { keep_sets: 1, grace_s: 0, ..Collect::new(NOW) }
}

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
            let acknowledged = operations == published_first || operations == end;
            let found = look(&desk, &survivor, acknowledged);
            let found = found.unwrap_or_else(|e| panic!("crash after {operations} of {end}, seed {seed}: {e}"));
            let expected: &[Option<BlobId>] = match operations {
                n if n == end => &[Some(second)],
                n if n > published_first => &[Some(first), Some(second)],
                n if n == published_first => &[Some(first)],
                _ => &[None, Some(first)],
            };
            assert!(expected.contains(&found), "crash after {operations} of {end}, seed {seed}: {found:?}");
            // And the work goes on from there.
            let repository = desk.open(&survivor).unwrap();
            assert_eq!(desk.publish(&repository, 2).unwrap(), second, "crash after {operations}, seed {seed}");
            assert_eq!(offered(&repository), Some(second));
        }
    }
}

/// A repository after two releases, with a collection in a year and everything for it to do: the first release, old metadata,
/// an upload that was given up, an announcement whose publisher died.
struct Untidy {
    desk: Desk,
    disk: CrashDisk,
    repository: Repository,
    releases: [BlobId; 2],
    year: Collect,
}

impl Untidy {
    fn new() -> Self {
        let (desk, disk) = (Desk::new(), CrashDisk::new());
        let repository = desk.create(&disk).unwrap();
        let releases = [1, 2].map(|release| desk.publish(&repository, release).unwrap());
        let given_up = vec![3; 20_000];
        let upload = repository.upload(merkle::build(&given_up).id, Encoding::Raw, NOW).unwrap();
        let mut upload = upload.unwrap();
        upload.write(0, &given_up[..10_000]).unwrap();
        upload.flush().unwrap();
        std::mem::forget(Announcement::make(repository.storage.as_ref(), &Announced::default(), NOW).unwrap());
        let year = Collect { now: NOW.plus(365 * 86_400), ..at_once() };
        Self { desk, disk, repository, releases, year }
    }

    fn collect(&self) {
        let report = self.repository.collect(&self.year).unwrap();
        assert!(report.blobs_removed == 2 && report.commits_removed > 0 && report.metadata_removed > 2, "{report:?}");
        assert_eq!(report.uploads_removed, 1);
        for folder in ["announced/", "uploads/"] {
            assert_eq!(self.repository.storage.list(folder).unwrap(), []);
        }
    }

    /// What is there after power loss during the collection, or which promise is broken.
    fn look(&self, survivor: &CrashDisk) -> Result<(), String> {
        let found = look(&self.desk, survivor, true)?;
        if found != Some(self.releases[1]) {
            return Err(format!("{found:?} is offered"));
        }
        // A receipt without its blob would let something else of that length pass.
        let repository = self.desk.open(survivor).map_err(|e| format!("it does not open: {e}"))?;
        for id in [merkle::build(&[1; 9_000]).id, self.releases[0]] {
            let name = layout::blob(DeliveryType::Type1, id).unwrap();
            let is_there = repository.storage.length(&name).unwrap().is_some();
            if !is_there && repository.blobs.receipts.form(id, DeliveryType::Type1).is_some() {
                return Err(format!("the receipt of {id} has outlived it"));
            }
        }
        Ok(())
    }
}

#[test]
fn after_power_loss_at_any_operation_of_a_collection_nothing_needed_is_gone() {
    let untidy = Untidy::new();
    let Untidy { desk, disk, releases, year, .. } = &untidy;
    let before = disk.operations();
    untidy.collect();
    let end = disk.operations();
    for operations in before..=end {
        for seed in 0..3 {
            let survivor = disk.crash(operations, seed);
            let context = format!("crash after {operations} of {before}..{end}, seed {seed}");
            untidy.look(&survivor).unwrap_or_else(|e| panic!("{context}: {e}"));
            // Collecting ends what was begun, and what is gone can be published again.
            let repository = desk.open(&survivor).unwrap();
            repository.collect(year).unwrap();
            assert_eq!(repository.collect(year).unwrap().bytes_removed, 0, "{context}");
            assert_eq!(repository.storage.list("uploads/").unwrap(), [], "{context}");
            assert_eq!(desk.publish(&repository, 1).unwrap(), releases[0], "{context}");
            assert_eq!(offered(&repository), Some(releases[0]), "{context}");
        }
    }
}

#[test]
fn every_sync_of_a_collection_is_needed() {
    let untidy = Untidy::new();
    let disk = &untidy.disk;
    let (before, synced_before) = (disk.operations(), disk.synced_paths().len());
    untidy.collect();
    let end = disk.operations();
    let synced = disk.synced_paths();
    // Receipts are forgotten, and then written into one: a file and its folder each.
    assert_eq!(synced.len() - synced_before, 4, "{:?}", &synced[synced_before..]);
    for (missing, path) in synced.iter().enumerate().skip(synced_before) {
        let breaks = |operations: usize, seed: u64| {
            let number = Cell::new(0);
            // The disk asks about every sync, in their order.
            let is_missing = |_: &Path| number.replace(number.get() + 1) == missing;
            untidy.look(&disk.crash_ignoring(operations, seed, is_missing)).is_err()
        };
        let is_needed = (before..=end).rev().any(|operations| (0..8).any(|seed| breaks(operations, seed)));
        assert!(is_needed, "sync {missing}, of {}", path.display());
    }
}

/// Whether a disk on which syncing `path` does nothing breaks a promise after some crash of a publish.
fn is_needed(desk: &Desk, disk: &CrashDisk, path: &PathBuf, operations: std::ops::RangeInclusive<usize>) -> bool {
    let end = *operations.end();
    let breaks = |operations: usize, seed: u64| {
        let survivor = disk.crash_ignoring(operations, seed, |synced| synced == path);
        match look(desk, &survivor, operations == end) {
            Ok(found) => operations == end && found.is_none(),
            Err(_) => true,
        }
    };
    // Most show at the end, when all is acknowledged.
    (0..12).any(|seed| breaks(end, seed))
        || operations.rev().any(|operations| (0..4).any(|seed| breaks(operations, seed)))
}

#[test]
fn every_sync_of_a_publish_is_needed() {
    let desk = Desk::new();
    let disk = CrashDisk::new();
    let repository = desk.create(&disk).unwrap();
    let (before, synced_before) = (disk.operations(), disk.synced_paths().len());
    desk.publish(&repository, 1).unwrap();
    let end = disk.operations();
    let synced: BTreeSet<PathBuf> = disk.synced_paths().drain(synced_before..).collect();
    assert!(synced.len() > 15, "{synced:?}");
    let unneeded: Vec<PathBuf> =
        synced.into_iter().filter(|path| !is_needed(&desk, &disk, path, before..=end)).collect();
    assert!(unneeded.is_empty(), "{unneeded:?}");
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
