//! [`verify`]: everything that lies in a repository's folder, read and hashed again.
//!
//! The chain of roots and what the timestamp leads to, meta.fars as TUF targets, every stored form of every blob against
//! its name, every leaf list against the content. Damage is told with the packages that it hurts. Nothing is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{Role, Start, TrustAnchor, TrustedSet};

use crate::error::RepositoryError;
use crate::folders::{Folders, Form, Listed, Reach, read_capped};
use crate::parallel;
use crate::repository::Versions;

/// What a verification found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// Versions of the metadata, if it can be verified.
    pub versions: Option<Versions>,
    /// Roles whose metadata has expired: no damage, but devices refuse it until it is signed again.
    pub expired: Vec<Role>,
    /// Packages offered.
    pub packages: usize,
    /// Distinct blobs, stored or named.
    pub blobs: usize,
    /// Stored forms that were read.
    pub forms: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong.
    pub damage: Vec<Damage>,
    /// Blobs that lie here and that no package offered names.
    pub unreferenced: Vec<Unreferenced>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the folder verified where it is below it.
    pub file: PathBuf,
    /// The blob, if it is one.
    pub blob: Option<BlobId>,
    /// What is wrong with it.
    pub reason: String,
    /// Who uses it.
    pub users: Vec<BlobUse>,
}

/// Who uses a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUse {
    /// `NAME/VARIANT`.
    pub package: String,
    /// Its path in the package, behind the names of subpackages; ends in `meta/` for a meta.far.
    pub path: String,
}

/// A blob that no package names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreferenced {
    /// The blob.
    pub blob: BlobId,
    /// Bytes of its stored forms.
    pub bytes: u64,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Bytes of stored forms read.
    pub bytes_done: u64,
    /// Bytes of all stored forms.
    pub bytes_total: u64,
}

/// Reads and hashes everything in `dir`, a repository's folder in any layout of the real tools. `now` decides what has
/// expired.
///
/// # Errors
/// There is no repository, or the system refuses to read. Damage is no error: see [`VerifyReport::damage`].
pub fn verify(
    dir: &Path,
    now: UnixSeconds,
    hear: Option<&dyn Fn(VerifyProgress)>,
) -> Result<VerifyReport, RepositoryError> {
    let folders = Folders::find(dir)?;
    let mut found = Found { dir, damage: Vec::new() };
    let set = found.metadata(&folders)?;
    let listed = set.as_ref().map(|set| folders.listed(set)).unwrap_or_default();
    found.targets(&folders, &listed)?;
    let reach = Reach::of(&folders, &listed)?;
    let all: BTreeSet<BlobId> = folders.stored()?.union(&reach.blobs).copied().collect();
    let mut forms = Vec::new();
    let mut unreferenced = Vec::new();
    for id in &all {
        let of_blob = folders.forms(*id)?;
        if of_blob.is_empty() {
            found.blob(&folders.blobs[0].join(id.to_string()), *id, "it is missing".to_owned());
        }
        if set.is_some() && !reach.blobs.contains(id) {
            unreferenced.push(Unreferenced { blob: *id, bytes: of_blob.iter().map(|form| form.bytes).sum() });
        }
        forms.extend(of_blob);
    }
    let bytes = forms.iter().map(|form| form.bytes).sum();
    found.forms(&forms, bytes, hear);
    // A package that is whole as a blob but no package.
    let sound: BTreeSet<BlobId> = found.damage.iter().filter_map(|damage| damage.blob).collect();
    for (hash, _) in reach.packages.iter().filter(|(hash, names)| names.is_none() && !sound.contains(hash)) {
        let reason =
            folders.names(*hash).err().map_or_else(|| "it cannot be read".to_owned(), |error| error.to_string());
        found.blob(&folders.blobs[0].join(hash.to_string()), *hash, reason);
    }
    Ok(VerifyReport {
        versions: set.as_ref().map(Versions::of),
        expired: set.as_ref().map(|set| expired(set, now)).unwrap_or_default(),
        packages: listed.len(),
        blobs: all.len(),
        forms: forms.len(),
        bytes,
        damage: found.finish(&reach, &listed),
        unreferenced,
    })
}

fn expired(set: &TrustedSet, now: UnixSeconds) -> Vec<Role> {
    let expires = |role: &Role| match role {
        Role::Root => Some(set.root().expires()),
        Role::Timestamp => set.timestamp().map(colibri_metadata::Timestamp::expires),
        Role::Snapshot => set.snapshot().map(colibri_metadata::Snapshot::expires),
        Role::Targets => set.targets().map(colibri_metadata::Targets::expires),
    };
    Role::ALL.into_iter().filter(|role| expires(role).is_some_and(|at| at <= now)).collect()
}

/// What is wrong, as it is found.
struct Found<'a> {
    dir: &'a Path,
    damage: Vec<Damage>,
}

