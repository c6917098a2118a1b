//! `/REPO/auto`: server-sent events, one per new timestamp (reference "Fuchsia formats" §5, Server endpoints).
//!
//! One task per repository looks at `timestamp.json` while somebody listens, and no longer. A listener hears the current
//! version first. Versions that follow each other faster than a listener reads are told as the last of them; nothing is
//! queued. What is told is a hint to look, never something to believe: nothing is verified here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use colibri_api::{ApiError, RepositoryName};
use colibri_metadata::Role;
use colibri_transport::{Body, BodySender};
use http::HeaderValue;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::file::blocking;
use crate::limits::{AUTO_HEARTBEAT_MS, AUTO_LISTENERS_MAX, AUTO_POLL_MS, AUTO_RETRY_AFTER_S};
use crate::observe::Observation;
use crate::origin::Shared;
use crate::repository::ServedRepository;

/// Media type of the answer.
pub(crate) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Keeps connections from looking dead; clients ignore it.
const HEARTBEAT: &[u8] = b": still here\n\n";

type Version = Option<u32>;

/// Who looks at timestamps, and who listens.
pub(crate) struct Events {
    watched: Mutex<HashMap<RepositoryName, watch::Sender<Version>>>,
    listeners: Arc<Semaphore>,
    end: CancellationToken,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            watched: Mutex::default(),
            listeners: Arc::new(Semaphore::new(AUTO_LISTENERS_MAX)),
            end: CancellationToken::new(),
        }
    }
}

/// One listener's place among the bounded number of them.
pub(crate) struct Listener {
    versions: watch::Receiver<Version>,
    end: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Events {
    /// Ends every stream: the process drains.
    pub fn end(&self) {
        self.end.cancel();
    }
}

impl Shared {
    /// Begins to listen to a repository.
    pub fn listen(self: &Arc<Self>, repository: Arc<ServedRepository>) -> Result<Listener, ApiError> {
        let place = self.events.listeners.clone().try_acquire_owned();
        let place = place.map_err(|_| ApiError::TooManyRequests { retry_after_s: AUTO_RETRY_AFTER_S })?;
        let mut watched = self.events.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let mut versions = match watched.get(&repository.name) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, versions) = watch::channel(None);
                watched.insert(repository.name.clone(), sender);
                tokio::spawn(watch_timestamp(self.clone(), repository));
                versions
            }
        };
        // Whoever comes later hears the current version too.
        versions.mark_changed();
        Ok(Listener { versions, end: self.events.end.clone(), _place: place })
    }

    /// Tells a new version; false if nobody listens any more, and then the repository is no longer watched.
    fn tell(&self, repository: &RepositoryName, version: Version) -> bool {
        let mut watched = self.events.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = watched.get(repository) else { return false };
        if sender.receiver_count() == 0 || self.events.end.is_cancelled() {
            watched.remove(repository);
            return false;
        }
        if version.is_some() {
            sender.send_if_modified(|told| std::mem::replace(told, version) != version);
        }
        true
    }
}

/// Looks at the file again and again. A stat costs little, and works on every file system.
async fn watch_timestamp(shared: Arc<Shared>, repository: Arc<ServedRepository>) {
    let path = repository.metadata_path(Role::Timestamp.file());
    let mut tick = tokio::time::interval(Duration::from_millis(AUTO_POLL_MS));
    loop {
        tick.tick().await;
        let (reader, path) = (shared.clone(), path.clone());
        let file = blocking(move || reader.files.get(&path)).await;
        let version = match file {
            Ok(file) => file.and_then(|file| version_of(&file.bytes)),
            Err(error) => {
                tracing::debug!(%error, repository = %repository.name, "the timestamp cannot be read just now");
                None
            }
        };
        if !shared.tell(&repository.name, version) {
            return;
        }
    }
}

/// The version that a timestamp says of itself; nothing while it is being written by a tool that does not rename.
fn version_of(bytes: &[u8]) -> Version {
    #[derive(Deserialize)]
    struct File {
        signed: Signed,
    }
    #[derive(Deserialize)]
    struct Signed {
        version: u32,
    }
    serde_json::from_slice::<File>(bytes).ok().map(|file| file.signed.version)
}

impl Listener {
    /// The body of the answer, fed until the reader is gone or the server drains.
    pub fn body(self, observation: Observation) -> Body {
        let (sender, body) = Body::channel(None);
        tokio::spawn(self.feed(sender, observation));
        body
    }

    async fn feed(mut self, mut sender: BodySender, observation: Observation) {
        let mut sent_bytes = 0;
        let mut heartbeat = tokio::time::interval(Duration::from_millis(AUTO_HEARTBEAT_MS));
        // The first one is due at once: it brings the head of the answer on its way.
        loop {
            let next = tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                () = sender.closed() => break,
                changed = self.versions.changed() => match (changed, *self.versions.borrow_and_update()) {
                    (Err(_), _) => break,
                    (Ok(()), None) => continue,
                    (Ok(()), Some(version)) => event(version),
                },
                _ = heartbeat.tick() => Bytes::from_static(HEARTBEAT),
            };
            let length = next.len() as u64;
            tokio::select! {
                () = self.end.cancelled() => break,
                sent = sender.send(next) => match sent {
                    Ok(()) => sent_bytes += length,
                    Err(_) => break,
                },
            }
        }
        observation.finish(sent_bytes);
        sender.finish();
    }
}

fn event(version: u32) -> Bytes {
    format!("event: {}\ndata: {version}\n\n", Role::Timestamp.file()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_timestamp_has_no_version() {
        let whole = br#"{"signatures":[],"signed":{"_type":"timestamp","version":7}}"#;
        assert_eq!(version_of(whole), Some(7));
        for cut in 0..whole.len() {
            assert_eq!(version_of(&whole[..cut]), None);
        }
        assert_eq!(event(42), "event: timestamp.json\ndata: 42\n\n");
    }
}
