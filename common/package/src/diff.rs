//! What differs between two packages, subpackages included: files, blobs, and what a device that has one fetches for the other.
//!
//! Pure: it is told the blobs' lengths and reads none. `meta/contents` and the list of subpackages are not files here,
//! because they only repeat what the other rows say.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::BlobId;

use crate::limits::CLOSURE_PACKAGES_MAX;
use crate::{MetaContents, MetaFar, MetaSubpackages, PackageClosure, PackageError};

/// What is known of the lengths of a blob, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobBytes {
    /// Its content.
    pub raw: Option<u64>,
    /// Its delivery blob.
    pub delivery: Option<u64>,
}

impl BlobBytes {
    /// What travels when it is fetched: the delivery blob if its length is known, else the content.
    pub fn fetched(&self) -> Option<u64> {
        self.delivery.or(self.raw)
    }

    /// Both sources of knowledge together; `self` goes first.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { raw: self.raw.or(other.raw), delivery: self.delivery.or(other.delivery) }
    }
}

/// A package as one side of a comparison.
#[derive(Debug, Clone)]
pub struct Side {
    /// The package.
    pub closure: PackageClosure,
    /// Lengths of its blobs, as far as they are known.
    pub bytes: BTreeMap<BlobId, BlobBytes>,
}

/// A file on one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its blob; nothing for a file inside meta.far.
    pub blob: Option<BlobId>,
    /// Its length in bytes, if known.
    pub bytes: Option<u64>,
}

/// A file that is not the same on both sides: added without `from`, removed without `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Its path; in a subpackage `NAME#PATH`, below that `NAME/NAME#PATH`.
    pub path: String,
    /// Before.
    pub from: Option<File>,
    /// After.
    pub to: Option<File>,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageDiff {
    /// Package hash before.
    pub from: BlobId,
    /// Package hash after.
    pub to: BlobId,
    /// Files that differ, by path. A subpackage that several packages name is listed under the first name.
    pub files: Vec<FileChange>,
    /// Blobs that only the second side has: what a device with the first fetches.
    pub added: Vec<(BlobId, BlobBytes)>,
    /// Blobs that only the first side has: what a device may drop.
    pub removed: Vec<(BlobId, BlobBytes)>,
    /// Blobs on both sides.
    pub kept: usize,
}

impl PackageDiff {
    /// Bytes to fetch, counting only the blobs whose length is known.
    pub fn fetch_bytes(&self) -> u64 {
        self.added.iter().filter_map(|(_, bytes)| bytes.fetched()).sum()
    }

    /// How many of the blobs to fetch have no known length.
    pub fn unknown(&self) -> usize {
        self.added.iter().filter(|(_, bytes)| bytes.fetched().is_none()).count()
    }

    /// How many of the blobs to fetch are counted by their delivery blob.
    pub fn as_delivery(&self) -> usize {
        self.added.iter().filter(|(_, bytes)| bytes.delivery.is_some()).count()
    }
}

/// Compares two packages.
///
/// # Errors
/// More pairs of subpackages differ than are handled.
pub fn diff(from: &Side, to: &Side) -> Result<PackageDiff, PackageError> {
    let (had, needed) = (from.closure.blobs(), to.closure.blobs());
    let with_bytes = |ids: &mut dyn Iterator<Item = &BlobId>| -> Vec<_> {
        ids.map(|id| (*id, from.bytes_of(*id).or(to.bytes_of(*id)))).collect()
    };
    Ok(PackageDiff {
        from: from.closure.hash(),
        to: to.closure.hash(),
        files: files(from, to)?,
        added: with_bytes(&mut needed.difference(&had)),
        removed: with_bytes(&mut had.difference(&needed)),
        kept: had.intersection(&needed).count(),
    })
}

impl Side {
    fn bytes_of(&self, id: BlobId) -> BlobBytes {
        self.bytes.get(&id).copied().unwrap_or_default()
    }

    fn package(&self, hash: Option<BlobId>) -> Option<&MetaFar> {
        self.closure.get(hash?)
    }

    /// The files of one package, with what tells two versions of one apart.
    fn files<'a>(&self, package: Option<&'a MetaFar>) -> BTreeMap<&'a str, (Option<bytes::Bytes>, File)> {
        let Some(package) = package else { return BTreeMap::new() };
        let mut files = BTreeMap::new();
        for path in package.meta_paths().filter(|path| ![MetaContents::PATH, MetaSubpackages::PATH].contains(path)) {
            let content = package.meta_file(path);
            let bytes = content.as_ref().map(|content| content.len() as u64);
            files.insert(path, (content, File { blob: None, bytes }));
        }
        for (path, id) in package.contents() {
            files.insert(path.as_str(), (None, File { blob: Some(*id), bytes: self.bytes_of(*id).raw }));
        }
        files
    }
}

