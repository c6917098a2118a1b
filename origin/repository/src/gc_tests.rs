//! Collection: what nothing needs goes, what anybody needs stays, whatever is published meanwhile.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;

use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_metadata::{Answer, Role, Start, Step, TrustAnchor, Update};
use colibri_store::DocumentName;
use colibri_store::testing::CrashDisk;

use crate::gate::PublishGate;
use crate::storage::bucket_twin::BucketTwin;
use crate::test_desk::{Desk, NOW, of_archive, offered};
use crate::{Collect, CollectReport, CreateOptions, Expiries, Pin, Publish, Repository, RepositoryError, Submit};

const DAY: u64 = 86_400;

/// One set, no grace.
fn at_once(now: UnixSeconds) -> Collect {
    Collect { keep_sets: 1, grace_s: 0, ..Collect::new(now) }
}

fn changed(release: u8) -> BlobId {
    merkle::build(&[release; 9_000]).id
}

fn has(repository: &Repository, id: BlobId) -> bool {
    repository.missing_blobs(&[id]).unwrap().is_empty()
}

struct Scene {
    desk: Desk,
    disk: CrashDisk,
    repository: Repository,
}

impl Scene {
    /// Release 1, then release 2 of the same package.
    fn new() -> Self {
        let (desk, disk) = (Desk::new(), CrashDisk::new());
        let repository = desk.create(&disk).unwrap();
        desk.publish(&repository, 1).unwrap();
        desk.publish(&repository, 2).unwrap();
        Self { desk, disk, repository }
    }

    fn archive(&self, name: &str, release: u8) -> PathBuf {
        let path = self.desk.dir.path().join(format!("{name}.far"));
        self.desk.build(name, release, path.clone());
        path
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        self.repository.storage.list(prefix).unwrap().iter().map(|name| name.as_str().to_owned()).collect()
    }
}

#[test]
fn blobs_of_the_last_sets_stay_and_older_ones_go_after_their_grace() {
    let scene = Scene::new();
    let repository = &scene.repository;
    let two = Collect { keep_sets: 2, ..at_once(NOW) };
    assert_eq!(repository.collect(&two).unwrap().blobs_removed, 0);
    // Signing again makes no new set.
    repository.refresh(NOW).unwrap();
    repository.refresh(NOW).unwrap();
    assert_eq!(repository.collect(&two).unwrap().blobs_removed, 0);
    let patient = Collect { grace_s: 10, ..at_once(NOW.plus(9)) };
    let report = repository.collect(&patient).unwrap();
    assert_eq!((report.blobs_removed, report.blobs_in_grace, report.blobs_kept), (0, 2, 5));
    let before = scene.names("");
    let dry = Collect { grace_s: 10, dry_run: true, ..at_once(NOW.plus(10)) };
    let promised = repository.collect(&dry).unwrap();
    assert_eq!(scene.names(""), before, "a dry run removes nothing");
    let taken: u64 = ["blobs/1", "blobs/leaves"].map(|folder| scene.bytes(folder, changed(1))).iter().sum();
    let report = repository.collect(&Collect { dry_run: false, ..dry }).unwrap();
    assert_eq!(report, promised);
    assert_eq!((report.blobs_removed, report.blobs_in_grace, report.blobs_kept), (2, 0, 3));
    assert!(report.bytes_removed > taken, "{report:?}");
    assert!(!has(repository, changed(1)) && has(repository, changed(2)));
    assert!(offered(repository).is_some());
    assert!(scene.names("repository/blobs/leaves/").len() == 3, "leaf lists go with their blobs");
    assert_eq!(repository.collect(&at_once(NOW.plus(10))).unwrap().bytes_removed, 0, "there is no more to remove");
    // And what is gone comes back by publishing it.
    scene.desk.publish(repository, 1).unwrap();
    assert!(offered(repository).is_some());
}

impl Scene {
    fn bytes(&self, folder: &str, id: BlobId) -> u64 {
        let name = DocumentName::new(&format!("repository/{folder}/{id}")).unwrap();
        self.repository.storage.length(&name).unwrap().unwrap_or(0)
    }
}

