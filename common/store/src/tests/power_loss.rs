//! Invariant 6: after power loss at any operation the store and the documents open, everything acknowledged is there, and
//! nothing is torn. And the test of the test: without any one kind of sync it fails.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::{LEAF_BYTES, Tree};
use colibri_common::{BlobId, ByteRange};

use super::{add, painted};
use crate::disk::{Disk, OpenMode};
use crate::testing::CrashDisk;
use crate::{DocumentName, Documents, Store, StoreError};

const STORE: &str = "/srv/colibri/store";
const DOCUMENTS: &str = "/srv/colibri/documents";

/// Seeds tried at each operation. The first five of them lose everything, keep everything and three mixtures, in some order.
const SEEDS: u64 = 6;

/// What an observer may see of one thing: its values in order, each from `started` on possible and from `acknowledged` on
/// certain, until the next one starts.
type History<T> = Vec<(Moment, Moment, T)>;
/// Operations done.
type Moment = usize;

/// A disk, and what was done to it when.
struct Recorder {
    disk: CrashDisk,
    /// Blob to presence.
    blobs: BTreeMap<BlobId, History<bool>>,
    documents: BTreeMap<&'static str, History<Option<Bytes>>>,
    pins: BTreeMap<&'static str, History<Option<Vec<BlobId>>>>,
    contents: Vec<(Bytes, Tree)>,
}

/// The values that may be seen by somebody who looks after power loss at `moment`; `initial` before anything was done.
fn possible<T: Clone>(history: &History<T>, moment: Moment, initial: T) -> Vec<T> {
    let mut values = vec![initial];
    for (started, acknowledged, value) in history {
        if *acknowledged <= moment {
            values.clear();
        }
        if *started < moment || *acknowledged <= moment {
            values.push(value.clone());
        }
    }
    values
}

impl Recorder {
    fn note<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> (Moment, Moment, T) {
        let started = self.disk.operations();
        let value = work().expect("nothing fails on a sound disk");
        (started, self.disk.operations(), value)
    }

    fn put(&mut self, documents: &Documents, name: &'static str, content: &'static [u8]) {
        let (started, done, ()) = self.note(|| documents.put(&DocumentName::new(name)?, content));
        self.documents.entry(name).or_default().push((started, done, Some(Bytes::from_static(content))));
    }

    fn put_new(&mut self, documents: &Documents, name: &'static str, content: &'static [u8]) {
        let (started, done, made) = self.note(|| documents.put_new(&DocumentName::new(name)?, content));
        assert!(made);
        self.documents.entry(name).or_default().push((started, done, Some(Bytes::from_static(content))));
    }

    fn remove(&mut self, documents: &Documents, name: &'static str) {
        let (started, done, removed) = self.note(|| documents.remove(&DocumentName::new(name)?));
        assert!(removed);
        self.documents.entry(name).or_default().push((started, done, None));
    }

    fn add(&mut self, store: &Store, length: usize, colour: u8) -> BlobId {
        let (content, tree) = painted(length, colour);
        let (started, done, ()) = self.note(|| add(store, &content, &tree));
        let id = tree.id;
        self.blobs.entry(id).or_default().push((started, done, true));
        self.contents.push((content, tree));
        id
    }

    fn pin(&mut self, store: &Store, name: &'static str, ids: &[BlobId]) {
        let (started, done, ()) = self.note(|| store.pin(name, ids));
        self.pins.entry(name).or_default().push((started, done, Some(ids.to_vec())));
    }

    fn sweep(&mut self, store: &Store, expected: &[BlobId]) {
        let (started, done, report) = self.note(|| store.sweep(&HashSet::new()));
        assert_eq!(report.removed, expected);
        for id in report.removed {
            self.blobs.entry(id).or_default().push((started, done, false));
        }
    }
}

/// Two blobs, a pin, a sweep, documents made, rewritten and removed.
fn record() -> Recorder {
    let disk = CrashDisk::new();
    let shared: Arc<CrashDisk> = Arc::new(disk.clone());
    let mut recorder = Recorder {
        disk,
        blobs: BTreeMap::new(),
        documents: BTreeMap::new(),
        pins: BTreeMap::new(),
        contents: Vec::new(),
    };
    let documents = Documents::open(shared.clone(), Path::new(DOCUMENTS)).unwrap();
    recorder.put(&documents, "trust/root.json", &[b'1'; 700]);
    let (store, _) = Store::open(shared, Path::new(STORE)).unwrap();
    let one = recorder.add(&store, 30_000, 1);
    recorder.put(&documents, "trust/root.json", &[b'2'; 1300]);
    // The second is written in two goes.
    let (content, tree) = painted(50_000, 2);
    let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
    let first = content.slice(..2 * LEAF_BYTES as usize);
    partial.write(&tree.leaves.verify(0, first).unwrap()).unwrap();
    drop(partial);
    let two = recorder.add(&store, 50_000, 2);
    recorder.pin(&store, "base", &[one]);
    recorder.put_new(&documents, "commits/1", b"first");
    recorder.sweep(&store, &[two]);
    recorder.put(&documents, "trust/root.json", b"3");
    recorder.remove(&documents, "commits/1");
    recorder.pin(&store, "base", &[one, two]);
    recorder.add(&store, 50_000, 2);
    recorder.put(&documents, "timestamp.json", b"4");
    recorder
}