impl Found<'_> {
    fn note(&mut self, file: &Path, blob: Option<BlobId>, reason: String, users: Vec<BlobUse>) {
        let file = file.strip_prefix(self.dir).unwrap_or(file).to_owned();
        self.damage.push(Damage { file, blob, reason, users });
    }

    fn blob(&mut self, file: &Path, id: BlobId, reason: String) {
        self.note(file, Some(id), reason, Vec::new());
    }

    /// The chain from the oldest root to targets, and the copies of its files.
    fn metadata(&mut self, folders: &Folders) -> Result<Option<TrustedSet>, RepositoryError> {
        let newest = || read_capped(&folders.metadata.join(Role::Root.file()), Role::Root.bytes_max());
        let from = |root| folders.refresh(Start::FromAnchor(TrustAnchor::RootFile(root)));
        let set = match from(folders.first_root()?)? {
            Ok(set) => set,
            Err(error) => {
                self.note(&folders.metadata.join(error.file()), None, error.rule().to_string(), Vec::new());
                // Damage of an old root leaves what today's devices see.
                let Some(Ok(set)) = newest()?.map(from).transpose()? else { return Ok(None) };
                set
            }
        };
        let set = match folders.with_delegated(set.clone()) {
            Ok(set) => set,
            Err(RepositoryError::Damaged { path, reason }) => {
                self.note(&path, None, reason, Vec::new());
                set
            }
            Err(error) => return Err(error),
        };
        let numbered = set.root().consistent_snapshot();
        for (name, bytes) in set.files() {
            let unnumbered = numbered || name == Role::Root.file();
            let copy = read_capped(&folders.metadata.join(&*name), bytes.len() as u64)?;
            if unnumbered && copy.is_some_and(|copy| copy != *bytes) {
                let reason = "it is not the version that the timestamp leads to".to_owned();
                self.note(&folders.metadata.join(&*name), None, reason, Vec::new());
            }
        }
        Ok(Some(set))
    }

    /// The meta.fars as TUF targets: no device asks for them, other clients do.
    fn targets(&mut self, folders: &Folders, listed: &[Listed]) -> Result<(), RepositoryError> {
        for package in listed {
            let Some(target) = &package.target else { continue };
            let path = folders.metadata.join(target);
            let reason = match read_capped(&path, package.description.length)? {
                None => "it is missing".to_owned(),
                Some(bytes) if bytes.len() as u64 != package.description.length => {
                    format!("its length is not the {} bytes that targets says", package.description.length)
                }
                Some(bytes) => match package.description.hashes.check(&bytes) {
                    Ok(()) => continue,
                    Err(algorithm) => format!("its {algorithm} is not what targets says"),
                },
            };
            let users = vec![BlobUse { package: package.name.clone(), path: "meta/".to_owned() }];
            self.note(&path, Some(package.hash), reason, users);
        }
        Ok(())
    }

    /// Every stored form, and the leaf list beside it.
    fn forms(&mut self, forms: &[Form], bytes_total: u64, hear: Option<&dyn Fn(VerifyProgress)>) {
        let mut progress = VerifyProgress { bytes_done: 0, bytes_total };
        parallel::each(
            forms,
            |form| form.bytes,
            check,
            |form, outcome| {
                for (path, reason) in outcome {
                    self.blob(&path, form.id, reason);
                }
                progress.bytes_done += form.bytes;
                if let Some(hear) = hear {
                    hear(progress);
                }
                ControlFlow::Continue(())
            },
        );
    }

    /// Adds who is hurt, and puts it in order.
    fn finish(mut self, reach: &Reach, listed: &[Listed]) -> Vec<Damage> {
        let hurt: BTreeSet<BlobId> = self.damage.iter().filter_map(|damage| damage.blob).collect();
        let users: BTreeMap<BlobId, Vec<(String, String)>> = reach.users(listed, &hurt);
        for damage in self.damage.iter_mut().filter(|damage| damage.users.is_empty()) {
            let of_blob = damage.blob.and_then(|id| users.get(&id)).into_iter().flatten();
            damage.users =
                of_blob.map(|(package, path)| BlobUse { package: package.clone(), path: path.clone() }).collect();
        }
        self.damage.sort_by(|a, b| a.file.cmp(&b.file));
        // Two forms share one leaf list.
        self.damage.dedup();
        self.damage
    }
}

/// What is wrong with a stored form and the leaf list beside it.
fn check(form: &Form) -> Vec<(PathBuf, String)> {
    let tree = match form.prove() {
        Ok(tree) => tree,
        Err(reason) => return vec![(form.path.clone(), reason)],
    };
    let path = form.place.join("leaves").join(form.id.to_string());
    let expected = tree.leaves.wire();
    match read_capped(&path, expected.len() as u64) {
        Err(error) => vec![(path, error.to_string())],
        Ok(Some(list)) if list != expected => vec![(path, "it is not the leaf list of the content".to_owned())],
        // A missing list is computed by whoever serves the blob.
        Ok(_) => Vec::new(),
    }
}
