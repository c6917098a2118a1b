//! [`Daemon`]: a device for other processes of its machine: HTTP with JSON over a Unix socket (`docs/device-daemon.md`).
//!
//! It is the one owner of the store. Who asks is told by the system ([`UnixConnection`]): the owner and root may change
//! things, whoever else may connect can look and open packages. A package that was opened stays until the connection ends.
//! The process around it (configuration, socket, readiness, signals, logs) is the caller's; and a caller in the same process
//! needs no socket: it calls [`Daemon::handler`].

mod answer;
pub mod chores;
mod open;
mod overlay;
mod packages;
mod progress;
mod releases;
mod repositories;
mod resolve;
mod subscribe;
mod updates;
pub mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use colibri_store::Store;
use colibri_transport::{Body, Handler, Request, Response, UnixConnection, UnixPeer, handler};
use http::Method;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::device::Device;
use crate::limits::{DAEMON_DOCUMENT_BYTES_MAX, DAEMON_OPERATIONS_MAX};
use crate::update::Updater;
use answer::{json, query, read};
pub use subscribe::Subscribing;
use wire::{DaemonStatus, Problem, Status};

/// What a daemon is made of.
#[derive(Debug)]
pub struct DaemonParts {
    /// The device.
    pub device: Device,
    /// Its store.
    pub store: Arc<Store>,
    /// Its folder, for people.
    pub dir: PathBuf,
    /// What installs systems, if anything does.
    pub updater: Option<Arc<Updater>>,
    /// The user whose device it is: besides root the only one who may change things.
    pub owner: u32,
    /// The process, if there is one that answers others.
    pub process: Option<DaemonStatus>,
}

/// A device that answers requests. Clones share it.
#[derive(Clone)]
pub struct Daemon {
    inner: Arc<Inner>,
}

struct Inner {
    parts: DaemonParts,
    /// Who has packages open, by what the leases call him.
    holders: Mutex<HashMap<String, Holder>>,
    operations: Arc<Semaphore>,
    tracker: TaskTracker,
    end: CancellationToken,
    /// Repositories may be others than before.
    changed: Notify,
    /// What it does by itself, if it does.
    board: OnceLock<Arc<chores::Board>>,
}

/// A connection with packages open.
#[derive(Debug, Clone, Copy)]
struct Holder {
    peer: UnixPeer,
    leases: usize,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("dir", &self.inner.parts.dir).finish_non_exhaustive()
    }
}

