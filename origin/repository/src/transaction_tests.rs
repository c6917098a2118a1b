//! Commits: one of two publishers is first and the other loses nothing; what is derived follows the newest commit; programs
//! that know nothing of commits are followed; readers never see half of anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use colibri_metadata::{Answer, MetadataError, Role, Start, Step, TrustAnchor, TrustedSet, Update};
use colibri_store::DocumentName;

use crate::commit::Commit;
use crate::draft::{Change, TargetsChange};
use crate::gate::Pass;
use crate::keys::KeySources;
use crate::metadata::Terms;
use crate::offer::Offer;
use crate::storage::Storage;
use crate::storage::bucket_twin::BucketTwin;
use crate::test_desk::{Desk, NOW, of_archive};
use crate::test_disk::SeldomSynced;
use crate::{Collect, CreateOptions, Expiries, Repository, RepositoryError, Versions};

fn names(repository: &Repository) -> Vec<String> {
    repository.packages().unwrap().into_iter().map(|package| package.name).collect()
}

fn terms() -> Terms {
    Terms { now: NOW, time_versioning: false, expiries: Expiries::default(), above: None }
}

/// Signs targets, snapshot and timestamp anew without any package.
fn sign_again(repository: &Repository) -> Result<Versions, RepositoryError> {
    let pass = Pass { now: NOW, because: None, past_gate: None, look_at_all: false };
    let change =
        || Change { targets: TargetsChange::Offer(Offer { clean: true, ..Offer::default() }), ..Change::default() };
    repository.transact(&terms(), &pass, &mut |_| Ok(change()))
}

/// A client over a storage.
fn client(read: &dyn Fn(&str) -> Option<Bytes>, start: Start) -> Result<TrustedSet, MetadataError> {
    let mut update = Update::start(start, NOW);
    while let Step::Want(want) = update.next() {
        update.supply(read(&want.name).map_or(Answer::NotFound, Answer::Found))?;
    }
    update.finish()
}

#[test]
fn of_two_publishers_one_is_first_and_the_other_rebases() {
    let desk = Desk::new();
    let other = desk.dir.path().join("other.far");
    desk.build("other", 3, other.clone());
    // The second publisher does all of its work just before the first one's write of this kind.
    for cut in ["repository/2.targets.json", "repository/2.snapshot.json", "commits/2", "repository/timestamp.json"] {
        let bucket = BucketTwin::default();
        let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
        let second = Repository::create_in(Arc::new(bucket.clone()), &options).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let meanwhile = {
            let (second, other, done) = (second.clone(), other.clone(), done.clone());
            move |name: &DocumentName| {
                if name.as_str() == cut && !done.swap(true, Ordering::Relaxed) {
                    second.publish(&of_archive(other.clone())).unwrap();
                }
            }
        };
        let first = Repository::open_in(
            Arc::new(bucket.before_each_write(meanwhile)),
            Some(desk.keys()),
            KeySources::default(),
        )
        .unwrap();
        desk.publish(&first, 1).unwrap();
        assert!(done.load(Ordering::Relaxed), "{cut} was never written");
        for repository in [&first, &second] {
            assert_eq!(names(repository), ["hello", "other"], "{cut}");
        }
        let head = first.metadata.head().unwrap();
        assert!(first.metadata.is_derived(&head).unwrap(), "{cut}: the newest commit has the last word");
        assert_eq!(head.number, 3, "{cut}");
    }
}

#[test]
fn a_number_taken_by_a_publisher_that_lost_is_not_used_again() {
    let desk = Desk::new();
    let bucket = BucketTwin::default();
    let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
    let repository = Repository::create_in(Arc::new(bucket.clone()), &options).unwrap();
    let leftover = Bytes::from_static(b"seen by nobody");
    let name = DocumentName::new("repository/2.targets.json").unwrap();
    let meanwhile = {
        let (bucket, leftover) = (bucket.clone(), leftover.clone());
        move |at: &DocumentName| {
            if *at == name {
                bucket.create(at, &leftover).unwrap();
            }
        }
    };
    let first =
        Repository::open_in(Arc::new(bucket.before_each_write(meanwhile)), Some(desk.keys()), KeySources::default())
            .unwrap();
    let versions = sign_again(&first).unwrap();
    assert_eq!((versions.targets, versions.timestamp), (3, 2));
    let kept = bucket.read(&DocumentName::new("repository/2.targets.json").unwrap(), 100).unwrap();
    assert_eq!(kept, Some(leftover));
    assert_eq!(repository.versions().unwrap(), versions);
}

