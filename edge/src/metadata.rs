//! Repositories that this edge follows as a verifying TUF client, from a root that it was given.
//!
//! What is served of such a repository is one verified set at a time, swapped as a whole: who reads a timestamp finds all that
//! it names here. Sets that were served stay reachable under their numbers for a day, roots for ever. What is older than the
//! newest set that was seen is never served, also after a restart if there is a folder for state. Deliberately absent: what
//! devices make of it, which verify all of it again; and repositories without a root, which pass through (`documents`).

mod answer;
mod freeze;
mod history;
mod kept;
mod listen;
mod published;
mod refresh;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use colibri_api::RepositoryName;
use colibri_common::{Clock, UnixSeconds};
use colibri_fetch::{BlobFetcher, FetchError, Patience};
use colibri_metadata::limits::ROOT_BYTES_MAX;
use colibri_metadata::{Role, Start, TrustedSet};
use quick_cache::sync::Cache;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{EdgeConfig, FollowedConfig};
use crate::error::EdgeError;
use crate::forms::Forms;
use crate::lifetimes::Lifetimes;
use crate::limits::{EXTRA_BYTES_MAX, ROOTS_KEPT_MAX};
use crate::metrics::Metrics;
use crate::shapes::one_shard;
use crate::single_flight::SingleFlight;
use crate::unknown::Unknown;
pub(crate) use answer::Answered;
use answer::{ByBytes, Extra};
use freeze::FirstSeen;
pub(crate) use freeze::export;
use history::History;
use kept::{Kept, Loaded};
use published::File;
pub(crate) use published::Published;

/// Items the index of extra files is sized for.
const ESTIMATED_ITEMS: usize = 1024;

/// The repositories that are followed, by name.
#[derive(Debug, Default)]
pub(crate) struct Repositories(BTreeMap<RepositoryName, Arc<Followed>>);

/// One repository that is followed.
pub(crate) struct Followed {
    name: RepositoryName,
    /// `/NAME`, where it is below each upstream.
    place: String,
    /// The root file that was given.
    anchor: Bytes,
    clock: Arc<dyn Clock>,
    fetcher: BlobFetcher,
    agent: String,
    patience: Patience,
    forms: Forms,
    unknown: Unknown,
    /// How long what is here is served before upstream is asked again, and when it cannot be asked.
    lifetimes: Lifetimes,
    /// How long upstream may sign nothing new before the operator is told, seconds; 0 for a part of the timestamp's life.
    frozen_after_s: u64,
    kept: Option<Kept>,
    state: Mutex<State>,
    refreshes: SingleFlight<(), ()>,
    /// Verified files that no set holds: delegated roles of large repositories, and what has left the history.
    extras: Cache<String, Extra, ByBytes>,
    extra_flights: SingleFlight<String, Arc<File>>,
    /// Version of the timestamp that is served.
    versions: watch::Sender<Option<u32>>,
    /// Somebody said that there is something new.
    news: Notify,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    /// What was proven beyond the set that is served, by a refresh that did not come to its end.
    floor: Option<TrustedSet>,
    current: Option<Arc<Published>>,
    past: History,
    roots: BTreeMap<u32, Arc<File>>,
    /// As of when upstream is known to have nothing newer.
    checked_at: Option<Instant>,
    /// When the timestamp that is served was first seen.
    seen: Option<FirstSeen>,
    /// When the operator was last told that it should be newer.
    freeze_told_at: Option<UnixSeconds>,
    /// Why the last refresh failed, if it did.
    failed: Option<(Instant, FetchError)>,
    /// Refreshes that came to an end, whichever.
    refreshes_ended: u64,
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What repositories have in common.
pub(crate) struct Common<'a> {
    pub config: &'a EdgeConfig,
    pub clock: Arc<dyn Clock>,
    /// Asks upstream for the edge itself.
    pub fetcher: BlobFetcher,
    pub agent: String,
    pub patience: Patience,
    pub forms: Forms,
    /// Forgotten with every new set.
    pub unknown: Unknown,
    pub lifetimes: Lifetimes,
    pub metrics: Metrics,
    pub tasks: TaskTracker,
}

