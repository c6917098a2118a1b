//! Sending one blob until the origin has it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_transport::Body;
use http::{Method, StatusCode};

use super::{Remote, RemoteError, is_stored, pause};
use crate::error::RepositoryError;
use crate::ingest::{Source, SourceBlob};
use crate::limits::{REMOTE_ATTEMPTS_MAX, REMOTE_PIECE_BYTES};
use crate::wire::{UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_OFFSET, form_segment};

/// What travelled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub bytes: u64,
    /// Times an upload went on after it had stopped.
    pub resumed: u64,
}

impl Sent {
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.resumed += other.resumed;
    }
}

impl Remote {
    /// Uploads a blob, from where the origin says it is, until it has all of it.
    pub(super) async fn send_blob(&self, blob: &SourceBlob) -> Result<Sent, RemoteError> {
        let (form, length) = shape(blob)?;
        let path = format!("blobs/{}/{}", form_segment(form), blob.id);
        let (mut offset, mut failures, mut sent) = (0, 0, Sent::default());
        loop {
            let error = match self.send_part(blob, &path, offset, length).await {
                Ok(true) => {
                    sent.bytes += length - offset;
                    return Ok(sent);
                }
                Ok(false) => RemoteError::answer(&path, &"the origin took all of it and asks for more"),
                Err(error) => error,
            };
            failures += 1;
            if failures >= REMOTE_ATTEMPTS_MAX {
                let (path, id) = (blob.file().display().to_string(), blob.id);
                return Err(RemoteError::Stuck { path, id, attempts: failures, last: Box::new(error) });
            }
            let found = match &error {
                RemoteError::Refused { status: StatusCode::CONFLICT, offset: Some(found), .. } => *found,
                // What was there before was not the beginning of this blob; the origin has thrown it away.
                RemoteError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. } if offset > 0 => 0,
                RemoteError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, .. } => {
                    return Err(explain(blob, error));
                }
                _ if error.may_pass() => {
                    tokio::time::sleep(pause(failures)).await;
                    match self.offset(&path).await {
                        Ok(None) => return Ok(sent),
                        found => found.ok().flatten().unwrap_or(offset),
                    }
                }
                _ => return Err(error),
            };
            if found > length {
                // Another form of the blob was begun, of another length.
                let request = http::Request::builder().method(Method::DELETE).uri(format!("{}/{path}", self.base));
                self.send(request, Body::empty()).await?;
                offset = 0;
                continue;
            }
            if found > offset {
                // It got on: patience begins anew.
                failures = 0;
                sent.bytes += found - offset;
                sent.resumed += 1;
            }
            offset = found;
        }
    }

    /// Sends the bytes from `offset` on; true if the origin has the blob then.
    async fn send_part(&self, blob: &SourceBlob, path: &str, offset: u64, length: u64) -> Result<bool, RemoteError> {
        let request = http::Request::builder()
            .method(Method::PATCH)
            .uri(format!("{}/{path}", self.base))
            .header(UPLOAD_OFFSET, offset)
            .header(UPLOAD_LENGTH, length);
        let response = self.send(request, body(blob, offset, length)?).await?;
        Ok(is_stored(response.status()))
    }

    /// How far the origin is; nothing if it has the blob.
    async fn offset(&self, path: &str) -> Result<Option<u64>, RemoteError> {
        let request = http::Request::builder().method(Method::HEAD).uri(format!("{}/{path}", self.base));
        let response = self.send(request, Body::empty()).await?;
        if response.headers().get(UPLOAD_COMPLETE).is_some_and(|value| value == "?1") {
            return Ok(None);
        }
        let offset = response.headers().get(UPLOAD_OFFSET).and_then(|value| value.to_str().ok()?.parse().ok());
        offset.map(Some).ok_or_else(|| RemoteError::answer(path, &"it does not say how far the upload is"))
    }
}

/// In which form a blob lies here, and how long that is.
fn shape(blob: &SourceBlob) -> Result<(Encoding, u64), RemoteError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => RepositoryError::MissingBlob {
            path: blob.file().to_owned(),
            manifest: blob.named_by.clone(),
            blob_path: blob.path.clone(),
        },
        _ => RepositoryError::read(blob.file(), error),
    };
    match &blob.source {
        Source::Archive(_, content) => Ok((Encoding::Raw, content.len() as u64)),
        Source::File(path) => Ok((Encoding::Raw, std::fs::metadata(path).map_err(failed)?.len())),
        Source::DeliveryFile(path) => {
            let mut head = [0; 8];
            let mut file = File::open(path).map_err(failed)?;
            file.read_exact(&mut head).map_err(failed)?;
            let [_, _, _, _, number @ ..] = head;
            let ty = DeliveryType::try_from(u32::from_le_bytes(number));
            let ty = ty.map_err(|source| RepositoryError::Delivery { path: path.clone(), source })?;
            Ok((Encoding::Delivery(ty), file.metadata().map_err(failed)?.len()))
        }
    }
}

/// The bytes from `offset` on, read as they are sent.
fn body(blob: &SourceBlob, offset: u64, length: u64) -> Result<Body, RemoteError> {
    let path = match &blob.source {
        Source::Archive(_, content) => {
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            return Ok(Body::full(content.slice(from..)));
        }
        Source::File(path) | Source::DeliveryFile(path) => path.clone(),
    };
    let mut file = File::open(&path).map_err(|error| RepositoryError::read(&path, error))?;
    file.seek(SeekFrom::Start(offset)).map_err(|error| RepositoryError::read(&path, error))?;
    let (mut sender, body) = Body::channel(Some(length - offset));
    tokio::spawn(async move {
        let mut left = length - offset;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(REMOTE_PIECE_BYTES);
            let reading = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; wanted];
                file.read_exact(&mut piece).map(|()| (file, piece))
            });
            let piece = match reading.await {
                Ok(Ok((given, piece))) => {
                    file = given;
                    piece
                }
                Ok(Err(error)) => return sender.abort(format!("{}: {error}", path.display())),
                Err(_) => return sender.abort("stopped"),
            };
            left -= piece.len() as u64;
            if sender.send(Bytes::from(piece)).await.is_err() {
                return;
            }
        }
        sender.finish();
    });
    Ok(body)
}

/// The origin says that what was sent is not the blob: most likely the file here is not either.
fn explain(blob: &SourceBlob, refusal: RemoteError) -> RemoteError {
    match blob.read() {
        Err(fault) => fault.into(),
        Ok(_) => refusal,
    }
}
