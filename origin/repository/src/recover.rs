//! [`Repository::recover`]: for an origin restored from an older backup: what was released since is read back from edges.
//!
//! Each edge is a witness, not an authority: what it shows is verified from our own root, as a client would that has seen
//! nothing yet. The newest valid targets are taken back as they were signed; snapshot and timestamp are signed above every
//! version that any edge has shown, so that no client sees a rollback. Blobs that are not here are fetched from the edges and
//! proven; what nobody has is told, by package. Deliberately absent: finding edges.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use colibri_common::{BlobId, UnixSeconds};
use colibri_fetch::metadata::{MetadataSource, refresh_from};
use colibri_fetch::{AttemptError, BlobFetcher, FetchError, Known, Recorder};
use colibri_metadata::{Answer, Role, Snapshot, Start, TrustAnchor, TrustedSet, Want};
use colibri_package::PackagePath;
use colibri_package::delivery::{DeliveryType, Encoding, Layout, VerifiedPieces};
use colibri_store::DocumentName;

use crate::draft::{Change, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::{self, Check, Pass};
use crate::keys::KeyRole;
use crate::layout;
use crate::metadata::{Head, Terms};
use crate::offer::{self, Offer};
use crate::repository::{Repository, Versions};

/// What was signed long ago counts as well: it is signed again here.
const NEVER_EXPIRED: UnixSeconds = UnixSeconds(0);

/// Encodings asked for, the better one first.
const ENCODINGS: [Encoding; 2] = [Encoding::Delivery(DeliveryType::Type1), Encoding::Raw];

/// A place that may remember what was released: an edge's address of the repository.
#[derive(Debug, Clone)]
pub struct Witness {
    /// How reports call it.
    pub name: String,
    /// Fetches from it alone, from the repository's own address there.
    pub fetcher: BlobFetcher,
}

/// How to recover.
#[derive(Debug, Clone)]
pub struct Recover {
    /// The time.
    pub now: UnixSeconds,
    /// Offer what is taken back although nobody has all its blobs; the signed snapshot says why.
    pub unproven_because: Option<String>,
}

/// What one witness showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// The witness.
    pub name: String,
    /// Versions it showed, as far as they were valid; none if nothing was.
    pub versions: Option<Versions>,
    /// Why it was of no further use.
    pub fault: Option<String>,
}

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverReport {
    /// What each witness showed.
    pub witnesses: Vec<Testimony>,
    /// Versions before.
    pub before: Versions,
    /// Versions now visible.
    pub versions: Versions,
    /// Packages that came back or changed, by name.
    pub packages: Vec<String>,
    /// Blobs fetched from witnesses.
    pub blobs_fetched: u64,
    /// Blobs that nobody has; more than none only if that was allowed.
    pub blobs_missing: u64,
}

/// A verified set and every file of it that was read.
struct Shown {
    set: TrustedSet,
    files: BTreeMap<String, Bytes>,
}

/// What a witness says.
struct Testifying<'a>(Recorder<'a>);

impl MetadataSource for Testifying<'_> {
    async fn fetch(&self, want: &Want) -> Result<Answer, AttemptError> {
        match self.0.fetch(want).await {
            // An edge whose origin is away cannot say that there is no later root. Taking it so loses nothing: what a later
            // root's keys have signed does not verify without it.
            Err(error) if want.role == Role::Root => {
                tracing::debug!(file = %want.name, %error, "taken as the end of the chain of roots");
                Ok(Answer::NotFound)
            }
            answer => answer,
        }
    }
}

