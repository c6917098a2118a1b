//! Making and opening repositories; keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use colibri_common::UnixSeconds;
use colibri_metadata::{Role, TrustAnchor};
use colibri_repository::{CreateOptions, Expiries, KeyForm, KeyRole, Repository, RepositoryError};

use crate::fixture::{Desk, NOW, client, publish_of, tree};

#[test]
fn a_new_repository_has_the_layout_of_the_real_tools() {
    let desk = Desk::new();
    let repository = desk.repository();
    let names: Vec<String> = tree(&desk.path("repo"))
        .keys()
        .map(|path| path.to_str().unwrap().to_owned())
        .filter(|name| !name.starts_with(".colibri-temp/"))
        .collect();
    assert_eq!(
        names,
        [
            ".repository.lock",
            "audit/000000000000",
            "commits/1",
            "keys/root.pem",
            "keys/snapshot.pem",
            "keys/targets.pem",
            "keys/timestamp.pem",
            "repository/1.root.json",
            "repository/1.snapshot.json",
            "repository/1.targets.json",
            "repository/root.json",
            "repository/snapshot.json",
            "repository/targets.json",
            "repository/timestamp.json",
        ]
    );
    assert!(repository.packages().unwrap().is_empty());
    let set = client(repository.dir(), TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap()), NOW).unwrap();
    let days = |role: Role| match role {
        Role::Root => set.root().expires().0,
        Role::Targets => set.targets().unwrap().expires().0,
        Role::Snapshot => set.snapshot().unwrap().expires().0,
        Role::Timestamp => set.timestamp().unwrap().expires().0,
    };
    assert_eq!(Role::ALL.map(|role| (days(role) - NOW.0) / 86_400), [365, 1, 7, 90]);
    let key_ids: Vec<_> = Role::ALL.iter().map(|role| set.root().role_keys(*role).key_ids[0].clone()).collect();
    assert!((1..4).all(|i| !key_ids[..i].contains(&key_ids[i])), "one key per role");
}

#[test]
fn private_keys_are_for_their_owner_and_never_shown() {
    let desk = Desk::new();
    let options = CreateOptions { form: KeyForm::RealTools, ..CreateOptions::new(NOW) };
    let repository = Repository::create(&desk.path("repo"), options).unwrap();
    for role in Role::ALL {
        let path = desk.path("repo/keys").join(role.file());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let file: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["encrypted"], false);
        let private = file["data"][0]["keyval"]["private"].as_str().unwrap();
        let public = file["data"][0]["keyval"]["public"].as_str().unwrap();
        assert_eq!((private.len(), &private[64..]), (128, public));
        assert!(!format!("{repository:?}").contains(&private[..64]));
        for (name, bytes) in tree(&desk.path("repo/repository")) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(!text.contains(&private[..64]), "{} holds a private key", name.display());
        }
    }
}

#[test]
fn a_second_repository_does_not_replace_the_first() {
    let desk = Desk::new();
    desk.repository();
    let before = tree(&desk.path("repo"));
    let error = Repository::create(&desk.path("repo"), CreateOptions::new(NOW)).unwrap_err();
    assert!(matches!(error, RepositoryError::Exists { .. }), "{error}");
    assert_eq!(tree(&desk.path("repo")), before);
}

#[test]
fn a_folder_without_repository_is_named() {
    let desk = Desk::new();
    let error = Repository::open(desk.dir.path()).unwrap_err();
    assert!(matches!(error, RepositoryError::NotARepository { .. }));
    assert!(tree(desk.dir.path()).is_empty(), "opening makes nothing");
}

#[test]
fn given_keys_are_used_and_stay_where_they_are() {
    let desk = Desk::new();
    let first = desk.repository();
    let keys = desk.path("repo/keys");
    let options = CreateOptions { keys: Some(keys.clone()), ..CreateOptions::new(NOW) };
    let second = Repository::create(&desk.path("other"), options.clone()).unwrap();
    assert_eq!(second.root_key_ids().unwrap(), first.root_key_ids().unwrap());
    assert!(!desk.path("other/keys").exists());
    // Without keys beside it, it cannot be published into; with them it can.
    let package = desk.build("hello", &[("bin/hello", b"hi")], &[]);
    let error = Repository::open(second.dir()).unwrap().publish(&publish_of(&[&package])).unwrap_err();
    assert!(matches!(error, RepositoryError::NoKey { role: KeyRole::Targets, .. }), "{error}");
    let opened = Repository::open_with_keys(second.dir(), Some(keys.clone())).unwrap();
    assert_eq!(opened.publish(&publish_of(&[&package])).unwrap().packages, 1);
    // A role without a key.
    fs::remove_file(keys.join("snapshot.pem")).unwrap();
    let error = Repository::create(&desk.path("third"), options).unwrap_err();
    assert!(matches!(error, RepositoryError::KeyFile { .. }), "{error}");
}

