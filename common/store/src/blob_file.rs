//! [`BlobFile`]: verified unit I/O on one partially present file: the raw bytes or one encoded form of one blob.
//!
//! For cache tiers. Only [`VerifiedPieces`] get in. A CRC-32C for each piece (leaf or frame) guards what comes out; when one
//! does not match, or its guard is in doubt, the merkle leaves decide, and a piece that is really damaged is absent from then
//! on. A unit is forgotten by giving its whole file-system blocks back, and never while somebody holds it. Leaves, guards and
//! what is present stand behind the form ([`trailer`]), so that [`BlobFile::recover`] finds them after a restart. Nothing here
//! ever syncs. Deliberately absent: the choice of what to evict, and an index of files.

mod recover;
mod trailer;
mod units;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use colibri_common::{ByteRange, VerifiedLength};
use colibri_package::delivery::{Layout, VerifiedPieces};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{AtPath, StoreError};
use crate::hole_punching::HolePunching;
use crate::limits::RUN_BYTES_MAX;
pub use recover::Glance;
pub(crate) use trailer::Tail;
#[cfg(test)]
pub(crate) use trailer::check_of;
use units::Units;

/// A partially present file. Cheap to clone; clones are the same file. Two that were opened apart are not: who opens the
/// same path twice at the same time loses the promise about holds. Removing its name ([`BlobFile::remove`]) frees the space
/// once the last clone and the last [`UnitGuard`] are dropped.
#[derive(Debug, Clone)]
pub struct BlobFile {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    layout: Layout,
    tail: Tail,
    punching: HolePunching,
    units: Mutex<Units>,
}

/// Keeps units from being evicted, for as long as it lives.
#[derive(Debug)]
pub struct UnitGuard {
    shared: Arc<Shared>,
    units: Range<u32>,
}

/// What decides whether bytes at rest are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Belief {
    /// The guards; the leaves where one does not match.
    Guards,
    /// The leaves alone.
    Leaves,
}

/// Neighbouring pieces of a unit, as [`BlobFile::read_unit`] found them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// These bytes of the encoded form, as they were verified.
    Here {
        /// Offset of the first in the encoded form.
        offset: u64,
        /// In memory of their own.
        bytes: Bytes,
    },
    /// These pieces are not here.
    Missing {
        /// Which.
        pieces: Range<u32>,
        /// They were, and the disk changed them or cannot read them; they are absent from now on.
        damaged: bool,
    },
}

