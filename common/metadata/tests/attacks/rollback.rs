//! Rollback of each role, mix and match, fast-forward recovery.

use colibri_metadata::{Role, Rule};
use serde_json::json;

use crate::fixture::{Key, NOW, Repo, RoleSetup, again, drive, fresh};
use colibri_metadata::{Start, TrustedSet};

/// A repository at version 3 and the client that trusts it.
fn at_three() -> (Repo, TrustedSet) {
    let mut repo = Repo::new();
    repo.republish();
    repo.republish();
    let set = fresh(&repo).set();
    assert_eq!(set.version(Role::Timestamp), Some(3));
    (repo, set)
}

#[track_caller]
fn rolled_back(driven: &crate::fixture::Driven, file: &str, subject: &str, version: u32, trusted: u32) {
    let error = driven.error();
    assert_eq!(error.file(), file);
    assert_eq!(error.rule(), &Rule::Rollback { subject: subject.into(), version, trusted });
}

#[test]
fn an_older_timestamp_is_refused() {
    let (mut repo, set) = at_three();
    repo.versions.insert(Role::Timestamp, 2);
    repo.publish();
    rolled_back(&again(&set, &repo), "timestamp.json", "timestamp.json", 2, 3);
}

#[test]
fn a_new_timestamp_naming_an_older_snapshot_is_refused() {
    let (mut repo, set) = at_three();
    repo.versions.insert(Role::Timestamp, 4);
    repo.versions.insert(Role::Snapshot, 2);
    repo.publish();
    rolled_back(&again(&set, &repo), "timestamp.json", "snapshot.json", 2, 3);
}

#[test]
fn a_new_snapshot_naming_older_targets_is_refused() {
    let (mut repo, set) = at_three();
    repo.versions.insert(Role::Timestamp, 4);
    repo.versions.insert(Role::Snapshot, 4);
    repo.versions.insert(Role::Targets, 2);
    repo.publish();
    let driven = again(&set, &repo);
    rolled_back(&driven, "4.snapshot.json", "targets.json", 2, 3);
    // The newer timestamp was proven: it is a floor from now on.
    let floor = driven.floor.unwrap();
    assert_eq!(floor.version(Role::Timestamp), Some(4));
    // But it does not lead to the targets held, so nothing is found in it.
    assert!(!floor.is_whole() && floor.find(&"hello/0".parse().unwrap()).is_none());
    assert!(set.find(&"hello/0".parse().unwrap()).is_some());
}

#[test]
fn a_targets_file_that_disappears_from_the_snapshot_is_refused() {
    let mut repo = Repo::new();
    let delegated = json!({"version": 1});
    repo.publish_with(|role, signed| {
        if role == Role::Snapshot {
            signed["meta"]["delegated.json"] = delegated.clone();
        }
    });
    let set = fresh(&repo).set();
    repo.republish();
    let driven = again(&set, &repo);
    assert_eq!(driven.error().rule(), &Rule::Disappeared("delegated.json".into()));
}

#[test]
fn expired_local_copies_are_still_a_floor() {
    let (mut repo, set) = at_three();
    let later = NOW.plus(60 * crate::fixture::DAY);
    for role in Role::ALL {
        repo.expires.insert(role, later.plus(1));
    }
    repo.rotate(|_| {});
    repo.versions.insert(Role::Timestamp, 2);
    repo.publish();
    let driven = drive(Start::FromSet(set), &repo, later);
    rolled_back(&driven, "timestamp.json", "timestamp.json", 2, 3);
}

#[test]
fn the_floor_survives_storing_and_loading() {
    let (mut repo, set) = at_three();
    let stored: Vec<_> = set.files().map(|(name, bytes)| (name, bytes.clone())).collect();
    let set = TrustedSet::load(stored).unwrap();
    repo.versions.insert(Role::Timestamp, 1);
    repo.publish();
    rolled_back(&again(&set, &repo), "timestamp.json", "timestamp.json", 1, 3);
}

#[test]
fn mix_and_match_of_two_good_sets_is_refused() {
    let mut repo = Repo::new();
    let old = repo.files.clone();
    repo.add_target("other/0", b"new");
    repo.republish();
    // Old targets under the new number; then the old snapshot under the new number.
    for (name, from) in [("2.targets.json", "1.targets.json"), ("2.snapshot.json", "1.snapshot.json")] {
        let mut mixed = repo.clone();
        mixed.files.insert(name.into(), old[from].clone());
        let driven = fresh(&mixed);
        assert_eq!(driven.error().file(), name);
        let rule = driven.error().rule();
        assert!(matches!(rule, Rule::Length { .. } | Rule::Hash { .. }), "{rule}");
        // Without hashes in the parent the version alone must tell.
        let mut bare = Repo::new();
        bare.hashes = false;
        bare.publish();
        let old = bare.files.clone();
        bare.republish();
        bare.files.insert(name.into(), old[from].clone());
        assert_eq!(fresh(&bare).error().rule(), &Rule::Version { version: 1, expected: 2 });
    }
}

