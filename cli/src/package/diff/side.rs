//! One side of a comparison, from whatever names a package: its packages, and the lengths of its blobs as far as they are known.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_package::diff::{BlobBytes, Side};
use colibri_package::far::FarReader;
use colibri_package::{PackageArchive, PackageClosure, PackageError, archive, delivery};

use super::super::PACKAGE_MANIFEST;
use super::super::sources::{Manifests, Place};
use crate::files::{self, FilesError};

/// First bytes of a FAR.
const FAR_MAGIC: [u8; 8] = [0xc8, 0xbf, 0x0b, 0x48, 0xad, 0xab, 0xc5, 0x11];

/// Folders of delivery blobs, the type that devices read first.
const DELIVERY_FOLDERS: [&str; 2] = ["1", "2"];

/// Reads a package manifest (or the directory that has one), an archive, or a meta.far.
pub(super) fn read(path: &Path, folders: &[PathBuf]) -> Result<Side, FilesError> {
    let path = if path.is_dir() { path.join(PACKAGE_MANIFEST) } else { path.to_owned() };
    let mut file = files::open(&path)?;
    let mut magic = Vec::new();
    (&mut file).take(8).read_to_end(&mut magic).map_err(FilesError::io("reading", &path))?;
    file.rewind().map_err(FilesError::io("reading", &path))?;
    let mut side = if magic != FAR_MAGIC {
        of_manifest(&path)?
    } else if FarReader::open(&file).map_err(FilesError::far(&path))?.find(archive::META_FAR.as_bytes()).is_some() {
        of_archive(&path, file)?
    } else {
        of_meta_far(&path, folders)?
    };
    for id in side.closure.blobs() {
        let known = side.bytes.entry(id).or_default();
        *known = known.or(stored(id, folders));
    }
    Ok(side)
}

fn of_manifest(path: &Path) -> Result<Side, FilesError> {
    let manifests = Manifests::read(path, Path::new("."))?;
    let mut bytes = BTreeMap::new();
    for (id, source) in &manifests.blobs {
        let delivery = match &source.place {
            Place::Delivery(file) => Some(fs::metadata(file).map_err(FilesError::io("reading", file))?.len()),
            _ => None,
        };
        bytes.insert(*id, BlobBytes { raw: Some(source.bytes), delivery });
    }
    Ok(Side { closure: manifests.closure(path)?, bytes })
}

fn of_archive(path: &Path, file: fs::File) -> Result<Side, FilesError> {
    let failed = FilesError::package(path);
    let mut archive = PackageArchive::open(file).map_err(&failed)?;
    let closure = archive.closure().map_err(&failed)?;
    let length = |id: BlobId| Some((id, BlobBytes { raw: Some(archive.range_of(id)?.len()), delivery: None }));
    let bytes = closure.blobs().into_iter().filter_map(length).collect();
    Ok(Side { closure, bytes })
}

fn of_meta_far(path: &Path, folders: &[PathBuf]) -> Result<Side, FilesError> {
    let root = Bytes::from(files::read(path)?);
    let root_bytes = root.len() as u64;
    let failed = FilesError::package(path);
    let mut bytes = BTreeMap::new();
    let child = |id| {
        let what = "the meta.far of a subpackage (give the directory that has it with --blobs)".to_owned();
        let content = content(id, folders)?.ok_or_else(|| failed(PackageError::MissingBlob { what, id }))?;
        bytes.insert(id, BlobBytes { raw: Some(content.len() as u64), delivery: None });
        Ok(content)
    };
    let closure = PackageClosure::collect(root, child, &failed)?;
    bytes.insert(closure.hash(), BlobBytes { raw: Some(root_bytes), delivery: None });
    Ok(Side { closure, bytes })
}

/// The content of a meta.far that one of the folders has; not yet proven.
fn content(id: BlobId, folders: &[PathBuf]) -> Result<Option<Bytes>, FilesError> {
    for folder in folders {
        let raw = folder.join(id.to_string());
        if raw.exists() {
            return Ok(Some(files::read(&raw)?.into()));
        }
        for encoded in DELIVERY_FOLDERS.map(|ty| folder.join(ty).join(id.to_string())) {
            if encoded.exists() {
                let content = delivery::decode(&files::read(&encoded)?).map_err(FilesError::delivery(&encoded))?;
                return Ok(Some(content.into()));
            }
        }
    }
    Ok(None)
}

/// Lengths of the forms of a blob that the folders have.
fn stored(id: BlobId, folders: &[PathBuf]) -> BlobBytes {
    let length = |path: PathBuf| fs::metadata(path).ok().map(|found| found.len());
    let mut found = BlobBytes::default();
    for folder in folders {
        let delivery = DELIVERY_FOLDERS.iter().find_map(|ty| length(folder.join(ty).join(id.to_string())));
        found = found.or(BlobBytes { raw: length(folder.join(id.to_string())), delivery });
    }
    found
}
