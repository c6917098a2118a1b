//! Bytes in, [`Tree`] out: the id, the leaves and the verified length of a blob whose content is at hand.

use bytes::Bytes;

use super::{LEAF_BYTES, Leaves, hash};
use crate::limits::PARALLEL_HASHING_FROM_BYTES;
use crate::{BlobId, DIGEST_BYTES, VerifiedLength};

const LEAF: usize = LEAF_BYTES as usize;

/// What hashing a blob's whole content gives.
#[derive(Debug, Clone)]
pub struct Tree {
    /// The blob's merkle root.
    pub id: BlobId,
    /// Its leaf hashes.
    pub leaves: Leaves,
    /// Its length: verified, since all of it was hashed.
    pub length: VerifiedLength,
}

/// Hashes content that arrives in pieces of any size. Holds one partial leaf and 32 bytes per leaf seen.
#[derive(Debug, Default)]
pub struct Builder {
    hashes: Vec<u8>,
    partial: Vec<u8>,
    length: u64,
}

impl Builder {
    /// A builder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of bytes seen so far.
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes of the blob. Pieces of [`PARALLEL_HASHING_FROM_BYTES`] and more are hashed on all cores.
    pub fn push(&mut self, mut data: &[u8]) {
        self.length += data.len() as u64;
        if !self.partial.is_empty() {
            let take = data.len().min(LEAF - self.partial.len());
            self.partial.extend_from_slice(&data[..take]);
            data = &data[take..];
            if self.partial.len() < LEAF {
                return;
            }
            let offset = self.next_offset();
            self.hashes.extend_from_slice(&hash::leaf(offset, &self.partial));
            self.partial.clear();
        }
        let whole = data.len() - data.len() % LEAF;
        let offset = self.next_offset();
        hash_leaves(offset, &data[..whole], &mut self.hashes);
        self.partial.extend_from_slice(&data[whole..]);
    }

    fn next_offset(&self) -> u64 {
        (self.hashes.len() / DIGEST_BYTES) as u64 * LEAF_BYTES
    }

    /// The tree over everything pushed.
    pub fn finish(mut self) -> Tree {
        if !self.partial.is_empty() || self.hashes.is_empty() {
            let offset = self.next_offset();
            self.hashes.extend_from_slice(&hash::leaf(offset, &self.partial));
        }
        let id = BlobId::from_digest(hash::root(&self.hashes));
        Tree { id, leaves: Leaves::trusted(id, Bytes::from(self.hashes)), length: VerifiedLength(self.length) }
    }
}

/// The tree over content that is wholly in memory; large content is hashed on all cores.
pub fn build(data: &[u8]) -> Tree {
    let mut builder = Builder::new();
    builder.push(data);
    builder.finish()
}

/// Appends the leaf hashes of `data` (whole leaves, the first at `offset`), on all cores when it is large.
fn hash_leaves(offset: u64, data: &[u8], hashes: &mut Vec<u8>) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores == 1 || data.len() < PARALLEL_HASHING_FROM_BYTES {
        return hash_run(offset, data, hashes);
    }
    let share = (data.len() / LEAF).div_ceil(cores) * LEAF;
    std::thread::scope(|scope| {
        let runs: Vec<_> = data
            .chunks(share)
            .enumerate()
            .map(|(index, run)| {
                scope.spawn(move || {
                    let mut hashes = Vec::with_capacity(run.len() / LEAF * DIGEST_BYTES);
                    hash_run(offset + (index * share) as u64, run, &mut hashes);
                    hashes
                })
            })
            .collect();
        for run in runs {
            hashes.extend_from_slice(&run.join().expect("hashing does not panic"));
        }
    });
}

fn hash_run(offset: u64, data: &[u8], hashes: &mut Vec<u8>) {
    for (index, leaf) in data.chunks_exact(LEAF).enumerate() {
        hashes.extend_from_slice(&hash::leaf(offset + (index * LEAF) as u64, leaf));
    }
}
