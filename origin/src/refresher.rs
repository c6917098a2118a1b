//! [`Refresher`]: signs again, in time, what would expire: the online roles of every repository whose keys are here.
//!
//! At start and then at two thirds of each role's life; after a failure again soon. Whoever holds no keys refreshes nothing,
//! and says so once. Deliberately absent: signing (`colibri-repository`), deciding what is offered.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use colibri_api::RepositoryName;
use colibri_common::{Clock, UnixSeconds};
use colibri_repository::{Act, KeyRole, KeySources, Repository, RepositoryError};
use colibri_service::MetricsError;
use colibri_service::metrics::{IntCounterVec, IntGaugeVec, Registry};
use tokio_util::sync::CancellationToken;

use crate::config::RepositoryConfig;
use crate::limits::{REFRESH_LOOK_S, REFRESH_RETRY_S};

/// The repositories that this process keeps fresh.
pub struct Refresher {
    repositories: Vec<Kept>,
    sources: KeySources,
    clock: Arc<dyn Clock>,
    metrics: RefreshMetrics,
}

struct Kept {
    name: RepositoryName,
    path: PathBuf,
    keys: Option<PathBuf>,
    /// Signed since this process began.
    begun: bool,
    /// Not before this, after a failure.
    not_before: UnixSeconds,
    /// Whether its lack of keys was said.
    said: bool,
}

/// What the refresher counts.
#[derive(Debug, Clone)]
pub struct RefreshMetrics {
    expiry: IntGaugeVec,
    refreshes: IntCounterVec,
    failures: IntCounterVec,
}

impl RefreshMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let expiry = "Seconds until a role's metadata expires; negative once it has.";
        let refreshes = "Roles signed again because they were due.";
        let failures = "Attempts to sign again that failed.";
        Ok(Self {
            expiry: registry.gauge_vec("colibri_origin_metadata_expiry_seconds", expiry, &["repository", "role"])?,
            refreshes: registry.counter_vec("colibri_origin_refreshes_total", refreshes, &["repository", "role"])?,
            failures: registry.counter_vec("colibri_origin_refresh_failures_total", failures, &["repository"])?,
        })
    }
}

impl Refresher {
    /// For these repositories, with keys from their folders and from `sources`.
    pub fn new(
        repositories: &[RepositoryConfig],
        sources: KeySources,
        clock: Arc<dyn Clock>,
        metrics: RefreshMetrics,
    ) -> Self {
        let kept = |config: &RepositoryConfig| Kept {
            name: config.name.clone(),
            path: config.path.clone(),
            keys: config.keys.clone(),
            begun: false,
            not_before: UnixSeconds(0),
            said: false,
        };
        Self { repositories: repositories.iter().map(kept).collect(), sources, clock, metrics }
    }

    /// Looks at every repository once, and signs what is due.
    pub fn look(&mut self) {
        let now = self.clock.now();
        for kept in &mut self.repositories {
            let outcome = kept.look(&self.sources, &self.metrics, now);
            if let Err(error) = outcome {
                kept.not_before = now.plus(REFRESH_RETRY_S);
                self.metrics.failures.with_label_values(&[kept.name.as_str()]).inc();
                tracing::error!(repository = kept.name.as_str(), %error, "metadata cannot be signed again");
            }
        }
    }

    /// Looks again and again until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            // Signing reads files and may wait for a command.
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                self
            });
            match looked.await {
                Ok(refresher) => self = refresher,
                Err(error) => {
                    tracing::error!(%error, "the refresher ended");
                    return;
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(REFRESH_LOOK_S)) => {}
            }
        }
    }
}

impl Kept {
    fn look(
        &mut self,
        sources: &KeySources,
        metrics: &RefreshMetrics,
        now: UnixSeconds,
    ) -> Result<(), RepositoryError> {
        let repository = match Repository::open_with(&self.path, self.keys.clone(), sources.clone()) {
            // Served as it is: a folder of metadata alone, made by other tools.
            Err(RepositoryError::NotARepository { .. }) => return Ok(()),
            opened => opened?,
        };
        let act = Act { by: Some("refresher".to_owned()), reason: Some("signed again before it expires".to_owned()) };
        let repository = repository.with_act(act);
        let due = repository.refresh_due()?;
        let can = |role| due.iter().any(|due| due.role == role && due.can_sign);
        let online = can(KeyRole::Timestamp) && can(KeyRole::Snapshot);
        if online && now >= self.not_before {
            let signed = if self.begun {
                repository.refresh_what_is_due(now)?
            } else {
                repository.refresh(now)?;
                vec![KeyRole::Snapshot, KeyRole::Timestamp]
            };
            self.begun = true;
            for role in &signed {
                metrics.refreshes.with_label_values(&[self.name.as_str(), role.name()]).inc();
                tracing::info!(repository = self.name.as_str(), role = role.name(), "signed again");
            }
        } else if !online && !self.said {
            self.said = true;
            tracing::warn!(
                repository = self.name.as_str(),
                "the keys of snapshot and timestamp are not here: somebody else must sign before they expire"
            );
        }
        for due in repository.refresh_due()? {
            let seconds = i64::try_from(due.expires.0).unwrap_or(i64::MAX) - i64::try_from(now.0).unwrap_or(0);
            metrics.expiry.with_label_values(&[self.name.as_str(), due.role.name()]).set(seconds);
        }
        Ok(())
    }
}
