//! One upload over one connection: from the request's body to the disk, as fast as the slower of the two, and not slower
//! than allowed.
//!
//! When the connection breaks, what has come stays. The same sender may begin again at once: the older request lets go, so
//! that nobody waits for a connection that is dead. Somebody else is asked to wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use colibri_common::BlobId;
use colibri_package::delivery::Encoding;
use colibri_repository::{RepositoryError, Upload};
use colibri_transport::Body;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::config::WriteConfig;
use super::problem::WriteError;
use crate::limits::{PROVING_BYTES_MAX, TURN_WAIT_MS_MAX, UPLOAD_PIECE_BYTES, UPLOAD_PIECES_WAITING};

/// What uploads share.
pub(crate) struct Uploads {
    at_a_time: Arc<Semaphore>,
    proving: Arc<Semaphore>,
    under_way: Mutex<HashMap<Key, UnderWay>>,
    pace: Pace,
}

/// Repository, form and blob.
type Key = (String, Encoding, BlobId);

/// Who sends a blob.
struct UnderWay {
    who: String,
    /// Tells the request that has the turn to let go.
    taken_over: CancellationToken,
    /// Held by the request that has the turn.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The slowest that an upload may be.
#[derive(Debug, Clone, Copy)]
struct Pace {
    window: Duration,
    bytes_min: u64,
}

/// One upload under way: counted while it lives, and told when the same sender begins it again. Whoever works on the upload
/// holds it, also when the request is gone.
pub(crate) struct Turn {
    uploads: Arc<Uploads>,
    key: Key,
    taken_over: CancellationToken,
    _place: Option<OwnedMutexGuard<()>>,
    _permit: OwnedSemaphorePermit,
}

impl Uploads {
    pub fn new(config: &WriteConfig) -> Self {
        let window = Duration::from_secs(config.upload_pace_s.max(1));
        Self {
            at_a_time: Arc::new(Semaphore::new(config.uploads_max.min(Semaphore::MAX_PERMITS))),
            proving: Arc::new(Semaphore::new(permits_for(PROVING_BYTES_MAX) as usize)),
            under_way: Mutex::default(),
            pace: Pace { window, bytes_min: config.upload_bytes_per_s_min.saturating_mul(window.as_secs()) },
        }
    }

    /// How many are under way.
    pub fn count(&self) -> u64 {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Begins an upload; the one that `who` has under way for the same blob is told to let go, and waited for.
    pub async fn begin(self: &Arc<Self>, key: Key, who: &str) -> Result<Turn, WriteError> {
        let full = |_| WriteError::Busy("as many uploads as allowed are under way: try again".to_owned());
        let permit = self.at_a_time.clone().try_acquire_owned().map_err(full)?;
        let taken_over = CancellationToken::new();
        let waiting = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = match under_way.get(&key) {
                Some(before) if before.who == who => {
                    before.taken_over.cancel();
                    before.turn.clone()
                }
                Some(_) => return Err(WriteError::Busy(format!("blob {} is being uploaded by somebody else", key.2))),
                None => Arc::default(),
            };
            let (who, taken_over) = (who.to_owned(), taken_over.clone());
            under_way.insert(key.clone(), UnderWay { who, taken_over, turn: turn.clone() });
            turn.lock_owned()
        };
        let uploads = self.clone();
        let mut turn = Turn { uploads, key, taken_over, _place: None, _permit: permit };
        let waited = timeout(Duration::from_millis(TURN_WAIT_MS_MAX), waiting).await;
        let busy = |_| WriteError::Busy(format!("blob {} is still being written or proven: try again", turn.key.2));
        turn._place = Some(waited.map_err(busy)?);
        Ok(turn)
    }

    /// Room in memory for proving a blob of so many bytes; a blob larger than all of it has all of it.
    pub async fn room_to_prove(&self, bytes: u64) -> Result<OwnedSemaphorePermit, WriteError> {
        let permits = permits_for(bytes.min(PROVING_BYTES_MAX));
        let stopping = |_| WriteError::Busy("the origin is stopping".to_owned());
        self.proving.clone().acquire_many_owned(permits).await.map_err(stopping)
    }

