//! [`PackageArchive`]: one FAR with a package's `meta.far` and every blob that it and its subpackages need, each under its
//! 64-digit hash, uncompressed (reference "Fuchsia formats" §2).
//!
//! Blobs are copied piece by piece and proven on the way; only meta.fars are held in memory. Writing one is
//! [`far::write`](crate::far::write) with the right names.

use std::io::{BufWriter, Read, Seek, Write};

use bytes::Bytes;
use colibri_common::merkle::Builder;
use colibri_common::{BlobId, ByteRange, merkle};

use crate::far::{Entry, FarReader};
use crate::limits::META_FAR_BYTES_MAX;
use crate::{MetaFar, PackageClosure, PackageError};

/// The name of the package's own meta.far in an archive.
pub const META_FAR: &str = "meta.far";

/// Bytes hashed at once while copying.
const COPY_BYTES: usize = 1 << 20;

/// A package archive in something seekable.
#[derive(Debug)]
pub struct PackageArchive<R> {
    far: FarReader<R>,
    hash: BlobId,
    bytes: Bytes,
    meta_far: MetaFar,
}

impl<R: Read + Seek> PackageArchive<R> {
    /// Opens an archive and the meta.far in it.
    ///
    /// # Errors
    /// It is no FAR, has no `meta.far`, or that is malformed.
    pub fn open(source: R) -> Result<Self, PackageError> {
        let mut far = FarReader::open(source)?;
        if far.find(META_FAR.as_bytes()).is_none() {
            return Err(PackageError::NotAnArchive);
        }
        let bytes = Bytes::from(far.read(META_FAR.as_bytes(), META_FAR_BYTES_MAX)?);
        let (hash, meta_far) = (merkle::build(&bytes).id, MetaFar::parse(bytes.clone())?);
        Ok(Self { far, hash, bytes, meta_far })
    }

    /// The package hash.
    pub const fn hash(&self) -> BlobId {
        self.hash
    }

    /// The package.
    pub const fn meta_far(&self) -> &MetaFar {
        &self.meta_far
    }

    /// All entries as they are, sorted by name.
    pub fn entries(&self) -> &[Entry] {
        self.far.entries()
    }

    /// Where the blob's content lies in the archive, if it is there. The package's own meta.far is found by its hash too.
    pub fn range_of(&self, id: BlobId) -> Option<ByteRange> {
        let name = self.name_of(id);
        self.far.find(name.as_bytes()).map(Entry::range)
    }

    fn name_of(&self, id: BlobId) -> String {
        if id == self.hash { META_FAR.to_owned() } else { id.to_string() }
    }

    /// The package with its subpackages.
    ///
    /// # Errors
    /// A subpackage's meta.far is absent, malformed or another blob than its name says.
    pub fn closure(&mut self) -> Result<PackageClosure, PackageError> {
        let far = &mut self.far;
        let child = |id: BlobId| {
            let name = id.to_string();
            if far.find(name.as_bytes()).is_none() {
                return Err(PackageError::MissingBlob { what: "the meta.far of a subpackage".to_owned(), id });
            }
            Ok(far.read(name.as_bytes(), META_FAR_BYTES_MAX)?.into())
        };
        PackageClosure::collect(self.bytes.clone(), child, |error| error)
    }

    /// The first blob of the closure that is not in the archive, by package and path.
    pub fn missing(&self, closure: &PackageClosure) -> Option<PackageError> {
        closure.packages().values().find_map(|package| {
            let (path, id) = package.contents().iter().find(|(_, id)| self.range_of(**id).is_none())?;
            Some(PackageError::MissingBlob { what: format!("'{path}' of package {}", package.path()), id: *id })
        })
    }

