//! Content in, delivery blob out. Output bytes depend on the zstd version: nothing may be keyed on them.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use colibri_common::limits::BLOB_BYTES_MAX;

use super::header::{HEADER_BYTES, Header};
use super::{DeliveryError, DeliveryType, StrictError, archive, frame::FrameEncoder};

/// The zstd level that a type stands for.
pub const fn default_level(ty: DeliveryType) -> i32 {
    match ty {
        DeliveryType::Type1 => 14,
        DeliveryType::Type2 => 21,
    }
}

/// The delivery blob of `content`, by an [`Encoder`] for this one blob.
///
/// # Errors
/// As [`Encoder::encode`].
pub fn encode(content: &[u8], ty: DeliveryType, level: Option<i32>) -> Result<Vec<u8>, DeliveryError> {
    Encoder::new(ty, level).encode(content)
}

/// Makes delivery blobs of one type at one level, for any number of threads.
///
/// However many ask, it compresses as many frames at a time as there are cores, with compressors that it keeps: a level-14
/// compressor's tables fill a core's cache, and more of them in turn on one core cost 40 % more time. A blob of many frames
/// is compressed on every core that is free.
#[derive(Debug)]
pub struct Encoder {
    ty: DeliveryType,
    level: i32,
    compressors: Mutex<Compressors>,
    returned: Condvar,
}

/// Compressors that nobody uses, and how many more may be made.
#[derive(Debug)]
struct Compressors {
    idle: Vec<FrameEncoder>,
    unmade: usize,
}

impl Encoder {
    /// `level` is zstd's; by default the type's own.
    pub fn new(ty: DeliveryType, level: Option<i32>) -> Self {
        let unmade = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            ty,
            level: level.unwrap_or_else(|| default_level(ty)),
            compressors: Mutex::new(Compressors { idle: Vec::new(), unmade }),
            returned: Condvar::new(),
        }
    }

    /// The type of what it makes.
    pub fn delivery_type(&self) -> DeliveryType {
        self.ty
    }

    /// The delivery blob of `content`: compressed if that is not larger than the content, else uncompressed.
    ///
    /// # Errors
    /// The content is larger than any blob, or zstd refuses the level.
    pub fn encode(&self, content: &[u8]) -> Result<Vec<u8>, DeliveryError> {
        let content_bytes = content.len() as u64;
        if content_bytes > BLOB_BYTES_MAX {
            return Err(StrictError::TooLarge(content_bytes).into());
        }
        let chunk = archive::chunk_bytes(self.ty, content_bytes) as usize;
        // Without room for the seek table and one smallest frame there is nothing to try.
        if archive::archive_head_bytes(1) < content_bytes {
            let frames = self.compress(content, chunk)?;
            let archive_bytes = archive::archive_head_bytes(frames.len())
                + frames.iter().map(|(_, frame)| frame.len() as u64).sum::<u64>();
            if archive_bytes <= content_bytes {
                let mut blob = Vec::with_capacity((HEADER_BYTES + archive_bytes) as usize);
                blob.extend_from_slice(
                    &Header { ty: self.ty, payload_bytes: archive_bytes, compressed: true }.to_bytes(),
                );
                archive::write(&frames, &mut blob);
                return Ok(blob);
            }
        }
        let mut blob = Vec::with_capacity(HEADER_BYTES as usize + content.len());
        blob.extend_from_slice(&Header { ty: self.ty, payload_bytes: content_bytes, compressed: false }.to_bytes());
        blob.extend_from_slice(content);
        Ok(blob)
    }

    /// Content size and frame of every chunk, in order.
    fn compress(&self, content: &[u8], chunk: usize) -> Result<Vec<(u64, Vec<u8>)>, DeliveryError> {
        let job = Job {
            chunks: content.chunks(chunk).collect(),
            next: AtomicUsize::new(0),
            frames: Mutex::new(Ok(Vec::new())),
        };
        let first = self.wait_for_compressor();
        thread::scope(|scope| self.work(scope, &job, first));
        let mut frames = job.frames.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        frames.sort_unstable_by_key(|(index, _)| *index);
        Ok(frames.into_iter().map(|(index, frame)| (job.chunks[index].len() as u64, frame)).collect())
    }

    /// Compresses frames until none is left, and has others help as soon as a compressor is free.
    fn work<'s, 'e>(&'e self, scope: &'s Scope<'s, 'e>, job: &'e Job<'e>, mut lent: Lent<'e>) {
        while let Some((index, chunk)) = job.take() {
            if job.has_more()
                && let Some(other) = self.free_compressor()
            {
                scope.spawn(move || self.work(scope, job, other));
            }
            job.note(index, lent.compress(chunk));
        }
    }

    fn compressors(&self) -> MutexGuard<'_, Compressors> {
        self.compressors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free_compressor(&self) -> Option<Lent<'_>> {
        let taken = self.compressors().take()?;
        Some(Lent { encoder: self, compressor: taken })
    }

    fn wait_for_compressor(&self) -> Lent<'_> {
        let mut compressors = self.compressors();
        loop {
            if let Some(taken) = compressors.take() {
                return Lent { encoder: self, compressor: taken };
            }
            compressors = self.returned.wait(compressors).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Compressors {
    /// An idle one, or leave to make one (`Some(None)`).
    fn take(&mut self) -> Option<Option<FrameEncoder>> {
        if let Some(idle) = self.idle.pop() {
            return Some(Some(idle));
        }
        self.unmade = self.unmade.checked_sub(1)?;
        Some(None)
    }
}

/// The right to compress, and the compressor once it is made; both go back when this is dropped.
struct Lent<'a> {
    encoder: &'a Encoder,
    compressor: Option<FrameEncoder>,
}

