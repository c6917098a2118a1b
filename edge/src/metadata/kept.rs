//! [`Kept`]: what one followed repository keeps on disk: the set that is served, the floor, and all roots.
//!
//! It may be wiped at any time, then the edge begins from its configured root again. What is read back is verified against
//! that root, so nothing on the disk is trusted for being there. Failures to write are told and change nothing else: the edge
//! goes on from memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use colibri_api::RepositoryName;
use colibri_common::UnixSeconds;
use colibri_fetch::trust_store::TrustStore;
use colibri_metadata::limits::ROOT_BYTES_MAX;
use colibri_metadata::{Answer, Role, Start, Step, TrustAnchor, TrustedSet, Update};
use colibri_store::{DocumentName, Documents, OsDisk};

use super::freeze::FirstSeen;
use crate::error::EdgeError;

/// Longest document that says when upstream was last asked, or a timestamp first seen, bytes.
const CHECKED_BYTES_MAX: u64 = 32;

/// The folder of one repository's state.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    dir: PathBuf,
    repository: String,
    /// Opened again if the folder was taken away.
    documents: Arc<Mutex<Documents>>,
    /// When it was last written that upstream was asked.
    check_kept_at: Arc<AtomicU64>,
}

/// What was on disk and could be verified.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub roots: BTreeMap<u32, Bytes>,
    pub whole: Option<TrustedSet>,
    pub floor: Option<TrustedSet>,
    /// How long ago upstream was asked.
    pub age: Option<Duration>,
    /// When a timestamp was first seen, mostly that of the set.
    pub seen: Option<FirstSeen>,
}

/// What is to be kept.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub roots: BTreeMap<u32, Bytes>,
    /// The whole set, if it is another one.
    pub whole: Option<TrustedSet>,
    /// What was proven beyond; nothing if there is nothing any more.
    pub floor: Option<TrustedSet>,
    pub checked_at: Option<UnixSeconds>,
    /// When the set's timestamp was first seen, if it is another one.
    pub seen: Option<FirstSeen>,
}

impl Kept {
    pub fn open(dir: &Path, repository: &RepositoryName) -> Result<Self, EdgeError> {
        let documents = Documents::open(Arc::new(OsDisk), dir).map_err(EdgeError::State)?;
        let repository = repository.as_str().to_owned();
        Ok(Self {
            dir: dir.to_owned(),
            repository,
            documents: Arc::new(Mutex::new(documents)),
            check_kept_at: Arc::default(),
        })
    }

    /// Reads what is there, as far as the configured root vouches for it.
    pub fn load(&self, anchor: &Bytes, now: UnixSeconds) -> Loaded {
        let documents = self.documents();
        let stored = |name: String, most| {
            let name = DocumentName::new(&name).ok()?;
            documents.get(&name, most).unwrap_or_else(|error| {
                tracing::warn!(repository = %self.repository, %error, "kept metadata cannot be read");
                None
            })
        };
        let root = |version: u32| stored(self.root_name(version), ROOT_BYTES_MAX);
        let Some((chain, roots)) = walk_roots(anchor, root) else { return Loaded::default() };
        let trust = TrustStore::new(documents.clone());
        let set = |what: &str| {
            let set = trust.load(&self.set_name(what)).unwrap_or_else(|error| {
                tracing::warn!(repository = %self.repository, %error, "kept metadata is left aside");
                None
            })?;
            under_root(&chain, &set)
        };
        let checked_at = stored(self.checked_name(), CHECKED_BYTES_MAX)
            .and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
        let age = checked_at.and_then(|at: u64| now.0.checked_sub(at)).map(Duration::from_secs);
        let seen = stored(self.seen_name(), CHECKED_BYTES_MAX).and_then(|text| {
            let (version, at) = std::str::from_utf8(&text).ok()?.trim().split_once(' ')?;
            Some(FirstSeen { version: version.parse().ok()?, at: UnixSeconds(at.parse().ok()?) })
        });
        let whole = set("set").filter(TrustedSet::is_whole);
        // A floor below the set is a leftover of a crash: the set replaced it.
        let timestamp = |set: Option<&TrustedSet>| set.and_then(|set| set.version(Role::Timestamp));
        let floor = set("floor").filter(|floor| timestamp(Some(floor)) >= timestamp(whole.as_ref()));
        let floor = floor.or_else(|| whole.is_none().then(|| set("set").unwrap_or(chain.clone())));
        Loaded { roots, whole, floor, age, seen }
    }