#[test]
fn an_equal_timestamp_costs_nothing_and_changes_nothing() {
    let (mut repo, set) = at_three();
    // The same version with other content: the trusted one stays.
    repo.add_target("sneaked-in/0", b"x");
    repo.publish();
    let driven = again(&set, &repo);
    assert_eq!(driven.asked, ["2.root.json", "timestamp.json"]);
    let after = driven.set();
    assert!(after.find(&"sneaked-in/0".parse().unwrap()).is_none());
    assert!(after.files().eq(set.files()));
}

#[test]
fn a_new_timestamp_over_an_unchanged_snapshot_fetches_only_itself() {
    let (mut repo, set) = at_three();
    repo.bump(Role::Timestamp);
    repo.publish();
    let driven = again(&set, &repo);
    assert_eq!(driven.asked, ["2.root.json", "timestamp.json"]);
    assert_eq!(driven.set().version(Role::Timestamp), Some(4));
    repo.bump(Role::Timestamp);
    repo.bump(Role::Snapshot);
    repo.publish();
    let driven = again(&set, &repo);
    assert_eq!(driven.asked, ["2.root.json", "timestamp.json", "4.snapshot.json"]);
}

/// The attacker once had `role`'s key and pushed versions far ahead; the owner replaces the key.
fn recovers(role: Role) {
    let mut repo = Repo::new();
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        repo.versions.insert(role, u32::MAX - 1);
    }
    repo.publish();
    let fooled = fresh(&repo).set();
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        repo.versions.insert(role, 2);
    }
    repo.publish();
    assert!(matches!(again(&fooled, &repo).error().rule(), Rule::Rollback { .. }));
    let fresh_key = RoleSetup { keys: vec![Key::new(77)], threshold: 1 };
    repo.rotate(|repo| _ = repo.roles.insert(role, fresh_key));
    repo.publish();
    let set = again(&fooled, &repo).set();
    assert_eq!(set.version(Role::Timestamp), Some(2), "after a new {role} key");
    // And the floor holds again from there.
    repo.versions.insert(Role::Timestamp, 1);
    repo.publish();
    assert!(matches!(again(&set, &repo).error().rule(), Rule::Rollback { .. }));
}

#[test]
fn a_new_timestamp_or_snapshot_key_recovers_from_fast_forward() {
    recovers(Role::Timestamp);
    recovers(Role::Snapshot);
}

#[test]
fn recovery_is_seen_also_when_the_old_key_comes_back_in_a_later_root() {
    let (mut repo, set) = at_three();
    let old = repo.roles[&Role::Timestamp].clone();
    repo.rotate(|repo| _ = repo.roles.insert(Role::Timestamp, RoleSetup { keys: vec![Key::new(77)], threshold: 1 }));
    repo.rotate(|repo| _ = repo.roles.insert(Role::Timestamp, old));
    repo.versions.insert(Role::Timestamp, 1);
    repo.publish();
    assert_eq!(again(&set, &repo).set().version(Role::Timestamp), Some(1));
}

#[test]
fn an_added_key_or_a_new_targets_key_is_no_excuse_for_rollback() {
    let (repo, set) = at_three();
    let mut added = repo.clone();
    added.rotate(|repo| repo.roles.get_mut(&Role::Timestamp).unwrap().keys.push(Key::new(77)));
    added.versions.insert(Role::Timestamp, 2);
    added.publish();
    rolled_back(&again(&set, &added), "timestamp.json", "timestamp.json", 2, 3);
    let mut targets = repo;
    targets.rotate(|repo| _ = repo.roles.insert(Role::Targets, RoleSetup { keys: vec![Key::new(78)], threshold: 1 }));
    targets.versions.insert(Role::Timestamp, 4);
    targets.versions.insert(Role::Snapshot, 4);
    targets.versions.insert(Role::Targets, 1);
    targets.publish();
    rolled_back(&again(&set, &targets), "4.snapshot.json", "targets.json", 1, 3);
}

#[test]
fn targets_signed_by_a_revoked_key_are_fetched_again_even_under_an_equal_timestamp() {
    let (mut repo, set) = at_three();
    repo.rotate(|repo| _ = repo.roles.insert(Role::Targets, RoleSetup { keys: vec![Key::new(78)], threshold: 1 }));
    // The timestamp still leads to the file of the revoked key.
    let driven = again(&set, &repo);
    assert_eq!(driven.asked.last().unwrap(), "3.targets.json");
    assert!(matches!(driven.error().rule(), Rule::Threshold { valid: 0, .. }));
}
