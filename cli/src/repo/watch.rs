//! Publishing again whenever an input changes: package manifests, lists of them, archives, and plain folders that are built
//! into packages. For `repo publish --watch` and `repo server start --watch`.
//!
//! A change that cannot be published, such as a file half written, is told and waited out; what was published stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use colibri_package::manifest::PackageManifestList;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tempfile::TempDir;

use super::RepoError;
use crate::files::{self, FilesError};
use crate::package;

/// Quiet that must follow a change: programs write files in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// Longest that changes without a pause are waited for.
const QUIET_MAX: Duration = Duration::from_secs(1);

/// Most changes noted while nobody looks; beyond, it is only known that there were more.
const EVENTS_MAX: usize = 1024;

/// How soon a request to stop is noticed.
const LOOK: Duration = Duration::from_millis(250);

/// What is published.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Inputs {
    /// A package_manifest.json (repeatable)
    #[arg(long, value_name = "FILE")]
    pub package: Vec<PathBuf>,
    /// A list of package manifests (repeatable)
    #[arg(long, value_name = "FILE")]
    pub package_list: Vec<PathBuf>,
    /// A package archive, a .far with the blobs inside (repeatable)
    #[arg(long, value_name = "FILE")]
    pub package_archive: Vec<PathBuf>,
    /// Build a package of this name from all files of a folder (repeatable)
    #[arg(long, value_name = "NAME=DIR", value_parser = name_and_dir)]
    pub from_dir: Vec<(String, PathBuf)>,
    /// Leave out manifests and archives that do not exist
    #[arg(long)]
    pub ignore_missing_packages: bool,
}

fn name_and_dir(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => Ok((name.to_owned(), dir.into())),
        _ => Err("it must have the form NAME=DIR".to_owned()),
    }
}

/// Inputs as files that a publish takes.
#[derive(Debug)]
pub struct Gathered {
    pub manifests: Vec<PathBuf>,
    pub archives: Vec<PathBuf>,
    /// Files that were named, also by lists; not those that were built just now.
    pub named: Vec<PathBuf>,
    /// Packages built from folders lie here until it is dropped.
    _built: Option<TempDir>,
}

impl Inputs {
    /// Whether anything is named.
    fn is_empty(&self) -> bool {
        let Self { package, package_list, package_archive, from_dir, .. } = self;
        package.is_empty() && package_list.is_empty() && package_archive.is_empty() && from_dir.is_empty()
    }

    /// Reads the lists and builds the folders.
    pub fn gather(&self) -> Result<Gathered, RepoError> {
        let mut manifests = self.package.clone();
        for list in &self.package_list {
            if list.exists() || !self.ignore_missing_packages {
                manifests.extend(listed(list)?);
            }
        }
        let mut archives = self.package_archive.clone();
        if self.ignore_missing_packages {
            manifests.retain(|path| path.exists());
            archives.retain(|path| path.exists());
        }
        let named = manifests.iter().chain(&archives).chain(&self.package_list).cloned().collect();
        let mut built = None;
        for (index, (name, dir)) in self.from_dir.iter().enumerate() {
            let folder = match &built {
                Some(folder) => folder,
                None => built.insert(
                    tempfile::tempdir().map_err(FilesError::io("making a folder below", &std::env::temp_dir()))?,
                ),
            };
            let build = package::Build {
                from_dir: Some(dir.clone()),
                name: (!dir.join("meta/package").is_file()).then(|| name.clone()),
                published_name: Some(name.clone()),
                output: folder.path().join(index.to_string()),
                ..package::Build::default()
            };
            manifests.push(package::build(&build)?.package_manifest);
        }
        Ok(Gathered { manifests, archives, named, _built: built })
    }

    /// What to look at: single files, and folders with all that is in them.
    fn watched(&self) -> Watched {
        let mut files: BTreeSet<PathBuf> = [&self.package, &self.package_list, &self.package_archive]
            .into_iter()
            .flatten()
            .map(|path| absolute(path))
            .collect();
        for list in &self.package_list {
            // A list that cannot be read now is published with an error, and looked at again when it changes.
            files.extend(listed(list).unwrap_or_default().iter().map(|path| absolute(path)));
        }
        Watched { files, folders: self.from_dir.iter().map(|(_, dir)| absolute(dir)).collect() }
    }
}

/// The manifests that a list names.
fn listed(path: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let list = PackageManifestList::parse(&files::read(path)?).map_err(FilesError::package(path))?;
    Ok(list.manifests.iter().map(|manifest| list.paths_relative.resolve(path, manifest)).collect())
}