    /// Whether the time of the last check has not been written for this long.
    pub fn check_is_due(&self, now: UnixSeconds, every_s: u64) -> bool {
        now.0.abs_diff(self.check_kept_at.load(Ordering::Relaxed)) >= every_s
    }

    /// Writes a change, durably.
    pub fn save(&self, change: &Change) {
        let mut saved = self.try_save(change);
        if saved.is_err() {
            // The folder may have been removed or replaced: once more, from the start.
            saved =
                Documents::open(Arc::new(OsDisk), &self.dir).map_err(|error| error.to_string()).and_then(|opened| {
                    *self.documents.lock().unwrap_or_else(PoisonError::into_inner) = opened;
                    self.try_save(change)
                });
        }
        if let Err(error) = saved {
            tracing::warn!(repository = %self.repository, %error, "metadata could not be kept on disk");
        }
    }

    fn try_save(&self, change: &Change) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let documents = self.documents();
        let put = |name: String, content: &[u8]| {
            let name = DocumentName::new(&name).map_err(|error| text(&error))?;
            documents.put(&name, content).map_err(|error| text(&error))
        };
        for (version, bytes) in &change.roots {
            put(self.root_name(*version), bytes)?;
        }
        let trust = TrustStore::new(documents.clone());
        if let Some(set) = &change.whole {
            trust.save(&self.set_name("set"), set).map_err(|error| text(&error))?;
        }
        // Only after the set that may replace it.
        match &change.floor {
            Some(floor) => trust.save(&self.set_name("floor"), floor).map_err(|error| text(&error))?,
            None if change.whole.is_some() => trust.remove(&self.set_name("floor")).map_err(|error| text(&error))?,
            None => {}
        }
        if let Some(seen) = change.seen {
            put(self.seen_name(), format!("{} {}", seen.version, seen.at.0).as_bytes())?;
        }
        match change.checked_at {
            Some(at) => {
                self.check_kept_at.store(at.0, Ordering::Relaxed);
                put(self.checked_name(), at.0.to_string().as_bytes())
            }
            None => Ok(()),
        }
    }

    fn documents(&self) -> Documents {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn root_name(&self, version: u32) -> String {
        format!("roots/{}/{}", self.repository, Role::Root.numbered_file(version))
    }

    fn set_name(&self, what: &str) -> String {
        format!("{}/{what}", self.repository)
    }

    fn seen_name(&self) -> String {
        format!("seen/{}", self.repository)
    }

    fn checked_name(&self) -> String {
        format!("checked/{}", self.repository)
    }
}

/// Follows the chain of kept roots from the configured one, as far as it goes: the newest, and all of them.
fn walk_roots(anchor: &Bytes, kept: impl Fn(u32) -> Option<Bytes>) -> Option<(TrustedSet, BTreeMap<u32, Bytes>)> {
    let mut roots = BTreeMap::new();
    // Expiry is the business of the next refresh.
    let start = || Start::FromAnchor(TrustAnchor::RootFile(anchor.clone()));
    let mut update = Update::start(start(), UnixSeconds(0));
    while let (Step::Want(want), Some(root)) = (update.next(), update.root())
        && want.role == Role::Root
    {
        let version = root.version() + 1;
        let Some(bytes) = kept(version) else { break };
        if update.supply(Answer::Found(bytes.clone())).is_err() {
            break;
        }
        roots.insert(version, bytes);
    }
    Some((update.into_floor()?, roots))
}

/// A kept set as far as the newest root vouches for it: under other online keys it is no floor.
fn under_root(chain: &TrustedSet, set: &TrustedSet) -> Option<TrustedSet> {
    let root = chain.files().find(|(name, _)| *name == Role::Root.file())?;
    let below = set.files().filter(|(name, _)| *name != Role::Root.file());
    let files = std::iter::once(root).chain(below).map(|(name, bytes)| (name, bytes.clone()));
    TrustedSet::load(files).ok()
}
