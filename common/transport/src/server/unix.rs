//! [`UnixServer`]: HTTP/1.1 on a socket in the file system, for programs of the same machine. A handler learns who asks
//! ([`UnixPeer`], from the system, not from the request) and when the connection ends ([`UnixConnection::closed`]).
//!
//! Connections are served by the code that serves TCP, with its bounds and time-outs. Who may connect is decided by the
//! mode of the socket's file; what a peer may do is the handler's to decide.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bounds::{Bounds, Place};
use super::counters::{ServerCounters, count};
use super::dispatch::{Dispatch, Origin};
use super::{Context, ServerLimits, tcp};
use crate::error::TransportError;
use crate::handler::{Handler, Protocol, Request};
use crate::limits::UNIX_PEER_CONNECTIONS_MAX;
use crate::stall::StallGuard;

/// Pause after the system refused a connection: trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What requests over a Unix socket have for an address, in [`crate::Peer`].
const NOWHERE: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Who is at the other end of a Unix socket, as the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its process when it connected, where the system tells.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The connection that a request came by; in its extensions.
#[derive(Debug, Clone)]
pub struct UnixConnection {
    /// Another one for each connection of this process.
    pub id: u64,
    /// Who asks.
    pub peer: UnixPeer,
    closed: CancellationToken,
}

impl UnixConnection {
    /// A connection that lasts until `closed`: for callers of a handler that need no socket.
    pub fn within(id: u64, peer: UnixPeer, closed: CancellationToken) -> Self {
        Self { id, peer, closed }
    }

    /// Completes when the connection has ended, however that came.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

/// What a [`UnixServer`] is to be.
#[derive(Debug, Clone)]
pub struct UnixServerConfig {
    /// Where the socket is to be. The folder must exist.
    pub path: PathBuf,
    /// Who may connect: mode of the file, such as 0o600 for its owner alone.
    pub mode: u32,
    /// Bounds. Those of one client have no meaning here.
    pub limits: ServerLimits,
    /// Connections at a time of one user other than root and the server's own.
    pub peer_connections_max: usize,
    /// What is counted.
    pub counters: Arc<ServerCounters>,
}

impl UnixServerConfig {
    /// A socket for its owner alone, with default limits.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            mode: 0o600,
            limits: ServerLimits::default(),
            peer_connections_max: UNIX_PEER_CONNECTIONS_MAX,
            counters: Arc::default(),
        }
    }
}

/// A server whose socket is there and which answers once [`UnixServer::serve`] runs. Its file goes with it.
pub struct UnixServer {
    listener: UnixListener,
    file: SocketFile,
    shared: Shared,
}

impl std::fmt::Debug for UnixServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnixServer").field("path", &self.file.path).finish_non_exhaustive()
    }
}

/// What all connections share.
struct Shared {
    handler: Handler,
    limits: ServerLimits,
    peer_connections_max: usize,
    bounds: Arc<Bounds>,
    counters: Arc<ServerCounters>,
    tracker: TaskTracker,
    drain: CancellationToken,
    abort: CancellationToken,
    connections: AtomicU64,
    by_user: Arc<Mutex<HashMap<u32, usize>>>,
    own_user: u32,
}

impl UnixServer {
    /// Makes the socket. One that a dead process left is replaced. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::SocketInUse`] if somebody answers there; [`TransportError::Socket`] if the place is taken by
    /// something else, too long a path, or not to be written to.
    pub fn bind(config: UnixServerConfig, handler: Handler) -> Result<Self, TransportError> {
        let refused = |source| TransportError::Socket { path: config.path.clone(), source };
        if is_answered(&config.path).map_err(refused)? {
            return Err(TransportError::SocketInUse { path: config.path });
        }
        let (listener, file) = listen(&config.path, config.mode).map_err(refused)?;
        let limits = ServerLimits { client_connections_max: 0, ..config.limits };
        let shared = Shared {
            handler,
            peer_connections_max: config.peer_connections_max,
            bounds: Bounds::new(&limits),
            limits,
            counters: config.counters,
            tracker: TaskTracker::new(),
            drain: CancellationToken::new(),
            abort: CancellationToken::new(),
            connections: AtomicU64::new(1),
            by_user: Arc::default(),
            own_user: file.owner,
        };
        Ok(Self { listener, file, shared })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The user that the server runs as.
    pub const fn own_user(&self) -> u32 {
        self.shared.own_user
    }

    /// Accepts until `stop`; then removes the socket, finishes requests in flight for at most `drain`, and closes.
    pub async fn serve(self, stop: CancellationToken, drain: Duration) {
        let Self { listener, file, shared } = self;
        // Should this future be dropped instead of stopped, its connections end too.
        let guard = shared.abort.clone().drop_guard();
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.accept(&listener) => {}
        }
        // Whoever comes now finds nobody, and can start another server.
        drop(file);
        drop(listener);
        shared.drain.cancel();
        shared.tracker.close();
        if timeout_at(Instant::now() + drain, shared.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = shared.tracker.len(), "drain deadline passed: closing connections that still work");
        }
        drop(guard);
        shared.tracker.wait().await;
    }
}

