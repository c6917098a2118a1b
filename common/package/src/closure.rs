//! [`PackageClosure`]: a package and all its subpackages, each once, every one proven to be the package hash that names it.
//!
//! It holds meta.fars only; where they come from is the caller's business, and content blobs are merely named.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_common::{BlobId, merkle};

use crate::limits::{CLOSURE_META_FARS_BYTES_MAX, CLOSURE_PACKAGES_MAX};
use crate::{MetaFar, PackageError};

/// A package and its subpackages, recursively.
#[derive(Debug, Clone)]
pub struct PackageClosure {
    hash: BlobId,
    packages: BTreeMap<BlobId, MetaFar>,
}

impl PackageClosure {
    /// Opens the package whose meta.far is `root`; `child` brings the meta.far of a subpackage, asked for once each.
    ///
    /// # Errors
    /// Of `child`; and `failed` when a meta.far is malformed, is another blob than was asked for, or there are too many.
    pub fn collect<E>(
        root: Bytes,
        mut child: impl FnMut(BlobId) -> Result<Bytes, E>,
        failed: impl Fn(PackageError) -> E,
    ) -> Result<Self, E> {
        let hash = merkle::build(&root).id;
        let mut packages = BTreeMap::new();
        let mut bytes = 0;
        let mut waiting = vec![(hash, Some(root))];
        while let Some((id, at_hand)) = waiting.pop() {
            let Entry::Vacant(place) = packages.entry(id) else { continue };
            let content = match at_hand {
                Some(content) => content,
                None => proven(id, child(id)?).map_err(&failed)?,
            };
            bytes += content.len() as u64;
            if bytes > CLOSURE_META_FARS_BYTES_MAX {
                let what = "the package with its subpackages' meta.fars";
                return Err(failed(PackageError::TooLarge { what, found: bytes, most: CLOSURE_META_FARS_BYTES_MAX }));
            }
            let meta_far = MetaFar::parse(content).map_err(&failed)?;
            waiting.extend(meta_far.subpackages().values().map(|id| (*id, None)));
            place.insert(meta_far);
            if packages.len() as u64 > CLOSURE_PACKAGES_MAX {
                return Err(failed(PackageError::TooManySubpackages));
            }
        }
        Ok(Self { hash, packages })
    }

    /// The package hash.
    pub const fn hash(&self) -> BlobId {
        self.hash
    }

    /// The package itself.
    pub fn root(&self) -> &MetaFar {
        // The map is never without it: `collect` begins with it.
        &self.packages[&self.hash]
    }

    /// A package of the closure.
    pub fn get(&self, hash: BlobId) -> Option<&MetaFar> {
        self.packages.get(&hash)
    }

    /// All packages by package hash.
    pub const fn packages(&self) -> &BTreeMap<BlobId, MetaFar> {
        &self.packages
    }

    /// Every blob that a device needs for the package: all meta.fars and all content.
    pub fn blobs(&self) -> BTreeSet<BlobId> {
        let contents = self.packages.values().flat_map(|package| package.contents().values());
        self.packages.keys().chain(contents).copied().collect()
    }
}

fn proven(expected: BlobId, content: Bytes) -> Result<Bytes, PackageError> {
    match merkle::build(&content).id {
        found if found == expected => Ok(content),
        found => Err(PackageError::WrongBlob { expected, found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AbiRevision, PackageBuild};

    fn package(name: &str, children: &[(&str, BlobId)]) -> (BlobId, Bytes) {
        let mut build = PackageBuild::new(name.parse().unwrap(), AbiRevision::LATEST);
        build.add_content("bin/x", merkle::build(name.as_bytes()).id).unwrap();
        for (child, hash) in children {
            build.add_subpackage(child.parse().unwrap(), *hash).unwrap();
        }
        let meta_far = build.finish().unwrap();
        (merkle::build(&meta_far).id, meta_far)
    }

    #[test]
    fn shared_subpackages_are_asked_for_once() {
        let leaf = package("leaf", &[]);
        let middle = package("middle", &[("a", leaf.0), ("b", leaf.0)]);
        let root = package("root", &[("leaf", leaf.0), ("middle", middle.0)]);
        let mut asked = Vec::new();
        let known: BTreeMap<_, _> = [leaf.clone(), middle.clone()].into();
        let child = |id| {
            asked.push(id);
            Ok(known[&id].clone())
        };
        let closure = PackageClosure::collect(root.1, child, |error| error).unwrap();
        assert_eq!((closure.hash(), closure.root().name().as_str()), (root.0, "root"));
        assert_eq!((closure.packages().len(), closure.blobs().len(), asked.len()), (3, 6, 2));
        assert!(closure.get(leaf.0).is_some() && closure.get(merkle::build(b"leaf").id).is_none());
    }

    #[test]
    fn a_subpackage_that_is_another_blob_is_refused() {
        let leaf = package("leaf", &[]);
        let root = package("root", &[("leaf", leaf.0)]);
        let lying = PackageClosure::collect(root.1.clone(), |_| Ok(root.1.clone()), |error| error);
        assert_eq!(lying.unwrap_err(), PackageError::WrongBlob { expected: leaf.0, found: root.0 });
        let error = PackageError::MissingBlob { what: "x".into(), id: leaf.0 };
        assert_eq!(PackageClosure::collect(root.1, |_| Err(error.clone()), |error| error).unwrap_err(), error);
    }
}
