//! Freeze and expiry of each role, missing files, sizes, numbered and unnumbered names.

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, Role, Rule, Start, Step, Update, limits};
use serde_json::json;

use crate::fixture::{DAY, NOW, Repo, again, drive, fresh};

#[test]
fn an_expired_file_of_each_role_is_refused() {
    for role in Role::ALL {
        let mut repo = Repo::new();
        repo.expires.insert(role, NOW);
        repo.publish_root(&[]);
        repo.publish();
        let error = fresh(&repo).error().clone();
        assert!(error.is_expired(), "{role}: {error}");
        assert_eq!(error.role(), role);
        let line = error.to_string();
        assert!(line.contains("expired at 2026-01-10T00:00:00Z") && !line.contains('\n'), "{line}");
        repo.expires.insert(role, NOW.plus(1));
        repo.publish_root(&[]);
        repo.publish();
        assert!(fresh(&repo).result.is_ok(), "{role}");
    }
}

#[test]
fn a_frozen_repository_is_noticed_by_a_client_that_has_it() {
    let repo = Repo::new();
    let set = fresh(&repo).set();
    let driven = drive(Start::FromSet(set.clone()), &repo, NOW.plus(31 * DAY));
    assert!(driven.error().is_expired());
    // Only the timestamp's life is over: it is the equal, trusted one that is named.
    let mut longer = Repo::new();
    for role in [Role::Root, Role::Snapshot, Role::Targets] {
        longer.expires.insert(role, NOW.plus(90 * DAY));
    }
    longer.publish_root(&[]);
    longer.publish();
    let set = fresh(&longer).set();
    assert_eq!(set.earliest_expiry(), NOW.plus(30 * DAY));
    let driven = drive(Start::FromSet(set), &longer, NOW.plus(31 * DAY));
    assert_eq!((driven.error().file(), driven.error().is_expired()), ("timestamp.json", true));
}

#[test]
fn only_the_root_chain_may_end_with_not_found() {
    for name in ["timestamp.json", "1.snapshot.json", "1.targets.json"] {
        let mut repo = Repo::new();
        repo.files.remove(name);
        let driven = fresh(&repo);
        assert_eq!(driven.error().rule(), &Rule::Missing);
        assert_eq!(driven.error().file(), name);
        assert!(driven.error().can_retry_elsewhere());
    }
}

#[test]
fn oversized_files_are_refused_before_they_are_parsed() {
    let repo = Repo::new();
    for (name, cap) in [("2.root.json", limits::ROOT_BYTES_MAX), ("timestamp.json", limits::TIMESTAMP_BYTES_MAX)] {
        let mut big = repo.clone();
        let length = usize::try_from(cap).unwrap() + 1;
        big.files.insert(name.into(), vec![b' '; length].into());
        assert_eq!(fresh(&big).error().rule(), &Rule::TooLarge { bytes: cap + 1, bytes_max: cap });
    }
    // Below the signed length nothing more is read, whatever the role's cap.
    let mut longer = repo.clone();
    let targets = longer.files["1.targets.json"].clone();
    let bytes_max = targets.len() as u64;
    longer.files.insert("1.targets.json".into(), [&targets[..], b" "].concat().into());
    assert_eq!(fresh(&longer).error().rule(), &Rule::TooLarge { bytes: bytes_max + 1, bytes_max });
    let mut shorter = repo;
    shorter.files.insert("1.targets.json".into(), targets.slice(1..));
    let rule = Rule::Length { bytes: bytes_max - 1, expected: bytes_max, parent: Role::Snapshot };
    assert_eq!(fresh(&shorter).error().rule(), &rule);
}

#[test]
fn a_signed_length_beyond_the_cap_is_refused_without_a_download() {
    for (parent, child, file) in
        [(Role::Timestamp, Role::Snapshot, "1.snapshot.json"), (Role::Snapshot, Role::Targets, "1.targets.json")]
    {
        let mut repo = Repo::new();
        repo.publish_with(|role, signed| {
            if role == parent {
                signed["meta"][child.file()]["length"] = json!(u64::MAX);
            }
        });
        let driven = fresh(&repo);
        assert_eq!(
            driven.error().rule(),
            &Rule::NamesTooLarge { named: child, bytes: u64::MAX, bytes_max: child.bytes_max() }
        );
        assert!(!driven.asked.iter().any(|asked| asked == file));
        assert_eq!(driven.error().file(), if parent == Role::Timestamp { "timestamp.json" } else { "1.snapshot.json" });
    }
}

#[test]
fn wants_carry_the_tightest_cap() {
    let repo = Repo::new();
    let mut update = Update::start(Start::FromAnchor(repo.anchor()), NOW);
    let mut caps = Vec::new();
    while let Step::Want(want) = update.next() {
        assert_eq!(update.next(), Step::Want(want.clone()), "asking twice changes nothing");
        caps.push((want.role, want.bytes_max));
        let found = repo.files.get(&want.name);
        update.supply(found.map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()))).unwrap();
    }
    let length = |name: &str| repo.files[name].len() as u64;
    let expected = [
        (Role::Root, limits::ROOT_BYTES_MAX),
        (Role::Timestamp, limits::TIMESTAMP_BYTES_MAX),
        (Role::Snapshot, length("1.snapshot.json")),
        (Role::Targets, length("1.targets.json")),
    ];
    assert_eq!(caps, expected);
}

#[test]
fn without_consistent_snapshots_plain_names_are_asked() {
    let mut repo = Repo::new();
    repo.rotate(|repo| repo.consistent = false);
    repo.republish();
    let driven = fresh(&repo);
    assert_eq!(driven.asked[1..], ["3.root.json", "timestamp.json", "snapshot.json", "targets.json"]);
    let set = driven.set();
    repo.republish();
    assert_eq!(again(&set, &repo).set().version(Role::Targets), Some(3));
}

#[test]
fn out_of_step_calls_are_errors_not_panics() {
    let repo = Repo::new();
    let update = Update::start(Start::FromAnchor(repo.anchor()), NOW);
    let error = update.finish().unwrap_err();
    assert!(matches!(error.rule(), Rule::OutOfStep(_)) && !error.can_retry_elsewhere());
    let mut update = Update::start(Start::FromAnchor(repo.anchor()), UnixSeconds(u64::MAX));
    assert!(update.supply(Answer::NotFound).unwrap_err().is_expired());
    let error = update.supply(Answer::Found(Bytes::new())).unwrap_err();
    assert!(matches!(error.rule(), Rule::OutOfStep(_)));
    assert!(update.finish().unwrap_err().is_expired(), "the first error stays the outcome");
}
