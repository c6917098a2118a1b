//! [`materialise`]: a package of the store as a read-only tree of plain files.
//!
//! The tree is built beside its target and gets its name by one rename, so nothing half done is ever seen under that name.
//! Files share their bytes with the store where the file system can (reflink, else hard link) and are copies elsewhere;
//! every blob is verified again on the way. Files are 0444, folders 0555. Deliberately absent: keeping trees up to date
//! (a package is immutable: another version is another tree), owners, extended attributes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::{BlobId, ByteRange};
use colibri_package::ResourcePath;
use colibri_store::limits::COPY_BUFFER_BYTES;
use colibri_store::{BlobReader, Store, StoreError};

/// What became of the files of a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MaterialiseReport {
    /// Files that share blocks with the store, copied when written to.
    pub reflinked: u64,
    /// Files that are the store's own, under a second name.
    pub hard_linked: u64,
    /// Files with bytes of their own, those of `meta/` included.
    pub copied: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Why a package has no tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaterialiseError {
    /// A path that could leave the tree, or is no path at all.
    #[error("{path:?} is not a path inside a package: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// The rule it breaks.
        reason: String,
    },
    /// A path that is used twice, or for a file and a folder.
    #[error("the package uses {path:?} for two different things")]
    Conflict {
        /// The path.
        path: String,
    },
    /// The target has no name of its own, as `/` and `..` have not.
    #[error("{path} cannot be the target of a package's tree: name a new folder")]
    BadTarget {
        /// The target.
        path: PathBuf,
    },
    /// There is something of that name. It is never replaced: programs may be running from it.
    #[error("{path} exists already: remove it or choose another folder")]
    TargetExists {
        /// The target.
        path: PathBuf,
    },
    /// Another process builds the same tree.
    #[error("{path} is being made by another process")]
    Busy {
        /// The target.
        path: PathBuf,
    },
    /// A blob of the package is missing or damaged.
    #[error("file {path:?} of the package: {source}")]
    Blob {
        /// The file that needs it.
        path: String,
        /// What is wrong with it.
        source: Box<StoreError>,
    },
    /// Disk or quota is full.
    #[error("{path}: no space left on the disk (or in its quota): free some or raise the quota and try again")]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// Anything else the operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the bytes of a file come from.
#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Blob(BlobId),
    Inline(&'a Bytes),
}

/// Builds the tree of a package at `target`, durably: `contents` from the store, `inline` (the files of `meta/`) as given. The
/// blobs must be protected from collection meanwhile. An existing target is refused, whatever it is. After an error there is
/// nothing at the target; what a crash left beside it is removed by the next call with the same target.
pub fn materialise(
    store: &Store,
    contents: &BTreeMap<String, BlobId>,
    inline: &BTreeMap<String, Bytes>,
    target: &Path,
) -> Result<MaterialiseReport, MaterialiseError> {
    let files = files_of(contents, inline)?;
    let folders = folders_of(files.keys().copied());
    if let Some(path) = files.keys().find(|path| folders.contains(*path)) {
        return Err(MaterialiseError::Conflict { path: (*path).to_owned() });
    }
    if fs::symlink_metadata(target).is_ok() {
        return Err(MaterialiseError::TargetExists { path: target.to_owned() });
    }
    let mut staging = Staging::claim(target)?;
    for folder in &folders {
        let path = staging.dir.join(folder);
        fs::create_dir(&path).at(&path)?;
    }
    for (path, source) in &files {
        match source {
            Source::Blob(id) => staging.add_blob(store, path, *id)?,
            Source::Inline(content) => staging.add_inline(path, content)?,
        }
    }
    staging.publish(&folders, target)
}

/// Every file of the tree, its path checked again: the caller's word is not enough for writing outside of it.
fn files_of<'a>(
    contents: &'a BTreeMap<String, BlobId>,
    inline: &'a BTreeMap<String, Bytes>,
) -> Result<BTreeMap<&'a str, Source<'a>>, MaterialiseError> {
    let mut files = BTreeMap::new();
    let blobs = contents.iter().map(|(path, id)| (path, Source::Blob(*id)));
    for (path, source) in blobs.chain(inline.iter().map(|(path, content)| (path, Source::Inline(content)))) {
        let checked = path.parse::<ResourcePath>();
        checked.map_err(|reason| MaterialiseError::BadPath { path: path.clone(), reason: reason.to_string() })?;
        if files.insert(path.as_str(), source).is_some() {
            return Err(MaterialiseError::Conflict { path: path.clone() });
        }
    }
    Ok(files)
}

/// Every folder that files lie in, parents before children.
fn folders_of<'a>(files: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    files.flat_map(|path| path.match_indices('/').map(move |(at, _)| &path[..at])).collect()
}

/// The unfinished tree beside its target. Removed on drop unless published.
#[derive(Debug)]
struct Staging {
    dir: PathBuf,
    parent: PathBuf,
    /// Holds the lock that says somebody is at work here.
    _lock: File,
    may_reflink: bool,
    may_link: bool,
    report: MaterialiseReport,
    is_published: bool,
}

