//! [`BootPackages`]: packages that come with the boot image, `fuchsia-boot:///NAME`: package archives (`package archive
//! create`), opened read-only at start.
//!
//! They need neither the store nor a repository, so a damaged or absent store does not hinder them, and nothing collects them.
//! Whoever gives the archives at start vouches for which packages they are; that each byte belongs to the package that names it
//! is proven here all the same, whenever it is read. Deliberately absent: pins (the URL has no place for one) and variants
//! other than 0 (the archive has one package of a name).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::BlobId;
use colibri_package::url::{BootUrl, RelativePackageUrl};
use colibri_package::{MetaFar, PackageArchive, PackageError, PackageName};

use crate::cache::Lease;
use crate::device::{Device, PackageContents};
use crate::error::DeviceError;
use crate::limits::{BOOT_ARCHIVES_MAX, BOOT_PACKAGES_MAX};
use crate::materialise::{MaterialiseError, MaterialiseReport, materialise_with};

/// The end of an archive's file name, in a folder of them.
const ENDING: &str = "far";

/// Why boot packages cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The archive or the folder of archives.
    #[error("boot packages {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a package archive, or not a whole one.
    #[error("boot packages {path}: {source}")]
    Archive {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: PackageError,
    },
    /// More than a boot image has.
    #[error("boot packages {path}: at most {limit} {what}")]
    TooMany {
        /// Where.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// What was given at start is not what the release has.
    #[error(
        "boot packages {path}: the release has `{name}` as {hash}, which is not there: name the release's own packages at start, or none, so that they are installed"
    )]
    NotOfRelease {
        /// What was given.
        path: PathBuf,
        /// A package of the release.
        name: String,
        /// Its hash.
        hash: BlobId,
    },
    /// Something that provisioning did not make is where boot packages are to be.
    #[error("boot packages {0}: this was not made by provisioning: move it away, or name it as `boot_packages`")]
    Foreign(PathBuf),
    /// Two packages would have one URL.
    #[error("boot packages {path}: there is another package `{name}`")]
    Twice {
        /// The archive.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The URL names something else than a package of variant 0.
    #[error("`{url}` names no boot package (fuchsia-boot:///NAME): {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such package.
    #[error("there is no boot package `{0}`")]
    NotFound(String),
    /// The package names no such subpackage.
    #[error("boot package {package} has no subpackage `{name}`")]
    SubpackageNotFound {
        /// Its hash.
        package: BlobId,
        /// The name.
        name: String,
    },
}

impl BootError {
    /// Something failed there.
    pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// A package or subpackage in an archive.
#[derive(Debug, Clone)]
struct Known {
    archive: Arc<Path>,
    meta_far: MetaFar,
}

/// All boot packages. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BootPackages {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: BTreeMap<PackageName, BlobId>,
    /// Subpackages too.
    packages: BTreeMap<BlobId, Known>,
    /// Archives that cannot be used.
    left_out: Vec<String>,
}