impl Repositories {
    /// Reads roots and what is on disk; asks nobody anything.
    pub fn open(common: &Common<'_>) -> Result<Self, EdgeError> {
        let mut repositories = BTreeMap::new();
        for config in &common.config.repositories {
            let followed = Arc::new(Followed::open(config, common)?);
            if repositories.insert(config.name.clone(), followed).is_some() {
                let reason = "it is configured twice".to_owned();
                return Err(EdgeError::Repository { repository: config.name.clone(), reason });
            }
        }
        Ok(Self(repositories))
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Followed>> {
        self.0.values()
    }

    pub fn get(&self, name: &RepositoryName) -> Option<&Arc<Followed>> {
        self.0.get(name)
    }

    /// Follows all of them until `stop`.
    pub async fn follow(&self, stop: &CancellationToken) {
        let following = self.0.values().map(|followed| {
            let polling = followed.clone().poll(stop.clone());
            let listening = followed.clone().listen(stop.clone());
            async { tokio::join!(polling, listening) }
        });
        futures_util::future::join_all(following).await;
    }
}

impl Followed {
    fn open(config: &FollowedConfig, common: &Common<'_>) -> Result<Self, EdgeError> {
        let wrong = |reason: String| EdgeError::Repository { repository: config.name.clone(), reason };
        let anchor = read_root(config).map_err(wrong)?;
        let root = TrustedSet::from_root_file(&anchor).map_err(|error| wrong(error.to_string()))?;
        let kept = common.config.state_dir().map(|dir| Kept::open(&dir, &config.name)).transpose()?;
        let now = common.clock.now();
        let loaded = kept.as_ref().map(|kept| kept.load(&anchor, now)).unwrap_or_default();
        let mut state = State::default();
        state.roots.insert(root.root().version(), Arc::new(File::new(anchor.clone())));
        state.take_loaded(loaded, now);
        let version = state.current.as_ref().and_then(|current| current.version(Role::Timestamp));
        Ok(Self {
            name: config.name.clone(),
            place: format!("/{}", config.name),
            anchor,
            clock: common.clock.clone(),
            fetcher: common.fetcher.clone(),
            agent: common.agent.clone(),
            patience: common.patience,
            forms: common.forms.clone(),
            unknown: common.unknown.clone(),
            lifetimes: common.lifetimes.clone(),
            frozen_after_s: common.config.metadata_frozen_after_s,
            kept,
            state: Mutex::new(state),
            refreshes: SingleFlight::new(common.tasks.clone()),
            extras: one_shard(ESTIMATED_ITEMS, EXTRA_BYTES_MAX, ByBytes),
            extra_flights: SingleFlight::new(common.tasks.clone()),
            versions: watch::Sender::new(version),
            news: Notify::new(),
            metrics: common.metrics.clone(),
        })
    }

    pub const fn name(&self) -> &RepositoryName {
        &self.name
    }

    /// `/NAME`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The set that is served.
    pub fn current(&self) -> Option<Arc<Published>> {
        self.state().current.clone()
    }

    pub fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// Where a refresh from anywhere starts: from the newest that was proven.
    pub fn start(&self) -> Start {
        self.state().start(&self.anchor)
    }

    /// The version of the timestamp that is served, as it changes.
    pub fn versions(&self) -> watch::Receiver<Option<u32>> {
        self.versions.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_loaded(&mut self, loaded: Loaded, now: UnixSeconds) {
        self.roots.extend(loaded.roots.into_iter().map(|(version, bytes)| (version, Arc::new(File::new(bytes)))));
        self.current = loaded.whole.map(|set| Arc::new(Published::new(set, None)));
        self.floor = loaded.floor;
        self.checked_at = loaded.age.and_then(|age| Instant::now().checked_sub(age));
        self.take_seen(loaded.seen, now);
    }

    /// Keeps roots that were proven; should there be absurdly many, the newest.
    fn keep_roots(&mut self, roots: BTreeMap<u32, Bytes>) {
        for (version, bytes) in roots {
            self.roots.entry(version).or_insert_with(|| Arc::new(File::new(bytes)));
        }
        while self.roots.len() > ROOTS_KEPT_MAX {
            self.roots.pop_first();
        }
    }
}

/// The configured root, as a file or as a text.
fn read_root(config: &FollowedConfig) -> Result<Bytes, String> {
    match (&config.root_file, &config.root) {
        (Some(path), None) => read_capped(path),
        (None, Some(text)) => Ok(text.clone().into()),
        _ => Err("it needs either root_file or root: a root.json that is trusted".to_owned()),
    }
}

fn read_capped(path: &Path) -> Result<Bytes, String> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| format!("root_file {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(ROOT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    // One byte more than is allowed is refused by whoever parses it.
    Ok(bytes.into())
}
