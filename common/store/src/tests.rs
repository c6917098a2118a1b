//! Tests of the whole package: the same contract on both disks, power loss at every operation, faults, damage.

mod blob_file;
mod documents;
mod faults;
mod power_loss;
mod store;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::{Tree, UNIT_BYTES, build};

use crate::disk::{Disk, OpenMode};
use crate::testing::CrashDisk;
use crate::{OsDisk, Store, StoreError};

/// Runs a test on a fresh folder of each disk.
fn on_both_disks(test: impl Fn(Arc<dyn Disk>, &Path)) {
    test(Arc::new(CrashDisk::new()), Path::new("/"));
    let dir = tempfile::tempdir().unwrap();
    test(Arc::new(OsDisk), dir.path());
}

/// A blob of content that repeats only after a prime number of bytes, so that swapped leaves differ.
fn painted(length: usize, colour: u8) -> (Bytes, Tree) {
    let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ (at >> 13) as u8 ^ colour).collect();
    let tree = build(&content);
    (Bytes::from(content), tree)
}

/// Puts a whole blob into a store, unit by unit.
fn add(store: &Store, content: &Bytes, tree: &Tree) -> Result<(), StoreError> {
    let mut partial = store.begin(tree.leaves.clone(), tree.length.into())?;
    for unit in partial.missing_units() {
        let start = unit as usize * UNIT_BYTES as usize;
        let end = content.len().min(start + UNIT_BYTES as usize);
        partial.write(&tree.leaves.verify(start as u64, content.slice(start..end)).unwrap())?;
    }
    assert_eq!(partial.commit()?, tree.length);
    Ok(())
}

/// Flips the lowest bit of one byte of a file.
fn flip_bit(disk: &dyn Disk, path: &Path, offset: u64) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(offset, &mut byte).unwrap();
    file.write_at(offset, &[byte[0] ^ 1]).unwrap();
}