    /// Copies a blob's content. What was written is proven only when this returns without an error: throw it away otherwise.
    ///
    /// # Errors
    /// The blob is not there, is another one than its name says, or cannot be written.
    pub fn copy_blob(&mut self, id: BlobId, out: &mut dyn Write) -> Result<(), PackageError> {
        let name = self.name_of(id);
        if self.far.find(name.as_bytes()).is_none() {
            return Err(PackageError::MissingBlob { what: "a blob".to_owned(), id });
        }
        let mut hashing = BufWriter::with_capacity(COPY_BYTES, Hashing { builder: Builder::new(), out });
        self.far.copy(name.as_bytes(), &mut hashing)?;
        let hashing = hashing.into_inner().map_err(|e| PackageError::Copy { id, reason: e.error().to_string() })?;
        match hashing.builder.finish().id {
            found if found == id => Ok(()),
            found => Err(PackageError::WrongBlob { expected: id, found }),
        }
    }
}

/// Hashes what passes through.
struct Hashing<'a> {
    builder: Builder,
    out: &'a mut dyn Write,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write_all(bytes)?;
        self.builder.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use super::*;
    use crate::{AbiRevision, PackageBuild, far};

    fn meta_far(children: &[(&str, BlobId)]) -> Bytes {
        let mut build = PackageBuild::new("n".parse().unwrap(), AbiRevision::LATEST);
        build.add_content("bin/x", merkle::build(b"x").id).unwrap();
        for (name, hash) in children {
            build.add_subpackage(name.parse().unwrap(), *hash).unwrap();
        }
        build.finish().unwrap()
    }

    fn open(files: &[(&str, &[u8])]) -> Result<PackageArchive<Cursor<Vec<u8>>>, PackageError> {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        PackageArchive::open(Cursor::new(far::to_bytes(&files).unwrap()))
    }

    #[test]
    fn blobs_are_found_by_hash_and_proven_while_copied() {
        let (x, child) = (merkle::build(b"x").id, meta_far(&[]));
        let child_hash = merkle::build(&child).id;
        let root = meta_far(&[("c", child_hash)]);
        let files: [(&str, &[u8]); 3] =
            [("meta.far", &root), (&x.to_string(), b"x"), (&child_hash.to_string(), &child)];
        let mut archive = open(&files).unwrap();
        let closure = archive.closure().unwrap();
        assert_eq!((closure.hash(), closure.packages().len()), (archive.hash(), 2));
        assert_eq!(archive.missing(&closure), None);
        for (id, content) in [(x, &b"x"[..]), (child_hash, &child), (archive.hash(), &root)] {
            let mut copied = Vec::new();
            archive.copy_blob(id, &mut copied).unwrap();
            assert_eq!(copied, content);
            assert_eq!(archive.range_of(id).unwrap().len(), content.len() as u64);
        }
        let absent = merkle::build(b"y").id;
        assert_eq!(
            archive.copy_blob(absent, &mut Vec::new()),
            Err(PackageError::MissingBlob { what: "a blob".into(), id: absent })
        );
    }

    #[test]
    fn lying_and_incomplete_archives_are_refused() {
        let (x, root) = (merkle::build(b"x").id, meta_far(&[]));
        let mut lying = open(&[("meta.far", &root), (&x.to_string(), b"y")]).unwrap();
        let found = merkle::build(b"y").id;
        assert_eq!(lying.copy_blob(x, &mut Vec::new()), Err(PackageError::WrongBlob { expected: x, found }));
        let mut alone = open(&[("meta.far", &root)]).unwrap();
        let closure = alone.closure().unwrap();
        let missing = PackageError::MissingBlob { what: "'bin/x' of package n/0".into(), id: x };
        assert_eq!(alone.missing(&closure), Some(missing));
        let mut childless = open(&[("meta.far", &meta_far(&[("c", x)]))]).unwrap();
        assert!(matches!(childless.closure(), Err(PackageError::MissingBlob { id, .. }) if id == x));
        assert_eq!(open(&[("a", b"")]).unwrap_err(), PackageError::NotAnArchive);
        assert!(matches!(open(&[("meta.far", b"junk")]), Err(PackageError::Far(_))));
    }
}