impl BootPackages {
    /// Opens one package archive, or every `*.far` of a folder. In a folder an archive that cannot be used is left out
    /// ([`BootPackages::left_out`]): the others may be what repairs the device.
    ///
    /// # Errors
    /// The file or folder cannot be read, or the one archive is not a whole one.
    pub fn open(path: &Path) -> Result<Self, BootError> {
        let at = |source| BootError::Io { path: path.to_owned(), source };
        let mut inner = Inner::default();
        if !std::fs::metadata(path).map_err(at)?.is_dir() {
            inner.add(path)?;
            return Ok(Self { inner: Arc::new(inner) });
        }
        let mut archives = Vec::new();
        for entry in std::fs::read_dir(path).map_err(at)? {
            let archive = entry.map_err(at)?.path();
            if archive.extension().is_some_and(|ending| ending == ENDING) {
                archives.push(archive);
            }
            if archives.len() > BOOT_ARCHIVES_MAX {
                let (what, limit) = ("archives", BOOT_ARCHIVES_MAX);
                return Err(BootError::TooMany { path: path.to_owned(), what, limit });
            }
        }
        archives.sort_unstable();
        for archive in archives {
            if let Err(error) = inner.add(&archive) {
                inner.left_out.push(error.to_string());
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Names and package hashes.
    pub fn list(&self) -> impl Iterator<Item = (&PackageName, BlobId)> {
        self.inner.by_name.iter().map(|(name, hash)| (name, *hash))
    }

    /// Archives of the folder that cannot be used, each with the reason.
    pub fn left_out(&self) -> &[String] {
        &self.inner.left_out
    }

    /// The package hash of `fuchsia-boot:///NAME` or `fuchsia-boot:///NAME/0`.
    ///
    /// # Errors
    /// There is none, or the URL is of something else.
    pub fn resolve(&self, url: &BootUrl) -> Result<BlobId, BootError> {
        let refuse = |reason: &str| BootError::Url { url: url.to_string(), reason: reason.to_owned() };
        if url.resource().is_some() {
            return Err(refuse("it has a resource"));
        }
        let path = url.path().trim_start_matches('/');
        let name = match path.split_once('/') {
            None => path,
            Some((name, "0")) => name,
            Some((_, variant)) => return Err(refuse(&format!("boot packages have variant 0, not `{variant}`"))),
        };
        let name: PackageName = name.parse().map_err(|error| refuse(&format!("{error}")))?;
        self.inner.by_name.get(&name).copied().ok_or_else(|| BootError::NotFound(name.to_string()))
    }

    /// The subpackage of this name of a boot package, or of a subpackage of one.
    ///
    /// # Errors
    /// There is none.
    pub fn subpackage(&self, package: BlobId, name: &RelativePackageUrl) -> Result<BlobId, BootError> {
        let known = self.inner.packages.get(&package).ok_or_else(|| BootError::NotFound(package.to_string()))?;
        let subpackage = known.meta_far.subpackages().get(name).copied();
        subpackage.ok_or_else(|| BootError::SubpackageNotFound { package, name: name.to_string() })
    }

    /// Whether this package hash is one of a boot package or a subpackage of one.
    pub fn contains(&self, package: BlobId) -> bool {
        self.inner.packages.contains_key(&package)
    }

    /// What is in a package; nothing if it is no boot package.
    pub fn contents(&self, package: BlobId) -> Option<PackageContents> {
        Some(PackageContents::of(&self.inner.packages.get(&package)?.meta_far))
    }

    pub(crate) fn meta_far(&self, package: BlobId) -> Option<&MetaFar> {
        Some(&self.inner.packages.get(&package)?.meta_far)
    }

    /// Copies a blob of a package. What was written is proven only when this returns without an error.
    ///
    /// # Errors
    /// The package is no boot package, the blob is not in its archive, or is damaged, or cannot be written.
    pub fn copy_blob(&self, package: BlobId, blob: BlobId, out: &mut dyn Write) -> Result<(), BootError> {
        let known = self.inner.packages.get(&package).ok_or_else(|| BootError::NotFound(package.to_string()))?;
        let refused = |source| BootError::Archive { path: known.archive.to_path_buf(), source };
        open(&known.archive)?.copy_blob(blob, out).map_err(refused)
    }

    /// Lays out a package as a read-only tree, as [`materialise`](crate::materialise::materialise) does.
    ///
    /// # Errors
    /// It is no boot package, its archive is damaged, or the tree cannot be made: then there is nothing at the target.
    pub fn lay_out(&self, package: BlobId, target: &Path) -> Result<MaterialiseReport, MaterialiseError> {
        let contents = self.contents(package).unwrap_or_default();
        materialise_with(&contents.blobs, &contents.inline, target, |blob, out| {
            let copied = self.copy_blob(package, blob, out);
            copied.map_err(|error| io::Error::other(error.to_string()))
        })
    }
}

impl Inner {
    /// Adds the package of an archive, if all of it is there.
    fn add(&mut self, path: &Path) -> Result<(), BootError> {
        let refused = |source| BootError::Archive { path: path.to_owned(), source };
        let mut archive = open(path)?;
        let closure = archive.closure().map_err(refused)?;
        if let Some(missing) = archive.missing(&closure) {
            return Err(refused(missing));
        }
        if self.packages.len() + closure.packages().len() > BOOT_PACKAGES_MAX {
            let (what, limit) = ("packages with their subpackages", BOOT_PACKAGES_MAX);
            return Err(BootError::TooMany { path: path.to_owned(), what, limit });
        }
        let name = closure.root().name().clone();
        match self.by_name.entry(name) {
            Entry::Occupied(taken) => {
                return Err(BootError::Twice { path: path.to_owned(), name: taken.key().to_string() });
            }
            Entry::Vacant(free) => free.insert(closure.hash()),
        };
        let place: Arc<Path> = path.into();
        for (hash, meta_far) in closure.packages() {
            let known = || Known { archive: place.clone(), meta_far: meta_far.clone() };
            self.packages.entry(*hash).or_insert_with(known);
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<PackageArchive<BufReader<File>>, BootError> {
    let file = File::open(path).map_err(|source| BootError::Io { path: path.to_owned(), source })?;
    PackageArchive::open(BufReader::new(file)).map_err(|source| BootError::Archive { path: path.to_owned(), source })
}

impl Device {
    /// Opens a boot package: a lease, though it would stay without. It needs nothing of the store, but for its tree.
    ///
    /// # Errors
    /// There is no such boot package, or too much is open.
    pub async fn open_boot(&self, url: &BootUrl, holder: &str) -> Result<Lease, DeviceError> {
        let hash = self.boot_packages().resolve(url)?;
        let lease = self.lease(hash, holder).await?;
        tracing::info!("resolved {url} as {url} to {hash} with {}", crate::authority::ResolvedBy::Boot);
        Ok(lease)
    }
}

/// Reads what is given at start. What cannot be read is told: the device must still be able to update.
pub(crate) fn read(path: Option<&Path>) -> BootPackages {
    let Some(path) = path else { return BootPackages::default() };
    let opened = BootPackages::open(path).unwrap_or_else(|error| {
        tracing::error!("{error}: there are no boot packages");
        BootPackages::default()
    });
    for reason in opened.left_out() {
        tracing::error!("{reason}: left out");
    }
    opened
}