impl Daemon {
    /// A daemon that does nothing until it is asked.
    pub fn new(parts: DaemonParts) -> Self {
        let inner = Inner {
            parts,
            holders: Mutex::default(),
            operations: Arc::new(Semaphore::new(DAEMON_OPERATIONS_MAX)),
            tracker: TaskTracker::new(),
            end: CancellationToken::new(),
            changed: Notify::new(),
            board: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What answers requests. They must carry a [`UnixConnection`].
    pub fn handler(&self) -> Handler {
        let daemon = self.clone();
        handler(move |request| {
            let daemon = daemon.clone();
            async move { daemon.answer(request).await }
        })
    }

    /// Ends what would never end by itself: leases, connections to mirrors that tell of news, and chores. What is being
    /// fetched for others goes on.
    pub fn end(&self) {
        self.inner.end.cancel();
    }

    /// Waits until nothing is under way any more. Call [`Daemon::end`] first.
    pub async fn ended(&self) {
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }

    fn device(&self) -> &Device {
        &self.inner.parts.device
    }

    fn store(&self) -> &Arc<Store> {
        &self.inner.parts.store
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.inner.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for something that takes its time.
    fn operation(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.inner.operations.clone().try_acquire_owned().map_err(|_| {
            Problem::too_much(format!("{DAEMON_OPERATIONS_MAX} things are being done already: wait for one of them"))
        })
    }

    fn is_owner(&self, peer: UnixPeer) -> bool {
        peer.uid == 0 || peer.uid == self.inner.parts.owner
    }

    async fn answer(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let Some(caller) = head.extensions.get::<UnixConnection>().cloned() else {
            return Problem::internal("the request came by no Unix socket".to_owned()).respond();
        };
        let path = head.uri.path().to_owned();
        let asked = Asked { method: head.method, query: head.uri.query().unwrap_or_default().to_owned(), body, caller };
        self.route(&path, asked).await.unwrap_or_else(|problem| problem.respond())
    }

    async fn route(&self, path: &str, asked: Asked) -> Result<Response, Problem> {
        let place = path.strip_prefix('/').unwrap_or(path);
        let (first, rest) = place.split_once('/').map_or((place, None), |(first, rest)| (first, Some(rest)));
        // What others than the owner may do, too. To look whether there is an update fetches it.
        let looks = match asked.method {
            Method::GET => place != "update/check",
            _ => matches!(place, "open" | "plan"),
        };
        if !looks && !self.is_owner(asked.caller.peer) {
            let uid = asked.caller.peer.uid;
            return Err(Problem::denied(format!(
                "user {uid} may look and open packages; only root and user {} may change this device",
                self.inner.parts.owner
            )));
        }
        match (asked.method.as_str(), first, rest) {
            ("GET", "status", None) => self.status().await,
            ("GET", "hash", None) => self.hash(&query(&asked.query, "url")?).await,
            ("GET", "package-status", None) => self.package_status(&query(&asked.query, "url")?).await,
            ("GET", "packages", Some(hash)) => self.package(hash).await,
            ("GET", "blobs", Some(hash)) => self.blob(hash).await,
            ("GET", "leases", None) => Ok(json(&self.leases())),
            ("POST", "resolve", None) => self.resolve(&read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?),
            ("POST", "open", None) => {
                let wanted = read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?;
                self.open(wanted, asked.caller).await
            }
            ("POST", "materialise", None) => self.materialise(read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?).await,
            ("POST", "gc", None) => self.gc().await,
            ("POST", "verify", None) => self.verify(&read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?),
            ("GET", "repositories", None) => Ok(json(&self.repositories())),
            ("POST", "repositories", None) => self.add_repository(asked.body).await,
            ("GET", "repositories", Some(host)) => self.repository(host),
            ("DELETE", "repositories", Some(host)) => self.remove_repository(host),
            ("GET", "rules", None) => Ok(json(&self.rules())),
            ("PUT", "rules", None) => self.replace_rules(asked.body).await,
            ("GET", "overlay", None) => Ok(json(&self.overlay())),
            ("POST", "overlay", None) => self.add_to_overlay(read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?),
            ("DELETE", "overlay", None) => self.clear_overlay(),
            ("GET", "sets", None) => self.sets().await,
            ("POST", "plan", None) => self.plan(asked.body).await,
            ("POST", "automatic", None) => self.automatic(),
            ("POST", "provision", None) => self.provision(asked.body).await,
            (_, "update", Some(verb)) => self.update(verb, asked).await,
            (method, ..) => Err(Problem::no_such_thing(method, path)),
        }
    }

    async fn status(&self) -> Result<Response, Problem> {
        let store = self.store().clone();
        let stats = tokio::task::spawn_blocking(move || store.stats()).await;
        let stats = stats.map_err(|error| Problem::internal(error.to_string()))?.map_err(crate::DeviceError::from)?;
        let (device, parts) = (self.device(), &self.inner.parts);
        Ok(json(&Status {
            dir: parts.dir.display().to_string(),
            daemon: parts.process.clone(),
            release: device.release().map(|release| format!("{} {}", release.product(), release.version())),
            committed: device.committed().load(std::sync::atomic::Ordering::SeqCst),
            repositories: device.repositories().list().len(),
            blobs: stats.blobs,
            blob_bytes: stats.blob_bytes,
            unfinished_blobs: stats.partials,
            free_bytes: stats.free_bytes,
            leases: device.leases().len(),
            operations: DAEMON_OPERATIONS_MAX - self.inner.operations.available_permits(),
            chores: self.chores(),
            lagging: self.lagging(),
        }))
    }
}

/// A request after its path.
struct Asked {
    method: Method,
    query: String,
    body: Body,
    caller: UnixConnection,
}
