//! Repositories made by Colibri, read by `sigstore-tuf`, which passes the public conformance suite, and by our own client.

mod desk;

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{Profile, Repository};
use desk::{Answers, archive, odd_names, our_answers, publish, published, said, with_targets};
use futures_executor::block_on;
use sigstore_tuf::client::Updater;
use sigstore_tuf::transport::FetchFuture;

/// The served folder as that client's transport.
struct Folder(PathBuf);

impl Folder {
    fn get(&self, path: PathBuf, bytes_max: u64) -> FetchFuture<'static> {
        let found = match fs::read(&path) {
            Ok(bytes) if bytes.len() as u64 > bytes_max => panic!("{} is too large", path.display()),
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl sigstore_tuf::transport::Repository for Folder {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        self.get(self.0.join(name), max_length)
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        self.get(self.0.join("targets").join(path), max_length)
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::from_second(i64::try_from(SystemClock.now().0).unwrap()).unwrap()
}

/// The client, given the first root and nothing else.
fn client(repository: &Repository) -> Updater {
    let root = fs::read(repository.served_dir().join("1.root.json")).unwrap();
    Updater::new(Folder(repository.served_dir()), &root).unwrap()
}

/// What the client says about these names after a refresh.
fn answers(updater: &mut Updater, names: &[&str]) -> Answers {
    block_on(updater.refresh(now())).unwrap();
    let mut answers = Answers::new();
    for name in names {
        let found = block_on(updater.get_target_info(name, now())).unwrap().map(|target| {
            let content = block_on(updater.download_target(&target, name)).unwrap();
            let custom = serde_json::to_value(&target).unwrap()["custom"].clone();
            said(&content, custom["merkle"].as_str().map(str::to_owned))
        });
        answers.insert((*name).to_owned(), found);
    }
    answers
}

#[test]
fn both_clients_read_what_colibri_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, first) = published(dir.path());
    let mut theirs = client(&repository);
    let names = ["hello/0", "other/0", "nobody/0"];
    let said = answers(&mut theirs, &names);
    assert_eq!(said, our_answers(&repository, &names));
    assert_eq!(said["hello/0"].as_ref().unwrap().merkle, Some(first.to_string()));
    assert!(said["other/0"].is_none());

    // A second release, with a new root: a client that was there goes on, and a new one walks the chain.
    let (hello, second) = archive(dir.path(), "hello", b"two");
    let (other, _) = archive(dir.path(), "other", &[7; 100_000]);
    publish(&repository, &[&hello, &other], true);
    for mut theirs in [theirs, client(&repository)] {
        let said = answers(&mut theirs, &names);
        assert_eq!(said, our_answers(&repository, &names));
        assert_eq!(said["hello/0"].as_ref().unwrap().merkle, Some(second.to_string()));
        assert!(said["other/0"].is_some() && said["nobody/0"].is_none());
        assert_eq!(theirs.trusted().root().version, 2);
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
        assert!(block_on(client(&repository).refresh(now())).is_err(), "{name}");
        fs::write(&path, good).unwrap();
        assert!(block_on(client(&repository).refresh(now())).is_ok(), "{name}");
    }
}

/// Canonical JSON is where clients differ, and hash prefixes are of a name's bytes. Quotes and backslashes are for `scale` only.
#[test]
fn both_clients_agree_on_odd_names_in_either_profile() {
    for profile in Profile::ALL {
        let dir = tempfile::tempdir().unwrap();
        let repository = with_targets(dir.path(), profile, &odd_names(profile));
        let names = [&odd_names(profile)[..], &["hello/0", "nobody/0", "nobody \"\\ ü"]].concat();
        let said = answers(&mut client(&repository), &names);
        assert_eq!(said, our_answers(&repository, &names), "{profile}");
        assert_eq!(said.values().filter(|said| said.is_none()).count(), 2, "{profile}");
    }
}
