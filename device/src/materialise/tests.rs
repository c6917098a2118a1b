//! Trees beside a store: what is in them, who shares bytes and rights, what is refused, what a crash leaves.

use std::sync::Arc;

use colibri_common::merkle;
use colibri_store::OsDisk;

use super::*;

struct Scene {
    dir: tempfile::TempDir,
    store: Store,
    contents: BTreeMap<String, BlobId>,
    inline: BTreeMap<String, Bytes>,
    expected: BTreeMap<String, Bytes>,
}

/// A store in its own folder, with the blobs of a package of four files, one of them empty and two of them equal.
fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Arc::new(OsDisk), &dir.path().join("store")).unwrap();
    let large: Bytes = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
    let files = [("bin/app", large.clone()), ("lib/deep/a.so", large), ("data/empty", Bytes::new())];
    let mut scene = Scene { dir, store, contents: [].into(), inline: [].into(), expected: [].into() };
    for (path, content) in files {
        let tree = merkle::build(&content);
        if scene.store.contains(tree.id).unwrap().is_none() {
            let mut partial = scene.store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
            partial.write(&tree.leaves.verify(0, content.clone()).unwrap()).unwrap();
            partial.commit().unwrap();
        }
        scene.contents.insert(path.to_owned(), tree.id);
        scene.expected.insert(path.to_owned(), content);
    }
    let meta = Bytes::from_static(b"{\"name\":\"a\",\"version\":\"0\"}");
    scene.inline.insert("meta/package".to_owned(), meta.clone());
    scene.expected.insert("meta/package".to_owned(), meta);
    scene
}

impl Scene {
    fn target(&self) -> PathBuf {
        self.dir.path().join("trees").join("app")
    }

    fn run(&self) -> Result<MaterialiseReport, MaterialiseError> {
        fs::create_dir_all(self.dir.path().join("trees")).unwrap();
        materialise(&self.store, &self.contents, &self.inline, &self.target(), Rights::Read)
    }

