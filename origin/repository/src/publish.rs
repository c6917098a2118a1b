//! Publishing: packages in, a new release of the repository out; visible only when whole.
//!
//! Order: collect and check what is named; blobs durable and proven; every named package checked to be whole; meta.fars as
//! targets; metadata, in one transaction. A failure anywhere leaves what was visible as it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::PackagePath;
use colibri_package::delivery::DeliveryType;
use colibri_package::manifest::ManifestBlob;

use crate::announce::{Announced, Announcement};
use crate::ceremony::Ceremony;
use crate::collect::{self, Collected};
use crate::draft::{Change, RootChange, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::{Check, Pass, PublishGate, UnreadyBlob};
use crate::ingest::{self, Encoding, SourceBlob, Stored};
use crate::named_targets::{self, ExtraTarget, NamedTargets};
use crate::offer::Offer;
use crate::profile::{NearCap, Profile};
use crate::repository::{Repository, Versions};
use crate::transfer::CopyMode;

/// What to publish and how.
#[derive(Clone)]
pub struct Publish<'a> {
    /// Package manifests (`package_manifest.json`); each package becomes a target, its subpackages only bring blobs.
    pub manifests: Vec<PathBuf>,
    /// Package archives (`.far`).
    pub package_archives: Vec<PathBuf>,
    /// Product bundles, or folders of repositories: every package that is offered there, under its name.
    pub product_bundles: Vec<PathBuf>,
    /// Other files to be offered, under any names.
    pub extra_targets: Vec<ExtraTarget>,
    /// How blobs are stored.
    pub delivery_type: DeliveryType,
    /// zstd level; without it the level that the type stands for. Blobs that are there, or come as delivery blobs of the type,
    /// are not compressed again.
    pub compression_level: Option<i32>,
    /// How delivery blobs of the type come in.
    pub copy_mode: CopyMode,
    /// Blobs that are there already are stored again, in the form they have now.
    pub overwrite: bool,
    /// Offer only these packages instead of adding them to those offered now.
    pub clean: bool,
    /// Sign the root again too.
    pub refresh_root: bool,
    /// Versions of targets, snapshot and timestamp are seconds since 1970.
    pub time_versioning: bool,
    /// The time.
    pub now: UnixSeconds,
    /// Offer all this although blobs of packages that were offered before are absent or wrong; the signed snapshot says why.
    pub unproven_because: Option<String>,
    /// Asked when all blobs are proven and before anything is signed.
    pub gate: Option<&'a dyn PublishGate>,
    /// Hears how far it is, on the calling thread.
    pub progress: Option<&'a dyn Fn(PublishProgress)>,
}

impl Publish<'_> {
    /// Nothing yet, stored as type 1 at its level, added to what is offered.
    pub fn new(now: UnixSeconds) -> Self {
        Self {
            manifests: Vec::new(),
            package_archives: Vec::new(),
            product_bundles: Vec::new(),
            extra_targets: Vec::new(),
            delivery_type: DeliveryType::Type1,
            compression_level: None,
            copy_mode: CopyMode::default(),
            overwrite: false,
            clean: false,
            refresh_root: false,
            time_versioning: false,
            now,
            unproven_because: None,
            gate: None,
            progress: None,
        }
    }
}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("manifests", &self.manifests)
            .field("package_archives", &self.package_archives)
            .field("product_bundles", &self.product_bundles)
            .field("extra_targets", &self.extra_targets)
            .field("delivery_type", &self.delivery_type)
            .field("compression_level", &self.compression_level)
            .field("clean", &self.clean)
            .field("refresh_root", &self.refresh_root)
            .field("time_versioning", &self.time_versioning)
            .field("now", &self.now)
            .field("unproven_because", &self.unproven_because)
            .finish_non_exhaustive()
    }
}

/// How far a publish is. Totals are as the manifests claim them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishProgress {
    /// Blobs stored or found to be there.
    pub blobs_done: usize,
    /// Distinct blobs.
    pub blobs_total: usize,
    /// Their content in bytes, done.
    pub bytes_done: u64,
    /// Their content in bytes, in all.
    pub bytes_total: u64,
}