impl Repository {
    /// Takes back from edges what was released since this folder was backed up. To be run before the restored origin answers
    /// again: edges that can ask it would follow it back.
    ///
    /// # Errors
    /// No witness shows anything valid, the two histories contradict each other, blobs are gone (unless that is allowed), a
    /// key is missing, or the disk refuses. What was visible before stays visible.
    pub async fn recover(&self, witnesses: &[Witness], recover: &Recover) -> Result<RecoverReport, RepositoryError> {
        let before = self.versions()?;
        let root = self.trusted_root_bytes()?;
        let (mut testimonies, mut newest, mut above): (Vec<_>, Option<Shown>, _) = (Vec::new(), None, before);
        for witness in witnesses {
            let known = |file: &str| {
                let name = layout::metadata(file).ok()?;
                self.storage.read(&name, Role::Targets.bytes_max()).ok().flatten()
            };
            let (shown, fault) = hear(witness, root.clone(), &known).await;
            let versions = shown.as_ref().map(|shown| Versions::of(&shown.set));
            testimonies.push(Testimony { name: witness.name.clone(), versions, fault: fault.clone() });
            let Some(shown) = shown else { continue };
            above = highest(above, Versions::of(&shown.set));
            let rank = |shown: &Shown| {
                let Versions { root, targets, snapshot, .. } = Versions::of(&shown.set);
                (targets, snapshot, root)
            };
            if fault.is_none() && newest.as_ref().is_none_or(|before| rank(&shown) > rank(before)) {
                newest = Some(shown);
            }
        }
        let Some(mut newest) = newest else { return Err(RepositoryError::NoWitness { heard: told(&testimonies) }) };
        let here = self.metadata()?;
        let offered_before = self.metadata.packages_of(&here)?;
        let mut offered = newest.packages();
        let behind = ahead(&here, &newest.set);
        let is_behind = match (behind, ahead(&newest.set, &here)) {
            (Some(name), Some(_)) => return Err(RepositoryError::Forked { name }),
            (behind, _) => behind.is_some() || newest.set.root().version() < before.root,
        };
        if is_behind {
            // Nothing to take back; but what clients have seen must still be overtaken.
            newest = Shown { set: here, files: BTreeMap::new() };
            offered = offered_before.clone();
        }
        let blobs_fetched = self.fetch_lacking(&offered, witnesses, recover).await?;
        let came_back = offered.iter().filter(|(name, hash)| offered_before.get(*name) != Some(hash));
        let packages: Vec<String> = came_back.map(|(name, _)| name.clone()).collect();
        let (repository, recover) = (self.clone(), recover.clone());
        let adopting = tokio::task::spawn_blocking(move || repository.take_back(&newest, above, &offered, &recover));
        let (versions, blobs_missing) = adopting.await.map_err(|_| RepositoryError::Stopped)??;
        Ok(RecoverReport { witnesses: testimonies, before, versions, packages, blobs_fetched, blobs_missing })
    }

    /// Blobs of packages that are not here, proven, and the packages that need them.
    fn lacking(
        &self,
        offered: &BTreeMap<String, BlobId>,
        now: UnixSeconds,
    ) -> Result<BTreeSet<BlobId>, RepositoryError> {
        self.blobs.receipts.read_new()?;
        let mut check = Check::new(&self.blobs, now);
        for (name, hash) in offered {
            check.package(name, *hash)?;
        }
        self.blobs.receipts.flush()?;
        Ok(check.unready.iter().map(|blob| blob.id).collect())
    }

    /// Fetches what is lacking, meta.fars first and then what they name, until nobody has more.
    async fn fetch_lacking(
        &self,
        offered: &BTreeMap<String, BlobId>,
        witnesses: &[Witness],
        recover: &Recover,
    ) -> Result<u64, RepositoryError> {
        let (mut fetched, mut in_vain) = (0, BTreeSet::new());
        loop {
            let (repository, offered, now) = (self.clone(), offered.clone(), recover.now);
            let looking = tokio::task::spawn_blocking(move || repository.lacking(&offered, now));
            let lacking = looking.await.map_err(|_| RepositoryError::Stopped)??;
            let wanted: Vec<_> = lacking.difference(&in_vain).copied().collect();
            if wanted.is_empty() {
                return Ok(fetched);
            }
            for id in wanted {
                if self.fetch_from_any(id, witnesses, recover.now).await? {
                    fetched += 1;
                } else {
                    in_vain.insert(id);
                }
            }
        }
    }

