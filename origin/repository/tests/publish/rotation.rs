//! Keys added, revoked and replaced; devices that follow, and recover from a key that was stolen.

use std::fs;

use bytes::Bytes;
use colibri_metadata::{Answer, Role, Start, Step, TrustAnchor, TrustedSet, Update};
use colibri_repository::{KeyChange, KeyForm, KeyRole, Repository, RepositoryError};
use serde_json::json;

use crate::fixture::{Desk, NOW, client, publish_of, refresh};

fn device(repository: &Repository) -> TrustedSet {
    client(repository.dir(), TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap()), NOW).unwrap()
}

#[test]
fn any_key_of_any_role_can_be_replaced_and_devices_follow() {
    let desk = Desk::new();
    let repository = desk.repository();
    let package = desk.build("hello", &[], &[]);
    repository.publish(&publish_of(&[&package])).unwrap();
    let mut seen = device(&repository);
    for (step, role) in Role::ALL.into_iter().enumerate() {
        let old = repository.metadata().unwrap().root().role_keys(role).key_ids.clone();
        let new = repository.rotate_keys(role.into(), KeyForm::Plain, NOW).unwrap();
        let root = repository.metadata().unwrap().root().clone();
        assert_eq!(root.version() as usize, step + 2, "{role}");
        assert_eq!(root.role_keys(role).key_ids, vec![new[0].id().clone()]);
        assert!(!old.iter().any(|id| root.keys().contains_key(id)), "a key that nobody needs is no longer listed");
        seen = refresh(repository.dir(), Start::FromSet(seen), NOW).unwrap();
        assert_eq!(seen.version(Role::Root), Some(root.version()));
        let other = desk.build(&format!("after-{role}"), &[], &[]);
        repository.publish(&publish_of(&[&other])).unwrap();
        seen = refresh(repository.dir(), Start::FromSet(seen), NOW).unwrap();
    }
    assert_eq!(repository.packages().unwrap().len(), 5);
    let report = repository.audit_verify().unwrap();
    assert!(report.is_good(), "{report:?}");
}

#[test]
fn devices_recover_from_a_stolen_online_key_that_ran_ahead() {
    let desk = Desk::new();
    let repository = desk.repository();
    let stolen = fs::read(desk.path("repo/keys/timestamp.pem")).unwrap();
    // The thief signs a timestamp of the highest version there is, for the snapshot in force.
    let thief = tempfile::tempdir().unwrap();
    fs::write(thief.path().join("timestamp.pem"), stolen).unwrap();
    let served = |name: &str| fs::read(repository.served_dir().join(name)).unwrap();
    let mut forged: serde_json::Value = serde_json::from_slice(&served("timestamp.json")).unwrap();
    forged["signed"]["version"] = json!(u32::MAX);
    forged["signatures"] = json!([]);
    let need = repository.metadata().unwrap().root().public_keys(Role::Timestamp).next().unwrap().to_json();
    forged["ceremony"] = json!({"format": 1, "role": "timestamp", "follows": 1,
        "needs": [{"of": "timestamp", "threshold": 1, "keys": [need]}]});
    let mut forged = colibri_repository::Ceremony::parse(&serde_json::to_vec(&forged).unwrap()).unwrap();
    forged.sign(thief.path(), colibri_repository::KeySources::default()).unwrap();
    let forged = Bytes::from(forged.to_bytes().unwrap());
    let mut update = Update::start(Start::FromSet(device(&repository)), NOW);
    while let Step::Want(want) = update.next() {
        let answer = match want.name.as_str() {
            "timestamp.json" => Answer::Found(forged.clone()),
            name => fs::read(repository.served_dir().join(name)).map_or(Answer::NotFound, |b| Answer::Found(b.into())),
        };
        update.supply(answer).unwrap();
    }
    let victim = update.finish().unwrap();
    assert_eq!(victim.version(Role::Timestamp), Some(u32::MAX));
    // It is stuck until the key is revoked.
    repository.refresh(NOW).unwrap();
    assert!(refresh(repository.dir(), Start::FromSet(victim.clone()), NOW).is_err());
    repository.rotate_keys(KeyRole::Timestamp, KeyForm::Plain, NOW).unwrap();
    let victim = refresh(repository.dir(), Start::FromSet(victim), NOW).unwrap();
    assert_eq!(victim.version(Role::Timestamp), repository.metadata().unwrap().version(Role::Timestamp));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let desk = Desk::new();
    let repository = desk.repository();
    let root = repository.metadata().unwrap().root().clone();
    let snapshot = root.role_keys(Role::Snapshot).key_ids[0].clone();
    let timestamp = root.role_keys(Role::Timestamp).key_ids[0].clone();
    let revoke = |role, id| KeyChange { revoke: vec![(role, id)], ..KeyChange::default() };
    for (change, words) in [
        (revoke(KeyRole::Snapshot, snapshot), "add a key first"),
        (revoke(KeyRole::Snapshot, timestamp), "no key"),
        (KeyChange { thresholds: vec![(KeyRole::Root, 2)], ..KeyChange::default() }, "2 signatures"),
    ] {
        match repository.change_keys(&change, NOW).unwrap_err() {
            RepositoryError::Ceremony(said) => assert!(said.contains(words), "{said}"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(repository.versions().unwrap().root, 1);
}

#[test]
fn what_is_due_is_signed_again_and_nothing_else() {
    let desk = Desk::new();
    let repository = desk.repository();
    let due = repository.refresh_due().unwrap();
    assert_eq!(due.iter().map(|due| due.role).collect::<Vec<_>>()[..2], [KeyRole::Timestamp, KeyRole::Snapshot]);
    assert_eq!(due[0].at, NOW.plus(16 * 3600));
    assert_eq!(repository.refresh_what_is_due(NOW.plus(15 * 3600)).unwrap(), []);
    let later = NOW.plus(16 * 3600);
    assert_eq!(repository.refresh_what_is_due(later).unwrap(), [KeyRole::Timestamp]);
    let versions = repository.versions().unwrap();
    assert_eq!((versions.snapshot, versions.timestamp), (1, 2));
    let later = NOW.plus(5 * 86_400);
    assert_eq!(repository.refresh_what_is_due(later).unwrap(), [KeyRole::Snapshot, KeyRole::Timestamp]);
    let versions = repository.versions().unwrap();
    assert_eq!((versions.targets, versions.snapshot, versions.timestamp), (1, 2, 3));
    let report = repository.audit_verify().unwrap();
    assert!(report.is_good() && report.anchors >= 3, "{report:?}");
}
