//! The gate before signing: what is absent or wrong is said, package by package; what is proven is not read again; who
//! passes by says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use colibri_common::{BlobId, merkle};
use colibri_store::disk::OpenMode;
use colibri_store::testing::{Watch, WatchedDisk};

use crate::gate::{Fault, PublishGate};
use crate::test_desk::{Desk, NOW, of_archive};
use crate::{CreateOptions, Publish, Repository, RepositoryError};

/// The machine's disk, with a list of the files opened for reading.
type Watched = WatchedDisk<Opened>;

#[derive(Debug, Default)]
struct Opened(Mutex<Vec<PathBuf>>);

impl Opened {
    fn blobs_read(&self) -> Vec<PathBuf> {
        let opened = std::mem::take(&mut *self.0.lock().unwrap());
        opened.into_iter().filter(|path| path.to_str().unwrap().contains("/repository/blobs/")).collect()
    }
}

impl Watch for Opened {
    fn opening(&self, path: &Path, _mode: OpenMode) {
        self.0.lock().unwrap().push(path.to_owned());
    }
}

struct Scene {
    desk: Desk,
    disk: Arc<Watched>,
}

impl Scene {
    /// A repository with one package on a disk that is watched.
    fn new() -> Self {
        let scene = Self { desk: Desk::new(), disk: Arc::default() };
        let options = CreateOptions { keys: Some(scene.desk.keys()), ..CreateOptions::new(NOW) };
        let repository = Repository::create_on(scene.disk.clone(), &scene.dir(), &options).unwrap();
        scene.desk.publish(&repository, 1).unwrap();
        scene
    }

    fn dir(&self) -> PathBuf {
        self.desk.dir.path().join("repo")
    }

    fn open(&self) -> Repository {
        Repository::open_on(self.disk.clone(), &self.dir(), Some(self.desk.keys())).unwrap()
    }

    fn blob(&self, id: BlobId) -> PathBuf {
        self.dir().join(format!("repository/blobs/1/{id}"))
    }

    fn other(&self) -> PathBuf {
        let path = self.desk.dir.path().join("other.far");
        self.desk.build("other", 9, path.clone());
        path
    }
}

/// What `hello` of release 1 alone has.
fn changed() -> BlobId {
    merkle::build(&[1; 9_000]).id
}

#[test]
fn what_is_proven_is_not_read_again() {
    let scene = Scene::new();
    assert!(!scene.disk.watch().blobs_read().is_empty(), "a publish reads back what it wrote");
    let repository = scene.open();
    repository.refresh(NOW).unwrap();
    assert_eq!(scene.disk.watch().blobs_read(), Vec::<PathBuf>::new(), "refreshing an unchanged set");
    repository.publish(&Publish { clean: false, ..Publish::new(NOW) }).unwrap();
    assert_eq!(scene.disk.watch().blobs_read(), Vec::<PathBuf>::new(), "publishing nothing new");
    repository.publish(&of_archive(scene.other())).unwrap();
    let same = merkle::build(&[7; 20_000]).id;
    for path in scene.disk.watch().blobs_read() {
        assert_ne!(path, scene.blob(same), "a blob that both packages use was read again");
        assert_ne!(path, scene.blob(changed()), "a blob of the other package was read again");
    }
    // Without receipts everything is read once more, and then not again.
    fs::remove_dir_all(scene.dir().join("receipts")).unwrap();
    scene.open().refresh(NOW).unwrap();
    assert!(scene.disk.watch().blobs_read().contains(&scene.blob(changed())));
    scene.open().refresh(NOW).unwrap();
    assert_eq!(scene.disk.watch().blobs_read(), Vec::<PathBuf>::new());
}

