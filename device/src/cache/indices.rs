//! [`Indices`]: why a device keeps each of its blobs, and the order in which that may be said. Pure: no disk, no clock, no
//! waiting (reference "Fuchsia device side" §8.2 to 8.4).
//!
//! Two rules make collection safe beside resolves. Whoever fetches announces a blob before testing whether it is here; and
//! while a collection deletes, nothing can be announced ([`IndexError::Collecting`]: wait and try again). So what a resolve
//! finds here was either protected when the collection began or is found after it ended. What outlives the process is
//! [`Kept`], and nothing else is. Deliberately absent: reading meta.fars, deleting, choosing what to evict (`eviction`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::package::MetaFar;

use super::eviction::{Evictable, Holdings};
use super::kept::Kept;
use crate::limits::{KNOWN_PACKAGES_MIN, LEASE_HOLDER_BYTES_MAX, LEASES_MAX, WRITING_MAX};

/// What one package hash names directly.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Contents {
    pub blobs: BTreeSet<BlobId>,
    pub subpackages: BTreeSet<BlobId>,
}

/// How a package that is being fetched is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// By being fetched, and by whoever opens it afterwards.
    Tracking,
    /// Only while the retained index names it: the system updater's, which must be able to drop it at any moment.
    Retained,
}

/// Who fetches a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriterId(u64);

/// Who has a package open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseId(u64);

/// Why an index was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IndexError {
    /// Nothing can be announced while a collection deletes.
    #[error("a collection is under way")]
    Collecting,
    /// A step before the one that must come first.
    #[error("package cache: {0}")]
    OutOfOrder(&'static str),
    /// A bound of [`crate::limits`].
    #[error("at most {limit} {what}")]
    TooMany { what: &'static str, limit: u64 },
}

/// A package being fetched: every blob learnt so far, and whether it is here yet.
#[derive(Debug, Clone)]
struct Writing {
    package: BlobId,
    protection: Protection,
    blobs: BTreeMap<BlobId, bool>,
    /// Packages announced, and whether their meta.far was read yet.
    packages: BTreeMap<BlobId, bool>,
}

/// An open package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub package: BlobId,
    pub holder: String,
    pub since: UnixSeconds,
}

/// All indices of a device.
#[derive(Debug, Clone, Default)]
pub(crate) struct Indices {
    kept: Kept,
    writing: BTreeMap<WriterId, Writing>,
    open: BTreeMap<LeaseId, Opened>,
    /// What packages name: facts that no collection changes, kept as long as an index leads to them.
    known: BTreeMap<BlobId, Arc<Contents>>,
    known_max: usize,
    next: u64,
    is_collecting: bool,
}

impl Contents {
    pub fn of(meta_far: &MetaFar) -> Self {
        Self { blobs: meta_far.content_blobs(), subpackages: meta_far.subpackages().values().copied().collect() }
    }
}

impl Indices {
    /// With what outlived the last process. Nobody is fetching, nothing is open.
    pub fn new(kept: Kept) -> Self {
        Self { kept, ..Self::default() }
    }

    pub const fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Replaces what outlives the process. It may name what is not here yet, so it waits for a collection.
    pub fn set_kept(&mut self, kept: Kept) -> Result<(), IndexError> {
        self.check_idle()?;
        self.kept = kept;
        Ok(())
    }

