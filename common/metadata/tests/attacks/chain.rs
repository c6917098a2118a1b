//! Roots: wrong root, chains, key rotation, anchors.

use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, MetadataError, Role, Rule, Start, Step, TrustAnchor, TrustedSet, Update, limits};

use crate::fixture::{Key, NOW, Repo, RoleSetup, again, drive, envelope, fresh};

fn keys_anchor(keys: &[Key], root_threshold: u32, root_version: u32) -> Start {
    let root_keys = keys.iter().map(Key::public).collect();
    Start::FromAnchor(TrustAnchor::Keys { root_keys, root_threshold, root_version })
}

#[test]
fn a_repository_is_believed_by_file_and_by_keys() {
    let repo = Repo::new();
    assert!(fresh(&repo).set().is_whole());
    assert!(drive(keys_anchor(&[Key::new(1)], 1, 1), &repo, NOW).set().is_whole());
}

#[test]
fn a_repository_of_another_owner_is_refused() {
    let repo = Repo::new();
    let mut evil = Repo::new();
    evil.roles.insert(Role::Root, RoleSetup { keys: vec![Key::new(66)], threshold: 1 });
    evil.publish_root(&[]);
    // Under configured keys the first root is refused.
    let driven = drive(keys_anchor(&[Key::new(1)], 1, 1), &evil, NOW);
    assert!(matches!(driven.error().rule(), Rule::Threshold { valid: 0, threshold: 1, .. }), "{}", driven.error());
    assert_eq!((driven.error().role(), driven.error().file()), (Role::Root, "1.root.json"));
    assert!(driven.error().can_retry_elsewhere());
    assert!(driven.floor.is_none());
    // Under a trusted file the next root is refused.
    evil.bump(Role::Root);
    evil.publish_root(&[]);
    let driven = drive(Start::FromAnchor(repo.anchor()), &evil, NOW);
    assert!(matches!(driven.error().rule(), Rule::Threshold { .. }));
    assert_eq!(driven.error().file(), "2.root.json");
}

#[test]
fn a_root_signed_by_configured_keys_must_also_be_signed_by_its_own() {
    let mut repo = Repo::new();
    repo.roles.insert(Role::Root, RoleSetup { keys: vec![Key::new(9)], threshold: 1 });
    let bytes = envelope(&repo.root_signed(), &[Key::new(1)]);
    repo.files.insert("1.root.json".into(), bytes);
    let driven = drive(keys_anchor(&[Key::new(1)], 1, 1), &repo, NOW);
    assert!(matches!(driven.error().rule(), Rule::Threshold { signers: "its own root keys", .. }));
}

#[test]
fn the_configured_version_and_threshold_hold() {
    let mut repo = Repo::new();
    let two = vec![Key::new(1), Key::new(11)];
    repo.roles.insert(Role::Root, RoleSetup { keys: two.clone(), threshold: 2 });
    repo.publish_root(&[]);
    assert!(drive(keys_anchor(&two, 2, 1), &repo, NOW).result.is_ok());
    // Another root under the asked-for name.
    let one = repo.files["1.root.json"].clone();
    repo.files.insert("3.root.json".into(), one);
    let driven = drive(keys_anchor(&two, 2, 3), &repo, NOW);
    assert_eq!(driven.error().rule(), &Rule::Version { version: 1, expected: 3 });
    // Only one of the configured two signed.
    let driven = drive(keys_anchor(&[Key::new(1), Key::new(12)], 2, 1), &repo, NOW);
    assert!(matches!(driven.error().rule(), Rule::Threshold { valid: 1, threshold: 2, .. }));
    // A missing first root is an error, not the end of a chain.
    let driven = drive(keys_anchor(&two, 2, 7), &repo, NOW);
    assert_eq!(driven.error().rule(), &Rule::Missing);
}

#[test]
fn an_unusable_anchor_says_so_and_no_other_source_helps() {
    let repo = Repo::new();
    for start in [
        keys_anchor(&[], 1, 1),
        keys_anchor(&[Key::new(1)], 0, 1),
        keys_anchor(&[Key::new(1)], 1, 0),
        keys_anchor(&[Key::new(1), Key::new(1)], 2, 1),
        Start::FromAnchor(TrustAnchor::RootFile("{}".into())),
    ] {
        let driven = drive(start, &repo, NOW);
        assert!(matches!(driven.error().rule(), Rule::Anchor(_)), "{}", driven.error());
        assert!(!driven.error().can_retry_elsewhere());
        assert!(driven.asked.is_empty());
    }
}

#[test]
fn a_chain_of_roots_is_followed_step_by_step() {
    let mut repo = Repo::new();
    for seed in 20..25 {
        let setup = RoleSetup { keys: vec![Key::new(seed)], threshold: 1 };
        repo.rotate(|repo| _ = repo.roles.insert(Role::Root, setup));
    }
    let driven = fresh(&repo);
    assert_eq!(driven.asked[..6], (2..8).map(|n| format!("{n}.root.json")).collect::<Vec<_>>());
    assert_eq!(driven.set().root().version(), 6);
    // One link missing: the client stays before it, and what lies behind cannot be reached.
    repo.files.remove("4.root.json");
    assert_eq!(fresh(&repo).set().root().version(), 3);
}