fn absolute(path: &Path) -> PathBuf {
    // Without symbolic links, as the system names what changes.
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Watched {
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl Watched {
    /// Whether a change of this path is one of ours.
    fn concerns(&self, path: &Path) -> bool {
        self.files.contains(path) || self.folders.iter().any(|folder| path.starts_with(folder))
    }

    /// Folders that the system is asked to look at. A file is looked at through its folder: it may be replaced by a rename.
    fn places(&self) -> BTreeSet<(PathBuf, bool)> {
        let parents = self.files.iter().filter_map(|file| existing(file.parent()?));
        let folders = self.folders.iter().map(|folder| (folder.clone(), true));
        parents.map(|folder| (folder, false)).chain(folders).collect()
    }
}

/// The nearest folder above that is there: a build may make the missing ones later.
fn existing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(Path::to_owned)
}

/// The system's watch over the inputs.
struct Watch {
    watcher: RecommendedWatcher,
    changes: Receiver<notify::Result<notify::Event>>,
    /// Set when more happened than was noted.
    lost: Arc<AtomicBool>,
    watched: Watched,
    places: BTreeSet<(PathBuf, bool)>,
}

impl Watch {
    fn new() -> Result<Self, RepoError> {
        let (sender, changes) = sync_channel(EVENTS_MAX);
        let lost = Arc::new(AtomicBool::new(false));
        let overflow = lost.clone();
        let watcher = notify::recommended_watcher(move |event| {
            if sender.try_send(event).is_err() {
                overflow.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { watcher: watcher?, changes, lost, watched: Watched::default(), places: BTreeSet::new() })
    }

    /// Looks at what the inputs name now.
    fn follow(&mut self, inputs: &Inputs) -> Result<(), RepoError> {
        self.watched = inputs.watched();
        loop {
            let places = self.watched.places();
            if places == self.places {
                return Ok(());
            }
            for (folder, _) in self.places.difference(&places) {
                // It may be gone.
                _ = self.watcher.unwatch(folder);
            }
            for (folder, deep) in places.difference(&self.places) {
                let mode = if *deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
                self.watcher.watch(folder, mode)?;
            }
            // A folder that was made meanwhile is found by looking again.
            self.places = places;
        }
    }

    fn is_ours(&self, event: &notify::Result<notify::Event>) -> bool {
        match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
            // A folder above a file that is not there yet.
            Ok(event) => event.paths.iter().any(|path| {
                self.watched.concerns(path) || self.watched.files.iter().any(|file| file.starts_with(path))
            }),
            // Events were lost: something may have changed.
            Err(_) => true,
        }
    }

    /// Waits for a change and for quiet after it; false when it is to stop. What others do in the same folder is not waited out.
    fn changed(&self, stop: &AtomicBool) -> bool {
        let mut first: Option<Instant> = None;
        let mut last = Instant::now();
        loop {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            let event = self.changes.recv_timeout(if first.is_some() { QUIET } else { LOOK });
            let is_ours = match &event {
                Ok(event) => self.is_ours(event),
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return false,
            };
            if self.lost.swap(false, Ordering::Relaxed) || is_ours {
                last = Instant::now();
                first.get_or_insert(last);
            }
            if first.is_some_and(|first| last.elapsed() >= QUIET || first.elapsed() > QUIET_MAX) {
                return true;
            }
        }
    }
}

/// Set once somebody asks this process to end, by SIGINT or SIGTERM.
pub(super) fn until_signal() -> Result<Arc<AtomicBool>, RepoError> {
    let stop = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = stop.clone();
    std::thread::spawn(move || {
        runtime.block_on(colibri_service::shutdown_signal());
        asked.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

/// Publishes now and after every change until `stop`. What `publish` says is told on standard error.
pub(super) fn watch(
    inputs: &Inputs,
    stop: &AtomicBool,
    mut publish: impl FnMut(&Gathered) -> Result<String, RepoError>,
) -> Result<(), RepoError> {
    if inputs.is_empty() {
        let reason = "--watch needs something to watch: --package, --package-list, --package-archive or --from-dir";
        return Err(FilesError::Usage(reason.to_owned()).into());
    }
    let mut watch = Watch::new()?;
    loop {
        // Looked at before it is read: what changes meanwhile is seen.
        watch.follow(inputs)?;
        match inputs.gather().and_then(|gathered| publish(&gathered)) {
            Ok(said) => eprintln!("{said}"),
            Err(error) => eprintln!("colibri: not published: {error}; waiting for the next change"),
        }
        if !watch.changed(stop) {
            return Ok(());
        }
    }
}