#[test]
fn pins_keep_packages_and_blobs_until_they_are_removed() {
    let scene = Scene::new();
    let repository = &scene.repository;
    let old = repository.package("hello").unwrap().hash;
    scene.desk.publish(repository, 1).unwrap();
    let pin = |name: &str, hashes: Vec<BlobId>| Pin {
        name: name.into(),
        owner: "qa@example.org".into(),
        reason: "the last release that boots".into(),
        added_s: NOW.0,
        hashes,
    };
    let lost = merkle::build(b"nowhere").id;
    assert_eq!(repository.add_pin(&pin("release-2", vec![old, lost])).unwrap(), [lost]);
    assert!(matches!(repository.add_pin(&pin("release-2", vec![lost])), Err(RepositoryError::BadPin { .. })));
    for bad in ["", ".hidden", "a/b", "a b"] {
        assert!(repository.add_pin(&pin(bad, vec![old])).is_err(), "{bad:?}");
    }
    assert!(repository.add_pin(&Pin { reason: "two\nlines".into(), ..pin("x", vec![old]) }).is_err());
    assert!(repository.add_pin(&pin("none", Vec::new())).is_err());
    // Durable, and read by others.
    let survivor = scene.desk.open(&scene.disk.crash(scene.disk.operations(), 1)).unwrap();
    assert_eq!(survivor.pins().unwrap(), [pin("release-2", vec![old, lost])]);
    assert_eq!(repository.collect(&at_once(NOW)).unwrap().blobs_removed, 0);
    assert!(has(repository, changed(2)), "a pinned package keeps what it names");
    assert!(repository.remove_pin("release-2").unwrap() && !repository.remove_pin("release-2").unwrap());
    assert_eq!(repository.collect(&at_once(NOW)).unwrap().blobs_removed, 2);
    // A pin that cannot be read protects something unknown.
    let name = DocumentName::new("pins/newer").unwrap();
    repository.storage.create(&name, &r#"{"format": 2}"#.into()).unwrap();
    assert!(matches!(repository.collect(&at_once(NOW)), Err(RepositoryError::TooNew { found: 2, .. })));
}

/// A client that has an old timestamp, and looks for what it leads to.
fn follows(repository: &Repository, timestamp: &bytes::Bytes) -> bool {
    let read = |name: &str| {
        let name = DocumentName::new(&format!("repository/{name}")).unwrap();
        repository.storage.read(&name, 1 << 20).unwrap()
    };
    let anchor = TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap());
    let mut update = Update::start(Start::FromAnchor(anchor), NOW);
    while let Step::Want(want) = update.next() {
        let found = if want.role == Role::Timestamp { Some(timestamp.clone()) } else { read(&want.name) };
        if update.supply(found.map_or(Answer::NotFound, Answer::Found)).is_err() {
            return false;
        }
    }
    update.finish().is_ok()
}

#[test]
fn metadata_of_a_timestamp_stays_for_its_life_and_roots_for_ever() {
    let scene = Scene::new();
    let repository = &scene.repository.clone().with_expiries(Expiries::compat());
    scene.desk.publish(repository, 1).unwrap();
    let timestamp = DocumentName::new("repository/timestamp.json").unwrap();
    let old = repository.storage.read(&timestamp, 100_000).unwrap().unwrap();
    // A timestamp lives 30 days here; it was served until a day after it was made.
    let next = NOW.plus(DAY);
    let root = Publish { refresh_root: true, now: next, ..of_archive(scene.archive("other", 3)) };
    repository.publish(&root).unwrap();
    let before = repository.collect(&at_once(next.plus(30 * DAY - 1))).unwrap();
    assert!(follows(repository, &old), "{before:?}");
    let report = repository.collect(&at_once(next.plus(30 * DAY))).unwrap();
    assert!(!follows(repository, &old) && report.commits_removed > 0, "{report:?}");
    assert_eq!(scene.names("commits/"), ["commits/5"]);
    let numbered: Vec<String> = scene.names("repository/").into_iter().filter(|name| name.ends_with(".json")).collect();
    assert_eq!(
        numbered,
        [
            "repository/1.root.json",
            "repository/2.root.json",
            "repository/5.snapshot.json",
            "repository/5.targets.json",
            "repository/root.json",
            "repository/snapshot.json",
            "repository/targets.json",
            "repository/timestamp.json"
        ]
    );
    assert_eq!(scene.names("repository/targets/").len(), 2, "one meta.far for each package");
    // What a publish that was cut short left keeps its number taken.
    let leftover = DocumentName::new("repository/6.targets.json").unwrap();
    repository.storage.create(&leftover, &"cut short".into()).unwrap();
    repository.collect(&at_once(next.plus(40 * DAY))).unwrap();
    assert!(repository.storage.length(&leftover).unwrap().is_some());
    assert_eq!(scene.desk.publish(repository, 1).map(|_| repository.versions().unwrap().targets).unwrap(), 7);
}