/// What a publish did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishReport {
    /// Packages that became targets.
    pub packages: usize,
    /// Distinct blobs of these packages and their subpackages, meta.fars included.
    pub blobs: usize,
    /// Those that were not there before.
    pub blobs_new: usize,
    /// Content of every blob reference in bytes: a blob that two packages use counts twice.
    pub bytes_raw: u64,
    /// The part of `bytes_raw` that was there before or repeated.
    pub bytes_deduplicated: u64,
    /// Bytes of the delivery blobs newly written.
    pub bytes_stored_new: u64,
    /// Versions now committed.
    pub versions: Versions,
    /// A file is near what devices with the stock client read.
    pub near_cap: Option<NearCap>,
    /// Every distinct blob with the file it was read from, by that file's name.
    pub taken: Vec<ManifestBlob>,
}

impl Repository {
    /// Publishes packages, and signs targets, snapshot and timestamp.
    ///
    /// # Errors
    /// Names the file or package at fault; what was visible before stays visible.
    pub fn publish(&self, publish: &Publish<'_>) -> Result<PublishReport, RepositoryError> {
        let collected = collect::collect(publish)?;
        let committed = self.metadata.committed()?;
        // A missing key is found before hours of compression.
        for role in publish.signs() {
            self.keys.signers(committed.root(), role)?;
        }
        publish.check_names(Profile::of(&committed))?;
        let announced = announced(&collected);
        let _announced = Announcement::make(self.storage.as_ref(), &announced, publish.now)?;
        self.blobs.receipts.read_new()?;
        let counted = self.take_blobs(publish, &collected)?;
        let mut named = self.named_targets(&self.whole(&collected, publish.now)?)?;
        let packages = named.entries.len();
        publish.extra_targets.iter().try_for_each(|target| named.extra(target))?;
        if let Some(gate) = publish.gate {
            gate.pass(&announced.blobs.iter().copied().collect::<Vec<_>>())
                .map_err(|reason| RepositoryError::Held { reason })?;
        }
        let terms = self.terms(publish.now, publish.time_versioning);
        let pass = Pass {
            now: publish.now,
            because: publish.unproven_because.as_deref(),
            past_gate: None,
            look_at_all: false,
        };
        let versions = self.transact(&terms, &pass, &mut |_| {
            self.blobs.put_targets(&named.files)?;
            let root = if publish.refresh_root { RootChange::Again } else { RootChange::Keep };
            let targets = TargetsChange::Offer(publish.offer(&named));
            Ok(Change { root, targets, ..Change::default() })
        })?;
        let near_cap = self.metadata.near_cap()?;
        Ok(PublishReport { near_cap, ..counted.report(packages, versions) })
    }

    /// Stores what a publish brings and gives the targets that would offer it, unsigned, for signers elsewhere; nothing
    /// becomes visible before [`Self::import_targets`].
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn prepare(&self, publish: &Publish<'_>) -> Result<(PublishReport, Ceremony), RepositoryError> {
        let collected = collect::collect(publish)?;
        let committed = self.metadata.committed()?;
        publish.check_names(Profile::of(&committed))?;
        let _announced = Announcement::make(self.storage.as_ref(), &announced(&collected), publish.now)?;
        self.blobs.receipts.read_new()?;
        let counted = self.take_blobs(publish, &collected)?;
        let mut named = self.named_targets(&self.whole(&collected, publish.now)?)?;
        let packages = named.entries.len();
        publish.extra_targets.iter().try_for_each(|target| named.extra(target))?;
        self.blobs.put_targets(&named.files)?;
        let terms = self.terms(publish.now, publish.time_versioning);
        let ceremony = self.targets_ceremony(&committed, &publish.offer(&named), &terms)?;
        Ok((counted.report(packages, Versions::of(&committed)), ceremony))
    }

    /// Blobs durable and proven.
    fn take_blobs(&self, publish: &Publish<'_>, collected: &Collected) -> Result<Counted, RepositoryError> {
        let mut distinct: BTreeMap<BlobId, Vec<SourceBlob>> = BTreeMap::new();
        for blob in &collected.blobs {
            let sources = distinct.entry(blob.id).or_default();
            let known = |other: &SourceBlob| other.file() == blob.file() && other.size == blob.size;
            if !sources.iter().any(known) {
                sources.push(blob.clone());
            }
        }
        let encoding = Encoding {
            ty: publish.delivery_type,
            level: publish.compression_level,
            copy_mode: publish.copy_mode,
            overwrite: publish.overwrite,
        };
        let mut progress = PublishProgress {
            blobs_done: 0,
            blobs_total: distinct.len(),
            bytes_done: 0,
            bytes_total: distinct.values().filter_map(|sources| sources.first()).map(|blob| blob.size).sum(),
        };
        let mut stored = HashMap::new();
        ingest::ingest(&self.blobs, &distinct, encoding, publish.now, |id, outcome| {
            stored.insert(id, outcome);
            progress.blobs_done += 1;
            progress.bytes_done += outcome.bytes;
            if let Some(hear) = publish.progress {
                hear(progress);
            }
        })?;
        Ok(Counted::of(&collected.blobs, &stored))
    }

