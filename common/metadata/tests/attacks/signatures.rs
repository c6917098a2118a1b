//! Thresholds, duplicate key ids, keys under two names, and every single flipped bit.

use bytes::Bytes;
use colibri_metadata::{Role, Rule};
use serde_json::{Value, json};

use crate::fixture::{Key, Repo, RoleSetup, again, envelope, fresh};

#[test]
fn a_threshold_counts_distinct_trusted_keys() {
    for role in Role::ALL {
        let mut repo = Repo::new();
        let three = vec![Key::new(31), Key::new(32), Key::new(33)];
        repo.rotate(|repo| _ = repo.roles.insert(role, RoleSetup { keys: three.clone(), threshold: 2 }));
        repo.republish();
        assert!(fresh(&repo).result.is_ok(), "{role}");
        // One of two, and one of two with a stranger.
        for signers in [vec![Key::new(32)], vec![Key::new(32), Key::new(99)]] {
            let mut repo = repo.clone();
            repo.roles.get_mut(&role).unwrap().keys = signers.clone();
            if role == Role::Root {
                repo.roles.get_mut(&role).unwrap().keys = three.clone();
                let also: Vec<Key> = signers.into_iter().chain([Key::new(1)]).collect();
                let bytes = envelope(&repo.root_signed(), &also);
                repo.files.insert("2.root.json".into(), bytes);
            } else {
                repo.republish();
            }
            let driven = fresh(&repo);
            assert_eq!(driven.error().role(), role);
            assert!(matches!(driven.error().rule(), Rule::Threshold { valid: 1, threshold: 2, .. }), "{role}");
        }
    }
}

#[test]
fn one_key_under_two_ids_counts_once() {
    let mut repo = Repo::new();
    let twin = Key { algorithms: Some(json!(["sha256", "sha512"])), ..Key::new(2) };
    repo.rotate(|repo| {
        _ = repo.roles.insert(Role::Timestamp, RoleSetup { keys: vec![Key::new(2), twin], threshold: 2 });
    });
    repo.republish();
    let driven = fresh(&repo);
    assert!(matches!(driven.error().rule(), Rule::Threshold { valid: 1, threshold: 2, .. }));
}

#[test]
fn a_key_with_keyid_hash_algorithms_is_usable() {
    for algorithms in [json!([]), json!(["sha256"]), json!(["sha256", "sha512"])] {
        let mut repo = Repo::new();
        let key = Key { algorithms: Some(algorithms), ..Key::new(50) };
        repo.rotate(|repo| _ = repo.roles.insert(Role::Targets, RoleSetup { keys: vec![key], threshold: 1 }));
        repo.republish();
        assert!(fresh(&repo).result.is_ok());
    }
}

#[test]
fn a_duplicate_key_id_is_refused() {
    let mut repo = Repo::new();
    let key = repo.keys(Role::Timestamp)[0].clone();
    let signed = repo.timestamp_signed(&repo.files["1.snapshot.json"]);
    repo.files.insert("timestamp.json".into(), envelope(&signed, &[key.clone(), key.clone()]));
    assert_eq!(fresh(&repo).error().rule(), &Rule::DuplicateKeyId(key.id().to_string()));
    // In a role of the root.
    let mut repo = Repo::new();
    repo.roles.get_mut(&Role::Snapshot).unwrap().keys.push(Key::new(3));
    repo.bump(Role::Root);
    repo.publish_root(&[]);
    assert_eq!(fresh(&repo).error().rule(), &Rule::DuplicateKeyId(Key::new(3).id().to_string()));
}

#[test]
fn a_key_under_a_wrong_id_and_a_key_of_another_type_do_not_count() {
    let change = |edit: &dyn Fn(&mut Value)| {
        let mut repo = Repo::new();
        repo.bump(Role::Root);
        let mut signed = repo.root_signed();
        edit(&mut signed);
        repo.files.insert("2.root.json".into(), envelope(&signed, repo.keys(Role::Root)));
        repo
    };
    let id = Key::new(2).id().to_string();
    // The timestamp's key is replaced under its id by the attacker's.
    let repo = change(&|signed| signed["keys"][&id] = Key::new(66).json());
    assert!(matches!(fresh(&repo).error().rule(), Rule::Threshold { valid: 0, .. }));
    let repo = change(&|signed| signed["keys"][&id]["scheme"] = json!("rsassa-pss-sha256"));
    assert!(matches!(fresh(&repo).error().rule(), Rule::Threshold { valid: 0, .. }));
    // A key that no role uses may be of any kind.
    let repo = change(&|signed| signed["keys"]["00"] = json!({"keytype": "rsa", "scheme": "x", "keyval": {}}));
    assert!(fresh(&repo).result.is_ok());
}

#[test]
fn a_file_signed_for_one_role_is_not_another() {
    // One key for all roles, as small repositories have it.
    let mut repo = Repo::new();
    repo.rotate(|repo| {
        for role in Role::ALL {
            repo.roles.insert(role, RoleSetup { keys: vec![Key::new(5)], threshold: 1 });
        }
    });
    repo.hashes = false;
    repo.publish();
    assert!(fresh(&repo).result.is_ok());
    let snapshot = repo.files["1.snapshot.json"].clone();
    repo.files.insert("timestamp.json".into(), snapshot);
    assert_eq!(fresh(&repo).error().rule(), &Rule::WrongType("snapshot".into()));
}

#[test]
fn a_signature_by_another_roles_key_does_not_count() {
    let mut repo = Repo::new();
    let signed = repo.timestamp_signed(&repo.files["1.snapshot.json"]);
    let root_key = repo.keys(Role::Root).to_vec();
    repo.files.insert("timestamp.json".into(), envelope(&signed, &root_key));
    assert!(matches!(fresh(&repo).error().rule(), Rule::Threshold { valid: 0, threshold: 1, .. }));
}

/// Every bit of every file: refused, or the change did not change what is said (the case of a hex digit of a stranger's
/// signature cannot occur here: there is one signature per file).
#[test]
fn every_flipped_bit_is_refused() {
    let repo = Repo::new();
    let trusted = fresh(&repo).set();
    for name in ["timestamp.json", "1.snapshot.json", "1.targets.json"] {
        let good = repo.files[name].clone();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut flipped = repo.clone();
            flipped.files.insert(name.into(), Bytes::from(bytes));
            let driven = fresh(&flipped);
            assert!(driven.result.is_err(), "bit {bit} of {name}");
            assert_eq!(driven.error().file(), name, "bit {bit}");
        }
    }
    // The next root, against a client that has the first.
    let mut next = repo;
    next.rotate(|_| {});
    let good = next.files["2.root.json"].clone();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        next.files.insert("2.root.json".into(), Bytes::from(bytes));
        assert!(again(&trusted, &next).result.is_err(), "bit {bit} of the root");
    }
}
