//! The gate before signing: a release is offered only when every blob it reaches is durable and proven (architecture §2,
//! invariant 3), or when somebody says why not, for everybody to read.
//!
//! A proven blob costs its receipt and a look at its length; nothing is read again. What has no receipt, because another tool
//! put it here, is read and verified now. Deliberately absent: signing (`draft`), storing (`blobs`).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{Role, TargetName, TrustedSet};

use crate::bins::Bins;
use crate::blobs::{BlobFolder, Standing};
use crate::commit::Unproven;
use crate::draft::{Change, TargetsChange};
use crate::error::RepositoryError;
use crate::metadata::{Head, MetadataFolder};
use crate::roles::SignedFile;
use crate::{limits, profile, roles};

/// Asked after the blobs of a publish are proven and before anything is signed: may it go on? For waiting until edges serve
/// the new blobs back, for approvals. Nobody else is kept from publishing meanwhile.
pub trait PublishGate: Send + Sync {
    /// Lets the publish of these blobs, all that its packages name, go on; or says why not.
    ///
    /// # Errors
    /// The reason, for people.
    fn pass(&self, blobs: &[BlobId]) -> Result<(), String>;
}

/// Why a blob is not ready to be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not here.
    Absent,
    /// What is stored under its name is something else.
    Wrong(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is absent"),
            Self::Wrong(reason) => write!(f, "it is wrong: {reason}"),
        }
    }
}

/// A blob that keeps a package from being offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadyBlob {
    /// `NAME/VARIANT` of the package that would be offered.
    pub package: String,
    /// Names of the subpackages that lead to it, joined by `/`; empty for the package itself.
    pub subpackage: String,
    /// Path in its package; `meta/` for a meta.far.
    pub path: String,
    /// The blob.
    pub id: BlobId,
    /// What is the matter.
    pub fault: Fault,
}

impl fmt::Display for UnreadyBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below =
            if self.subpackage.is_empty() { String::new() } else { format!(" in subpackage {}", self.subpackage) };
        write!(f, "package {}: {}{below}, blob {}: {}", self.package, self.path, self.id, self.fault)
    }
}

/// How a publish passes the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub now: UnixSeconds,
    /// Go on although blobs are not proven, for this reason.
    pub because: Option<&'a str>,
    /// A gate was not asked, for this reason, which is recorded whether or not all blobs are proven.
    pub past_gate: Option<&'a str>,
    /// Look at packages that stay as they are, however many there are.
    pub look_at_all: bool,
}

impl Pass<'_> {
    /// Nothing is let through.
    pub const fn plain(now: UnixSeconds) -> Self {
        Self { now, because: None, past_gate: None, look_at_all: false }
    }
}

/// Checks packages, each blob once.
#[derive(Debug)]
pub(crate) struct Check<'a> {
    blobs: &'a BlobFolder,
    now: UnixSeconds,
    proven: HashSet<BlobId>,
    bad: HashMap<BlobId, Fault>,
    /// Packages that are whole with all that is below them.
    whole: HashSet<BlobId>,
    /// The first of what was found.
    pub unready: Vec<UnreadyBlob>,
    /// How many there are.
    pub count: u64,
}

impl<'a> Check<'a> {
    pub fn new(blobs: &'a BlobFolder, now: UnixSeconds) -> Self {
        let (proven, bad, whole) = (HashSet::new(), HashMap::new(), HashSet::new());
        Self { blobs, now, proven, bad, whole, unready: Vec::new(), count: 0 }
    }

    /// The blobs found proven.
    pub fn proven(&self) -> Vec<BlobId> {
        let mut proven: Vec<BlobId> = self.proven.iter().copied().collect();
        proven.sort_unstable();
        proven
    }