    /// The named packages, each whole.
    fn whole(&self, collected: &Collected, now: UnixSeconds) -> Result<Vec<(PackagePath, BlobId)>, RepositoryError> {
        let mut check = Check::new(&self.blobs, now);
        for named in &collected.named {
            check.package(&named.path.to_string(), named.hash)?;
            if let Some(unready) = check.unready.pop() {
                return Err(incomplete(unready));
            }
        }
        Ok(collected.named.iter().map(|named| (named.path.clone(), named.hash)).collect())
    }
}

impl Publish<'_> {
    /// Names that cannot be offered are found before hours of compression; packages have no such names.
    fn check_names(&self, profile: Profile) -> Result<(), RepositoryError> {
        match profile {
            Profile::Compat => {
                self.extra_targets.iter().try_for_each(|target| named_targets::check_compat(&target.name))
            }
            Profile::Scale => Ok(()),
        }
    }

    /// What it would offer.
    fn offer(&self, named: &NamedTargets) -> Offer {
        Offer { put: named.entries.clone(), clean: self.clean, ..Offer::default() }
    }

    fn signs(&self) -> impl Iterator<Item = colibri_metadata::Role> {
        use colibri_metadata::Role;
        let root = self.refresh_root.then_some(Role::Root);
        root.into_iter().chain([Role::Targets, Role::Snapshot, Role::Timestamp])
    }
}

/// What a publish depends on.
fn announced(collected: &Collected) -> Announced {
    Announced {
        packages: collected.named.iter().map(|named| named.hash).collect(),
        blobs: collected.blobs.iter().map(|blob| blob.id).collect(),
    }
}

/// A package's own publish must bring all that it names.
fn incomplete(unready: UnreadyBlob) -> RepositoryError {
    let UnreadyBlob { package, subpackage, path, id, .. } = unready;
    let what = match (subpackage.as_str(), path.as_str()) {
        ("", "meta/") => "package".to_owned(),
        (_, "meta/") => format!("subpackage {subpackage}"),
        ("", _) => format!("blob {path}"),
        _ => format!("blob {path} of subpackage {subpackage}"),
    };
    RepositoryError::Incomplete { package, what, id }
}

/// Sums over the blobs of a publish.
struct Counted {
    blobs: usize,
    blobs_new: usize,
    bytes_raw: u64,
    bytes_deduplicated: u64,
    bytes_stored_new: u64,
    taken: Vec<ManifestBlob>,
}

impl Counted {
    fn of(references: &[SourceBlob], stored: &HashMap<BlobId, Stored>) -> Self {
        let mut counted = Self {
            blobs: stored.len(),
            blobs_new: stored.values().filter(|blob| blob.new_bytes.is_some()).count(),
            bytes_raw: 0,
            bytes_deduplicated: 0,
            bytes_stored_new: stored.values().filter_map(|blob| blob.new_bytes).sum(),
            taken: Vec::with_capacity(stored.len()),
        };
        let mut seen = BTreeSet::new();
        for reference in references {
            let Some(blob) = stored.get(&reference.id) else { continue };
            counted.bytes_raw += blob.bytes;
            let is_new = seen.insert(reference.id);
            if !is_new || blob.new_bytes.is_none() {
                counted.bytes_deduplicated += blob.bytes;
            }
            if is_new {
                let source_path = reference.file().display().to_string();
                let (path, merkle, size) = (reference.path.clone(), reference.id, blob.bytes);
                counted.taken.push(ManifestBlob { source_path, path, merkle, size });
            }
        }
        counted.taken.sort_by(|left, right| (&left.source_path, &left.path).cmp(&(&right.source_path, &right.path)));
        counted
    }

    fn report(self, packages: usize, versions: Versions) -> PublishReport {
        PublishReport {
            packages,
            blobs: self.blobs,
            blobs_new: self.blobs_new,
            bytes_raw: self.bytes_raw,
            bytes_deduplicated: self.bytes_deduplicated,
            bytes_stored_new: self.bytes_stored_new,
            versions,
            near_cap: None,
            taken: self.taken,
        }
    }
}
