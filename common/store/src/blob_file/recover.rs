//! Finding a [`BlobFile`] again that an earlier process left, or that was closed meanwhile.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::merkle::Leaves;
use colibri_common::{BlobId, ClaimedLength};
use colibri_package::delivery::{Encoding, Layout};

use super::trailer::{GUARD_BYTES, TAIL_BYTES, Tail, check_of};
use super::units::Units;
use super::{Belief, BlobFile};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{AtPath, StoreError};
use crate::hole_punching::HolePunching;
use crate::limits::GLANCE_BYTES;

/// What a file says about itself at its end, nothing of it proven: enough to keep books about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// The blob.
    pub id: BlobId,
    /// Raw or which delivery type.
    pub encoding: Encoding,
    /// Units that it says are whole, ascending.
    pub units: Vec<u32>,
    /// Units of the blob.
    pub unit_count: u32,
    /// Bytes of disk the file takes.
    pub allocated_bytes: u64,
}

impl BlobFile {
    /// Opens a file that [`BlobFile::create`] made, with the units that it says are whole. With [`Belief::Leaves`] each unit
    /// is verified against the leaves when it is first read. Nothing if it is not such a file, or damaged where it matters
    /// to all of it: whoever owns the folder removes it then.
    pub fn recover(
        disk: Arc<dyn Disk>,
        path: &Path,
        punching: HolePunching,
        belief: Belief,
    ) -> Result<Option<Self>, StoreError> {
        let file = disk.open(path, OpenMode::Write).at(path)?;
        let found = read_tail(file.as_ref(), path)?;
        let Some((tail, layout)) = found.and_then(|tail| Some((tail, read_layout(file.as_ref(), &tail)?))) else {
            return Ok(None);
        };
        if Tail::of(&layout) != tail {
            return Ok(None);
        }
        let guards = read(file.as_ref(), tail.guard_at(0), tail.leaves_at()).at(path)?;
        let checks = read(file.as_ref(), tail.check_at(0), tail.tail_at()).at(path)?;
        let mut units = Units::default();
        for (unit, check) in numbers(&checks).enumerate().filter(|(_, check)| *check != 0) {
            let unit = unit as u32;
            let pieces = layout.pieces_of(unit);
            let of_unit =
                &guards[pieces.start as usize * GUARD_BYTES as usize..pieces.end as usize * GUARD_BYTES as usize];
            if check_of(unit, of_unit) == check {
                units.adopt(&layout, unit, numbers(of_unit).collect(), belief == Belief::Guards);
            }
        }
        Ok(Some(Self::new(disk, file, path, layout, punching, units)))
    }

    /// What the file says about itself; nothing if it is not a whole [`BlobFile`]. Reads its end only.
    pub fn glance(disk: &dyn Disk, path: &Path) -> Result<Option<Glance>, StoreError> {
        let file = disk.open(path, OpenMode::Read).at(path)?;
        let file_bytes = file.length().at(path)?;
        let end = read(file.as_ref(), file_bytes.saturating_sub(GLANCE_BYTES), file_bytes).at(path)?;
        let Some(tail) = end.last_chunk().and_then(|tail| Tail::parse(tail, file_bytes)) else { return Ok(None) };
        let checks_bytes = usize::try_from(tail.tail_at() - tail.check_at(0)).expect("checks fit memory");
        let before_tail = &end[..end.len() - TAIL_BYTES];
        let checks = match before_tail.len().checked_sub(checks_bytes) {
            Some(start) => before_tail[start..].to_vec(),
            None => read(file.as_ref(), tail.check_at(0), tail.tail_at()).at(path)?,
        };
        let units = numbers(&checks).enumerate().filter(|(_, check)| *check != 0).map(|(unit, _)| unit as u32);
        Ok(Some(Glance {
            id: tail.id,
            encoding: tail.encoding,
            units: units.collect(),
            unit_count: tail.units,
            allocated_bytes: file.allocated_bytes().at(path)?,
        }))
    }
}

fn read_tail(file: &dyn DiskFile, path: &Path) -> Result<Option<Tail>, StoreError> {
    let file_bytes = file.length().at(path)?;
    let mut tail = [0; TAIL_BYTES];
    let Some(start) = file_bytes.checked_sub(TAIL_BYTES as u64) else { return Ok(None) };
    file.read_exact_at(start, &mut tail).at(path)?;
    Ok(Tail::parse(&tail, file_bytes))
}

/// The layout, from leaves that prove themselves and a unit H that fits them.
fn read_layout(file: &dyn DiskFile, tail: &Tail) -> Option<Layout> {
    let list = read(file, tail.leaves_at(), tail.check_at(0)).ok()?;
    let leaves = Leaves::check(tail.id, Bytes::from(list)).ok()?;
    match tail.encoding {
        Encoding::Raw => Layout::raw(leaves, ClaimedLength(tail.content_bytes)).ok(),
        Encoding::Delivery(kind) => {
            let unit_h = read(file, 0, tail.unit_h_bytes).ok()?;
            Layout::from_unit_h(kind, leaves, &unit_h).ok()
        }
    }
}

fn read(file: &dyn DiskFile, start: u64, end: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - start).map_err(std::io::Error::other)?];
    file.read_exact_at(start, &mut bytes)?;
    Ok(bytes)
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number))
}