#[test]
fn who_is_never_first_says_so() {
    let desk = Desk::new();
    let bucket = BucketTwin::default();
    let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
    let other = Repository::create_in(Arc::new(bucket.clone()), &options).unwrap();
    let busy = Arc::new(AtomicU32::new(0));
    let meanwhile = {
        let busy = busy.clone();
        move |name: &DocumentName| {
            if name.as_str().starts_with("commits/") {
                busy.fetch_add(1, Ordering::Relaxed);
                sign_again(&other).unwrap();
            }
        }
    };
    let unlucky =
        Repository::open_in(Arc::new(bucket.before_each_write(meanwhile)), Some(desk.keys()), KeySources::default())
            .unwrap();
    let error = sign_again(&unlucky).unwrap_err();
    assert!(matches!(error, RepositoryError::Contended { attempts: 100, .. }), "{error}");
    assert_eq!(busy.load(Ordering::Relaxed), 100);
}

/// A repository on the real disk.
fn on_disk(desk: &Desk, name: &str) -> Repository {
    let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
    Repository::create(&desk.dir.path().join(name), options).unwrap()
}

fn reopened(desk: &Desk, repository: &Repository) -> Result<Repository, RepositoryError> {
    Repository::open_with_keys(repository.dir(), Some(desk.keys()))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn unnumbered_files_that_are_gone_old_or_damaged_are_derived_again() {
    let desk = Desk::new();
    let repository = on_disk(&desk, "repo");
    let served = repository.served_dir();
    let old = fs::read(served.join("timestamp.json")).unwrap();
    desk.publish(&repository, 1).unwrap();
    let files = ["root.json", "targets.json", "snapshot.json", "timestamp.json", "1.root.json"];
    for file in files {
        let good = fs::read(served.join(file)).unwrap();
        let longer = [&good[..], b" "].concat();
        for damage in [None, Some(b"not json".to_vec()), Some(longer), Some(old.clone())] {
            match damage {
                None => fs::remove_file(served.join(file)).unwrap(),
                Some(bytes) => fs::write(served.join(file), bytes).unwrap(),
            }
            reopened(&desk, &repository).unwrap();
            assert_eq!(fs::read(served.join(file)).unwrap(), good, "{file}");
        }
    }
    assert_eq!(names(&repository), ["hello"]);
}

#[test]
fn a_repository_without_commits_is_adopted_and_what_other_programs_publish_is_followed() {
    let desk = Desk::new();
    let ours = on_disk(&desk, "repo");
    fs::remove_dir_all(ours.dir().join("commits")).unwrap();
    // Made by the real tools, as far as anybody can tell: it can be read, and publishing makes the first commit.
    let ours = reopened(&desk, &ours).unwrap();
    assert_eq!(ours.versions().unwrap().timestamp, 1);
    assert!(!ours.dir().join("commits").exists(), "reading makes nothing");
    desk.publish(&ours, 1).unwrap();
    assert_eq!(Commit::numbers(ours.storage.as_ref()).unwrap(), [1]);
    // A program that knows nothing of commits publishes into a copy, and its files come back.
    let other = desk.dir.path().join("other.far");
    desk.build("other", 3, other.clone());
    let theirs = desk.dir.path().join("theirs");
    copy(ours.dir(), &theirs);
    fs::remove_dir_all(theirs.join("commits")).unwrap();
    let theirs = Repository::open_with_keys(&theirs, Some(desk.keys())).unwrap();
    theirs.publish(&of_archive(other)).unwrap();
    copy(&theirs.served_dir(), &ours.served_dir());
    let ours = reopened(&desk, &ours).unwrap();
    assert_eq!(names(&ours), ["hello", "other"]);
    desk.publish(&ours, 2).unwrap();
    assert_eq!(names(&ours), ["hello", "other"]);
    let head = ours.metadata.head().unwrap();
    assert_eq!((head.number, ours.versions().unwrap().timestamp), (2, 4));
    assert!(head.commit.is_some() && ours.metadata.is_derived(&head).unwrap());
}

#[test]
fn a_newer_timestamp_that_does_not_verify_is_not_followed() {
    let desk = Desk::new();
    let repository = on_disk(&desk, "repo");
    desk.publish(&repository, 1).unwrap();
    let path = repository.served_dir().join("timestamp.json");
    let good = fs::read_to_string(&path).unwrap();
    let forged = good.replace("\"version\":2}", "\"version\":7}");
    assert_ne!(good, forged);
    fs::write(&path, forged).unwrap();
    reopened(&desk, &repository).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), good);
}

