//! How a followed repository is brought up to date: one refresh at a time, driven by time, by events and by clients who insist.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_common::{UnixSeconds, sha256};
use colibri_fetch::FetchError;
use colibri_fetch::follow::{Received, Terms};
use colibri_fetch::metadata::{Mirrors, Unfinished};
use colibri_metadata::{Role, Start, TrustAnchor, TrustedSet};
use colibri_transport::Backoff;
use tokio_util::sync::CancellationToken;

use super::kept::Change;
use super::published::Published;
use super::{Followed, State};
use crate::limits::{DELEGATED_WITH_SET_MAX, NEWS_PAUSE_MS, REFRESH_MS_MAX, REFRESH_MS_MIN};

/// The time of the last check is kept on disk at most this often.
const CHECKED_KEPT_EVERY_S: u64 = 60;

/// What one refresh met on the way.
#[derive(Debug, Default)]
struct Met {
    /// Root files by version; whether they were believed shows at the end.
    roots: Mutex<BTreeMap<u32, Bytes>>,
    /// How old the source said its timestamp is.
    age_s: AtomicU64,
}

impl Followed {
    /// Joins the refresh under way or starts one; true if it was joined. If one has ended since the caller looked, when so many
    /// had, that will do.
    pub(super) async fn refresh(self: &Arc<Self>, seen_ended: u64) -> (Result<(), FetchError>, bool) {
        let this = self.clone();
        let work = async move {
            let (ended, failed) = {
                let state = this.state();
                (state.refreshes_ended, state.failed.as_ref().map(|(_, error)| error.clone()))
            };
            if ended != seen_ended {
                return failed.map_or(Ok(()), Err);
            }
            let answer = this.refresh_once().await;
            this.state().refreshes_ended += 1;
            answer
        };
        self.refreshes.join((), work).await
    }