#[test]
fn the_keys_of_the_test_vectors_make_the_known_key_id() {
    let desk = Desk::new();
    let vectors = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/tuf-keys.json");
    let vectors: serde_json::Value = serde_json::from_slice(&fs::read(vectors).unwrap()).unwrap();
    let key = &vectors["repo_private_key"];
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let keyval = serde_json::json!({
        "public": text("public_hex"), "private": text("seed_hex") + &text("public_hex"),
    });
    let entry = serde_json::json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": keyval});
    let file = serde_json::json!({"encrypted": false, "data": [entry]});
    fs::create_dir(desk.path("keys")).unwrap();
    for role in Role::ALL {
        fs::write(desk.path("keys").join(role.file()), serde_json::to_vec(&file).unwrap()).unwrap();
    }
    let options = CreateOptions { keys: Some(desk.path("keys")), ..CreateOptions::new(UnixSeconds(1_767_225_600)) };
    let repository = Repository::create(&desk.path("repo"), options).unwrap();
    assert_eq!(repository.root_key_ids().unwrap()[0].as_str(), text("keyid"));
    assert_eq!(repository.root_keys().unwrap()[0].to_string(), text("public_hex"));
    // ed25519 and canonical JSON leave no choice: the root is the real library's, byte for byte.
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/tuf-repo/root.json");
    assert_eq!(repository.trusted_root_bytes().unwrap(), fs::read(golden).unwrap());
}

#[test]
fn key_files_that_are_not_are_refused_without_showing_them() {
    let desk = Desk::new();
    let options = CreateOptions { form: KeyForm::RealTools, ..CreateOptions::new(NOW) };
    Repository::create(&desk.path("repo"), options).unwrap();
    let path = desk.path("repo/keys/targets.json");
    let good = fs::read_to_string(&path).unwrap();
    let package = desk.build("hello", &[], &[]);
    let secret = "5079a19105a5b262f89284c33c20487a";
    let swapped = good.replacen("\"public\":\"", "\"public\":\"00", 1);
    for bad in [
        "{}".to_owned(),
        format!("{secret} not json"),
        good.replace("false", "true"),
        good.replace("ed25519", "rsa"),
        swapped,
        good.replace("\"private\":\"", "\"private\":\"00"),
        " ".repeat(100_000),
    ] {
        fs::write(&path, bad).unwrap();
        let error = desk.repository().publish(&publish_of(&[&package])).unwrap_err();
        assert!(matches!(error, RepositoryError::KeyFile { .. }), "{error}");
        assert!(error.to_string().contains("targets.json") && !error.to_string().contains(secret));
    }
}

#[test]
fn expiries_and_time_versions_are_options() {
    let desk = Desk::new();
    let expiries = Expiries { root_days: 1, targets_days: 2, snapshot_days: 3, timestamp_days: 4, rollout_days: 5 };
    let options = CreateOptions { expiries, time_versioning: true, ..CreateOptions::new(NOW) };
    let repository = Repository::create(&desk.path("repo"), options).unwrap();
    let set = repository.metadata().unwrap();
    assert_eq!(set.root().expires(), NOW.plus(86_400));
    assert_eq!(set.timestamp().unwrap().expires(), NOW.plus(4 * 86_400));
    let now = u32::try_from(NOW.0).unwrap();
    let versions = repository.versions().unwrap();
    assert_eq!((versions.root, versions.targets, versions.snapshot, versions.timestamp), (1, now, now, now));
    let error = Repository::create(&desk.path("late"), CreateOptions::new(UnixSeconds(u64::MAX))).unwrap_err();
    assert!(matches!(error, RepositoryError::OutOfRange(_)), "{error}");
}
