//! [`Api`]: how a verb talks to the device: to its daemon if one runs, else to one in this process that opened the store
//! under its lock. The same requests either way, so verbs cannot tell which it is, and neither can those who read what
//! they print.

use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use colibri_device::Device;
use colibri_device::daemon::wire::{Event, Problem};
use colibri_device::daemon::{Daemon, DaemonParts};
use colibri_device::update::Updater;
use colibri_store::Store;
use colibri_transport::{Body, Handler, Response, UnixClient, UnixConnection, UnixPeer};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Args, DeviceVerbError};

/// Name of the socket in a device's folder.
pub(super) const SOCKET: &str = "daemon.sock";

/// Bytes of an answer, or of one line of it, that are read: more than anything a device says.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// A device that answers.
pub(crate) enum Api {
    /// Its daemon.
    Daemon(UnixClient),
    /// This process, which ends it when this is dropped.
    Here { handler: Handler, connection: UnixConnection, _end: DropGuard },
}

/// The daemon of a device, if one runs.
pub(super) async fn daemon(args: &Args) -> Result<Option<UnixClient>, DeviceVerbError> {
    daemon_at(&args.dir, args.socket.as_deref()).await
}

/// The daemon of the device in `dir`, if one runs: at `socket` if that was named, else in the folder.
pub(super) async fn daemon_at(dir: &Path, socket: Option<&Path>) -> Result<Option<UnixClient>, DeviceVerbError> {
    let client = UnixClient::new(socket.map_or_else(|| dir.join(SOCKET), Path::to_owned));
    match client.is_answered().await {
        Ok(answered) => Ok(answered.then_some(client)),
        // In a folder with so long a name no daemon can have its socket.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput && socket.is_none() => Ok(None),
        Err(error) => Err(DeviceVerbError::Socket { path: client.path().to_owned(), error }),
    }
}

impl Api {
    /// A device that this process has opened.
    pub fn here(device: Device, store: Arc<Store>, dir: &Path, updater: Option<Arc<Updater>>) -> Self {
        // Whoever could open the store may do everything.
        let owner = 0;
        let parts = DaemonParts { device, store, dir: dir.to_owned(), updater, owner, process: None };
        let closed = CancellationToken::new();
        let peer = UnixPeer { pid: i32::try_from(std::process::id()).ok(), uid: owner, gid: 0 };
        let connection = UnixConnection::within(0, peer, closed.clone());
        Self::Here { handler: Daemon::new(parts).handler(), connection, _end: closed.drop_guard() }
    }

    /// Sends a request. A problem is an error.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response, DeviceVerbError> {
        let mut request = http::Request::new(Body::full(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error: http::uri::InvalidUri| DeviceVerbError::Argument {
            given: path.to_owned(),
            reason: error.to_string(),
        })?;
        let response = match self {
            Self::Daemon(client) => client.send(request).await.map_err(lost)?,
            Self::Here { handler, connection, .. } => {
                request.extensions_mut().insert(connection.clone());
                handler(request).await
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let text = response.into_body().read_all(ANSWER_BYTES_MAX).await.map_err(lost)?;
        let problem = serde_json::from_slice::<Problem>(&text);
        Err(problem.map_or_else(|_| lost(format!("it answers with status {status}")), DeviceVerbError::Problem))
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, DeviceVerbError> {
        let response = self.send(method, path, body).await?;
        let text = response.into_body().read_all(ANSWER_BYTES_MAX).await.map_err(lost)?;
        serde_json::from_slice(&text).map_err(lost)
    }

    /// What is there.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, DeviceVerbError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// What is there about a package URL.
    pub async fn get_about<T: DeserializeOwned>(&self, path: &str, url: &str) -> Result<T, DeviceVerbError> {
        self.get(&format!("{path}?url={}", utf8_percent_encode(url, NON_ALPHANUMERIC))).await
    }

    /// Has something done.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, DeviceVerbError> {
        self.ask(Method::POST, path, json(body)?).await
    }

    /// [`Self::post`] of a document as it is.
    pub async fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, DeviceVerbError> {
        self.ask(Method::POST, path, body).await
    }

    /// Puts something in the place of what is there.
    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, DeviceVerbError> {
        self.ask(Method::PUT, path, body).await
    }

    /// Removes what is there.
    pub async fn delete(&self, path: &str) -> Result<(), DeviceVerbError> {
        self.ask::<serde_json::Value>(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    /// Has something done that takes its time.
    pub async fn events(&self, path: &str, body: Bytes) -> Result<Events, DeviceVerbError> {
        let response = self.send(Method::POST, path, body).await?;
        Ok(Events { body: response.into_body(), buffer: BytesMut::new() })
    }
}

/// A body of a request.
pub(super) fn json(body: &impl Serialize) -> Result<Bytes, DeviceVerbError> {
    Ok(serde_json::to_vec(body).map_err(lost)?.into())
}

fn lost(error: impl std::fmt::Display) -> DeviceVerbError {
    DeviceVerbError::Daemon(error.to_string())
}

/// What is told while something is being done.
pub(crate) struct Events {
    body: Body,
    buffer: BytesMut,
}

impl Events {
    /// The next event. What failed is an error, and so is an end before the end.
    pub async fn next(&mut self) -> Result<Event, DeviceVerbError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return match serde_json::from_slice(&line).map_err(lost)? {
                    Event::Failed(problem) => Err(DeviceVerbError::Problem(problem)),
                    event => Ok(event),
                };
            }
            if self.buffer.len() as u64 > ANSWER_BYTES_MAX {
                return Err(lost("it says more than anything that a device says"));
            }
            match self.body.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece.map_err(lost)?),
                None => return Err(lost("it ended in the middle of its answer")),
            }
        }
    }
}
