//! [`BlobFile`]: verified unit I/O on one partially present file: the raw bytes or one encoded form of one blob.
//!
//! For cache tiers. Only [`VerifiedPieces`] get in. A CRC-32C for each 8 KiB, kept in memory, guards what comes out; when one
//! does not match, the merkle leaves decide, and a unit that is really damaged is absent from then on. A unit is forgotten
//! by giving its whole file-system blocks back, and never while somebody holds it. Nothing here ever syncs: after a crash
//! [`BlobFile::adopt`] verifies what is left. Deliberately absent: the choice of what to evict, and an index of files.

mod units;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use colibri_common::ByteRange;
use colibri_package::delivery::{Layout, VerifiedPieces};

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{AtPath, StoreError};
use crate::hole_punching::HolePunching;
use crate::limits::GUARDED_BYTES;
use units::Units;

/// A partially present file. Cheap to clone; clones are the same file. Removing its name ([`BlobFile::remove`]) frees the
/// space once the last clone and the last [`UnitGuard`] are dropped.
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
    punching: HolePunching,
    units: Mutex<Units>,
}

/// Keeps units from being evicted, for as long as it lives.
#[derive(Debug)]
pub struct UnitGuard {
    shared: Arc<Shared>,
    units: Range<u32>,
}

impl BlobFile {
    /// Makes the file, with unit H in it; a file of that name is replaced. `punching` is what
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
        file.write_at(0, layout.unit_h()).at(path)?;
        Ok(Self::new(disk, file, path, layout, punching))
    }

    /// Takes over a file that an earlier process left, verifying every piece of it; what does not verify is absent, its
    /// space goes with the file. Nothing if the file is of another form.
    pub fn adopt(
        disk: Arc<dyn Disk>,
        path: &Path,
        layout: Layout,
        punching: HolePunching,
    ) -> Result<Option<Self>, StoreError> {
        let file = disk.open(path, OpenMode::Write).at(path)?;
        let length = file.length().at(path)?;
        let mut unit_h = vec![0; layout.unit_h().len()];
        if length < unit_h.len() as u64 || length > layout.encoded_length().0 {
            return Ok(None);
        }
        file.read_exact_at(0, &mut unit_h).at(path)?;
        if unit_h != *layout.unit_h() {
            return Ok(None);
        }
        let adopted = Self::new(disk, file, path, layout, punching);
        for unit in 0..adopted.layout().unit_count() {
            adopted.adopt_unit(unit, length)?;
        }
        Ok(Some(adopted))
    }

    fn new(disk: Arc<dyn Disk>, file: Arc<dyn DiskFile>, path: &Path, layout: Layout, punching: HolePunching) -> Self {
        let shared = Shared { disk, file, path: path.to_owned(), layout, punching, units: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// What the file holds a form of.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
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
        let _held = self.hold(layout.unit_of(run.start)..layout.unit_of(run.end - 1) + 1);
        let claimed: Vec<u32> = {
            let mut units = self.shared.units();
            run.filter(|piece| units.claim(layout, *piece)).collect()
        };
        let encoded = |piece| &pieces.encoded()[layout.piece_range(piece).within(pieces.encoded_offset())];
        let written = self.write_runs(&claimed, pieces);
        let mut units = self.shared.units();
        for piece in claimed {
            units.settle(layout, piece, written.is_ok().then(|| encoded(piece)));
        }
        written
    }

    /// Writes the claimed pieces, neighbours at once.
    fn write_runs(&self, claimed: &[u32], pieces: &VerifiedPieces) -> Result<(), StoreError> {
        for run in claimed.chunk_by(|one, next| one + 1 == *next) {
            let range = self.layout().pieces_range(run[0]..run[run.len() - 1] + 1);
            let bytes = &pieces.encoded()[range.within(pieces.encoded_offset())];
            self.shared.file.write_at(range.start(), bytes).at(&self.shared.path)?;
        }
        Ok(())
    }

    /// Keeps these units from being evicted until the guard is dropped.
    pub fn hold(&self, units: Range<u32>) -> UnitGuard {
        let mut state = self.shared.units();
        units.clone().for_each(|unit| state.hold(self.layout(), unit));
        UnitGuard { shared: self.shared.clone(), units }
    }

    /// Bytes of the encoded form (unit H included), as they were verified. All pieces in the range must be here:
    /// [`StoreError::UnitAbsent`]. [`StoreError::UnitCorrupt`] means that the disk changed them; the unit is absent now.
    pub fn read(&self, encoded: ByteRange) -> Result<Bytes, StoreError> {
        let layout = self.layout();
        let whole = ByteRange::whole(layout.encoded_length().0);
        if !whole.contains(encoded) {
            let (start, end) = (encoded.start(), encoded.end());
            return Err(StoreError::OutOfRange { id: layout.id(), length_bytes: whole.end(), start, end });
        }
        let head = layout.unit_h();
        let in_head = encoded.intersect(ByteRange::whole(head.len() as u64));
        let in_pieces = ByteRange::new(encoded.start().max(head.len() as u64), encoded.end());
        if in_pieces.is_empty() {
            return Ok(if in_head.is_empty() { Bytes::new() } else { head.slice(in_head.within(0)) });
        }
        let content = self.read_pieces(in_pieces)?;
        if in_head.is_empty() {
            return Ok(content);
        }
        let mut joined = BytesMut::from(&head[in_head.within(0)]);
        joined.extend_from_slice(&content);
        Ok(joined.freeze())
    }

    /// Reads a range that lies behind unit H, with the blocks around it that its guards need.
    fn read_pieces(&self, wanted: ByteRange) -> Result<Bytes, StoreError> {
        let layout = self.layout();
        let _held = self.hold(layout.units_of(wanted));
        let blocks = self.guarded_blocks(wanted)?;
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(Bytes::new()) };
        let span = ByteRange::new(first.range.start(), last.range.end());
        let mut bytes = BytesMut::zeroed(usize::try_from(span.len()).expect("callers' ranges fit memory"));
        match self.shared.file.read_exact_at(span.start(), &mut bytes) {
            // Cut short by somebody else: the guards tell which units are hurt.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            done => done.at(&self.shared.path)?,
        }
        let mut mended = None;
        for block in &blocks {
            let place = block.range.within(span.start());
            if crc32c::crc32c(&bytes[place.clone()]) == block.guard {
                continue;
            }
            if mended.as_ref().is_none_or(|(piece, _)| *piece != block.piece) {
                mended = Some((block.piece, self.mend(block.piece)?));
            }
            if let Some((piece, content)) = &mended {
                bytes[place].copy_from_slice(&content[block.range.within(layout.piece_range(*piece).start())]);
            }
        }
        Ok(bytes.freeze().slice(wanted.within(span.start())))
    }

    /// The guarded blocks that a range touches; an error if one of them is absent.
    fn guarded_blocks(&self, wanted: ByteRange) -> Result<Vec<GuardedBlock>, StoreError> {
        let layout = self.layout();
        let units = self.shared.units();
        let mut blocks = Vec::new();
        for piece in layout.pieces_at(wanted) {
            let range = layout.piece_range(piece);
            let Some(guards) = units.guards(layout, piece) else {
                return Err(StoreError::UnitAbsent { id: layout.id(), unit: layout.unit_of(piece) });
            };
            for (index, guard) in guards.iter().enumerate() {
                let start = range.start() + (index * GUARDED_BYTES) as u64;
                let range = ByteRange::new(start, range.end().min(start + GUARDED_BYTES as u64));
                if !range.intersect(wanted).is_empty() {
                    blocks.push(GuardedBlock { piece, range, guard: *guard });
                }
            }
        }
        Ok(blocks)
    }

    /// A guard did not match: reads the piece again and asks the leaves. They decide: the bytes are right after all, or the
    /// unit is damaged.
    fn mend(&self, piece: u32) -> Result<Bytes, StoreError> {
        let layout = self.layout();
        let range = layout.piece_range(piece);
        let mut bytes = vec![0; usize::try_from(range.len()).expect("a piece fits memory")];
        let read = self.shared.file.read_exact_at(range.start(), &mut bytes);
        let verified = layout.verify(piece, Bytes::from(bytes));
        let mut units = self.shared.units();
        match (read, verified) {
            (Ok(()), Ok(pieces)) => {
                units.settle(layout, piece, Some(pieces.encoded()));
                Ok(pieces.encoded().clone())
            }
            _ => {
                let unit = layout.unit_of(piece);
                units.drop_pieces(unit);
                Err(StoreError::UnitCorrupt { id: layout.id(), unit })
            }
        }
    }

    /// Forgets a unit and gives its space back; nothing (and nothing happens) while somebody holds it. The bytes freed are
    /// those the file system says: 0 where holes are not supported, until the last unit goes.
    pub fn evict(&self, unit: u32) -> Result<Option<u64>, StoreError> {
        let mut units = self.shared.units();
        if units.is_held(unit) {
            return Ok(None);
        }
        if !units.forget(unit) {
            return Ok(Some(0));
        }
        self.shared.free(&units, unit).at(&self.shared.path).map(Some)
    }

    /// Bytes of disk the file takes.
    pub fn allocated_bytes(&self) -> Result<u64, StoreError> {
        self.shared.file.allocated_bytes().at(&self.shared.path)
    }

    /// Removes the file's name: how small files are evicted as a whole. Clones and guards can go on reading.
    pub fn remove(&self) -> Result<(), StoreError> {
        self.shared.disk.remove_file(&self.shared.path).at(&self.shared.path)
    }

    /// Finds out which pieces of a unit a left-over file has.
    fn adopt_unit(&self, unit: u32, file_bytes: u64) -> Result<(), StoreError> {
        let layout = self.layout();
        for piece in layout.pieces_of(unit) {
            let range = layout.piece_range(piece);
            if range.is_empty() || range.end() > file_bytes {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(range.len()).expect("a piece fits memory")];
            self.shared.file.read_exact_at(range.start(), &mut bytes).at(&self.shared.path)?;
            if let Ok(verified) = layout.verify(piece, Bytes::from(bytes)) {
                let _held = self.hold(unit..unit + 1);
                let mut units = self.shared.units();
                units.claim(layout, piece);
                units.settle(layout, piece, Some(verified.encoded()));
            }
        }
        Ok(())
    }
}

