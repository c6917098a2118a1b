//! Power loss at any operation of what the package cache writes and deletes.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle;
use colibri_package::{AbiRevision, PackageBuild};
use colibri_store::testing::CrashDisk;

use super::*;

/// Puts a blob into a store.
fn put(store: &Store, content: &[u8]) -> BlobId {
    let tree = merkle::build(content);
    let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
    partial.write(&tree.leaves.verify(0, Bytes::copy_from_slice(content)).unwrap()).unwrap();
    partial.commit().unwrap();
    tree.id
}

/// A package of one file; its hash and the file's id.
fn package(store: &Store, name: &str) -> [BlobId; 2] {
    let content = put(store, format!("content of {name}").repeat(900).as_bytes());
    let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision::LATEST);
    build.add_content("data/file", content).unwrap();
    [put(store, &build.finish().unwrap()), content]
}

fn open(disk: &CrashDisk) -> (Store, Arc<Cache>) {
    let disk: Arc<dyn colibri_store::Disk> = Arc::new(disk.clone());
    let dir = Path::new("/device");
    let (store, _) = Store::open(disk.clone(), &dir.join("store")).unwrap();
    let documents = Documents::open(disk, &dir.join("state")).unwrap();
    let eager = Eager::open(documents.clone(), Vec::new()).unwrap();
    let cache = Cache::open(store.clone(), documents, dir, &eager).unwrap();
    (store, Arc::new(cache))
}

#[tokio::test]
async fn invariant_8_power_loss_at_any_operation_of_a_collection_takes_nothing_that_is_kept() {
    let disk = CrashDisk::new();
    let (store, cache) = open(&disk);
    let [base, retained, used, old] = ["base", "retained", "used", "old"].map(|name| package(&store, name));
    let garbage = put(&store, b"nobody's");
    cache.change(|kept| kept.base = [base[0], old[0]].into()).await.unwrap();
    cache.change(|kept| kept.retained_packages = [retained[0]].into()).await.unwrap();
    cache.used(used[0], UnixSeconds(1)).await;
    let began = disk.operations();
    // Base is replaced, and what it left behind is collected with all that is there on demand.
    cache.change(|kept| kept.base = [base[0]].into()).await.unwrap();
    let replaced = disk.operations();
    let report = cache.collect(Depth::Unused).await.unwrap();
    assert_eq!((report.removed.len(), report.evicted.len()), (5, 1));
    let ended = disk.operations();
    assert!(began < replaced && replaced < ended);
    drop((store, cache));
    for at in began..=ended {
        for seed in 0..3 {
            let (store, cache) = open(&disk.crash(at, seed));
            let kept = cache.lock().kept().clone();
            assert!(
                kept.base.contains(&base[0]) && kept.retained_packages.contains(&retained[0]),
                "at {at}, seed {seed}"
            );
            assert!(
                at < replaced || !kept.base.contains(&old[0]),
                "what was acknowledged is there: at {at}, seed {seed}"
            );
            for blob in base.into_iter().chain(retained) {
                store.scrub(blob).unwrap_or_else(|error| panic!("at {at}, seed {seed}: {error}"));
            }
            // Nothing was deleted before base was replaced, and everything once the collection was told to be over.
            let left = [garbage, old[0], old[1]].into_iter().filter(|blob| store.contains(*blob).unwrap().is_some());
            let left = left.count();
            assert!(at > replaced || left == 3, "at {at}, seed {seed}");
            assert!(at < ended || left == 0, "at {at}, seed {seed}");
            // It goes on where it stopped.
            cache.collect(Depth::Unused).await.unwrap();
            assert_eq!(
                store.ids().unwrap().len(),
                if kept.base.contains(&old[0]) { 6 } else { 4 },
                "at {at}, seed {seed}"
            );
        }
    }
}