    /// Looks at everything that a package names, recursively.
    pub fn package(&mut self, name: &str, hash: BlobId) -> Result<(), RepositoryError> {
        let before = self.count;
        let mut parents = HashMap::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![hash];
        while let Some(package) = open.pop() {
            if self.whole.contains(&package) || !seen.insert(package) {
                continue;
            }
            if seen.len() as u64 > limits::PACKAGES_PER_PUBLISH_MAX {
                let limit = limits::PACKAGES_PER_PUBLISH_MAX;
                return Err(RepositoryError::TooMany { what: "subpackages of a package", limit });
            }
            if !self.is_proven(package)? {
                self.note(name, &parents, package, "meta/", package)?;
                continue;
            }
            let contents = match self.blobs.contents_of(package) {
                Err(RepositoryError::StoredBlob { reason, .. }) => {
                    self.bad.insert(package, Fault::Wrong(reason));
                    self.note(name, &parents, package, "meta/", package)?;
                    continue;
                }
                contents => contents?,
            };
            let mut bad = BTreeSet::new();
            for id in &contents.blobs {
                if !self.is_proven(*id)? {
                    bad.insert(*id);
                }
            }
            if !bad.is_empty() {
                for (path, id) in self.blobs.meta_far(package)?.contents() {
                    if bad.contains(id) {
                        self.note(name, &parents, package, path.as_str(), *id)?;
                    }
                }
            }
            for below in &contents.subpackages {
                parents.entry(*below).or_insert(package);
                open.push(*below);
            }
        }
        if self.count == before {
            self.whole.extend(seen);
        }
        Ok(())
    }

    fn is_proven(&mut self, id: BlobId) -> Result<bool, RepositoryError> {
        if self.proven.contains(&id) || self.bad.contains_key(&id) {
            return Ok(self.proven.contains(&id));
        }
        match self.blobs.any_standing(id, self.now)? {
            Standing::Proven => _ = self.proven.insert(id),
            Standing::Absent => _ = self.bad.insert(id, Fault::Absent),
            Standing::Wrong(reason) => _ = self.bad.insert(id, Fault::Wrong(reason)),
        }
        Ok(self.proven.contains(&id))
    }

    fn note(
        &mut self,
        name: &str,
        parents: &HashMap<BlobId, BlobId>,
        package: BlobId,
        path: &str,
        id: BlobId,
    ) -> Result<(), RepositoryError> {
        self.count += 1;
        if self.unready.len() as u64 >= limits::UNREADY_NAMED_MAX {
            return Ok(());
        }
        let mut names = Vec::new();
        let mut at = package;
        while let Some(parent) = parents.get(&at).filter(|_| (names.len() as u64) < limits::SUBPACKAGE_DEPTH_MAX) {
            let meta = self.blobs.meta_far(*parent)?;
            names.extend(meta.subpackages().iter().find(|(_, id)| **id == at).map(|(name, _)| name.to_string()));
            at = *parent;
        }
        names.reverse();
        let fault = self.bad.get(&id).cloned().unwrap_or(Fault::Absent);
        let (package, path) = (name.to_owned(), path.to_owned());
        self.unready.push(UnreadyBlob { package, subpackage: names.join("/"), path, id, fault });
        Ok(())
    }
}

/// Name and package hash of entries of targets. Those that are no packages are left out.
pub(crate) fn packages_in(entries: &serde_json::Map<String, serde_json::Value>) -> BTreeMap<String, BlobId> {
    let hash = |entry: &serde_json::Value| entry.get("custom")?.get("merkle")?.as_str()?.parse().ok();
    entries.iter().filter_map(|(name, entry)| Some((name.clone(), hash(entry)?))).collect()
}

/// Every package that a change of `set` offers, after `before`: name and package hash.
fn offered(set: &TrustedSet, before: &BTreeMap<String, BlobId>, change: &Change) -> BTreeMap<String, BlobId> {
    let mut offered = before.clone();
    match &change.targets {
        TargetsChange::Keep => {}
        TargetsChange::Adopt(files) => {
            // Other roles stay as they are.
            let bins = profile::bins_of(set);
            offered.retain(|name, _| !is_listed_by(set, bins, files, name));
            for file in files {
                let listed = roles::signed_part(&file.bytes).and_then(|mut signed| signed.remove("targets"));
                if let Some(serde_json::Value::Object(entries)) = listed {
                    offered.extend(packages_in(&entries));
                }
            }
        }
        TargetsChange::Offer(offer) => {
            if offer.clean {
                offered.clear();
            }
            for name in &offer.remove {
                offered.remove(name.as_str());
            }
            for (name, entry) in &offer.put {
                match entry.merkle() {
                    Some(hash) => _ = offered.insert(name.as_str().to_owned(), hash),
                    None => _ = offered.remove(name.as_str()),
                }
            }
        }
    }
    offered
}