    async fn fetch_from_any(
        &self,
        id: BlobId,
        witnesses: &[Witness],
        now: UnixSeconds,
    ) -> Result<bool, RepositoryError> {
        for witness in witnesses {
            for encoding in ENCODINGS {
                match fetch(&witness.fetcher, id, encoding).await {
                    Ok(bytes) => {
                        let repository = self.clone();
                        let storing =
                            tokio::task::spawn_blocking(move || match repository.upload(id, encoding, now)? {
                                Some(mut upload) => {
                                    let from =
                                        usize::try_from(upload.received()).unwrap_or(usize::MAX).min(bytes.len());
                                    upload.write(upload.received(), &bytes[from..])?;
                                    upload.finish(None, now).map(drop)
                                }
                                None => Ok(()),
                            });
                        storing.await.map_err(|_| RepositoryError::Stopped)??;
                        return Ok(true);
                    }
                    Err(error) => {
                        tracing::debug!(witness = %witness.name, %id, %error, "this witness has no such blob");
                    }
                }
            }
        }
        Ok(false)
    }

    /// Makes a shown set the repository's, with a snapshot and a timestamp above all that was seen.
    fn take_back(
        &self,
        shown: &Shown,
        above: Versions,
        offered: &BTreeMap<String, BlobId>,
        recover: &Recover,
    ) -> Result<(Versions, u64), RepositoryError> {
        let now = recover.now;
        let pass = Pass { now, because: recover.unproven_because.as_deref(), past_gate: None, look_at_all: true };
        let packages: Vec<(PackagePath, BlobId)> =
            offered.iter().filter_map(|(name, hash)| Some((name.parse().ok()?, *hash))).collect();
        let _lock = self.storage.lock()?;
        let head = self.metadata.head()?;
        let terms = Terms { above: Some(above), ..self.terms(now, false) };
        for (name, bytes) in numbered(shown)? {
            if !self.storage.create(&name, &bytes)?
                && self.storage.read(&name, bytes.len() as u64)?.as_ref() != Some(&bytes)
            {
                return Err(RepositoryError::Forked { name: name.as_str().to_owned() });
            }
        }
        let base = Head { number: head.number, set: shown.set.clone(), commit: None };
        let mut change = Change::default();
        let own = shown.set.own_targets(NEVER_EXPIRED);
        if own.iter().any(|role| role.expires() <= now) {
            change.targets = TargetsChange::Offer(Offer::again());
        }
        if let Some((wanted, rollout)) = self.rollout_in(&shown.set)?
            && rollout.expires() <= now
            && self.keys.matching(KeyRole::Rollout, &wanted)?.len() >= wanted.threshold as usize
        {
            change.rollout = Some(Offer::default());
        }
        change.unproven = gate::check(&self.metadata, &self.blobs, &base, &change, &pass)?;
        let whole = packages.into_iter().filter(|(_, hash)| matches!(self.blobs.has_any(*hash), Ok(true)));
        self.blobs.put_targets(&self.named_targets(&whole.collect::<Vec<_>>())?.files)?;
        let missing = change.unproven.as_ref().map_or(0, |unproven| unproven.blobs);
        let unproven = change.unproven.clone();
        let signing = self.signing(Some(&base.set), now)?;
        let draft = self.metadata.draft(&base.set, signing, change, &terms)?;
        if !self.audit.append(&draft.audit)? || self.metadata.commit(head.number, &draft, now, unproven)?.is_none() {
            return Err(RepositoryError::Contended { path: self.dir.clone(), attempts: 1 });
        }
        Ok((Versions::of(&draft.set), missing))
    }
}

