//! The base: read every file, hash it, compress it at level 14 in the frames of a delivery blob of type 1, on all cores;
//! write nothing. It keeps one compressor per thread and gives every core work to the end.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use colibri_common::{BlobId, merkle};
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// The level of delivery type 1.
pub const LEVEL: i32 = 14;

/// Frames of delivery type 1: at least this long, at most so many, beginning at leaves.
const FRAME_BYTES_MIN: usize = 32 << 10;
const FRAMES_MAX: usize = 1023;
const LEAF_BYTES: usize = 8192;

/// Files from this size on are compressed by all cores together, smaller ones by one core each.
const SHARED_FROM_BYTES: u64 = 4 << 20;

/// What was done, so that nothing is optimised away and the two sides can be compared.
pub struct Done {
    /// Content read.
    pub bytes: u64,
    /// Blobs hashed.
    pub ids: BTreeSet<BlobId>,
    /// Frames made.
    pub compressed_bytes: u64,
}

/// Does the work.
pub fn compress_and_hash(files: &[(PathBuf, u64)]) -> io::Result<Done> {
    let (bytes, compressed, ids) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(BTreeSet::new()));
    let (large, small): (Vec<_>, Vec<_>) = files.iter().partition(|(_, bytes)| *bytes >= SHARED_FROM_BYTES);
    let known = |content: &[u8]| {
        bytes.fetch_add(content.len() as u64, Ordering::Relaxed);
        ids.lock().unwrap_or_else(PoisonError::into_inner).insert(merkle::build(content).id);
    };
    for (path, _) in large {
        let content = std::fs::read(path)?;
        known(&content);
        let frames: Vec<&[u8]> = content.chunks(frame_bytes(content.len())).collect();
        on_all_cores(frames.len(), |compressor, index| {
            compressed.fetch_add(compressor.compress(frames[index])?.len() as u64, Ordering::Relaxed);
            Ok(())
        })?;
    }
    on_all_cores(small.len(), |compressor, index| {
        let content = std::fs::read(&small[index].0)?;
        known(&content);
        for frame in content.chunks(frame_bytes(content.len())) {
            compressed.fetch_add(compressor.compress(frame)?.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    })?;
    let ids = ids.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Done { bytes: bytes.into_inner(), ids, compressed_bytes: compressed.into_inner() })
}

fn frame_bytes(content: usize) -> usize {
    if content <= FRAMES_MAX * FRAME_BYTES_MIN {
        FRAME_BYTES_MIN
    } else {
        content.div_ceil(FRAMES_MAX).next_multiple_of(LEAF_BYTES)
    }
}

/// Runs `work` for every index below `count`, each thread with a compressor of its own.
fn on_all_cores(count: usize, work: impl Fn(&mut Compressor<'_>, usize) -> io::Result<()> + Sync) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let worker = || {
            let mut compressor = Compressor::new(LEVEL)?;
            compressor.set_parameter(CParameter::ContentSizeFlag(true))?;
            compressor.set_parameter(CParameter::ChecksumFlag(true))?;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                work(&mut compressor, index)?;
            }
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("compressing does not panic"))
    })
}