impl Shared {
    async fn accept(&self, listener: &UnixListener) {
        loop {
            let Some(place) = self.bounds.connections.enter().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => self.begin(stream, place),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn begin(&self, stream: UnixStream, place: Place) {
        let peer = match stream.peer_cred() {
            Ok(credentials) => UnixPeer { pid: credentials.pid(), uid: credentials.uid(), gid: credentials.gid() },
            Err(error) => return tracing::warn!(%error, "the system does not say who connects: refused"),
        };
        let Some(of_user) = self.one_more_of(peer.uid) else {
            count(&self.counters.refused_client);
            return tracing::debug!(uid = peer.uid, "refused: this user has too many connections");
        };
        let Some(seat) = self.bounds.admission.connection(NOWHERE) else { return };
        count(&self.counters.plain_connections);
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        let connection = UnixConnection { id, peer, closed: CancellationToken::new() };
        let closed = connection.closed.clone().drop_guard();
        let context = self.context(connection);
        let stream = StallGuard::new(stream, context.limits.stall_timeout);
        let origin = Origin { protocol: Protocol::Http1, peer: NOWHERE, secure: false, client: None };
        self.tracker.spawn(async move {
            let _held = (place, of_user, closed);
            let farewell = context.farewell();
            tokio::select! {
                () = context.abort.cancelled() => {}
                () = tcp::serve(stream, (origin, seat), Some(false), &context, &farewell) => {}
            }
        });
    }

    /// A place for a connection of this user, if it may have one more.
    fn one_more_of(&self, uid: u32) -> Option<OfUser> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_user.entry(uid).or_default();
        if *count >= self.peer_connections_max && uid != 0 && uid != self.own_user {
            return None;
        }
        *count += 1;
        Some(OfUser { uid, by_user: self.by_user.clone() })
    }

    /// What one connection is served in: its handler tells whose request it is.
    fn context(&self, connection: UnixConnection) -> Arc<Context> {
        let handler = self.handler.clone();
        let handler: Handler = Arc::new(move |mut request: Request| {
            request.extensions_mut().insert(connection.clone());
            handler(request)
        });
        let (limits, counters) = (self.limits.clone(), self.counters.clone());
        let dispatch = Dispatch { handler, limits: limits.clone(), alt_svc: None, counters: counters.clone() };
        Arc::new(Context {
            dispatch: Arc::new(dispatch),
            limits,
            bounds: self.bounds.clone(),
            counters,
            early: None,
            tracker: self.tracker.clone(),
            drain: self.drain.clone(),
            refuse: self.drain.clone(),
            abort: self.abort.clone(),
        })
    }
}

/// One connection of a user.
struct OfUser {
    uid: u32,
    by_user: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Drop for OfUser {
    fn drop(&mut self) {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_user.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

/// The socket in the file system, until this is dropped.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have put its own there.
    identity: (u64, u64),
    owner: u32,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            // It may be gone already; a stale one is replaced by the next server in any case.
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a server answers there; an error if what is there is no socket.
fn is_answered(path: &Path) -> io::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "there is a file that is no socket: move it away"));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Listens under another name first, so that the socket has its mode, and is answered, from its first moment on.
fn listen(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let mut new = path.to_owned().into_os_string();
    new.push("~");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    let placed = fs::set_permissions(&new, Permissions::from_mode(mode)).and_then(|()| fs::rename(&new, path));
    if let Err(error) = placed {
        _ = fs::remove_file(&new);
        return Err(error);
    }
    let found = fs::symlink_metadata(path)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()), owner: found.uid() }))
}