/// Whether it is for one of these files to say what lies under `name`: the role at the top, or the hash bin of that name.
fn is_listed_by(set: &TrustedSet, bins: Option<Bins>, files: &[SignedFile], name: &str) -> bool {
    let Ok(name) = name.parse::<TargetName>() else { return false };
    let top = set.targets().is_some_and(|targets| targets.get(&name).is_some());
    let file = match bins {
        Some(bins) if !top => bins.role(bins.of_target(&name)).file(),
        _ if top => Role::Targets.file().to_owned(),
        _ => return false,
    };
    files.iter().any(|changed| changed.file == file)
}

/// What the snapshot of a set says of blobs that were let through.
pub(crate) fn let_through(set: &TrustedSet) -> Option<Unproven> {
    serde_json::from_value(set.snapshot()?.custom().get("unproven")?.clone()).ok()
}

/// Lets a change pass, or says which blobs of which packages are not ready. Gives what the snapshot must say if blobs that
/// are not proven are let through.
pub(crate) fn check(
    metadata: &MetadataFolder,
    blobs: &BlobFolder,
    head: &Head,
    change: &Change,
    pass: &Pass<'_>,
) -> Result<Option<Unproven>, RepositoryError> {
    blobs.receipts.read_new()?;
    let let_through = let_through(&head.set);
    // A commit of ours says that what stays has passed, so in a large set only what is new is looked at.
    let passed = head.commit.is_some() && let_through.is_none() && !pass.look_at_all;
    // In a set with hash bins that is all that is read: what stays lies in bins that nobody opens.
    let before = match profile::bins_of(&head.set) {
        Some(_) if passed && !matches!(change.targets, TargetsChange::Adopt(_)) => BTreeMap::new(),
        _ => metadata.packages_of(&head.set)?,
    };
    let stays = |name: &str, hash: BlobId| before.get(name) == Some(&hash);
    let mut check = Check::new(blobs, pass.now);
    let offered = offered(&head.set, &before, change);
    let skip = passed && offered.len() as u64 > limits::CARRIED_PACKAGES_CHECKED_MAX;
    let mut new_are_ready = true;
    for (name, hash) in &offered {
        let stays = stays(name, *hash);
        if !(skip && stays) {
            let before = check.count;
            check.package(name, *hash)?;
            new_are_ready &= stays || check.count == before;
        }
    }
    // Before anything is signed that depends on them.
    blobs.receipts.flush()?;
    if check.count == 0 {
        return pass.past_gate.map(|reason| Ok(Unproven { reason: reason_checked(reason)?, blobs: 0 })).transpose();
    }
    if let Some(reason) = pass.because {
        return Ok(Some(Unproven { reason: reason_checked(reason)?, blobs: check.count }));
    }
    match let_through {
        // What was let through once stays so until it is proven or gone.
        Some(Unproven { reason, blobs }) if new_are_ready && check.count <= blobs => {
            Ok(Some(Unproven { reason, blobs: check.count }))
        }
        _ => Err(RepositoryError::Unready { blobs: check.unready, count: check.count }),
    }
}

/// A reason as it may stand in signed metadata.
fn reason_checked(reason: &str) -> Result<String, RepositoryError> {
    let reason = reason.trim();
    let fault = if reason.is_empty() {
        "it is empty"
    } else if reason.len() as u64 > limits::REASON_BYTES_MAX {
        "it is too long"
    } else if reason.chars().any(char::is_control) {
        "it has control characters, on whose signed form clients disagree"
    } else {
        return Ok(reason.to_owned());
    };
    Err(RepositoryError::BadReason { fault })
}
