//! A repository made by Colibri, read by the stock `tuf` client and by our own: both find the same, both refuse the same.
//!
//! The stock client asks the machine for the time, so these repositories are signed now.

mod desk;

use std::fs;

use colibri_common::{BlobId, Clock, SystemClock, merkle};
use colibri_metadata::{Role, Start, TrustedSet};
use colibri_repository::{Profile, Repository};
use desk::{
    anchor, archive, odd_names, our_answers, ours, publish, published, said, try_with_targets, with_targets,
};
use futures_executor::block_on;
use futures_util::AsyncReadExt;
use tuf::client::{Client, Config};
use tuf::crypto::{HashAlgorithm, PublicKey, SignatureScheme};
use tuf::metadata::{Metadata, MetadataVersion, RawSignedMetadata, RootMetadata, TargetPath};
use tuf::pouf::Pouf1;
use tuf::repository::{EphemeralRepository, FileSystemRepository, FileSystemRepositoryBuilder};

type Stock = Client<Pouf1, EphemeralRepository<Pouf1>, FileSystemRepository<Pouf1>>;

fn remote(repository: &Repository) -> FileSystemRepository<Pouf1> {
    FileSystemRepositoryBuilder::new(repository.served_dir()).targets_prefix("targets").build()
}

/// The stock client, given the first root.
fn stock(repository: &Repository) -> Stock {
    let root = fs::read(repository.served_dir().join("1.root.json")).unwrap();
    let root = RawSignedMetadata::<Pouf1, RootMetadata>::new(root);
    let local = EphemeralRepository::new();
    block_on(Client::with_trusted_root(Config::default(), &root, local, remote(repository))).unwrap()
}

/// The stock client, configured with bare root keys as devices are.
fn stock_by_keys(repository: &Repository) -> tuf::Result<Stock> {
    let key = |key: colibri_metadata::PublicKey| {
        PublicKey::from_ed25519_with_keyid_hash_algorithms(key.ed25519_bytes().unwrap().to_vec(), None).unwrap()
    };
    let keys: Vec<PublicKey> = repository.root_keys().unwrap().into_iter().map(key).collect();
    assert!(keys.iter().all(|key| *key.scheme() == SignatureScheme::Ed25519));
    let local = EphemeralRepository::new();
    let version = MetadataVersion::Number(1);
    block_on(Client::with_trusted_root_keys(Config::default(), version, 1, &keys, local, remote(repository)))
}

/// Both clients find `name` with `hash`, agree on all that targets says of it, and the stock one fetches the very meta.far.
fn both_find(stock: &mut Stock, set: &TrustedSet, name: &str, hash: BlobId) {
    let path = TargetPath::new(name).unwrap();
    let theirs = block_on(stock.fetch_target_description(&path)).unwrap();
    let ours = set.find(&name.parse().unwrap()).unwrap();
    assert_eq!(theirs.custom()["merkle"].as_str(), Some(hash.to_string().as_str()));
    assert_eq!(ours.merkle(), Some(hash));
    assert_eq!((theirs.length(), theirs.custom()["size"].as_u64()), (ours.length, ours.size()));
    let sha512 = theirs.hashes()[&HashAlgorithm::Sha512].value();
    assert_eq!(Some(sha512), ours.hashes.sha512.as_deref());
    let mut content = Vec::new();
    block_on(async {
        stock.fetch_target(&path).await.unwrap().read_to_end(&mut content).await.unwrap();
    });
    assert_eq!(merkle::build(&content).id, hash);
    assert!(ours.hashes.check(&content).is_ok());
}

#[test]
fn both_clients_read_what_colibri_publishes() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, first) = published(dir.path());
    let mut theirs = stock(&repository);
    assert!(block_on(theirs.update()).unwrap());
    let set = ours(&repository, anchor(&repository)).unwrap();
    both_find(&mut theirs, &set, "hello/0", first);

    // A second release, with a new root: the same clients go on.
    let (hello, second) = archive(dir.path(), "hello", b"two");
    let (other, other_hash) = archive(dir.path(), "other", &[7; 100_000]);
    publish(&repository, &[&hello, &other], true);
    assert!(block_on(theirs.update()).unwrap());
    let set = ours(&repository, Start::FromSet(set)).unwrap();
    assert_ne!(first, second);
    both_find(&mut theirs, &set, "hello/0", second);
    both_find(&mut theirs, &set, "other/0", other_hash);
    assert_eq!(theirs.database().trusted_root().version(), 2);
    assert_eq!(set.version(Role::Root), Some(2));

    // Only signed again.
    repository.refresh(SystemClock.now()).unwrap();
    assert!(block_on(theirs.update()).unwrap());
    let set = ours(&repository, Start::FromSet(set)).unwrap();
    both_find(&mut theirs, &set, "hello/0", second);
    assert!(!block_on(theirs.update()).unwrap(), "nothing new");
}