impl Staging {
    /// Makes the staging folder of a target, empty and ours alone.
    fn claim(target: &Path) -> Result<Self, MaterialiseError> {
        let bad = || MaterialiseError::BadTarget { path: target.to_owned() };
        let name = target.file_name().ok_or_else(bad)?.to_string_lossy();
        let parent = match target.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => return Err(bad()),
        };
        let dir = parent.join(format!(".{name}.unfinished"));
        let lock = loop {
            match fs::create_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.at(&dir)?,
            }
            let lock = match File::open(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.at(&dir)?,
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(MaterialiseError::Busy { path: target.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(error).at(&dir),
            }
            // Between opening and locking its owner may have published it: then it is no longer ours to empty.
            let locked = lock.metadata().at(&dir)?.ino();
            if fs::symlink_metadata(&dir).is_ok_and(|there| there.ino() == locked) {
                break lock;
            }
        };
        empty(&dir).at(&dir)?;
        let report = MaterialiseReport::default();
        Ok(Self { dir, parent, _lock: lock, may_reflink: true, may_link: true, report, is_published: false })
    }

    fn add_inline(&mut self, path: &str, content: &Bytes) -> Result<(), MaterialiseError> {
        let to = self.dir.join(path);
        let write = || {
            let mut file = create(&to)?;
            file.write_all(content)?;
            finish(&file)
        };
        write().at(&to)?;
        self.report.copied += 1;
        self.report.bytes += content.len() as u64;
        Ok(())
    }

    fn add_blob(&mut self, store: &Store, path: &str, id: BlobId) -> Result<(), MaterialiseError> {
        let to = self.dir.join(path);
        let of_blob = |source| MaterialiseError::Blob { path: path.to_owned(), source: Box::new(source) };
        let blob = store.open_blob(id).map_err(of_blob)?;
        let from = store.path(id);
        if self.may_reflink || self.may_link {
            // These share the store's bytes as they are, so they are read once more to be sure of them.
            blob.scrub().map_err(of_blob)?;
        }
        if self.may_reflink && reflink(&from, &to).at(&to)? {
            self.report.reflinked += 1;
        } else if self.may_link && hard_link(&from, &to).at(&to)? {
            self.may_reflink = false;
            self.report.hard_linked += 1;
        } else {
            (self.may_reflink, self.may_link) = (false, false);
            copy(&blob, &to, of_blob)?;
            self.report.copied += 1;
        }
        self.report.bytes += blob.length();
        Ok(())
    }

    /// Makes the folders read-only and everything durable, and gives the tree its name.
    fn publish(mut self, folders: &BTreeSet<&str>, target: &Path) -> Result<MaterialiseReport, MaterialiseError> {
        for folder in folders.iter().rev().map(|folder| self.dir.join(folder)).chain([self.dir.clone()]) {
            fs::set_permissions(&folder, Permissions::from_mode(0o555)).at(&folder)?;
            sync_folder(&folder).at(&folder)?;
        }
        // A folder replaces nothing but an empty folder, should one have appeared meanwhile.
        match fs::rename(&self.dir, target) {
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory) => {
                return Err(MaterialiseError::TargetExists { path: target.to_owned() });
            }
            renamed => renamed.at(target)?,
        }
        self.is_published = true;
        sync_folder(&self.parent).at(&self.parent)?;
        Ok(self.report)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_published {
            // If this fails, the next attempt at the same target does it.
            _ = remove_tree(&self.dir);
        }
    }
}

/// Removes a tree.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    empty(dir)?;
    fs::remove_dir(dir)
}

/// Removes everything inside a folder of ours, read-only folders included. Links are removed, never followed.
fn empty(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            empty(&entry.path())?;
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn create(to: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(to)
}

fn finish(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444))?;
    file.sync_all()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Shares the blocks of a file, if the file system can; false, and nothing is there, if it cannot.
fn reflink(from: &Path, to: &Path) -> io::Result<bool> {
    let Ok(source) = File::open(from) else { return Ok(false) };
    let file = create(to)?;
    match rustix::fs::ioctl_ficlone(&file, &source) {
        Ok(()) => finish(&file).map(|()| true),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(io::ErrorKind::StorageFull.into()),
        Err(_) => fs::remove_file(to).map(|()| false),
    }
}

/// Gives the store's own file a second name; false if that is not possible: another file system, too many names, rules.
fn hard_link(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Err(error) if is_full(&error) => return Err(error),
        Err(_) => return Ok(false),
        Ok(()) => {}
    }
    // Owner and bytes are the store's; that nobody writes to them suits it as well.
    if fs::metadata(to)?.permissions().mode() & 0o777 != 0o444 {
        // As durable as the rest of the tree: a mode is written with the file, not with its folder.
        finish(&File::open(to)?)?;
    }
    Ok(true)
}

fn copy(
    blob: &BlobReader,
    to: &Path,
    of_blob: impl Fn(StoreError) -> MaterialiseError,
) -> Result<(), MaterialiseError> {
    let mut file = create(to).at(to)?;
    for start in (0..blob.length()).step_by(COPY_BUFFER_BYTES) {
        let end = blob.length().min(start + COPY_BUFFER_BYTES as u64);
        let bytes = blob.read(ByteRange::new(start, end)).map_err(&of_blob)?;
        file.write_all(&bytes).at(to)?;
    }
    finish(&file).at(to)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Names the path of an I/O error.
trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T, MaterialiseError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, MaterialiseError> {
        self.map_err(|source| match source {
            full if is_full(&full) => MaterialiseError::NoSpace { path: path.to_owned() },
            source => MaterialiseError::Io { path: path.to_owned(), source },
        })
    }
}

#[cfg(test)]
mod tests {
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
            materialise(&self.store, &self.contents, &self.inline, &self.target())
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
        let report = materialise(&store, &scene.contents, &scene.inline, &target).unwrap();
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
        let nameless = materialise(&scene.store, &scene.contents, &scene.inline, Path::new("nowhere/.."));
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
}