/// What a witness shows, from our own root; and why it is of no further use, if it is not. A delegated role that it does not
/// show is taken from `known` if it is the version that its snapshot lists: an edge has the roles that somebody asked it for.
async fn hear(
    witness: &Witness,
    root: Bytes,
    known: &(dyn Fn(&str) -> Option<Bytes> + Sync),
) -> (Option<Shown>, Option<String>) {
    let recorder = Testifying(Recorder::new(&witness.fetcher));
    let start = Start::FromAnchor(TrustAnchor::RootFile(root));
    let (mut set, mut fault) = match refresh_from(&recorder, start, NEVER_EXPIRED).await {
        Ok(set) => (Some(set), None),
        // Versions that were proven before it failed must be overtaken all the same.
        Err(unfinished) => (unfinished.floor, Some(unfinished.error.to_string())),
    };
    let mut files = recorder.0.into_files();
    if let (Some(refreshed), None) = (&set, &fault) {
        match witness.fetcher.delegated(refreshed.clone(), NEVER_EXPIRED, Known { file: known, first: false }).await {
            Ok((whole, delegated)) => {
                set = Some(whole);
                files.extend(delegated);
            }
            Err(error) => fault = Some(error.to_string()),
        }
    }
    (set.map(|set| Shown { set, files }), fault)
}

impl Shown {
    /// Every package offered, delegated roles included.
    fn packages(&self) -> BTreeMap<String, BlobId> {
        let targets = offer::targets_of(&self.set).chain(offer::targets_elsewhere(&self.set));
        targets.filter_map(|(name, target)| Some((name.to_string(), target.merkle()?))).collect()
    }
}

/// A targets file of which `set` has a later version than `other`, or which `other` does not have.
fn ahead(set: &TrustedSet, other: &TrustedSet) -> Option<String> {
    let (listed, others) = (set.snapshot()?.meta(), other.snapshot().map(Snapshot::meta));
    let later =
        |file: &String, version| others.and_then(|others| others.get(file)).is_none_or(|meta| meta.version < version);
    listed.iter().find(|(file, meta)| later(file, meta.version)).map(|(file, _)| file.clone())
}

/// A blob in one encoding, proven.
async fn fetch(fetcher: &BlobFetcher, id: BlobId, encoding: Encoding) -> Result<Bytes, FetchError> {
    let mut parts: BTreeMap<u64, Bytes> = BTreeMap::new();
    let mut sink = |pieces: VerifiedPieces| {
        parts.insert(pieces.encoded_offset(), pieces.encoded().clone());
    };
    let layout = read(fetcher, id, encoding, &mut sink).await?;
    let mut bytes = BytesMut::from(&layout.unit_h()[..]);
    parts.values().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes.freeze())
}

/// Reads all of a blob in one encoding and hands every proven piece to `sink`, in no order.
pub(crate) async fn read(
    fetcher: &BlobFetcher,
    id: BlobId,
    encoding: Encoding,
    sink: &mut (dyn FnMut(VerifiedPieces) + Send),
) -> Result<Layout, FetchError> {
    let opened = fetcher.open("", id, encoding).await?;
    let layout = opened.layout;
    // What was shown while opening reaches to the end.
    let end = opened.early.first().map_or(layout.piece_count(), VerifiedPieces::first_piece);
    opened.early.into_iter().for_each(&mut *sink);
    for unit in 0..layout.unit_count() {
        let pieces = layout.pieces_of(unit);
        let pieces = pieces.start..pieces.end.min(end);
        if !pieces.is_empty() {
            fetcher.pieces("", &layout, unit, pieces, &mut *sink).await?;
        }
    }
    Ok(layout)
}

/// The files of a shown set under their numbered names.
fn numbered(shown: &Shown) -> Result<Vec<(DocumentName, Bytes)>, RepositoryError> {
    let plain: Vec<&str> = Role::ALL.iter().map(|role| role.file()).collect();
    let files = shown.files.iter().filter(|(name, _)| !plain.contains(&name.as_str()));
    files.map(|(name, bytes)| Ok((DocumentName::new(&format!("{}/{name}", layout::SERVED))?, bytes.clone()))).collect()
}

fn highest(one: Versions, other: Versions) -> Versions {
    Versions {
        root: one.root.max(other.root),
        targets: one.targets.max(other.targets),
        snapshot: one.snapshot.max(other.snapshot),
        timestamp: one.timestamp.max(other.timestamp),
    }
}

fn told(testimonies: &[Testimony]) -> String {
    let line = |of: &Testimony| format!("\n  {}: {}", of.name, of.fault.as_deref().unwrap_or("nothing"));
    testimonies.iter().map(line).collect()
}