impl BlobFile {
    /// Makes the file, with unit H and leaves in it; a file of that name is replaced. `punching` is what
    /// [`HolePunching::probe`] found for this file system.
    pub fn create(
        disk: Arc<dyn Disk>,
        path: &Path,
        layout: Layout,
        punching: HolePunching,
    ) -> Result<Self, StoreError> {
        match disk.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.at(path)?,
        }
        let file = disk.open(path, OpenMode::CreateNew).at(path)?;
        let tail = Tail::of(&layout);
        let write =
            |offset, bytes: &[u8]| if bytes.is_empty() { Ok(()) } else { file.write_at(offset, bytes).at(path) };
        write(0, layout.unit_h())?;
        write(tail.leaves_at(), &layout.leaves().wire())?;
        // Last, so that a file without it was never finished.
        write(tail.tail_at(), &tail.to_bytes())?;
        Ok(Self::new(disk, file, path, layout, punching, Units::default()))
    }

    fn new(
        disk: Arc<dyn Disk>,
        file: Arc<dyn DiskFile>,
        path: &Path,
        layout: Layout,
        punching: HolePunching,
        units: Units,
    ) -> Self {
        let tail = Tail::of(&layout);
        let path = path.to_owned();
        Self { shared: Arc::new(Shared { disk, file, path, layout, tail, punching, units: Mutex::new(units) }) }
    }

    /// Bytes that a file of this form takes besides the form itself: guards, leaves, what is present.
    pub fn overhead_bytes(layout: &Layout) -> u64 {
        let tail = Tail::of(layout);
        tail.file_bytes() - tail.encoded_bytes
    }

    /// What the file holds a form of.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// True if both are the same opening of the same file.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// True if nobody has another clone or a [`UnitGuard`].
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    /// True if every piece of the unit is here (of a window in which no frame starts, always).
    pub fn has_unit(&self, unit: u32) -> bool {
        let units = self.shared.units();
        unit < self.layout().unit_count()
            && self.layout().pieces_of(unit).all(|piece| units.has_piece(self.layout(), piece))
    }

    /// Units of which something is here, in no order.
    pub fn used_units(&self) -> Vec<u32> {
        self.shared.units().used()
    }

    /// Writes verified pieces of this form; those that are here already are left alone.
    pub fn write(&self, pieces: &VerifiedPieces) -> Result<(), StoreError> {
        let layout = self.layout();
        if pieces.id() != layout.id() {
            return Err(StoreError::WrongBlob { expected: layout.id(), found: pieces.id() });
        }
        let form = |layout: &Layout| (layout.encoding(), layout.identity(), layout.encoded_length());
        if form(pieces.layout()) != form(layout) {
            return Err(StoreError::WrongForm { id: layout.id(), path: self.shared.path.clone() });
        }
        let run = pieces.first_piece()..pieces.first_piece() + pieces.piece_count();
        let touched = layout.unit_of(run.start)..layout.unit_of(run.end - 1) + 1;
        let _held = self.hold(touched.clone());
        let claimed: Vec<u32> = {
            let mut units = self.shared.units();
            run.filter(|piece| units.claim(layout, *piece)).collect()
        };
        let encoded = |piece| &pieces.encoded()[layout.piece_range(piece).within(pieces.encoded_offset())];
        let written = self.write_runs(&claimed, pieces);
        {
            let mut units = self.shared.units();
            for piece in claimed {
                units.settle(layout, piece, written.is_ok().then(|| encoded(piece)));
            }
        }
        written?;
        touched.into_iter().try_for_each(|unit| self.record(unit))
    }

    /// Writes the claimed pieces, neighbours at once.
    fn write_runs(&self, claimed: &[u32], pieces: &VerifiedPieces) -> Result<(), StoreError> {
        for run in claimed.chunk_by(|one, next| one + 1 == *next) {
            let range = self.layout().pieces_range(run[0]..run[run.len() - 1] + 1);
            let bytes = &pieces.encoded()[range.within(pieces.encoded_offset())];
            self.shared.write_at(range.start(), bytes)?;
        }
        Ok(())
    }

    /// Says behind the form that a held unit is whole, if it is.
    fn record(&self, unit: u32) -> Result<(), StoreError> {
        let guards: Option<Vec<u8>> = {
            let units = self.shared.units();
            units.whole(unit).map(|guards| guards.iter().flat_map(|guard| guard.to_le_bytes()).collect())
        };
        let Some(guards) = guards.filter(|guards| !guards.is_empty()) else { return Ok(()) };
        let (tail, first) = (&self.shared.tail, self.layout().pieces_of(unit).start);
        self.shared.write_at(tail.guard_at(first), &guards)?;
        self.shared.write_at(tail.check_at(unit), &trailer::check_of(unit, &guards).to_le_bytes())
    }

    /// Keeps these units from being evicted until the guard is dropped.
    pub fn hold(&self, units: Range<u32>) -> UnitGuard {
        let mut state = self.shared.units();
        units.clone().for_each(|unit| state.hold(self.layout(), unit));
        UnitGuard { shared: self.shared.clone(), units }
    }

    /// The pieces of a unit, in order: what is right and what is missing. [`StoreError::UnitAbsent`] if nothing is there.
    pub fn read_unit(&self, unit: u32, belief: Belief) -> Result<Vec<Run>, StoreError> {
        let layout = self.layout();
        let _held = self.hold(unit..unit + 1);
        let (guards, belief) = {
            let units = self.shared.units();
            let guards: Vec<_> = layout.pieces_of(unit).map(|piece| (piece, units.guard(layout, piece))).collect();
            (guards, if units.is_proven(unit) { belief } else { Belief::Leaves })
        };
        if guards.iter().all(|(_, guard)| guard.is_none()) {
            return Err(StoreError::UnitAbsent { id: layout.id(), unit });
        }
        let mut runs = Vec::new();
        for part in guards.chunk_by(|one, next| one.1.is_some() == next.1.is_some()) {
            if part[0].1.is_none() {
                push_missing(&mut runs, part[0].0..part[part.len() - 1].0 + 1, false);
                continue;
            }
            let mut rest = part;
            while !rest.is_empty() {
                let (run, after) = rest.split_at(self.pieces_in_a_run(rest));
                self.read_run(run, belief, &mut runs);
                rest = after;
            }
        }
        if belief == Belief::Leaves {
            self.shared.units().set_proven(unit);
        }
        Ok(runs)
    }

    /// How many of these neighbouring pieces are read at once.
    fn pieces_in_a_run(&self, pieces: &[(u32, Option<u32>)]) -> usize {
        let start = self.layout().piece_range(pieces[0].0).start();
        let fits = |(piece, _): &&(u32, _)| self.layout().piece_range(*piece).end() - start <= RUN_BYTES_MAX;
        pieces.iter().take_while(fits).count().max(1)
    }

    /// Reads neighbouring pieces, which are present, and says which of them are right.
    fn read_run(&self, pieces: &[(u32, Option<u32>)], belief: Belief, runs: &mut Vec<Run>) {
        let layout = self.layout();
        let range = layout.pieces_range(pieces[0].0..pieces[pieces.len() - 1].0 + 1);
        let mut bytes = BytesMut::zeroed(usize::try_from(range.len()).expect("a run fits memory"));
        // Cut short or unreadable: the bytes that are not there do not verify.
        let read = self.shared.file.read_exact_at(range.start(), &mut bytes);
        let bytes = bytes.freeze();
        let part_of = |piece: u32| bytes.slice(layout.piece_range(piece).within(range.start()));
        let is_right = |(piece, guard): &(u32, Option<u32>)| {
            let part = part_of(*piece);
            let matches = *guard == Some(crc32c::crc32c(&part));
            let right = matches && belief == Belief::Guards || layout.verify(*piece, part.clone()).is_ok();
            if right && !matches {
                // Its guard was the damage.
                self.shared.units().settle(layout, *piece, Some(&part));
            }
            right && read.is_ok()
        };
        let judged: Vec<(u32, bool)> = pieces.iter().map(|piece| (piece.0, is_right(piece))).collect();
        for same in judged.chunk_by(|one, next| one.1 == next.1) {
            let same_pieces = same[0].0..same[same.len() - 1].0 + 1;
            if same[0].1 {
                let here = layout.pieces_range(same_pieces);
                runs.push(Run::Here { offset: here.start(), bytes: bytes.slice(here.within(range.start())) });
            } else {
                let mut units = self.shared.units();
                same_pieces.clone().for_each(|piece| units.drop_piece(layout, piece));
                push_missing(runs, same_pieces, true);
            }
        }
    }

    /// Proves the length of the content with the last piece, if that is here and right.
    pub fn prove_length(&self) -> Option<VerifiedLength> {
        let last = self.layout().piece_count() - 1;
        let unit = self.layout().unit_of(last);
        let _held = self.hold(unit..unit + 1);
        self.shared.units().guard(self.layout(), last)?;
        let range = self.layout().piece_range(last);
        let mut bytes = vec![0; usize::try_from(range.len()).ok()?];
        self.shared.file.read_exact_at(range.start(), &mut bytes).ok()?;
        self.layout().verify(last, Bytes::from(bytes)).ok()?.length()
    }

    /// Asks that what is read next comes from the disk itself. A hint.
    pub fn forget_cached(&self) -> Result<(), StoreError> {
        self.shared.file.forget_cached().at(&self.shared.path)
    }

    /// Forgets a unit and gives its space back; nothing (and nothing happens) while somebody holds it. The bytes freed are
    /// those the file system says: 0 where holes are not supported.
    pub fn evict(&self, unit: u32) -> Result<Option<u64>, StoreError> {
        let mut units = self.shared.units();
        if units.is_held(unit) {
            return Ok(None);
        }
        if !units.forget(unit) {
            return Ok(Some(0));
        }
        self.shared.free(&units, unit).map(Some)
    }

    /// Gives back what a process that was killed left of units it did not finish.
    pub fn trim(&self) -> Result<(), StoreError> {
        let units = self.shared.units();
        let absent: Vec<u32> = (0..self.layout().unit_count()).filter(|unit| units.is_free(*unit)).collect();
        for run in absent.chunk_by(|one, next| one + 1 == *next) {
            let range = ByteRange::new(
                self.layout().unit_range(run[0]).start(),
                self.layout().unit_range(run[run.len() - 1]).end(),
            );
            self.shared.punch(&units, range)?;
        }
        Ok(())
    }

    /// Bytes of disk the file takes.
    pub fn allocated_bytes(&self) -> Result<u64, StoreError> {
        self.shared.file.allocated_bytes().at(&self.shared.path)
    }

    /// Removes the file's name: how small files are evicted as a whole. Clones and guards can go on reading.
    pub fn remove(&self) -> Result<(), StoreError> {
        self.shared.disk.remove_file(&self.shared.path).at(&self.shared.path)
    }
}