    /// Carries a body, of at most `bytes_max` more bytes, into an upload until one of them ends. Gives both back, with all
    /// that came durable, and why the body ended early, if it did.
    pub async fn carry(
        &self,
        upload: Upload,
        body: &mut Body,
        bytes_max: u64,
        turn: Turn,
    ) -> Result<(Upload, Turn, Option<WriteError>), WriteError> {
        let taken_over = turn.taken_over.clone();
        let (sender, writing) = writer(upload, turn);
        let ended = tokio::select! {
            biased;
            () = taken_over.cancelled() => {
                Some(WriteError::Conflict("the same upload was begun again on another connection".to_owned()))
            }
            ended = self.feed(body, bytes_max, sender) => ended.err(),
        };
        let stopping = |_| WriteError::Busy("the origin is stopping".to_owned());
        let (turn, written) = writing.await.map_err(stopping)?;
        Ok((written.map_err(|error| super::api::refusal(&error))?, turn, ended))
    }

    async fn feed(&self, body: &mut Body, bytes_max: u64, sender: mpsc::Sender<Bytes>) -> Result<(), WriteError> {
        let mut window = Window::begin(self.pace);
        let (mut piece, mut left) = (BytesMut::new(), bytes_max);
        loop {
            let next = timeout_at(window.end, body.next()).await;
            let Ok(next) = next else {
                window.turn()?;
                continue;
            };
            let chunk = match next {
                Some(Ok(chunk)) => chunk,
                ended => {
                    // What came before a break is kept as well.
                    _ = sender.send(piece.freeze()).await;
                    return match ended {
                        Some(Err(error)) => Err(error.into()),
                        _ => Ok(()),
                    };
                }
            };
            if chunk.len() as u64 > left {
                return Err(WriteError::TooLarge { bytes_max });
            }
            left -= chunk.len() as u64;
            window.bytes += chunk.len() as u64;
            if Instant::now() >= window.end {
                window.turn()?;
            }
            piece.extend_from_slice(&chunk);
            if piece.len() >= UPLOAD_PIECE_BYTES && sender.send(piece.split().freeze()).await.is_err() {
                // The disk refuses: the writer says why.
                return Ok(());
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut under_way = self.uploads.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        // Cancelled means that another request of the same sender has the place.
        if !self.taken_over.is_cancelled() {
            under_way.remove(&self.key);
        }
    }
}

/// A stretch of time in which an upload must come on.
struct Window {
    pace: Pace,
    end: Instant,
    bytes: u64,
}

impl Window {
    fn begin(pace: Pace) -> Self {
        Self { pace, end: Instant::now() + pace.window, bytes: 0 }
    }

    /// Judges the stretch that ends and begins the next.
    fn turn(&mut self) -> Result<(), WriteError> {
        let Pace { window, bytes_min } = self.pace;
        if self.bytes < bytes_min {
            let (bytes, seconds) = (self.bytes, window.as_secs());
            let reason = format!(
                "{bytes} bytes came in {seconds} s, the least are {bytes_min}: resume the upload when it can go faster"
            );
            return Err(WriteError::TooSlow(reason));
        }
        *self = Self::begin(self.pace);
        Ok(())
    }
}

/// Writes what is sent to it, on a thread that may block; ends, with all of it durable, when the sender goes.
fn writer(mut upload: Upload, turn: Turn) -> (mpsc::Sender<Bytes>, JoinHandle<Written>) {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(UPLOAD_PIECES_WAITING);
    let writing = tokio::task::spawn_blocking(move || {
        let mut write = || {
            while let Some(piece) = pieces.blocking_recv() {
                upload.write(upload.received(), &piece)?;
            }
            upload.flush()
        };
        let written = write();
        (turn, written.map(|_| upload))
    });
    (sender, writing)
}

/// The turn, and the upload or why it cannot go on.
type Written = (Turn, Result<Upload, RepositoryError>);

/// A permit for every MiB begun.
fn permits_for(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX).max(1)
}