    async fn refresh_once(&self) -> Result<(), FetchError> {
        self.metrics.metadata_refreshes.inc();
        let (began, now, met) = (Instant::now(), self.clock.now(), Met::default());
        let hear = |received: Received<'_>| self.hear(&met, received);
        let terms = Terms { patience: self.patience, headers: self.fetcher.headers().clone(), hear: Some(&hear) };
        let (client, sources) = (self.fetcher.client(), self.fetcher.sources());
        let mirrors = Mirrors { client, sources: &sources, place: &self.place, agent: &self.agent, bandwidth: None };
        let start = self.state().start(&self.anchor);
        let blames = self.blames();
        let answer = mirrors.follow(start, DELEGATED_WITH_SET_MAX, &terms, now).await;
        self.metrics.metadata_refused.inc_by(self.blames().saturating_sub(blames));
        let roots = met.roots.into_inner().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(set) => {
                let age = Duration::from_secs(met.age_s.into_inner());
                self.take(set, roots, began.checked_sub(age), now).await;
                self.watch_for_freeze();
                Ok(())
            }
            Err(Unfinished { error, floor }) => {
                self.metrics.metadata_refresh_failures.inc();
                tracing::warn!(repository = %self.name, %error, "metadata could not be refreshed");
                if let Some(floor) = floor {
                    self.take_floor(floor, roots).await;
                }
                self.state().failed = Some((Instant::now(), error.clone()));
                self.watch_for_freeze();
                Err(error)
            }
        }
    }

    fn blames(&self) -> u64 {
        self.fetcher.sources().list().iter().map(|source| source.blames()).sum()
    }

    /// A file arrived: roots are kept if they turn out to be good, coded forms are passed on as they came.
    fn hear(&self, met: &Met, received: Received<'_>) {
        if let Some((coding, form)) = received.coded {
            self.forms.keep(sha256(received.bytes), *coding, form.clone());
        }
        if received.name == Role::Timestamp.file() {
            met.age_s.store(received.age_s, Ordering::Relaxed);
        }
        let numbered = received.name.strip_suffix(Role::Root.file()).and_then(|head| head.strip_suffix('.'));
        if let Some(version) = numbered.and_then(|number| number.parse().ok()) {
            met.roots.lock().unwrap_or_else(PoisonError::into_inner).insert(version, received.bytes.clone());
        }
    }

    /// Takes a set that was verified from where [`Self::start`] said, and came with these roots. It is as new as can be known.
    pub async fn take_imported(&self, set: TrustedSet, roots: BTreeMap<u32, Bytes>) {
        self.take(set, roots, Some(Instant::now()), self.clock.now()).await;
    }

    /// Takes a whole set that was just verified: durable first, then visible, as a whole.
    async fn take(
        &self,
        set: TrustedSet,
        mut roots: BTreeMap<u32, Bytes>,
        checked_at: Option<Instant>,
        now: UnixSeconds,
    ) {
        roots.retain(|version, _| *version <= set.root().version());
        let before = self.state().current.clone();
        let same = before.as_ref().is_some_and(|before| before.set().files().eq(set.files()));
        let seen = {
            let mut state = self.state();
            Self::note_seen(&mut state, set.version(Role::Timestamp), now).then_some(state.seen).flatten()
        };
        let due = !same || self.kept.as_ref().is_some_and(|kept| kept.check_is_due(now, CHECKED_KEPT_EVERY_S));
        if due {
            let whole = (!same).then(|| set.clone());
            self.keep(Change { roots: roots.clone(), whole, floor: None, checked_at: Some(now), seen }).await;
        }
        let published = (!same).then(|| Arc::new(Published::new(set, before.as_deref())));
        let mut state = self.state();
        state.keep_roots(roots);
        state.floor = None;
        state.failed = None;
        state.checked_at = checked_at;
        let Some(published) = published else { return };
        let version = published.version(Role::Timestamp);
        if let Some(old) = state.current.replace(published.clone()) {
            let expires = old.set().timestamp().map_or(now, |timestamp| timestamp.expires());
            let life = Duration::from_secs(expires.0.saturating_sub(now.0));
            state.past.push(old, &published, life, Instant::now());
        }
        drop(state);
        self.metrics.metadata_swaps.inc();
        self.unknown.forget_all();
        for role in Role::ALL {
            let labels = [self.name.as_str(), role.name()];
            self.metrics.metadata_version.with_label_values(&labels).set(published.version(role).unwrap_or(0).into());
        }
        tracing::info!(repository = %self.name, timestamp = version, "a new metadata set is served");
        self.versions.send_if_modified(|told| std::mem::replace(told, version) != version);
    }

    /// Takes what was proven before a refresh failed: nobody can take the edge back behind it.
    async fn take_floor(&self, floor: TrustedSet, mut roots: BTreeMap<u32, Bytes>) {
        roots.retain(|version, _| *version <= floor.root().version());
        let newer = {
            let state = self.state();
            let known = state.floor.as_ref().or(state.current.as_ref().map(|current| current.set()));
            known.is_none_or(|known| !known.files().eq(floor.files()))
        };
        if newer {
            let change = Change { roots: roots.clone(), floor: Some(floor.clone()), ..Change::default() };
            self.keep(change).await;
            let mut state = self.state();
            state.keep_roots(roots);
            state.floor = Some(floor);
        }
    }

    async fn keep(&self, change: Change) {
        let Some(kept) = self.kept.clone() else { return };
        let saved = tokio::task::spawn_blocking(move || kept.save(&change)).await;
        if let Err(error) = saved {
            tracing::warn!(repository = %self.name, %error, "metadata could not be kept on disk");
        }
    }

    /// Refreshes again and again until `stop`: by the clock, with jitter, and when there is news.
    pub(super) async fn poll(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            let ended = self.state().refreshes_ended;
            match self.refresh(ended).await.0 {
                Ok(()) => failures = 0,
                Err(_) => failures += 1,
            }
            let pause = self.pause(failures);
            // Whoever sends events without end does not make us ask without end.
            let news = async {
                tokio::time::sleep(Duration::from_millis(NEWS_PAUSE_MS).mul_f64(fastrand::f64())).await;
                self.news.notified().await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = news => {}
            }
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let base = self.lifetimes.max_age().max(Duration::from_millis(REFRESH_MS_MIN));
        let ceiling = Duration::from_millis(REFRESH_MS_MAX).max(base);
        Backoff { base, ceiling }.delay(failures, fastrand::f64())
    }
}

impl State {
    /// Where a refresh starts: from the newest that was proven.
    pub(super) fn start(&self, anchor: &Bytes) -> Start {
        match (&self.floor, &self.current) {
            (Some(floor), _) => Start::FromSet(floor.clone()),
            (None, Some(current)) => Start::FromSet(current.set().clone()),
            (None, None) => Start::FromAnchor(TrustAnchor::RootFile(anchor.clone())),
        }
    }
}
