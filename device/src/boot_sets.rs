//! [`BootPlace`]: where provisioning puts the boot packages of a release, and how one set takes the place of another.
//!
//! A set is a folder of package archives, `boot.sets/ID`, written under another name and synced before it gets its own; `boot` is
//! a link to the one that counts, replaced as a whole. The link moves after the release has become the running one, and whoever
//! opens the device moves it if power was lost in between: so boot packages are those of the running release, before or after.
//! Deliberately absent: a boot image of its own (a device that has one gives the place of its archives, and they are only
//! compared), and the seam of the store's disk: this is before and beside the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, hex, sha256};
use colibri_package::archive::META_FAR;
use colibri_package::far::{self, Content};
use colibri_release::Release;

use crate::boot_packages::{BootError, BootPackages};
use crate::device::Device;
use crate::error::DeviceError;

/// The link to the set that counts, in the device's folder.
const LINK: &str = "boot";

/// Where the sets are.
const SETS: &str = "boot.sets";

/// Hex digits of a set's name.
const ID_DIGITS: usize = 16;

/// Writes the verified content of a blob.
pub(crate) type WriteContent<'a> = &'a mut dyn FnMut(BlobId, &mut (dyn Write + Send)) -> Result<u64, DeviceError>;

/// Where boot packages are: where the configuration says, else where provisioning puts them, if it did.
pub fn boot_packages_of(dir: &Path, configured: Option<&Path>) -> Option<PathBuf> {
    let made = || Some(dir.join(LINK)).filter(|link| link.exists());
    configured.map(Path::to_owned).or_else(made)
}

/// The place of one release's boot packages.
#[derive(Debug, Clone)]
pub(crate) struct BootPlace {
    dir: PathBuf,
    id: String,
}

impl BootPlace {
    /// The place in a device's folder; nothing if the release has no boot packages.
    fn of(dir: &Path, release: &Release) -> Option<Self> {
        let lines: String =
            release.boot().iter().map(|package| format!("{} {}\n", package.name, package.hash)).collect();
        let id = hex(&sha256(lines.as_bytes()))[..ID_DIGITS].to_owned();
        (!release.boot().is_empty()).then(|| Self { dir: dir.to_owned(), id })
    }

    fn sets(&self) -> PathBuf {
        self.dir.join(SETS)
    }

    fn set(&self) -> PathBuf {
        self.sets().join(&self.id)
    }

    /// What the link must say.
    fn target(&self) -> PathBuf {
        Path::new(SETS).join(&self.id)
    }

    /// Writes the archives of a release, durably. `content` brings blobs.
    pub(crate) fn write(&self, release: &Release, content: WriteContent<'_>) -> Result<(), DeviceError> {
        if self.set().exists() {
            return Ok(());
        }
        let unfinished = self.sets().join(format!("{}.new", self.id));
        let at = BootError::at(&unfinished);
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(&at)?;
        }
        let blobs = unfinished.join("blobs");
        fs::create_dir_all(&blobs).map_err(&at)?;
        for package in release.boot() {
            let needed = release.blobs_needed([package.hash]);
            let mut lengths = BTreeMap::new();
            for id in needed {
                let path = blobs.join(id.to_string());
                let mut file = BufWriter::new(File::create(&path).map_err(&at)?);
                lengths.insert(id, content(id, &mut file)?);
                file.flush().map_err(&at)?;
            }
            let archive = unfinished.join(format!("{}.far", package.name));
            write_archive(&archive, package.hash, &blobs, &lengths)?;
        }
        fs::remove_dir_all(&blobs).map_err(&at)?;
        sync_dir(&unfinished).map_err(&at)?;
        fs::rename(&unfinished, self.set()).map_err(&at)?;
        sync_dir(&self.sets()).map_err(&at)?;
        sync_dir(&self.dir).map_err(&at)?;
        Ok(())
    }

    /// Makes the set the one that counts, and removes the others.
    pub(crate) fn use_set(&self) -> Result<(), BootError> {
        let link = self.dir.join(LINK);
        let at = BootError::at(&link);
        if fs::read_link(&link).ok().as_ref() != Some(&self.target()) {
            let new = self.dir.join(format!("{LINK}.new"));
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(error)),
                _ => {}
            }
            symlink(self.target(), &new).map_err(&at)?;
            fs::rename(&new, &link).map_err(&at)?;
            sync_dir(&self.dir).map_err(&at)?;
        }
        for entry in fs::read_dir(self.sets()).map_err(&at)? {
            let entry = entry.map_err(&at)?;
            if entry.file_name() != self.id.as_str() {
                fs::remove_dir_all(entry.path()).map_err(&at)?;
            }
        }
        Ok(())
    }
}