    /// Everything in the folder of trees, to see what was left behind.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path().join("trees")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Read-only trees resist removal unless one is root.
        _ = empty(&self.dir.path().join("trees"));
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_tree_has_every_file_and_is_read_only() {
    let scene = scene();
    let report = scene.run().unwrap();
    for (path, content) in &scene.expected {
        let file = scene.target().join(path);
        assert_eq!(fs::read(&file).unwrap(), content[..], "{path}");
        assert_eq!(mode(&file), 0o444, "{path}");
    }
    for folder in ["", "bin", "lib", "lib/deep", "data", "meta"] {
        assert_eq!(mode(&scene.target().join(folder)), 0o555, "{folder}");
    }
    assert_eq!(report.reflinked + report.hard_linked + report.copied, 4);
    assert_eq!(report.copied, 1, "only meta/package, beside the store on the same file system");
    assert_eq!(report.bytes, scene.expected.values().map(|content| content.len() as u64).sum::<u64>());
    assert_eq!(scene.left(), ["app"]);
    // Sharing bytes with the tree does not stop the store.
    let id = scene.contents["bin/app"];
    scene.store.scrub(id).unwrap();
    assert!(scene.store.discard(id).unwrap());
    assert_eq!(fs::read(scene.target().join("bin/app")).unwrap(), scene.expected["bin/app"]);
}

#[test]
fn copies_where_nothing_can_be_shared() {
    let scene = scene();
    // The store's files cannot be reached by path, as on another file system.
    let disk = colibri_store::testing::CrashDisk::new();
    let (store, _) = Store::open(Arc::new(disk), Path::new("/nowhere/store")).unwrap();
    for (path, content) in &scene.expected {
        let tree = merkle::build(content);
        if scene.contents.contains_key(path) && store.contains(tree.id).unwrap().is_none() {
            let mut partial = store.begin(tree.leaves.clone(), tree.length.into()).unwrap();
            partial.write(&tree.leaves.verify(0, content.clone()).unwrap()).unwrap();
            partial.commit().unwrap();
        }
    }
    let target = scene.dir.path().join("copies");
    let report = materialise(&store, &scene.contents, &scene.inline, &target, Rights::Read).unwrap();
    assert_eq!(report.copied, 4);
    for (path, content) in &scene.expected {
        assert_eq!(fs::read(target.join(path)).unwrap(), content[..], "{path}");
        assert_eq!(mode(&target.join(path)), 0o444, "{path}");
    }
    empty(&target).unwrap();
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    for path in ["../evil", "/etc/evil", "a/../../evil", "a/./b", "a//b", "", "a/", "..", "a\0b", "a\nb"] {
        let mut scene = scene();
        let id = scene.contents["bin/app"];
        scene.contents.insert(path.to_owned(), id);
        let refused = scene.run().unwrap_err();
        assert!(matches!(refused, MaterialiseError::BadPath { .. }), "{path:?}: {refused}");
        scene.contents.remove(path);
        scene.inline.insert(path.to_owned(), Bytes::new());
        assert!(matches!(scene.run(), Err(MaterialiseError::BadPath { .. })), "{path:?} inline");
        assert_eq!(scene.left(), Vec::<String>::new());
    }
}

#[test]
fn a_path_used_twice_is_refused() {
    for path in ["meta/package", "bin", "bin/app/more", "meta"] {
        let mut scene = scene();
        let id = scene.contents["data/empty"];
        scene.contents.insert(path.to_owned(), id);
        let refused = scene.run().unwrap_err();
        assert!(matches!(refused, MaterialiseError::Conflict { .. }), "{path}: {refused}");
        assert_eq!(scene.left(), Vec::<String>::new());
    }
}

#[test]
fn an_existing_target_is_refused_and_left_alone() {
    let scene = scene();
    fs::create_dir_all(scene.target()).unwrap();
    assert!(matches!(scene.run(), Err(MaterialiseError::TargetExists { .. })));
    fs::remove_dir(scene.target()).unwrap();
    fs::write(scene.target(), b"mine").unwrap();
    assert!(matches!(scene.run(), Err(MaterialiseError::TargetExists { .. })));
    fs::remove_file(scene.target()).unwrap();
    std::os::unix::fs::symlink("/nowhere", scene.target()).unwrap();
    assert!(matches!(scene.run(), Err(MaterialiseError::TargetExists { .. })));
    fs::remove_file(scene.target()).unwrap();
    scene.run().unwrap();
    assert!(matches!(scene.run(), Err(MaterialiseError::TargetExists { .. })));
    let nameless = materialise(&scene.store, &scene.contents, &scene.inline, Path::new("nowhere/.."), Rights::Read);
    assert!(matches!(nameless, Err(MaterialiseError::BadTarget { .. })), "{nameless:?}");
}

#[test]
fn a_missing_or_damaged_blob_leaves_nothing() {
    let mut scene = scene();
    let blamed = |refused: MaterialiseError| match refused {
        MaterialiseError::Blob { path, source } => (path, *source),
        other => panic!("{other}"),
    };
    let damaged = scene.store.path(scene.contents["bin/app"]);
    let mut content = fs::read(&damaged).unwrap();
    content[400_000] ^= 1;
    fs::write(&damaged, &content).unwrap();
    let (path, source) = blamed(scene.run().unwrap_err());
    assert!(path == "bin/app" && matches!(source, StoreError::Corrupt { .. }), "{path}: {source}");
    assert_eq!(scene.left(), Vec::<String>::new());
    content[400_000] ^= 1;
    fs::write(&damaged, &content).unwrap();
    scene.contents.insert("zzz".to_owned(), merkle::build(b"never stored").id);
    let (path, source) = blamed(scene.run().unwrap_err());
    assert!(path == "zzz" && matches!(source, StoreError::NotFound { .. }), "{path}: {source}");
    assert_eq!(scene.left(), Vec::<String>::new());
}

#[test]
fn what_a_crash_left_is_replaced_and_a_live_neighbour_is_not() {
    let scene = scene();
    let staging = scene.dir.path().join("trees/.app.unfinished");
    fs::create_dir_all(staging.join("bin")).unwrap();
    fs::write(staging.join("bin/stale"), b"half").unwrap();
    fs::set_permissions(staging.join("bin"), Permissions::from_mode(0o555)).unwrap();
    let neighbour = File::open(&staging).unwrap();
    neighbour.lock().unwrap();
    assert!(matches!(scene.run(), Err(MaterialiseError::Busy { .. })));
    assert!(staging.join("bin/stale").exists());
    drop(neighbour);
    scene.run().unwrap();
    assert!(!scene.target().join("bin/stale").exists());
    assert_eq!(scene.left(), ["app"]);
}
#[test]
fn rights_of_one_tree_never_reach_another_that_shares_its_bytes() {
    let scene = scene();
    fs::create_dir_all(scene.dir.path().join("trees")).unwrap();
    let lay_out = |name: &str, rights| {
        let target = scene.dir.path().join("trees").join(name);
        let report = materialise(&scene.store, &scene.contents, &scene.inline, &target, rights).unwrap();
        (target, report)
    };
    let modes =
        |target: &Path| ["bin/app", "lib/deep/a.so", "data/empty", "meta/package"].map(|path| mode(&target.join(path)));
    let (runs, read) = ([0o555, 0o555, 0o555, 0o444], [0o444; 4]);
    let (first, report) = lay_out("first", Rights::Execute);
    assert_eq!((modes(&first), report.copied), (runs, 1), "alone it shares the store's bytes");
    let (second, _) = lay_out("second", Rights::Read);
    assert_eq!((modes(&first), modes(&second)), (runs, read));
    let (third, _) = lay_out("third", Rights::Execute);
    assert_eq!((modes(&first), modes(&second), modes(&third)), (runs, read, runs));
    for tree in [&first, &third] {
        remove_tree(tree).unwrap();
    }
    // Nobody else has the bytes any more, whatever the store's file was allowed before.
    let (fourth, report) = lay_out("fourth", Rights::Read);
    assert_eq!((modes(&fourth), report.copied), (read, 1));
    for (path, content) in &scene.expected {
        assert_eq!(fs::read(fourth.join(path)).unwrap(), content[..], "{path}");
    }
}
