//! Repositories made by Colibri, read by python-tuf, the reference implementation, and by our own client. Built with the feature
//! `python` only; `COLIBRI_PYTHON` names an interpreter that has the packages of `python/requirements.txt`.

mod desk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use colibri_repository::{Profile, Repository};
use desk::{Answers, Said, archive, odd_names, our_answers, publish, published, with_targets};
use serde_json::Value;

/// What python-tuf says about these names, starting from the first root and what it kept in `work`; or its refusal.
fn answers(repository: &Repository, work: &Path, names: &[&str]) -> Result<Answers, String> {
    let python =
        std::env::var_os("COLIBRI_PYTHON").expect("COLIBRI_PYTHON names a Python with python/requirements.txt");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/client.py");
    let served = repository.served_dir();
    let mut command = Command::new(python);
    command.arg(script).args([&served, &served.join("1.root.json"), &work.to_owned()]).args(names);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => {}
        Some(1) if !complaint.contains("Traceback") => return Err(complaint),
        other => panic!("python ended with {other:?}: {complaint}"),
    }
    let said: Value = serde_json::from_str(&text).unwrap();
    let answer = |(name, said): (&String, &Value)| {
        let said = (!said.is_null()).then(|| Said {
            length: said["length"].as_u64().unwrap(),
            sha512: said["sha512"].as_str().unwrap().to_owned(),
            merkle: said["merkle"].as_str().map(str::to_owned),
        });
        (name.clone(), said)
    };
    Ok(said.as_object().unwrap().iter().map(answer).collect())
}

fn work(dir: &Path, name: &str) -> PathBuf {
    dir.join("python").join(name)
}

#[test]
fn both_clients_read_what_colibri_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, first) = published(dir.path());
    let names = ["hello/0", "other/0", "nobody/0"];
    let said = answers(&repository, &work(dir.path(), "old"), &names).unwrap();
    assert_eq!(said, our_answers(&repository, &names));
    assert_eq!(said["hello/0"].as_ref().unwrap().merkle, Some(first.to_string()));

    let (hello, second) = archive(dir.path(), "hello", b"two");
    let (other, _) = archive(dir.path(), "other", &[7; 100_000]);
    publish(&repository, &[&hello, &other], true);
    // A client that was there goes on, and a new one walks the chain.
    for client in ["old", "new"] {
        let said = answers(&repository, &work(dir.path(), client), &names).unwrap();
        assert_eq!(said, our_answers(&repository, &names));
        assert_eq!(said["hello/0"].as_ref().unwrap().merkle, Some(second.to_string()));
        assert!(said["other/0"].is_some() && said["nobody/0"].is_none());
    }
}

#[test]
fn it_refuses_a_tampered_repository() {
    for name in ["timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let dir = tempfile::tempdir().unwrap();
        let (repository, _) = published(dir.path());
        let path = repository.served_dir().join(name);
        let good = fs::read_to_string(&path).unwrap();
        let tampered = good.replacen("\"expires\":\"2", "\"expires\":\"3", 1);
        assert_ne!(good, tampered);
        fs::write(&path, tampered).unwrap();
        assert!(answers(&repository, &work(dir.path(), "bad"), &["hello/0"]).is_err(), "{name}");
        fs::write(&path, good).unwrap();
        assert!(answers(&repository, &work(dir.path(), "good"), &["hello/0"]).is_ok(), "{name}");
    }
}

/// Canonical JSON is where clients differ, and hash prefixes are of a name's bytes. Quotes and backslashes are for `scale` only.
#[test]
fn both_clients_agree_on_odd_names_in_either_profile() {
    for profile in Profile::ALL {
        let dir = tempfile::tempdir().unwrap();
        let repository = with_targets(dir.path(), profile, &odd_names(profile));
        let names = [&odd_names(profile)[..], &["hello/0", "nobody/0", "nobody \"\\ ü"]].concat();
        let said = answers(&repository, &work(dir.path(), "odd"), &names).unwrap();
        assert_eq!(said, our_answers(&repository, &names), "{profile}");
        assert_eq!(said.values().filter(|said| said.is_none()).count(), 2, "{profile}");
    }
}