/// Opens everything on a disk after power loss at `moment`; says what is wrong, if anything is. `again`: after the first
/// power loss somebody began to add every blob again, so that any may be there.
fn inspect(recorder: &Recorder, disk: &CrashDisk, moment: Moment, again: bool) -> Result<Store, String> {
    let text = |error: StoreError| error.to_string();
    let shared: Arc<CrashDisk> = Arc::new(disk.clone());
    let (store, recovery) = Store::open(shared.clone(), Path::new(STORE)).map_err(text)?;
    if !recovery.lost.is_empty() {
        return Err(format!("rows without files: {:?}", recovery.lost));
    }
    for (id, history) in &recorder.blobs {
        let seen = store.contains(*id).map_err(text)?;
        let is_allowed = again && seen.is_some() || possible(history, moment, false).contains(&seen.is_some());
        if !is_allowed {
            return Err(format!("blob {id}: presence is {seen:?}"));
        }
        let last = history.iter().rev().find(|(started, ..)| *started < moment);
        if !again && seen.is_none() && last.is_some_and(|(.., is_here)| !is_here) && recovery.partials.contains(id) {
            return Err(format!("blob {id} was removed, and is here as an unfinished one"));
        }
        if let Some(length) = seen {
            store.scrub(*id).map_err(text)?;
            store.read(*id, ByteRange::whole(length)).map_err(text)?;
        }
    }
    let pins = store.pins().map_err(text)?;
    for (name, history) in &recorder.pins {
        let seen = pins.get(*name).cloned();
        if !possible(history, moment, None).contains(&seen) {
            return Err(format!("pin {name} is {seen:?}"));
        }
    }
    let documents = Documents::open(shared, Path::new(DOCUMENTS)).map_err(text)?;
    for (name, history) in &recorder.documents {
        let seen = documents.get(&name.parse().map_err(text)?, 10_000).map_err(text)?;
        if !possible(history, moment, None).contains(&seen) {
            return Err(format!("document {name} is {seen:?}"));
        }
    }
    Ok(store)
}

#[test]
fn power_loss_at_every_operation() {
    let recorder = record();
    let end = recorder.disk.operations();
    assert!(end > 100, "the log has {end} operations");
    for moment in 0..=end {
        for seed in 0..SEEDS {
            let seed = seed + SEEDS * moment as u64;
            let disk = recorder.disk.crash(moment, seed);
            let place = format!("power lost at operation {moment} of {end}, seed {seed}");
            let store = inspect(&recorder, &disk, moment, false).unwrap_or_else(|reason| panic!("{place}: {reason}"));
            // It also goes on working.
            for (content, tree) in &recorder.contents {
                match add(&store, content, tree) {
                    Ok(()) | Err(StoreError::AlreadyStored { .. }) => {}
                    Err(error) => panic!("{place}, then: {error}"),
                }
            }
            drop(store);
            // Power is lost again while that was being repaired: what was certain before still is.
            let again = disk.crash(seed as usize % (disk.operations() + 1), seed ^ 0x5eed);
            if let Err(reason) = inspect(&recorder, &again, moment, true) {
                panic!("{place}, and again after that: {reason}");
            }
        }
    }
}

/// A process killed at any operation of a commit has fetched nothing in vain: all that was written is found again.
#[test]
fn killed_at_any_operation_a_commit_loses_no_byte() {
    let disk = CrashDisk::new();
    let (store, _) = Store::open(Arc::new(disk.clone()), Path::new(STORE)).unwrap();
    let (content, tree) = painted(300_000, 3);
    let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
    partial.write(&tree.leaves.verify(0, content).unwrap()).unwrap();
    let written = disk.operations();
    partial.commit().unwrap();
    let end = disk.operations();
    assert!(end > written + 4, "a commit of {} operations", end - written);
    let mut unfinished = 0;
    for moment in written..=end {
        let (store, recovery) = Store::open(Arc::new(disk.kill(moment)), Path::new(STORE)).unwrap();
        assert_eq!((recovery.swept_files, recovery.lost), (0, vec![]), "killed at operation {moment}");
        if store.contains(tree.id).unwrap().is_none() {
            assert_eq!(recovery.partials, [tree.id], "killed at operation {moment}");
            let partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
            assert_eq!(partial.missing(), [], "killed at operation {moment}");
            partial.commit().unwrap();
            unfinished += 1;
        }
        assert_eq!(store.scrub(tree.id).unwrap(), tree.length);
    }
    assert!(unfinished > 3, "only {unfinished} moments left it unfinished");
}