fn files(from: &Side, to: &Side) -> Result<Vec<FileChange>, PackageError> {
    let mut changes = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![(String::new(), Some(from.closure.hash()), Some(to.closure.hash()))];
    while let Some((name, old, new)) = waiting.pop() {
        if old == new || !seen.insert((old, new)) {
            continue;
        }
        if seen.len() as u64 > CLOSURE_PACKAGES_MAX {
            return Err(PackageError::TooManySubpackages);
        }
        let (old, new) = (from.package(old), to.package(new));
        let (before, after) = (from.files(old), to.files(new));
        let paths: BTreeSet<_> = before.keys().chain(after.keys()).copied().collect();
        for path in paths {
            let (was, is) = (before.get(path), after.get(path));
            let same = |(a, b): (&(_, File), &(_, File))| a.0 == b.0 && a.1.blob == b.1.blob;
            if !was.zip(is).is_some_and(same) {
                let path = if name.is_empty() { path.to_owned() } else { format!("{name}#{path}") };
                changes.push(FileChange { path, from: was.map(|(_, file)| *file), to: is.map(|(_, file)| *file) });
            }
        }
        let (before, after) = (old.map(MetaFar::subpackages), new.map(MetaFar::subpackages));
        let children: BTreeSet<_> = [before, after].into_iter().flatten().flat_map(BTreeMap::keys).collect();
        for child in children.into_iter().rev() {
            let of = |side: Option<&BTreeMap<_, BlobId>>| side.and_then(|side| side.get(child)).copied();
            let name = if name.is_empty() { child.to_string() } else { format!("{name}/{child}") };
            waiting.push((name, of(before), of(after)));
        }
    }
    changes.sort_by(|a, b| (a.path.contains('#'), &a.path).cmp(&(b.path.contains('#'), &b.path)));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use colibri_common::merkle;

    use super::*;
    use crate::{AbiRevision, PackageBuild};

    /// A package of content files, one meta file and perhaps a child.
    fn side(meta: &str, contents: &[(&str, &str)], child: Option<&[(&str, &str)]>) -> Side {
        let id = |content: &str| merkle::build(content.as_bytes()).id;
        let build = |contents: &[(&str, &str)], child: Option<BlobId>| {
            let mut build = PackageBuild::new("n".parse().unwrap(), AbiRevision::LATEST);
            build.add_meta("meta/m", Bytes::from(meta.to_owned())).unwrap();
            contents.iter().for_each(|(path, content)| build.add_content(path, id(content)).unwrap());
            child.into_iter().for_each(|hash| build.add_subpackage("kid".parse().unwrap(), hash).unwrap());
            build.finish().unwrap()
        };
        let child_far = child.map(|contents| build(contents, None));
        let root = build(contents, child_far.as_ref().map(|far| merkle::build(far).id));
        let closure =
            PackageClosure::collect(root, |_| Ok(child_far.clone().unwrap()), |error: PackageError| error).unwrap();
        let all = contents.iter().chain(child.into_iter().flatten());
        let raw = |content: &str| BlobBytes { raw: Some(content.len() as u64), delivery: None };
        let bytes = all.map(|(_, content)| (id(content), raw(content))).collect();
        Side { closure, bytes }
    }

    #[test]
    fn files_and_blobs_of_package_and_subpackage() {
        let old = side("m1", &[("same", "s"), ("gone", "g"), ("moved", "mm")], Some(&[("k", "1")]));
        let new = side("m2", &[("same", "s"), ("here", "mm"), ("new", "nnnn")], Some(&[("k", "22")]));
        let diff = diff(&old, &new).unwrap();
        let kind = |change: &FileChange| match (change.from, change.to) {
            (None, Some(_)) => '+',
            (Some(_), None) => '-',
            _ => '~',
        };
        let rows: Vec<_> = diff.files.iter().map(|change| (kind(change), change.path.as_str())).collect();
        let expected = [
            ('-', "gone"),
            ('+', "here"),
            ('~', "meta/m"),
            ('-', "moved"),
            ('+', "new"),
            ('~', "kid#k"),
            ('~', "kid#meta/m"),
        ];
        assert_eq!(rows, expected);
        // Moved content is not fetched again; both meta.fars are, and their lengths were not told.
        assert_eq!((diff.added.len(), diff.removed.len(), diff.kept), (4, 4, 2));
        assert_eq!((diff.fetch_bytes(), diff.unknown(), diff.as_delivery()), (6, 2, 0));
    }

    #[test]
    fn the_same_package_has_no_difference_and_a_lost_subpackage_loses_its_files() {
        let with = side("m", &[("a", "a")], Some(&[("k", "1")]));
        let same = diff(&with, &with).unwrap();
        assert_eq!((same.files.len(), same.added.len(), same.removed.len(), same.kept), (0, 0, 0, 4));
        let without = side("m", &[("a", "a")], None);
        let lost = diff(&with, &without).unwrap();
        assert!(lost.files.iter().all(|change| change.path.starts_with("kid#") && change.to.is_none()));
        assert_eq!((lost.files.len(), lost.added.len(), lost.removed.len()), (4, 1, 3));
    }

    #[test]
    fn delivery_lengths_go_first() {
        let of = |raw, delivery| BlobBytes { raw, delivery };
        assert_eq!(of(Some(9), Some(4)).fetched(), Some(4));
        assert_eq!(of(Some(9), None).fetched(), Some(9));
        assert_eq!(of(None, None).or(of(Some(1), Some(2))), of(Some(1), Some(2)));
    }
}