fn push_missing(runs: &mut Vec<Run>, more: Range<u32>, more_damaged: bool) {
    match runs.last_mut() {
        Some(Run::Missing { pieces, damaged }) if pieces.end == more.start => {
            pieces.end = more.end;
            *damaged |= more_damaged;
        }
        _ => runs.push(Run::Missing { pieces: more, damaged: more_damaged }),
    }
}

impl Shared {
    fn units(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_at(offset, bytes).at(&self.path)
    }

    /// Gives back the blocks of a unit that was forgotten. The caller keeps `units` locked, so nobody starts to write there
    /// meanwhile.
    fn free(&self, units: &Units, unit: u32) -> Result<u64, StoreError> {
        let before = self.file.allocated_bytes().at(&self.path)?;
        // In this order: on a full disk the first makes room for the second.
        self.punch(units, self.layout.unit_range(unit))?;
        self.write_at(self.tail.check_at(unit), &0_u32.to_le_bytes())?;
        Ok(before.saturating_sub(self.file.allocated_bytes().at(&self.path)?))
    }

    /// Punches the whole blocks of `range`, and those at its ends that no other unit is in.
    fn punch(&self, units: &Units, range: ByteRange) -> Result<(), StoreError> {
        let form = ByteRange::new(self.layout.unit_h().len() as u64, self.tail.encoded_bytes);
        let grown = self.punching.grown(range);
        let is_free = |part: ByteRange| form.contains(part) && units.are_free(&self.layout, part);
        let start = if is_free(ByteRange::new(grown.start(), range.start())) { grown.start() } else { range.start() };
        let end = if is_free(ByteRange::new(range.end(), grown.end())) { grown.end() } else { range.end() };
        let blocks = self.punching.whole_blocks(ByteRange::new(start, end));
        if blocks.is_empty() { Ok(()) } else { self.file.punch(blocks).at(&self.path) }
    }
}

impl Drop for UnitGuard {
    fn drop(&mut self) {
        let mut units = self.shared.units();
        for unit in self.units.clone() {
            if units.release(unit) {
                // Only space is at stake, and the next eviction or the file's removal frees it too.
                _ = self.shared.free(&units, unit);
            }
        }
    }
}