#[test]
fn a_root_must_be_the_very_next_and_signed_by_both() {
    let trusted = fresh(&Repo::new()).set();
    // Skipping a version.
    let mut repo = Repo::new();
    repo.bump(Role::Root);
    repo.bump(Role::Root);
    repo.publish_root(&[]);
    let three = repo.files["3.root.json"].clone();
    repo.files.insert("2.root.json".into(), three);
    assert_eq!(again(&trusted, &repo).error().rule(), &Rule::Version { version: 3, expected: 2 });
    // An older root under the next name.
    let one = repo.files["1.root.json"].clone();
    repo.files.insert("2.root.json".into(), one);
    assert_eq!(again(&trusted, &repo).error().rule(), &Rule::Version { version: 1, expected: 2 });
    // Signed by the new keys only, then by the old only.
    for signers in [[Key::new(9)], [Key::new(1)]] {
        let mut repo = Repo::new();
        repo.roles.insert(Role::Root, RoleSetup { keys: vec![Key::new(9)], threshold: 1 });
        repo.bump(Role::Root);
        let bytes = envelope(&repo.root_signed(), &signers);
        repo.files.insert("2.root.json".into(), bytes);
        assert!(matches!(again(&trusted, &repo).error().rule(), Rule::Threshold { .. }));
    }
}

#[test]
fn an_intermediate_root_may_have_expired_but_not_the_last() {
    let mut repo = Repo::new();
    repo.expires.insert(Role::Root, UnixSeconds(NOW.0 - 1));
    repo.publish_root(&[]);
    let error = fresh(&repo).error().clone();
    assert!(error.is_expired());
    assert_eq!(error.file(), "1.root.json");
    repo.expires.insert(Role::Root, NOW.plus(1));
    repo.rotate(|_| {});
    assert!(fresh(&repo).result.is_ok());
}

#[test]
fn a_chain_without_end_is_cut_and_what_was_proven_is_kept() {
    let repo = Repo::new();
    let mut update = Update::start(Start::FromAnchor(repo.anchor()), NOW);
    let mut endless = repo;
    let mut error: Option<MetadataError> = None;
    let mut supplied = 0;
    while let Step::Want(want) = update.next() {
        assert_eq!(want.role, Role::Root);
        endless.bump(Role::Root);
        endless.publish_root(&[]);
        supplied += 1;
        error = update.supply(Answer::Found(endless.files[&want.name].clone())).err();
    }
    let error = error.unwrap();
    assert_eq!(error.rule(), &Rule::ChainTooLong(limits::ROOTS_PER_UPDATE_MAX));
    assert_eq!(supplied, limits::ROOTS_PER_UPDATE_MAX + 1);
    let floor = update.into_floor().unwrap();
    assert_eq!(u64::from(floor.root().version()), limits::ROOTS_PER_UPDATE_MAX + 1);
    assert!(again(&floor, &endless).result.is_ok(), "the next update goes on from there");
}

#[test]
fn the_last_possible_root_version_ends_the_chain() {
    let mut repo = Repo::new();
    repo.versions.insert(Role::Root, u32::MAX);
    repo.publish_root(&[]);
    let start = Start::FromAnchor(TrustAnchor::RootFile(repo.files["root.json"].clone()));
    let driven = drive(start, &repo, NOW);
    assert_eq!(driven.asked[0], "timestamp.json");
    assert!(driven.result.is_ok());
    repo.expires.insert(Role::Root, NOW);
    repo.publish_root(&[]);
    let start = Start::FromAnchor(TrustAnchor::RootFile(repo.files["root.json"].clone()));
    assert!(drive(start, &repo, NOW).error().is_expired());
}

#[test]
fn a_set_restored_from_files_is_verified_again() {
    let repo = Repo::new();
    let set = fresh(&repo).set();
    let files: Vec<_> = set.files().map(|(name, bytes)| (name, bytes.clone())).collect();
    assert_eq!(files.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), Role::ALL.map(Role::file));
    assert!(TrustedSet::load(files.clone()).unwrap().is_whole());
    for damaged in 0..4 {
        let mut files = files.clone();
        let mut bytes = files[damaged].1.to_vec();
        let last = bytes.len() - 30;
        bytes[last] ^= 1;
        files[damaged].1 = bytes.into();
        match TrustedSet::load(files) {
            Err(error) => assert_eq!((damaged, error.role()), (0, Role::Root)),
            Ok(set) => {
                assert_eq!(set.set_aside().len(), 1);
                assert_eq!(set.set_aside()[0].role(), Role::ALL[damaged]);
                assert!(!set.is_whole() && set.find(&"hello/0".parse().unwrap()).is_none());
                assert!(again(&set, &repo).set().is_whole());
            }
        }
    }
    assert_eq!(TrustedSet::load(files[1..].to_vec()).unwrap_err().rule(), &Rule::Missing);
}
