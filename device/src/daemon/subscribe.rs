//! `subscribe`: a repository whose mirrors tell of news is refreshed when they do, not when somebody asks next (reference
//! "Fuchsia device side" §7.2).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use colibri_fetch::listen::{Heard, Listening, Pauses};
use colibri_fetch::{Source, SourceUrl};
use http::HeaderMap;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Daemon;
use crate::device::Device;
use crate::limits::{
    SUBSCRIBE_ABSENT_MS, SUBSCRIBE_LOOK_MS, SUBSCRIBE_NEWS_PAUSE_MS, SUBSCRIBE_PAUSE_MS_MAX, SUBSCRIBE_SILENCE_MS_MAX,
};
use crate::repositories::Repository;

/// How news are listened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribing {
    /// How long to wait before listening again.
    pub pauses: Pauses,
    /// A connection that is silent for this long is given up.
    pub silence: Duration,
    /// After a refresh, news are not heeded for this long.
    pub news_pause: Duration,
}

impl Subscribing {
    /// As by default, with another longest pause before a mirror that was lost is listened to again.
    pub fn again_after(away_max: Duration) -> Self {
        let how = Self::default();
        Self { pauses: Pauses { away_max, ..how.pauses }, ..how }
    }
}

impl Default for Subscribing {
    fn default() -> Self {
        Self {
            pauses: Pauses {
                away_max: Duration::from_millis(SUBSCRIBE_PAUSE_MS_MAX),
                absent_max: Duration::from_millis(SUBSCRIBE_ABSENT_MS),
            },
            silence: Duration::from_millis(SUBSCRIBE_SILENCE_MS_MAX),
            news_pause: Duration::from_millis(SUBSCRIBE_NEWS_PAUSE_MS),
        }
    }
}

/// A repository that is listened for, until this is dropped.
struct Following {
    repository: Arc<Repository>,
    _stop: DropGuard,
}

impl Daemon {
    /// Listens, until [`Daemon::end`], to mirrors of repositories that are configured with `subscribe`, also of those that
    /// are added later.
    pub fn subscribe(&self, how: Subscribing) {
        let daemon = self.clone();
        self.inner.tracker.spawn(async move { daemon.follow_all(how).await });
    }

    async fn follow_all(&self, how: Subscribing) {
        let mut following: BTreeMap<String, Following> = BTreeMap::new();
        while !self.inner.end.is_cancelled() {
            let repositories = self.device().repositories().list();
            following.retain(|_, known| repositories.iter().any(|now| Arc::ptr_eq(now, &known.repository)));
            for repository in repositories.into_iter().filter(|repository| !mirrors_of(repository).is_empty()) {
                let host = repository.config().host().to_owned();
                following.entry(host).or_insert_with(|| {
                    let stop = self.inner.end.child_token();
                    let (device, listened) = (self.device().clone(), repository.clone());
                    let stopped = stop.clone();
                    self.inner.tracker.spawn(async move { follow(&device, &listened, how, stopped).await });
                    Following { repository, _stop: stop.drop_guard() }
                });
            }
            tokio::select! {
                () = self.inner.end.cancelled() => {}
                () = self.inner.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(SUBSCRIBE_LOOK_MS)) => {}
            }
        }
    }
}

/// The mirrors of a repository that are to be listened to.
fn mirrors_of(repository: &Repository) -> Vec<Arc<Source>> {
    let subscribed: Vec<SourceUrl> = repository
        .config()
        .mirrors
        .iter()
        .filter(|mirror| mirror.subscribe)
        .filter_map(|mirror| mirror.mirror_url.parse().ok())
        .collect();
    let sources = repository.sources().list().iter();
    sources.filter(|source| subscribed.contains(&source.url)).cloned().collect()
}

async fn follow(device: &Device, repository: &Repository, how: Subscribing, stop: CancellationToken) {
    let news = Notify::new();
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen(device, repository, how, &news) => {}
        () = refresh(device, repository, how, &news) => {}
    }
}

/// Listens to the first mirror that speaks; never completes.
async fn listen(device: &Device, repository: &Repository, how: Subscribing, news: &Notify) {
    let agent = device.agent();
    let listening =
        Listening { client: device.client(), place: "", agent, headers: HeaderMap::new(), silence: how.silence };
    let mirrors = mirrors_of(repository);
    let mut failures = 0;
    loop {
        let mut heard = Heard::Absent;
        for mirror in &mirrors {
            match listening.listen_to(mirror, || news.notify_one(), || true).await {
                Heard::Ended => {
                    heard = Heard::Ended;
                    break;
                }
                Heard::Away => heard = Heard::Away,
                Heard::Absent => {}
            }
        }
        failures = if heard == Heard::Ended { 0 } else { failures + 1 };
        tokio::time::sleep(how.pauses.after(heard, failures)).await;
    }
}

/// Refreshes at news, but not without pause; never completes.
async fn refresh(device: &Device, repository: &Repository, how: Subscribing, news: &Notify) {
    let host = repository.config().host();
    loop {
        news.notified().await;
        if let Err(error) = device.refresh(host, true).await {
            tracing::warn!(%host, %error, "a mirror told of news, which could not be had");
        }
        tokio::time::sleep(how.news_pause).await;
    }
}