    /// Forgets that packages were used, for those that were evicted; whether that changed anything.
    pub fn forget_uses<'a>(&mut self, packages: impl IntoIterator<Item = &'a BlobId>) -> bool {
        let before = self.kept.uses.len();
        for package in packages {
            self.kept.uses.remove(package);
        }
        self.kept.uses.len() < before
    }

    /// Begins to fetch a package: its meta.far is announced.
    pub fn start(&mut self, package: BlobId, protection: Protection) -> Result<WriterId, IndexError> {
        self.check_idle()?;
        if self.writing.len() >= WRITING_MAX {
            return Err(IndexError::TooMany { what: "packages can be fetched at a time", limit: WRITING_MAX as u64 });
        }
        if protection == Protection::Retained && !self.kept.retained_packages.contains(&package) {
            return Err(IndexError::OutOfOrder("a package is retained before it is fetched for the updater"));
        }
        let id = WriterId(self.number());
        let (blobs, packages) = ([(package, false)].into(), [(package, false)].into());
        self.writing.insert(id, Writing { package, protection, blobs, packages });
        Ok(id)
    }

    /// Tells what a package names once its meta.far is here: all of it is announced, and its presence may be tested now.
    pub fn learnt(&mut self, writer: WriterId, package: BlobId, contents: Contents) -> Result<(), IndexError> {
        self.check_idle()?;
        let writing = self.writing.get_mut(&writer).ok_or(IndexError::OutOfOrder("the fetch has ended"))?;
        if writing.blobs.get(&package) != Some(&true) {
            return Err(IndexError::OutOfOrder("a meta.far is announced, and here, before it is read"));
        }
        if writing.packages.insert(package, true).is_none() {
            return Err(IndexError::OutOfOrder("a subpackage is announced by its parent"));
        }
        for blob in contents.blobs.iter().chain(&contents.subpackages) {
            writing.blobs.entry(*blob).or_insert(false);
        }
        for subpackage in &contents.subpackages {
            writing.packages.entry(*subpackage).or_insert(false);
        }
        self.know(package, contents);
        Ok(())
    }

    /// A blob that this writer announced is here, found or written.
    pub fn here(&mut self, writer: WriterId, blob: BlobId) -> Result<(), IndexError> {
        let writing = self.writing.get_mut(&writer).ok_or(IndexError::OutOfOrder("the fetch has ended"))?;
        let announced = writing.blobs.get_mut(&blob);
        *announced.ok_or(IndexError::OutOfOrder("a blob is announced before it is looked for"))? = true;
        Ok(())
    }

    /// Ends a fetch that found or wrote everything.
    pub fn finish(&mut self, writer: WriterId) -> Result<(), IndexError> {
        self.check_whole(writer)?;
        self.abort(writer);
        Ok(())
    }

    /// Ends a fetch that found or wrote everything, and opens the package: it is protected all the time.
    pub fn finish_open(&mut self, writer: WriterId, holder: &str, now: UnixSeconds) -> Result<LeaseId, IndexError> {
        let package = self.check_whole(writer)?;
        // What is being fetched is protected, whether or not a collection is under way, and stays so.
        let lease = self.add_lease(package, holder, now)?;
        self.abort(writer);
        Ok(lease)
    }

    /// Ends a fetch, however it went. The blobs it wrote stay until they are collected.
    pub fn abort(&mut self, writer: WriterId) {
        self.writing.remove(&writer);
        self.forget_if_idle();
    }

    /// Opens a package. Whether it is here is tested afterwards.
    pub fn open(&mut self, package: BlobId, holder: &str, now: UnixSeconds) -> Result<LeaseId, IndexError> {
        self.check_idle()?;
        self.add_lease(package, holder, now)
    }

    /// Closes it; at any time, since it protects no more than it did.
    pub fn close(&mut self, lease: LeaseId) {
        self.open.remove(&lease);
        self.forget_if_idle();
    }

    /// What is open, oldest first.
    pub fn opened(&self) -> impl Iterator<Item = (LeaseId, &Opened)> {
        self.open.iter().map(|(id, opened)| (*id, opened))
    }

    /// Begins a collection: from here to [`Indices::end_collection`] nothing can be announced.
    pub fn begin_collection(&mut self) -> Result<(), IndexError> {
        self.check_idle()?;
        self.is_collecting = true;
        Ok(())
    }

    /// Ends a collection.
    pub fn end_collection(&mut self) {
        self.is_collecting = false;
        self.forget_unreachable();
        self.forget_if_idle();
    }

    /// Packages that an index leads to and of which nobody said what they name.
    pub fn unknown(&self) -> BTreeSet<BlobId> {
        let mut unknown = BTreeSet::new();
        self.walk(self.roots(), |package, contents| {
            if contents.is_none() {
                unknown.insert(package);
            }
        });
        unknown
    }

    /// Tells what a package names, outside of a fetch: a fact, which may be told at any time.
    pub fn know(&mut self, package: BlobId, contents: Contents) {
        self.known.insert(package, Arc::new(contents));
        if self.known.len() > self.known_max.max(KNOWN_PACKAGES_MIN) {
            self.forget_unreachable();
            self.known_max = self.known.len() * 2;
        }
    }

    /// Everything that the indices protect, and what they would give up.
    pub fn holdings(&self) -> Holdings {
        let kept = &self.kept;
        let mut firm = &kept.retained_blobs | &kept.system_blobs;
        let writing = self.writing.values().filter(|writing| writing.protection == Protection::Tracking);
        firm.extend(writing.flat_map(|writing| writing.blobs.keys()));
        firm.extend(self.closure(self.firm_roots()));
        let evictable = kept.evictable().map(|(package, rank)| Evictable {
            package,
            rank,
            last_used: kept.uses.get(&package).copied().unwrap_or(UnixSeconds(0)),
            blobs: self.closure([package]),
        });
        Holdings { firm, evictable: evictable.collect() }
    }

    /// The same, had an updater not retained anything.
    pub fn holdings_without_retained(&self) -> Holdings {
        let mut indices = self.clone();
        (indices.kept.retained_packages, indices.kept.retained_blobs) = (BTreeSet::new(), BTreeSet::new());
        indices.holdings()
    }

    /// Packages and their subpackages, as far as they are known.
    pub fn packages_under(&self, packages: impl IntoIterator<Item = BlobId>) -> BTreeSet<BlobId> {
        let mut found = BTreeSet::new();
        self.walk(packages, |package, _| _ = found.insert(package));
        found
    }

    /// The blobs of packages and their subpackages, as far as they are known.
    pub fn closure(&self, packages: impl IntoIterator<Item = BlobId>) -> BTreeSet<BlobId> {
        let mut blobs = BTreeSet::new();
        self.walk(packages, |package, contents| {
            blobs.insert(package);
            blobs.extend(contents.into_iter().flat_map(|contents| &contents.blobs));
        });
        blobs
    }

    fn firm_roots(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.kept.firm().chain(self.open.values().map(|opened| opened.package))
    }

    fn roots(&self) -> impl Iterator<Item = BlobId> + '_ {
        let writing = self.writing.values().flat_map(|writing| writing.packages.keys().copied());
        self.firm_roots().chain(self.kept.evictable().map(|(package, _)| package)).chain(writing)
    }

    fn walk<'a>(
        &'a self,
        packages: impl IntoIterator<Item = BlobId>,
        mut visit: impl FnMut(BlobId, Option<&'a Contents>),
    ) {
        let mut open: Vec<BlobId> = packages.into_iter().collect();
        let mut seen: BTreeSet<BlobId> = BTreeSet::new();
        while let Some(package) = open.pop() {
            if !seen.insert(package) {
                continue;
            }
            let contents = self.known.get(&package).map(|contents| &**contents);
            open.extend(contents.into_iter().flat_map(|contents| &contents.subpackages));
            visit(package, contents);
        }
    }

    fn check_idle(&self) -> Result<(), IndexError> {
        if self.is_collecting { Err(IndexError::Collecting) } else { Ok(()) }
    }

    fn check_whole(&self, writer: WriterId) -> Result<BlobId, IndexError> {
        let writing = self.writing.get(&writer).ok_or(IndexError::OutOfOrder("the fetch has ended"))?;
        let all_here =
            writing.blobs.values().all(|is_here| *is_here) && writing.packages.values().all(|is_read| *is_read);
        if all_here { Ok(writing.package) } else { Err(IndexError::OutOfOrder("a fetch ends when nothing is missing")) }
    }

    fn add_lease(&mut self, package: BlobId, holder: &str, now: UnixSeconds) -> Result<LeaseId, IndexError> {
        if self.open.len() >= LEASES_MAX {
            return Err(IndexError::TooMany { what: "packages can be open at a time", limit: LEASES_MAX as u64 });
        }
        if holder.len() > LEASE_HOLDER_BYTES_MAX {
            let limit = LEASE_HOLDER_BYTES_MAX as u64;
            return Err(IndexError::TooMany { what: "bytes name the holder of a lease", limit });
        }
        let id = LeaseId(self.number());
        self.open.insert(id, Opened { package, holder: holder.to_owned(), since: now });
        Ok(id)
    }

    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn forget_unreachable(&mut self) {
        let mut reached = BTreeSet::new();
        self.walk(self.roots(), |package, _| {
            reached.insert(package);
        });
        self.known.retain(|package, _| reached.contains(package));
    }

    /// A device that keeps nothing on purpose, as those of a synthetic fleet, remembers nothing either.
    fn forget_if_idle(&mut self) {
        if self.writing.is_empty() && self.open.is_empty() && self.kept == Kept::default() {
            self.known.clear();
        }
    }
}
