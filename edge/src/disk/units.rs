//! Reading and writing units: what the threads do that may wait for the disk.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use colibri_fetch::Assembler;
use colibri_package::delivery::{Layout, VerifiedPieces};
use colibri_store::{Belief, BlobFile, Run, StoreError};

use super::files::{NameLock, is_not_found, lock};
use super::ledger::{FileKey, Totals};
use super::{Content, Inner, Part};
use crate::limits::{DISK_BLOCK_BYTES, DISK_PAUSE_MS};
use crate::unit::{Segment, UnitKey};

impl Inner {
    pub(super) fn belief(&self, key: FileKey) -> Belief {
        let ledger = lock(&self.ledger);
        let doubted = if ledger.has_file(key) { ledger.is_doubted(key) } else { self.doubtful.load(Ordering::SeqCst) };
        if doubted { Belief::Leaves } else { Belief::Guards }
    }

    /// The file of a blob, in the books, if there is one that can be used.
    pub(super) fn file(&self, key: FileKey) -> Option<BlobFile> {
        if let Some(file) = self.files.get(key) {
            return Some(file);
        }
        let name = self.files.lock(key);
        let opened = self.files.open(&name, key, self.belief(key)).and_then(|file| {
            let Some(file) = file else { return Ok(None) };
            let allocated_bytes = file.allocated_bytes()?;
            self.take_into_books(key, &file, allocated_bytes);
            Ok(Some(file))
        });
        match opened {
            Ok(Some(file)) => Some(file),
            gone_or_bad => {
                lock(&self.ledger).remove_file(key);
                if let Err(error) = gone_or_bad {
                    tracing::warn!(blob = %key.id, %error, "a file of the disk tier cannot be used");
                    self.alarm();
                }
                None
            }
        }
    }

    pub(super) fn take_into_books(&self, key: FileKey, file: &BlobFile, allocated_bytes: u64) {
        let doubted = self.doubtful.load(Ordering::SeqCst);
        let mut ledger = lock(&self.ledger);
        if !ledger.has_file(key) {
            ledger.load_file(key, file.layout().unit_count(), allocated_bytes, doubted);
            for unit in file.used_units() {
                ledger.add_unit(key, unit, file.layout().unit_range(unit).len(), true);
            }
        }
    }

    pub(super) fn read(&self, key: &UnitKey) -> Option<Vec<Part>> {
        let file_key = FileKey::of(key);
        let file = self.file(file_key)?;
        if file.layout().identity() != key.identity {
            return None;
        }
        let Ok(runs) = file.read_unit(key.unit, Belief::Guards) else {
            // Let go since it was looked up.
            lock(&self.ledger).remove_unit(file_key, key.unit);
            return None;
        };
        self.relieve();
        Some(runs.into_iter().map(|run| self.part(&file, run)).collect())
    }

    pub(super) fn part(&self, file: &BlobFile, run: Run) -> Part {
        let (pieces, damaged) = match run {
            Run::Here { offset, bytes } => return Part::Here(Segment::stored(offset, bytes)),
            Run::Missing { pieces, damaged } => (pieces, damaged),
        };
        if damaged {
            let layout = file.layout();
            let offset = layout.piece_range(pieces.start).start();
            tracing::warn!(
                blob = %layout.id(), encoding = %layout.encoding(), offset, pieces = pieces.len(),
                "the disk has damaged what it was given"
            );
            self.metrics.disk_damaged.inc_by(pieces.len() as u64);
        }
        Part::Missing(pieces)
    }

    pub(super) fn write_and_judge(&self, key: UnitKey, layout: &Layout, content: Content) {
        match self.write(key, layout, content) {
            Ok(true) => self.relieve(),
            Ok(false) => self.metrics.disk_dropped.inc(),
            Err(error) => {
                tracing::warn!(blob = %key.id, unit = key.unit, %error, "a unit could not be written to disk");
                lock(&self.paused).writes = Some(Instant::now() + Duration::from_millis(DISK_PAUSE_MS));
                self.alarm();
                self.drop_unit(FileKey::of(&key), key.unit);
            }
        }
        self.show();
    }