#[test]
fn both_clients_start_from_bare_root_keys() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, hash) = published(dir.path());
    let mut theirs = stock_by_keys(&repository).unwrap();
    block_on(theirs.update()).unwrap();
    both_find(&mut theirs, &ours(&repository, anchor(&repository)).unwrap(), "hello/0", hash);
}

#[test]
fn both_clients_refuse_a_tampered_repository() {
    for name in ["timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let dir = tempfile::tempdir().unwrap();
        let (repository, _) = published(dir.path());
        let told = anchor(&repository);
        let mut theirs = stock(&repository);
        let path = repository.served_dir().join(name);
        let good = fs::read_to_string(&path).unwrap();
        // A later expiry: still well-formed, no longer what was signed.
        let tampered = good.replacen("\"expires\":\"2", "\"expires\":\"3", 1);
        assert_ne!(good, tampered);
        fs::write(&path, tampered).unwrap();
        assert!(block_on(theirs.update()).is_err(), "{name}");
        assert_eq!(ours(&repository, told).unwrap_err().file(), name);
        fs::write(&path, good).unwrap();
        assert!(block_on(theirs.update()).is_ok() && ours(&repository, anchor(&repository)).is_ok());
    }
}

#[test]
fn both_clients_refuse_another_root_and_a_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, _) = published(dir.path());
    let mut theirs = stock(&repository);
    block_on(theirs.update()).unwrap();
    let set = ours(&repository, anchor(&repository)).unwrap();
    let old = fs::read(repository.served_dir().join("timestamp.json")).unwrap();

    let elsewhere = tempfile::tempdir().unwrap();
    let (other, _) = published(elsewhere.path());
    let path = repository.served_dir().join("2.root.json");
    fs::copy(other.served_dir().join("1.root.json"), &path).unwrap();
    assert!(block_on(theirs.update()).is_err());
    assert_eq!(ours(&repository, Start::FromSet(set.clone())).unwrap_err().role(), Role::Root);
    fs::remove_file(path).unwrap();

    let (hello, _) = archive(dir.path(), "hello", b"two");
    publish(&repository, &[&hello], false);
    block_on(theirs.update()).unwrap();
    let set = ours(&repository, Start::FromSet(set)).unwrap();
    fs::write(repository.served_dir().join("timestamp.json"), old).unwrap();
    assert!(block_on(theirs.update()).is_err());
    assert_eq!(ours(&repository, Start::FromSet(set)).unwrap_err().role(), Role::Timestamp);
}

#[test]
fn both_clients_agree_on_odd_names() {
    let dir = tempfile::tempdir().unwrap();
    let names = odd_names(Profile::Compat);
    let repository = with_targets(dir.path(), Profile::Compat, &names);
    let mut theirs = stock(&repository);
    assert!(block_on(theirs.update()).unwrap());
    for (name, ours) in our_answers(&repository, &names) {
        let mut content = Vec::new();
        block_on(async {
            let path = TargetPath::new(&name).unwrap();
            theirs.fetch_target(&path).await.unwrap().read_to_end(&mut content).await.unwrap();
        });
        assert_eq!(ours, Some(said(&content, None)), "{name:?}");
    }
}

/// Its rule is about file names of other systems; one such name, and it refuses all of targets.
#[test]
fn compat_refuses_at_publish_exactly_the_characters_that_the_stock_client_refuses() {
    let (mut taken, mut refused) = (Vec::new(), 0);
    for character in (' '..='~').chain(['\u{80}', 'ü', '\u{2028}', '\u{fffd}', '🐦']) {
        // A slash separates, in both.
        let name = format!("a{character}b");
        let dir = tempfile::tempdir().unwrap();
        if TargetPath::new(&name).is_ok() {
            // A control character in everybody's eyes but theirs.
            if !character.is_control() {
                taken.push(name);
            }
        } else {
            let error = try_with_targets(dir.path(), Profile::Compat, &[&name]).unwrap_err().to_string();
            assert!(error.contains(&name) && error.contains("stock client"), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0);
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<&str> = taken.iter().map(String::as_str).collect();
    let repository = with_targets(dir.path(), Profile::Compat, &names);
    assert!(block_on(stock(&repository).update()).unwrap());
}