/// After power was lost between the release and the link: the set of the running release counts. What cannot be done is told:
/// the device must still be able to update.
pub(crate) fn settle(dir: &Path, release: Option<&Release>) {
    let Some(place) = release.and_then(|release| BootPlace::of(dir, release)) else { return };
    if place.set().is_dir()
        && let Err(error) = place.use_set()
    {
        tracing::error!("{error}: the boot packages of the running release are not in use");
    }
}

impl Device {
    /// Where the boot packages of a release are to be put; nothing if it has none, or they are where the configuration says.
    ///
    /// # Errors
    /// They were given at start and are others, or something else is where they belong.
    pub(crate) fn boot_place(&self, release: &Release) -> Result<Option<BootPlace>, BootError> {
        let Some(place) = self.dir().and_then(|dir| BootPlace::of(dir, release)) else { return Ok(None) };
        let link = place.dir.join(LINK);
        match &self.config().boot_packages {
            // What was given at start may be what an earlier provisioning made.
            Some(given) if *given != link => {
                let here: BTreeSet<_> =
                    self.boot_packages().list().map(|(name, hash)| (name.to_string(), hash)).collect();
                let wanted = release.boot().iter().map(|package| (package.name.to_string(), package.hash));
                match wanted.into_iter().find(|package| !here.contains(package)) {
                    None => Ok(None),
                    Some((name, hash)) => Err(BootError::NotOfRelease { path: given.clone(), name, hash }),
                }
            }
            _ if fs::symlink_metadata(&link).is_ok_and(|found| !found.is_symlink()) => Err(BootError::Foreign(link)),
            _ => Ok(Some(place)),
        }
    }

    /// Boot packages of the running release, by name, each with whether it came with the boot image.
    pub fn boot_set(&self) -> Vec<(String, BlobId, bool)> {
        let Some(release) = self.release() else { return Vec::new() };
        let here: BTreeSet<_> = self.boot_packages().list().map(|(name, hash)| (name.clone(), hash)).collect();
        let of = |package: &colibri_release::BootPackage| {
            let is_here = here.contains(&(package.name.clone(), package.hash));
            (package.name.to_string(), package.hash, is_here)
        };
        release.boot().iter().map(of).collect()
    }
}

/// Writes one package archive from files of verified content, and opens it again.
fn write_archive(path: &Path, package: BlobId, blobs: &Path, lengths: &BTreeMap<BlobId, u64>) -> Result<(), BootError> {
    let at = BootError::at(path);
    let names: BTreeMap<String, BlobId> =
        lengths.keys().map(|id| (if *id == package { META_FAR.to_owned() } else { id.to_string() }, *id)).collect();
    let content = |id: BlobId| {
        let file = blobs.join(id.to_string());
        let open = move || Ok(Box::new(BufReader::new(File::open(file)?)) as Box<dyn Read>);
        Content { length: lengths[&id], open: Box::new(open) }
    };
    let contents = names.iter().map(|(name, id)| (name.as_bytes(), content(*id))).collect();
    let mut out = BufWriter::new(File::create(path).map_err(&at)?);
    far::write(&mut out, contents).map_err(|error| at(io::Error::other(error.to_string())))?;
    out.flush().map_err(&at)?;
    out.get_ref().sync_all().map_err(&at)?;
    BootPackages::open(path).map(drop)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