impl Lent<'_> {
    fn compress(&mut self, chunk: &[u8]) -> Result<Vec<u8>, String> {
        match &mut self.compressor {
            Some(compressor) => compressor.encode(chunk),
            unmade => unmade.insert(FrameEncoder::new(self.encoder.level)?).encode(chunk),
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut compressors = self.encoder.compressors();
        match self.compressor.take() {
            Some(compressor) => compressors.idle.push(compressor),
            None => compressors.unmade += 1,
        }
        drop(compressors);
        self.encoder.returned.notify_one();
    }
}

/// A frame, and which chunk it holds.
type NumberedFrame = (usize, Vec<u8>);

/// The chunks of one blob, and the frames made of them in the order in which they were done.
struct Job<'a> {
    chunks: Vec<&'a [u8]>,
    next: AtomicUsize,
    frames: Mutex<Result<Vec<NumberedFrame>, DeliveryError>>,
}

impl<'a> Job<'a> {
    fn take(&self) -> Option<(usize, &'a [u8])> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        Some((index, self.chunks.get(index)?))
    }

    fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.chunks.len()
    }

    /// After a failure nobody takes another chunk.
    fn note(&self, index: usize, frame: Result<Vec<u8>, String>) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        match (frame, &mut *frames) {
            (Ok(frame), Ok(frames)) => frames.push((index, frame)),
            (Err(reason), Ok(_)) => {
                *frames = Err(DeliveryError::Compression { index: index as u32, reason });
                self.next.store(self.chunks.len(), Ordering::Relaxed);
            }
            (_, Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of 32 KiB that differ.
    fn content(frames: usize, seed: usize) -> Vec<u8> {
        (0..frames * 4096).flat_map(|word| (word * word / 3 + seed).to_le_bytes()).collect()
    }

    #[test]
    fn many_threads_share_as_many_compressors_as_there_are_cores() {
        let encoder = Encoder::new(DeliveryType::Type1, Some(1));
        let cores = encoder.compressors().unmade;
        thread::scope(|scope| {
            for seed in 0..4 * cores {
                let encoder = &encoder;
                scope.spawn(move || {
                    let content = content(1 + seed % 5, seed);
                    let alone = encode(&content, DeliveryType::Type1, Some(1)).unwrap();
                    assert_eq!(encoder.encode(&content).unwrap(), alone, "seed {seed}");
                });
            }
        });
        let compressors = encoder.compressors();
        assert_eq!(
            compressors.idle.len() + compressors.unmade,
            cores,
            "all came back, and no more than that were made"
        );
        assert!(!compressors.idle.is_empty());
    }

    #[test]
    fn a_failure_names_its_frame_and_gives_the_compressor_back() {
        let encoder = Encoder::new(DeliveryType::Type1, Some(1));
        let job = Job { chunks: vec![&[0; 9]; 3], next: AtomicUsize::new(0), frames: Mutex::new(Ok(Vec::new())) };
        assert_eq!(job.take().map(|(index, _)| index), Some(0));
        job.note(1, Err("out of luck".to_owned()));
        job.note(0, Ok(Vec::new()));
        assert!(job.take().is_none() && !job.has_more());
        let failed = job.frames.into_inner().unwrap();
        assert!(matches!(failed, Err(DeliveryError::Compression { index: 1, .. })), "{failed:?}");
        let cores = encoder.compressors().unmade;
        drop(encoder.wait_for_compressor());
        assert_eq!(encoder.compressors().unmade, cores);
    }
}