/// Whoever takes such a name for a number looks for ever for a file that is not there.
#[test]
fn files_with_numbers_in_another_form_are_somebody_elses() {
    let desk = Desk::new();
    let repository = on_disk(&desk, "repo");
    for folder in ["commits", "receipts", "announced"] {
        fs::create_dir_all(repository.dir().join(folder)).unwrap();
        for name in ["007", "+9", "00"] {
            fs::write(repository.dir().join(folder).join(name), "x").unwrap();
        }
    }
    let repository = reopened(&desk, &repository).unwrap();
    desk.publish(&repository, 1).unwrap();
    repository.collect(&Collect::new(NOW)).unwrap();
    assert_eq!(Commit::numbers(repository.storage.as_ref()).unwrap(), [1, 2]);
    assert_eq!(names(&reopened(&desk, &repository).unwrap()), ["hello"]);
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    let desk = Desk::new();
    let repository = on_disk(&desk, "repo");
    let path = repository.dir().join("commits/2");
    fs::write(&path, r#"{"format": 2, "number": 2, "all": "else is new"}"#).unwrap();
    let error = reopened(&desk, &repository).unwrap_err();
    assert!(matches!(error, RepositoryError::TooNew { found: 2, known: 1, .. }), "{error}");
    assert!(error.to_string().contains("commits/2"), "{error}");
    fs::write(&path, "{").unwrap();
    let error = reopened(&desk, &repository).unwrap_err();
    assert!(matches!(error, RepositoryError::Damaged { .. }) && error.to_string().contains("commits/2"), "{error}");
}

/// Tells the readers when the publisher has ended, also when it panicked: else the test would hang, not fail.
struct Finish<'a>(&'a AtomicBool);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Two readers poll through a thousand publishes; `read` gives them what is served.
fn poll_through_a_thousand_publishes(publisher: &Repository, read: &(dyn Fn(&str) -> Option<Bytes> + Sync)) {
    const PUBLISHES: u32 = 1000;
    let finished = AtomicBool::new(false);
    let poll = || {
        let root = TrustAnchor::RootFile(publisher.trusted_root_bytes().unwrap());
        let mut seen = BTreeSet::new();
        let mut start = Start::FromAnchor(root);
        loop {
            let last = finished.load(Ordering::Acquire);
            let set = client(read, start).unwrap();
            seen.insert(set.version(Role::Timestamp).unwrap());
            start = Start::FromSet(set);
            if last {
                return seen;
            }
            // The publisher shall get on, also where there are fewer processors than threads.
            std::thread::sleep(Duration::from_millis(15));
        }
    };
    let seen = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(poll)).collect();
        let finish = Finish(&finished);
        for _ in 0..PUBLISHES {
            sign_again(publisher).unwrap();
        }
        drop(finish);
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect::<BTreeSet<_>>()
    });
    assert_eq!(seen.last(), Some(&(PUBLISHES + 1)));
    assert!(seen.len() > 1, "the readers read while it was published: {} versions seen", seen.len());
}

#[test]
fn readers_polling_through_a_thousand_publishes_never_see_half_of_one_in_a_bucket() {
    let desk = Desk::new();
    let bucket = BucketTwin::default();
    let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
    let publisher = Repository::create_in(Arc::new(bucket.clone()), &options).unwrap();
    let read = |name: &str| bucket.read(&DocumentName::new(&format!("repository/{name}")).unwrap(), 1 << 20).unwrap();
    poll_through_a_thousand_publishes(&publisher, &read);
}

#[test]
fn readers_polling_through_a_thousand_publishes_never_see_half_of_one_in_a_folder() {
    let desk = Desk::new();
    let options = CreateOptions { keys: Some(desk.keys()), ..CreateOptions::new(NOW) };
    let disk = Arc::new(SeldomSynced::default());
    let publisher = Repository::create_on(disk, &desk.dir.path().join("repo"), &options).unwrap();
    let served = publisher.served_dir();
    // As a web server does that knows nothing of us.
    let read = |name: &str| match fs::read(served.join(name)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        read => Some(read.unwrap().into()),
    };
    poll_through_a_thousand_publishes(&publisher, &read);
}