#[test]
fn nothing_is_signed_while_a_blob_of_any_package_is_absent_or_wrong() {
    for wrong in [false, true] {
        let scene = Scene::new();
        if wrong {
            fs::write(scene.blob(changed()), b"something else").unwrap();
        } else {
            fs::remove_file(scene.blob(changed())).unwrap();
        }
        let repository = scene.open();
        let before = repository.versions().unwrap();
        let publish = of_archive(scene.other());
        for error in [repository.publish(&publish).unwrap_err(), repository.refresh(NOW).unwrap_err()] {
            let RepositoryError::Unready { blobs, count: 1 } = &error else { panic!("{error}") };
            let [blob] = &blobs[..] else { panic!("{blobs:?}") };
            assert_eq!((blob.package.as_str(), blob.path.as_str(), blob.id), ("hello/0", "data/changed", changed()));
            assert_eq!(matches!(blob.fault, Fault::Wrong(_)), wrong, "{error}");
            assert!(error.to_string().contains("package hello/0: data/changed, blob"), "{error}");
        }
        assert_eq!(repository.versions().unwrap(), before);
        // The package itself, published again, repairs it.
        scene.desk.publish(&repository, 1).unwrap();
        repository.publish(&publish).unwrap();
        repository.refresh(NOW).unwrap();
    }
}

#[test]
fn who_passes_by_says_why_and_everybody_can_read_it() {
    let scene = Scene::new();
    fs::remove_file(scene.blob(changed())).unwrap();
    let repository = scene.open();
    for bad in ["", " ", "two\nlines", &"x".repeat(513)] {
        let error = repository.refresh_with(NOW, Some(bad)).unwrap_err();
        assert!(matches!(error, RepositoryError::BadReason { .. }), "{error}");
    }
    repository.refresh_with(NOW, Some("the disk is on its way back")).unwrap();
    let said = repository.unproven().unwrap().unwrap();
    assert_eq!((said.reason.as_str(), said.blobs), ("the disk is on its way back", 1));
    let snapshot = fs::read_to_string(scene.dir().join("repository/snapshot.json")).unwrap();
    assert!(snapshot.contains(r#""unproven":{"blobs":1,"reason":"the disk is on its way back"}"#), "{snapshot}");
    // It stays said while it is so, and covers nothing else.
    repository.refresh(NOW).unwrap();
    repository.publish(&of_archive(scene.other())).unwrap();
    assert_eq!(repository.unproven().unwrap().as_ref(), Some(&said));
    let mine = merkle::build(&[9; 9_000]).id;
    let elsewhere = scene.desk.dir.path().join("blob");
    fs::rename(scene.blob(mine), &elsewhere).unwrap();
    assert!(matches!(repository.refresh(NOW), Err(RepositoryError::Unready { count: 2, .. })));
    let third = scene.desk.dir.path().join("third.far");
    scene.desk.build("third", 8, third.clone());
    scene.desk.publish(&repository, 1).unwrap();
    fs::rename(&elsewhere, scene.blob(mine)).unwrap();
    // All is there again: nothing is said any more.
    repository.publish(&of_archive(third)).unwrap();
    assert_eq!(repository.unproven().unwrap(), None);
    let snapshot = fs::read_to_string(scene.dir().join("repository/snapshot.json")).unwrap();
    assert!(!snapshot.contains("unproven"), "{snapshot}");
}

struct Closed;

impl PublishGate for Closed {
    fn pass(&self, blobs: &[BlobId]) -> Result<(), String> {
        Err(format!("no edge serves these {} blobs yet", blobs.len()))
    }
}

#[test]
fn a_gate_of_the_publisher_is_asked_before_signing() {
    let scene = Scene::new();
    let repository = scene.open();
    let before = repository.versions().unwrap();
    let publish = Publish { gate: Some(&Closed), ..of_archive(scene.other()) };
    let error = repository.publish(&publish).unwrap_err();
    assert!(error.to_string().contains("no edge serves these 3 blobs yet"), "{error}");
    assert_eq!(repository.versions().unwrap(), before);
    // What was stored is proven and waits for the next try.
    assert_eq!(repository.publish(&of_archive(scene.other())).unwrap().blobs_new, 0);
}