/// 8 KiB (or less, at the end) of a piece, in encoded bytes.
struct GuardedBlock {
    piece: u32,
    range: ByteRange,
    guard: u32,
}

impl Shared {
    fn units(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back the blocks of a unit that was forgotten, as far as no other unit is in them. The caller keeps `units`
    /// locked, so nobody starts to write there meanwhile.
    fn free(&self, units: &Units, unit: u32) -> io::Result<u64> {
        let before = self.file.allocated_bytes()?;
        let head_bytes = self.layout.unit_h().len() as u64;
        if units.is_empty() {
            self.file.set_len(head_bytes)?;
        } else {
            let range = self.layout.unit_range(unit);
            let grown = self.punching.grown(range);
            let start_is_free = units.are_free(&self.layout, ByteRange::new(grown.start(), range.start()));
            let start = if start_is_free && grown.start() >= head_bytes { grown.start() } else { range.start() };
            let end_is_free = units.are_free(&self.layout, ByteRange::new(range.end(), grown.end()));
            let end = if end_is_free { grown.end() } else { range.end() };
            let blocks = self.punching.whole_blocks(ByteRange::new(start, end));
            if !blocks.is_empty() {
                self.file.punch(blocks)?;
            }
        }
        Ok(before.saturating_sub(self.file.allocated_bytes()?))
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