/// Blobs whose removal was cut short do not come back, neither whole nor as unfinished ones that nobody would ask for.
#[test]
fn killed_at_any_operation_a_removal_leaves_nothing() {
    for is_sweep in [true, false] {
        let disk = CrashDisk::new();
        let (store, _) = Store::open(Arc::new(disk.clone()), Path::new(STORE)).unwrap();
        let (content, tree) = painted(20_000, 4);
        add(&store, &content, &tree).unwrap();
        let whole = disk.operations();
        if is_sweep {
            drop(store.sweep(&HashSet::new()).unwrap());
        } else {
            assert!(store.discard(tree.id).unwrap());
        }
        let mut gone = 0;
        for moment in whole..=disk.operations() {
            let killed = disk.kill(moment);
            let (store, recovery) = Store::open(Arc::new(killed.clone()), Path::new(STORE)).unwrap();
            assert_eq!(recovery.partials, [], "killed at operation {moment}");
            let (there, file) = (store.contains(tree.id).unwrap(), killed.file_len(&store.path(tree.id)).unwrap());
            assert_eq!(there, file, "killed at operation {moment}");
            gone += usize::from(there.is_none());
            // And it may come again.
            drop(add(&store, &content, &tree));
            drop(store);
            let (store, recovery) = Store::open(Arc::new(killed), Path::new(STORE)).unwrap();
            assert_eq!((recovery.swept_files, store.scrub(tree.id).unwrap()), (0, tree.length));
        }
        assert!(gone > 3, "only {gone} moments saw it gone");
    }
}

/// What another process did and did not live to sync is made durable by whoever builds on it.
#[test]
fn unsynced_work_of_others_is_synced_before_it_is_relied_on() {
    let disk = CrashDisk::new();
    let shared: Arc<CrashDisk> = Arc::new(disk.clone());
    for folder in ["/srv", "/srv/trust", "/srv/commits"] {
        disk.create_dir(Path::new(folder)).unwrap();
    }
    disk.sync_dir(Path::new("/")).unwrap();
    let documents = Documents::open(shared, Path::new("/srv")).unwrap();
    let (mine, theirs): (DocumentName, DocumentName) = ("trust/1".parse().unwrap(), "commits/1".parse().unwrap());
    let file = disk.open(Path::new("/srv/unnamed"), OpenMode::CreateNew).unwrap();
    file.write_at(0, b"theirs").unwrap();
    file.sync().unwrap();
    disk.hard_link(Path::new("/srv/unnamed"), Path::new("/srv/commits/1")).unwrap();
    documents.put(&mine, b"mine").unwrap();
    assert!(!documents.put_new(&theirs, b"late").unwrap());
    for seed in 0..20 {
        let after = Documents::open(Arc::new(disk.crash(disk.operations(), seed)), Path::new("/srv")).unwrap();
        assert_eq!(after.get(&mine, 9).unwrap().unwrap(), "mine", "seed {seed}");
        assert_eq!(after.get(&theirs, 9).unwrap().unwrap(), "theirs", "seed {seed}");
    }
}

/// Where a sync happened, with the names of single blobs and temporary files left out.
fn place(path: &Path) -> PathBuf {
    let is_single = |folder: &Path| folder.ends_with("partial") || folder.ends_with(".colibri-temp");
    match path.parent() {
        Some(folder) if is_single(folder) => folder.join("*"),
        _ => path.to_owned(),
    }
}

#[test]
fn every_kind_of_sync_is_needed() {
    let recorder = record();
    let end = recorder.disk.operations();
    let places: BTreeSet<PathBuf> = recorder.disk.synced_paths().iter().map(|path| place(path)).collect();
    assert!(places.len() >= 10, "{places:?}");

    let needless: Vec<_> = places.iter().filter(|place| !is_needed(&recorder, end, place)).collect();
    assert_eq!(needless, Vec::<&PathBuf>::new(), "without these syncs nothing went wrong");
}

/// True if some power loss does harm on a disk whose syncs of this place do nothing.
fn is_needed(recorder: &Recorder, end: Moment, ignored: &Path) -> bool {
    (0..=end).rev().any(|moment| {
        (0..SEEDS).any(|seed| {
            let seed = seed + SEEDS * moment as u64;
            let disk = recorder.disk.crash_ignoring(moment, seed, |path| place(path) == ignored);
            // The database may panic on a file that such a disk left.
            catch_unwind(AssertUnwindSafe(|| inspect(recorder, &disk, moment, false).is_err())).unwrap_or(true)
        })
    })
}
