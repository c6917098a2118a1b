//! Content in, delivery blob out. Output bytes depend on the zstd version: nothing may be keyed on them.

use std::sync::atomic::{AtomicUsize, Ordering};

use colibri_common::limits::BLOB_BYTES_MAX;

use super::header::{HEADER_BYTES, Header};
use super::{DeliveryError, DeliveryType, StrictError, archive, frame::Encoder};

/// The zstd level that a type stands for.
pub const fn default_level(ty: DeliveryType) -> i32 {
    match ty {
        DeliveryType::Type1 => 14,
        DeliveryType::Type2 => 21,
    }
}

/// The delivery blob of `content`: compressed if that is not larger than the content, else uncompressed. Frames are
/// compressed on all cores. `level` is zstd's; by default the type's own.
pub fn encode(content: &[u8], ty: DeliveryType, level: Option<i32>) -> Result<Vec<u8>, DeliveryError> {
    let content_bytes = content.len() as u64;
    if content_bytes > BLOB_BYTES_MAX {
        return Err(StrictError::TooLarge(content_bytes).into());
    }
    let chunk = archive::chunk_bytes(ty, content_bytes) as usize;
    // Without room for the seek table and one smallest frame there is nothing to try.
    if archive::archive_head_bytes(1) < content_bytes {
        let frames = compress(content, chunk, level.unwrap_or_else(|| default_level(ty)))?;
        let archive_bytes =
            archive::archive_head_bytes(frames.len()) + frames.iter().map(|(_, frame)| frame.len() as u64).sum::<u64>();
        if archive_bytes <= content_bytes {
            let mut blob = Vec::with_capacity((HEADER_BYTES + archive_bytes) as usize);
            blob.extend_from_slice(&Header { ty, payload_bytes: archive_bytes, compressed: true }.to_bytes());
            archive::write(&frames, &mut blob);
            return Ok(blob);
        }
    }
    let mut blob = Vec::with_capacity(HEADER_BYTES as usize + content.len());
    blob.extend_from_slice(&Header { ty, payload_bytes: content_bytes, compressed: false }.to_bytes());
    blob.extend_from_slice(content);
    Ok(blob)
}

/// Content size and frame of every chunk, in order; compressed on all cores.
fn compress(content: &[u8], chunk: usize, level: i32) -> Result<Vec<(u64, Vec<u8>)>, DeliveryError> {
    let chunks: Vec<&[u8]> = content.chunks(chunk).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(chunks.len());
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<u8>)>, DeliveryError> {
        let mut encoder = Encoder::new(level).map_err(|reason| DeliveryError::Compression { index: 0, reason })?;
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(chunk) = chunks.get(index) else { return Ok(done) };
            let failed = |reason| DeliveryError::Compression { index: index as u32, reason };
            done.push((index, encoder.encode(chunk).map_err(failed)?));
        }
    };
    let mut frames = if cores <= 1 {
        work()?
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let done: Result<_, _> =
                workers.into_iter().map(|worker| worker.join().expect("compressing does not panic")).collect();
            done.map(|parts: Vec<Vec<_>>| parts.into_iter().flatten().collect())
        })?
    };
    frames.sort_unstable_by_key(|(index, _)| *index);
    Ok(frames.into_iter().map(|(index, frame)| (chunks[index].len() as u64, frame)).collect())
}
