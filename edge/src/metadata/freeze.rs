//! Tells the operator that upstream has signed nothing new for too long, while there is still time: a frozen upstream serves an
//! old timestamp that is valid until it expires, and one that is away serves nothing; devices notice neither before the end.
//!
//! A timestamp does not say when it was signed. What counts is when its version was first seen here, which is kept on disk
//! where there is a folder for state. Deliberately absent: refusing anything, which expiry does.

use std::sync::{Arc, Weak};

use colibri_common::UnixSeconds;
use colibri_metadata::Role;
use colibri_service::metrics::{IntGaugeVec, MetricsError, Registry};

use super::{Followed, Repositories, State};
use crate::limits::FREEZE_TOLD_EVERY_S;

/// Of the life that a timestamp had left when it was first seen, what may pass without a new one where nothing is configured:
/// three quarters. Those who sign do so again after two thirds.
const QUIET_SHARE: (u64, u64) = (3, 4);

/// When the version of the timestamp that is served was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstSeen {
    pub version: u32,
    pub at: UnixSeconds,
}

/// How new what is served is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Recency {
    /// Since the newest timestamp was first seen, seconds.
    age_s: u64,
    /// How old it may become.
    quiet_max_s: u64,
    /// Until it expires, seconds; 0 if it has.
    left_s: u64,
}

impl Recency {
    const fn is_frozen(&self) -> bool {
        self.age_s > self.quiet_max_s
    }
}

impl Followed {
    fn recency(&self, state: &State, now: UnixSeconds) -> Option<Recency> {
        let timestamp = state.current.as_ref()?.set().timestamp()?;
        let (seen, expires) = (state.seen?.at.0, timestamp.expires().0);
        let by_default = expires.saturating_sub(seen) / QUIET_SHARE.1 * QUIET_SHARE.0;
        let quiet_max_s = if self.frozen_after_s == 0 { by_default } else { self.frozen_after_s };
        Some(Recency { age_s: now.0.saturating_sub(seen), quiet_max_s, left_s: expires.saturating_sub(now.0) })
    }

    /// Says so in the log if upstream has signed nothing new for too long, and again from time to time.
    pub(super) fn watch_for_freeze(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(recency) = self.recency(&state, now).filter(Recency::is_frozen) else {
            state.freeze_told_at = None;
            return;
        };
        let was_told = state.freeze_told_at.is_some_and(|at| now.0.abs_diff(at.0) < FREEZE_TOLD_EVERY_S);
        if was_told {
            return;
        }
        state.freeze_told_at = Some(now);
        let upstream = match &state.failed {
            Some((_, error)) => format!("upstream gave none: {error}"),
            None => "upstream answers, with this one".to_owned(),
        };
        drop(state);
        let Recency { age_s, left_s, .. } = recency;
        tracing::warn!(
            repository = %self.name, age_s, expires_in_s = left_s,
            "no new timestamp has been signed for longer than it should take; {upstream}"
        );
    }

    /// Notes when this version of the timestamp was first seen; true if it is another one than before.
    pub(super) fn note_seen(state: &mut State, version: Option<u32>, now: UnixSeconds) -> bool {
        let Some(version) = version.filter(|version| state.seen.is_none_or(|seen| seen.version != *version)) else {
            return false;
        };
        state.seen = Some(FirstSeen { version, at: now });
        true
    }
}

/// What is exported of each repository.
struct Exported {
    age_s: IntGaugeVec,
    checked_s: IntGaugeVec,
    left_s: IntGaugeVec,
    alarms: IntGaugeVec,
}

impl Exported {
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let gauge = |name, help| registry.gauge_vec(name, help, &["repository"]);
        Ok(Self {
            age_s: gauge(
                "colibri_edge_metadata_timestamp_age_seconds",
                "since the newest timestamp was first seen here",
            )?,
            checked_s: gauge(
                "colibri_edge_metadata_check_age_seconds",
                "since upstream is known to have nothing newer; -1 if it never was",
            )?,
            left_s: gauge("colibri_edge_metadata_timestamp_left_seconds", "until the newest timestamp expires")?,
            alarms: gauge(
                "colibri_edge_metadata_freeze_alarms",
                "1 while upstream has signed nothing new for longer than it should take",
            )?,
        })
    }

    fn set(&self, followed: &Followed) {
        let (now, state) = (followed.clock.now(), followed.state());
        let (recency, name) = (followed.recency(&state, now), &[followed.name.as_str()][..]);
        let checked_s = state.checked_at.map_or(-1, |at| number(at.elapsed().as_secs()));
        drop(state);
        self.checked_s.with_label_values(name).set(checked_s);
        if let Some(recency) = recency {
            self.age_s.with_label_values(name).set(number(recency.age_s));
            self.left_s.with_label_values(name).set(number(recency.left_s));
            self.alarms.with_label_values(name).set(recency.is_frozen().into());
        }
    }
}

fn number(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Exports how new what is served of each repository is, and whether it should be newer.
pub(crate) fn export(repositories: &Repositories, registry: &Registry) -> Result<(), MetricsError> {
    let followed: Vec<Weak<Followed>> = repositories.all().map(Arc::downgrade).collect();
    if followed.is_empty() {
        return Ok(());
    }
    let exported = Exported::register(registry)?;
    registry.before_rendering(move || followed.iter().filter_map(Weak::upgrade).for_each(|one| exported.set(&one)));
    Ok(())
}

impl State {
    /// Takes up what an earlier process saw, if it is what is served now.
    pub(super) fn take_seen(&mut self, seen: Option<FirstSeen>, now: UnixSeconds) {
        let version = self.current.as_ref().and_then(|current| current.version(Role::Timestamp));
        self.seen = seen.filter(|seen| Some(seen.version) == version && seen.at <= now);
        if self.seen.is_none() {
            Followed::note_seen(self, version, now);
        }
    }
}
