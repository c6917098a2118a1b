//! [`UnixClient`]: HTTP/1.1 to a server on a socket in the file system of this machine. Each request has a connection of its
//! own, which ends with its answer: what a server does for a connection, it does for that request.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use http::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::http1::failed;
use crate::error::{ClientError, ClientErrorKind};
use crate::handler::{Request, Response};
use crate::{hyper_body, limits};

/// A client of one socket.
#[derive(Debug, Clone)]
pub struct UnixClient {
    path: PathBuf,
}

impl UnixClient {
    /// A client of the server whose socket is at `path`.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a server answers there.
    ///
    /// # Errors
    /// There is one, perhaps, which this user may not connect to.
    pub async fn is_answered(&self) -> io::Result<bool> {
        match UnixStream::connect(&self.path).await {
            Ok(_) => Ok(true),
            // A server that is killed in this very moment resets what it had not accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request, whose URI is a path, and waits for the head of its answer, however long that takes.
    ///
    /// # Errors
    /// Nobody answers, or the connection broke.
    pub async fn send(&self, mut request: Request) -> Result<Response, ClientError> {
        let name = self.path.display().to_string();
        let unreachable = |error| ClientError::new(ClientErrorKind::Unreachable, &name, error);
        let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
        let broken = |error: hyper::Error| ClientError::new(ClientErrorKind::Protocol, &name, error);
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(limits::HEADER_BYTES_MAX.max(limits::PIECE_BYTES))
            .max_headers(limits::HEADER_FIELDS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // The task ends when the sender and the body in progress are dropped, or the connection breaks.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to a Unix socket ended");
            }
        });
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        let response = sender.send_request(request).await.map_err(|error| failed(&name, error).error)?;
        Ok(response.map(hyper_body::incoming))
    }
}
