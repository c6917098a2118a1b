//! The definition of the tree, written slowly and recursively. The fast code is tested against it.

use sha2::{Digest as _, Sha256};

/// The merkle root of `data`, straight from the format document.
pub(super) fn root(data: &[u8]) -> [u8; 32] {
    if data.is_empty() {
        return Sha256::digest([0_u8; 12]).into();
    }
    level(0, data)
}

/// All blocks of one level, hashed and concatenated, are the bytes of the level above.
fn level(number: u64, bytes: &[u8]) -> [u8; 32] {
    let mut hashes = Vec::new();
    for (index, block) in bytes.chunks(8192).enumerate() {
        let mut padded = block.to_vec();
        padded.resize(8192, 0);
        let offset = 8192 * index as u64;
        let length: u32 = if number == 0 { block.len() as u32 } else { 8192 };
        let mut input = (offset | number).to_le_bytes().to_vec();
        input.extend(length.to_le_bytes());
        input.extend(padded);
        hashes.push(<[u8; 32]>::from(Sha256::digest(&input)));
    }
    if hashes.len() == 1 { hashes[0] } else { level(number + 1, &hashes.concat()) }
}
