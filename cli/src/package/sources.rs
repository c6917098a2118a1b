//! Where the blobs of a package lie on this machine, read from package manifests, and reading them proven.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::merkle::Builder;
use colibri_common::{BlobId, ByteRange};
use colibri_package::far::Content;
use colibri_package::limits::{CLOSURE_PACKAGES_MAX, META_FAR_BYTES_MAX};
use colibri_package::manifest::PathsRelative;
use colibri_package::{PackageClosure, PackageError, PackageManifest, delivery};

use crate::files::{self, FilesError};

/// Where a blob is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A file with the content itself.
    File(PathBuf),
    /// A file with a delivery blob.
    Delivery(PathBuf),
    /// This part of a file.
    Part(PathBuf, ByteRange),
}

/// A blob that is somewhere.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Length of its content in bytes, as claimed.
    pub bytes: u64,
    /// Where it is.
    pub place: Place,
}

impl Source {
    /// The file that has it.
    pub fn path(&self) -> &Path {
        match &self.place {
            Place::File(path) | Place::Delivery(path) | Place::Part(path, _) => path,
        }
    }

    /// The content as an archive takes it; reading it to its end fails unless it is blob `id`.
    pub fn content(&self, id: BlobId) -> Content<'_> {
        let open = move || {
            let source = self.reader().map_err(|error| self.at_fault(&error))?;
            Ok(Box::new(Proving { source, builder: Builder::new(), of: self, id }) as Box<dyn Read>)
        };
        Content { length: self.bytes, open: Box::new(open) }
    }

    fn reader(&self) -> io::Result<Box<dyn Read>> {
        match &self.place {
            Place::File(path) => {
                let file = File::open(path)?;
                let found = file.metadata()?.len();
                if found != self.bytes {
                    return Err(io::Error::other(format!("it has {found} bytes, the manifest says {}", self.bytes)));
                }
                Ok(Box::new(file))
            }
            Place::Delivery(path) => {
                let content = delivery::decode(&std::fs::read(path)?).map_err(io::Error::other)?;
                if content.len() as u64 != self.bytes {
                    let text = format!("its content has {} bytes, the manifest says {}", content.len(), self.bytes);
                    return Err(io::Error::other(text));
                }
                Ok(Box::new(io::Cursor::new(content)))
            }
            Place::Part(path, range) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(range.start()))?;
                Ok(Box::new(file.take(range.len())))
            }
        }
    }

    fn at_fault(&self, error: &dyn std::fmt::Display) -> io::Error {
        io::Error::other(format!("{}: {error}", self.path().display()))
    }

    /// The content of a meta.far, proven.
    pub fn meta_far(&self, id: BlobId) -> Result<Bytes, FilesError> {
        if self.bytes > META_FAR_BYTES_MAX {
            let error = PackageError::TooLarge { what: "meta.far", found: self.bytes, most: META_FAR_BYTES_MAX };
            return Err(FilesError::package(self.path())(error));
        }
        let mut content = Vec::new();
        let failed = |error| FilesError::Io { doing: "reading", path: self.path().to_owned(), error };
        let mut reader = (self.content(id).open)().map_err(failed)?;
        reader.read_to_end(&mut content).map_err(failed)?;
        Ok(content.into())
    }
}

/// A reader whose end is an error unless everything read was the blob.
struct Proving<'a> {
    source: Box<dyn Read>,
    builder: Builder,
    of: &'a Source,
    id: BlobId,
}

impl Read for Proving<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer).map_err(|error| self.of.at_fault(&error))?;
        self.builder.push(&buffer[..read]);
        if read == 0 && !buffer.is_empty() {
            let found = std::mem::take(&mut self.builder).finish().id;
            if found != self.id {
                return Err(self.of.at_fault(&PackageError::WrongBlob { expected: self.id, found }));
            }
        }
        Ok(read)
    }
}

/// A package manifest with the manifests of its subpackages, recursively.
#[derive(Debug)]
pub(super) struct Manifests {
    /// The package's own.
    pub root: PackageManifest,
    /// Every blob that any of them names.
    pub blobs: BTreeMap<BlobId, Source>,
    /// All manifest files.
    pub files: Vec<PathBuf>,
}

impl Manifests {
    /// Reads the manifest at `path` and those of its subpackages. Paths that are relative to the working directory are
    /// taken relative to `root_dir`.
    pub fn read(path: &Path, root_dir: &Path) -> Result<Self, FilesError> {
        let mut manifests = Self { root: parse(path)?, blobs: BTreeMap::new(), files: Vec::new() };
        let mut known = BTreeSet::new();
        let mut waiting = vec![(path.to_owned(), manifests.root.clone())];
        while let Some((path, manifest)) = waiting.pop() {
            let resolve = |named: &str| match manifest.blob_sources_relative {
                PathsRelative::WorkingDir => root_dir.join(named),
                relative => relative.resolve(&path, named),
            };
            for blob in &manifest.blobs {
                let file = resolve(&blob.source_path);
                let place =
                    if manifest.delivery_blob_type.is_some() { Place::Delivery(file) } else { Place::File(file) };
                manifests.blobs.entry(blob.merkle).or_insert(Source { bytes: blob.size, place });
            }
            for child in &manifest.subpackages {
                if !known.insert(child.merkle) {
                    continue;
                }
                let file = resolve(&child.manifest_path);
                if known.len() as u64 > CLOSURE_PACKAGES_MAX {
                    return Err(FilesError::package(&file)(PackageError::TooManySubpackages));
                }
                let found = parse(&file)?;
                let found_hash = found.meta_far().map(|blob| blob.merkle);
                if found_hash != Some(child.merkle) {
                    let what = format!("subpackage '{}' of {}", child.name, path.display());
                    return Err(FilesError::package(&file)(PackageError::MissingBlob { what, id: child.merkle }));
                }
                waiting.push((file, found));
            }
            manifests.files.push(path);
        }
        Ok(manifests)
    }

    /// The packages themselves; every blob that they need must be among those that the manifests name.
    pub fn closure(&self, path: &Path) -> Result<PackageClosure, FilesError> {
        let missing = |what: String, id| FilesError::package(path)(PackageError::MissingBlob { what, id });
        let meta_far = |id| match self.blobs.get(&id) {
            Some(source) => source.meta_far(id),
            None => Err(missing("the meta.far of a subpackage, named by no manifest".to_owned(), id)),
        };
        let root = self.root.meta_far().map(|blob| blob.merkle);
        let root = root.ok_or_else(|| FilesError::package(path)(PackageError::ManifestWithoutMetaFar))?;
        let closure = PackageClosure::collect(meta_far(root)?, meta_far, FilesError::package(path))?;
        for package in closure.packages().values() {
            if let Some((at, id)) = package.contents().iter().find(|(_, id)| !self.blobs.contains_key(id)) {
                return Err(missing(format!("'{at}' of package {}, named by no manifest", package.path()), *id));
            }
        }
        Ok(closure)
    }
}

fn parse(path: &Path) -> Result<PackageManifest, FilesError> {
    PackageManifest::parse(&files::read(path)?).map_err(FilesError::package(path))
}