#[test]
fn a_collection_at_any_moment_of_a_publish_takes_nothing_from_it() {
    // All blobs of release 1 are here and on offer nowhere: the publish finds them and depends on them.
    for moment in 0..=3 {
        let scene = Scene::new();
        let repository = &scene.repository;
        let count = Cell::new(0);
        let collector = scene.desk.open(&scene.disk).unwrap();
        let collect = || collector.collect(&at_once(NOW)).unwrap();
        let hear = |_| {
            if count.get() == moment {
                let CollectReport { blobs_removed, .. } = collect();
                assert_eq!(blobs_removed, 0, "moment {moment}");
            }
            count.set(count.get() + 1);
        };
        let publish = Publish { progress: Some(&hear), ..of_archive(scene.desk.archive(1)) };
        let held = scene.desk.open(&scene.disk).unwrap();
        struct Between<'a>(&'a Repository);
        impl PublishGate for Between<'_> {
            fn pass(&self, _: &[BlobId]) -> Result<(), String> {
                let report = self.0.collect(&at_once(NOW)).map_err(|e| e.to_string())?;
                if report.blobs_removed == 0 { Ok(()) } else { Err(format!("{report:?}")) }
            }
        }
        let gate = Between(&held);
        let publish = Publish { gate: (moment == 3).then_some(&gate as &dyn PublishGate), ..publish };
        assert_eq!(repository.publish(&publish).unwrap().blobs_new, 0, "moment {moment}");
        assert!(offered(repository).is_some() && has(repository, changed(1)));
        assert!(scene.names("announced/").is_empty());
    }
}

#[test]
fn what_is_gone_before_a_submit_is_told_and_what_died_stops_counting() {
    let scene = Scene::new();
    let repository = &scene.repository;
    let old = {
        scene.desk.publish(repository, 1).unwrap();
        let hash = repository.package("hello").unwrap().hash;
        scene.desk.publish(repository, 2).unwrap();
        hash
    };
    // A publisher that died a day ago.
    let name = DocumentName::new("announced/7").unwrap();
    let mut text = [&1u32.to_le_bytes()[..], &NOW.0.to_le_bytes(), &1u32.to_le_bytes()].concat();
    text.extend_from_slice(old.as_bytes());
    repository.storage.create(&name, &text.into()).unwrap();
    let soon = NOW.plus(DAY - 1);
    assert_eq!(repository.collect(&at_once(soon)).unwrap().blobs_removed, 0);
    assert_eq!(repository.collect(&at_once(NOW.plus(DAY))).unwrap().blobs_removed, 2);
    assert!(scene.names("announced/").is_empty());
    let submit = Submit { packages: vec![("hello/0".parse().unwrap(), old)], ..Submit::new(NOW) };
    assert!(matches!(repository.submit(&submit), Err(RepositoryError::Unready { count: 1, .. })));
}

#[test]
fn collecting_beside_publishers_breaks_nothing() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        // One collection for each publish, beside the next ones.
        let (published, collect) = mpsc::sync_channel(24);
        for name in ["left", "right"] {
            let archives = [1, 2].map(|release| scene.archive(&format!("{name}{release}"), release));
            let (scene, published) = (&scene, published.clone());
            scope.spawn(move || {
                let repository = scene.desk.open(&scene.disk).unwrap();
                for round in 0..12 {
                    let publish = Publish { clean: true, ..of_archive(archives[round % 2].clone()) };
                    repository.publish(&publish).unwrap();
                    published.send(()).unwrap();
                }
            });
        }
        drop(published);
        let collector = scene.desk.open(&scene.disk).unwrap();
        let removed: u64 = collect.iter().map(|()| collector.collect(&at_once(NOW)).unwrap().blobs_removed).sum();
        assert!(removed > 0, "the test is of no use if nothing is ever removed");
    });
    let repository = scene.desk.open(&scene.disk).unwrap();
    let package = repository.packages().unwrap().pop().unwrap();
    assert_eq!(repository.package_blobs(&package.name).unwrap().len(), 3);
    repository.refresh(NOW).unwrap();
}

#[test]
fn without_locks_nothing_is_collected() {
    let desk = Desk::new();
    let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
    let repository = Repository::create_in(Arc::new(BucketTwin::default()), &options).unwrap();
    assert!(matches!(repository.collect(&at_once(NOW)), Err(RepositoryError::NoLocks { .. })));
}

#[test]
fn a_package_on_offer_that_cannot_be_read_stops_collection() {
    let scene = Scene::new();
    let repository = &scene.repository;
    let hash = repository.package("hello").unwrap().hash;
    repository
        .storage
        .replace(&crate::layout::blob(colibri_package::delivery::DeliveryType::Type1, hash).unwrap(), &"?".into())
        .unwrap();
    let receipts = repository.storage.list("receipts/").unwrap();
    repository.storage.remove_all(&receipts).unwrap();
    let fresh = scene.desk.open(&scene.disk).unwrap();
    assert!(matches!(fresh.collect(&at_once(NOW)), Err(RepositoryError::StoredBlob { .. })));
}

#[test]
fn a_collection_leaves_the_audit_log_alone() {
    let scene = Scene::new();
    let repository = &scene.repository;
    repository.enable_rollout(crate::KeyForm::Plain, NOW).unwrap();
    let log = scene.names("audit/");
    assert!(log.len() >= 4, "{log:?}");
    let report = repository.collect(&at_once(NOW.plus(90 * DAY))).unwrap();
    assert!(report.blobs_removed > 0, "{report:?}");
    assert_eq!(scene.names("audit/"), log);
    let report = repository.audit_verify().unwrap();
    assert!(report.is_good(), "{report:?}");
}