    /// False if there is no room for it.
    pub(super) fn write(&self, key: UnitKey, layout: &Layout, content: Content) -> Result<bool, StoreError> {
        let file_key = FileKey::of(&key);
        let is_new = !lock(&self.ledger).has_file(file_key);
        let Some(_promised) = self.make_room(need_of(layout, key.unit, is_new)) else { return Ok(false) };
        let file = {
            let name = self.files.lock(file_key);
            self.open_or_create(&name, file_key, layout)?
        };
        if !file.has_unit(key.unit) {
            let bytes = write_unit(&file, key.unit, content)?;
            self.metrics.disk_written_bytes.inc_by(bytes);
        }
        // What is not whole has no place in the books: pieces of a unit that was let go meanwhile.
        let whole = file.has_unit(key.unit);
        let _name = self.files.lock(file_key);
        if self.files.is_current(file_key, &file) {
            let allocated_bytes = file.allocated_bytes()?;
            let mut ledger = lock(&self.ledger);
            ledger.set_file(file_key, layout.unit_count(), allocated_bytes, false);
            if whole {
                ledger.add_unit(file_key, key.unit, layout.unit_range(key.unit).len(), false);
            }
        }
        Ok(true)
    }

    pub(super) fn open_or_create(
        &self,
        name: &NameLock<'_>,
        key: FileKey,
        layout: &Layout,
    ) -> Result<BlobFile, StoreError> {
        let there = match self.files.open(name, key, self.belief(key)) {
            Err(error) if is_not_found(&error) => None,
            opened => opened?,
        };
        if let Some(file) = there {
            if file.layout().identity() == layout.identity() {
                self.take_into_books(key, &file, file.allocated_bytes()?);
                return Ok(file);
            }
            tracing::debug!(blob = %key.id, encoding = %key.encoding, "another form takes the place of the one on disk");
        }
        lock(&self.ledger).remove_file(key);
        self.files.create(name, key, layout)
    }
}

/// Room that a unit takes at most, with all that comes with it in a new file.
fn need_of(layout: &Layout, unit: u32, is_new: bool) -> Totals {
    let blocks = |bytes: u64| bytes.next_multiple_of(DISK_BLOCK_BYTES);
    let unit_bytes = blocks(layout.unit_range(unit).len()) + DISK_BLOCK_BYTES;
    if !is_new {
        // Its guards may be the first in their blocks.
        return Totals { bytes: unit_bytes + 2 * DISK_BLOCK_BYTES, files: 0 };
    }
    let file_bytes = blocks(layout.unit_h().len() as u64) + blocks(BlobFile::overhead_bytes(layout)) + DISK_BLOCK_BYTES;
    Totals { bytes: unit_bytes + file_bytes, files: 1 }
}

/// Gives the bytes written.
fn write_unit(file: &BlobFile, unit: u32, content: Content) -> Result<u64, StoreError> {
    let mut bytes = 0;
    let mut write = |pieces: &VerifiedPieces| {
        bytes += pieces.encoded().len() as u64;
        file.write(pieces)
    };
    let from_memory = match content {
        Content::Fresh(pieces) => {
            pieces.iter().try_for_each(write)?;
            return Ok(bytes);
        }
        Content::FromMemory(unit) => unit,
    };
    let mut written = Ok(());
    let mut assembler = Assembler::new(file.layout(), file.layout().pieces_of(unit));
    let mut sink = |pieces: VerifiedPieces| {
        if written.is_ok() {
            written = write(&pieces);
        }
    };
    let damaged = StoreError::UnitCorrupt { id: file.layout().id(), unit };
    for segment in from_memory.segments() {
        if assembler.push(segment.bytes(), &mut sink).is_err() {
            return Err(damaged);
        }
    }
    let done = assembler.is_done();
    written?;
    if done { Ok(bytes) } else { Err(damaged) }
}
