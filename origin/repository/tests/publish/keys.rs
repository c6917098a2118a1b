//! Where keys come from: encrypted files, variables, commands; and that none of it shows a secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use colibri_metadata::Role;
use colibri_repository::{
    CreateOptions, KeyCount, KeyForm, KeyRole, KeySources, ListedKey, Passphrase, Repository, RepositoryError,
    generate_key_file,
};

use crate::fixture::{Desk, NOW, publish_of};

fn with_passphrase(text: &str) -> KeySources {
    KeySources { passphrase: Some(Arc::new(Passphrase::new(text.to_owned()))), ..KeySources::default() }
}

#[test]
fn encrypted_keys_sign_with_their_passphrase_only() {
    let desk = Desk::new();
    let options = CreateOptions { form: KeyForm::Encrypted, ..CreateOptions::new(NOW) };
    let error = Repository::create(&desk.path("none"), options.clone()).unwrap_err();
    assert!(matches!(error, RepositoryError::LockedKey { .. }), "{error}");
    for way in ["COLIBRI_KEY_PASSPHRASE", "--passphrase-file", "terminal"] {
        assert!(error.to_string().contains(way), "{error}");
    }
    let dir = desk.path("repo");
    Repository::create(&dir, CreateOptions { sources: with_passphrase("correct horse"), ..options }).unwrap();
    for role in Role::ALL {
        let path = dir.join(format!("keys/{role}.pem"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"), "{role}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let package = desk.build("hello", &[], &[]);
    let publish = publish_of(&[&package]);
    // Looking needs no passphrase; signing does, and says so.
    let locked = Repository::open(&dir).unwrap();
    assert!(locked.status().unwrap().iter().all(|role| role.can_sign));
    let error = locked.publish(&publish).unwrap_err();
    assert!(matches!(error, RepositoryError::LockedKey { .. }), "{error}");
    let wrong = Repository::open_with(&dir, None, with_passphrase("incorrect horse")).unwrap();
    let error = wrong.publish(&publish).unwrap_err();
    assert!(matches!(error, RepositoryError::LockedKey { .. }) && !error.to_string().contains("horse"), "{error}");
    let sources = with_passphrase("correct horse");
    assert!(!format!("{sources:?}").contains("horse"));
    let open = Repository::open_with(&dir, None, sources).unwrap();
    assert_eq!(open.publish(&publish).unwrap().versions.targets, 2);
    assert!(!format!("{open:?}").contains("horse"));
}

#[test]
fn a_key_may_be_a_variable() {
    let desk = Desk::new();
    let dir = desk.path("repo");
    Repository::create(&dir, CreateOptions::new(NOW)).unwrap();
    let mut variables = vec![("PATH".to_owned(), "/bin".to_owned())];
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let text = fs::read_to_string(dir.join(format!("keys/{role}.pem"))).unwrap();
        variables.push((format!("COLIBRI_KEY_{}", role.to_uppercase()), text));
    }
    fs::remove_dir_all(dir.join("keys")).unwrap();
    let package = desk.build("hello", &[], &[]);
    let error = Repository::open(&dir).unwrap().publish(&publish_of(&[&package])).unwrap_err();
    assert!(matches!(error, RepositoryError::NoKey { .. }), "{error}");
    let sources = KeySources::from_variables(variables.clone()).unwrap();
    assert!(!format!("{sources:?}").contains("PRIVATE"));
    let repository = Repository::open_with(&dir, None, sources).unwrap();
    repository.publish(&publish_of(&[&package])).unwrap();
    let here = repository.status().unwrap()[0].keys[0].here.clone().unwrap();
    assert_eq!(here, "COLIBRI_KEY_ROOT");
    variables.push(("COLIBRI_KEY_TARGET".to_owned(), "x".to_owned()));
    let error = KeySources::from_variables(variables).unwrap_err().to_string();
    assert!(error.contains("COLIBRI_KEY_TARGET is no variable"), "{error}");
}

/// An ed25519 key file in the form of `openssl genpkey`, made of ours.
fn plain_key(path: &Path) -> ListedKey {
    generate_key_file(path, KeyForm::Plain, None).unwrap()
}

#[test]
fn a_key_may_be_behind_a_command() {
    let desk = Desk::new();
    let dir = desk.path("repo");
    Repository::create(&dir, CreateOptions::new(NOW)).unwrap();
    let keys = dir.join("keys");
    // The command signs with a copy of the key that is out of our sight.
    fs::rename(keys.join("timestamp.pem"), desk.path("hidden.pem")).unwrap();
    let public = ListedKey::read(&desk.path("hidden.pem")).unwrap().to_pem().unwrap();
    fs::write(keys.join("timestamp.pub"), public).unwrap();
    let write = |script: &str| {
        fs::write(keys.join("sign.sh"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(keys.join("sign.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    };
    let signers = |extra: &str| {
        let text = format!(
            "[[signer]]\nrole = \"timestamp\"\ncommand = [\"./sign.sh\"]\npublic_key = \"timestamp.pub\"\n{extra}\n"
        );
        fs::write(keys.join("signers.toml"), text).unwrap();
    };
    signers("");
    let repository = Repository::open(&dir).unwrap();
    let package = desk.build("hello", &[], &[]);
    let publish = || repository.publish(&publish_of(&[&package])).map(drop);
    let failed = || match publish().unwrap_err() {
        RepositoryError::Signer { origin, reason } => format!("{origin}: {reason}"),
        other => panic!("{other}"),
    };
    write("cat > /dev/null; echo the HSM is off >&2; exit 3");
    let said = failed();
    assert!(said.contains("sign.sh") && said.contains("exit status: 3") && said.contains("the HSM is off"), "{said}");
    write("cat > /dev/null; printf %064d 0");
    assert!(failed().contains("is no signature"), "{}", failed());
    write("cat > /dev/null; yes");
    assert!(failed().contains("too long") || failed().contains("ended with"), "{}", failed());
    write("cat > /dev/null; exec sleep 100");
    signers("timeout_s = 0");
    assert!(failed().contains("no answer"), "{}", failed());
    signers("colour = 1");
    assert!(publish().unwrap_err().to_string().contains("signers.toml"));
    signers("");
    // What is signed is what is published: openssl, if it were there, would do; here the message is only looked at.
    write("test \"$COLIBRI_SIGN_ROLE\" = timestamp && cat > message && exit 9");
    failed();
    let message = fs::read_to_string(keys.join("message")).unwrap();
    assert!(message.contains("\"_type\":\"timestamp\""), "{message}");
    let status = repository.status().unwrap();
    assert!(status.iter().all(|role| role.can_sign), "{status:?}");
}

#[test]
fn several_keys_and_thresholds() {
    let desk = Desk::new();
    let dir = desk.path("repo");
    let counts = vec![(KeyRole::Root, KeyCount { keys: 3, threshold: 2 })];
    let repository = Repository::create(&dir, CreateOptions { counts, ..CreateOptions::new(NOW) }).unwrap();
    let root = repository.metadata().unwrap().root().clone();
    assert_eq!((root.role_keys(Role::Root).key_ids.len(), root.role_keys(Role::Root).threshold), (3, 2));
    fs::remove_file(dir.join("keys/root.2.pem")).unwrap();
    assert!(repository.status().unwrap()[0].can_sign);
    fs::remove_file(dir.join("keys/root.3.pem")).unwrap();
    let status = &repository.status().unwrap()[0];
    assert!(!status.can_sign && status.keys.iter().filter(|key| key.here.is_some()).count() == 1);
    for bad in
        [KeyCount { keys: 1, threshold: 2 }, KeyCount { keys: 1, threshold: 0 }, KeyCount { keys: 999, threshold: 1 }]
    {
        let options = CreateOptions { counts: vec![(KeyRole::Targets, bad)], ..CreateOptions::new(NOW) };
        assert!(matches!(Repository::create(&desk.path("x"), options), Err(RepositoryError::Ceremony(_))), "{bad:?}");
    }
}

#[test]
fn a_key_file_is_never_replaced() {
    let desk = Desk::new();
    let path = desk.path("alice.pem");
    let key = plain_key(&path);
    assert_eq!(ListedKey::read(&path).unwrap(), key);
    assert!(generate_key_file(&path, KeyForm::Plain, None).is_err());
    assert_eq!(ListedKey::read(&path).unwrap(), key);
    fs::write(desk.path("key.json"), serde_json::to_vec(&key.to_json()).unwrap()).unwrap();
    assert_eq!(ListedKey::read(&desk.path("key.json")).unwrap(), key);
}
