//! [`Ledger`]: the books of the disk tier, in memory: which units are there, what their files take, what goes next. No I/O, so
//! threads of the runtime may ask it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use colibri_common::BlobId;
use colibri_package::delivery::Encoding;

use super::queues::{Ghosts, Queues, Token};
use crate::limits::{DISK_GHOSTS_MAX, DISK_NAME_BYTES};
use crate::unit::UnitKey;

/// Names a file of the tier: there is one form of a blob in an encoding at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    pub id: BlobId,
    pub encoding: Encoding,
}

impl FileKey {
    pub const fn of(key: &UnitKey) -> Self {
        Self { id: key.id, encoding: key.encoding }
    }
}

/// Bytes of disk and number of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub bytes: u64,
    pub files: u64,
}

#[derive(Debug)]
struct Row {
    key: FileKey,
    allocated_bytes: u64,
    unit_count: u32,
    /// Units in the books.
    units: u32,
    /// It was there at a start after an unclean stop.
    doubted: bool,
}

/// A unit that has to go; it is in no queue any more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Victim {
    pub file: FileKey,
    pub unit: u32,
    /// Its file has no other unit in the books.
    pub is_last: bool,
    bytes: u64,
}

/// The books.
#[derive(Debug)]
pub(super) struct Ledger {
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    by_key: HashMap<FileKey, u32>,
    /// Units of blobs that nobody spoke for, and of those that are to stay longest.
    ordinary: Queues,
    preferred: Queues,
    preferred_blobs: HashSet<BlobId>,
    ghosts: Ghosts,
    hasher: RandomState,
    budget: Totals,
    used: Totals,
    reserved: Totals,
    /// What an earlier process left and nobody has looked at yet; nothing if nobody knows how much that is.
    not_loaded: Option<Totals>,
    /// Rows that are doubted.
    doubts: u64,
}

impl Ledger {
    pub fn new(budget: Totals) -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            ordinary: Queues::default(),
            preferred: Queues::default(),
            preferred_blobs: HashSet::new(),
            ghosts: Ghosts::default(),
            hasher: RandomState::new(),
            budget,
            used: Totals::default(),
            reserved: Totals::default(),
            not_loaded: Some(Totals::default()),
            doubts: 0,
        }
    }

    /// Forgets everything that is on disk.
    pub fn clear(&mut self) {
        let preferred_blobs = std::mem::take(&mut self.preferred_blobs);
        let reserved = self.reserved;
        *self = Self { preferred_blobs, reserved, ..Self::new(self.budget) };
    }

    /// What is taken, promised, or may still be found.
    pub fn totals(&self) -> Totals {
        let not_loaded = self.not_loaded.unwrap_or_default();
        Totals {
            bytes: self.used.bytes + self.reserved.bytes + not_loaded.bytes,
            files: self.used.files + self.reserved.files + not_loaded.files,
        }
    }

    pub const fn budget(&self) -> Totals {
        self.budget
    }

    /// What an earlier process left; nothing if nobody knows how much that is.
    pub const fn set_not_loaded(&mut self, totals: Option<Totals>) {
        self.not_loaded = totals;
    }

    /// Everything that an earlier process left is in the books.
    pub fn all_loaded(&mut self) {
        self.not_loaded = Some(Totals::default());
    }

    /// True if it is known how much there is.
    pub const fn is_sure(&self) -> bool {
        self.not_loaded.is_some()
    }

    /// Files whose guards are not to be believed.
    pub const fn doubts(&self) -> u64 {
        self.doubts
    }

    /// True if this much more fits. It is promised then: give it back with [`Self::release`].
    pub fn reserve(&mut self, more: Totals) -> bool {
        let now = self.totals();
        let fits = self.is_sure()
            && now.bytes.saturating_add(more.bytes) <= self.budget.bytes
            && now.files + more.files <= self.budget.files;
        if fits {
            self.reserved.bytes += more.bytes;
            self.reserved.files += more.files;
        }
        fits
    }

    pub const fn release(&mut self, promised: Totals) {
        self.reserved.bytes -= promised.bytes;
        self.reserved.files -= promised.files;
    }

    /// True if more is taken than may be, of files rather than of bytes.
    pub fn lacks_files(&self, more: u64) -> bool {
        self.totals().files + more > self.budget.files
    }

    pub fn has_file(&self, key: FileKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub fn is_doubted(&self, key: FileKey) -> bool {
        self.row(key).is_none_or(|row| row.doubted)
    }

    /// All of the file was verified.
    pub fn set_trusted(&mut self, key: FileKey) {
        if let Some(row) = self.row_mut(key)
            && std::mem::take(&mut row.doubted)
        {
            self.doubts -= 1;
        }
    }

    pub fn has_unit(&self, key: FileKey, unit: u32) -> bool {
        self.token(key, unit).is_some_and(|token| self.ordinary.contains(token) || self.preferred.contains(token))
    }

    /// Remembers that the unit was asked for; false if it is not in the books.
    pub fn touch(&mut self, key: FileKey, unit: u32) -> bool {
        let Some(token) = self.token(key, unit) else { return false };
        self.ordinary.touch(token) || self.preferred.touch(token)
    }

    /// Takes a file into the books, or what it takes now.
    pub fn set_file(&mut self, key: FileKey, unit_count: u32, allocated_bytes: u64, doubted: bool) {
        let allocated_bytes = allocated_bytes + DISK_NAME_BYTES;
        if let Some(row) = self.row_mut(key) {
            let before = std::mem::replace(&mut row.allocated_bytes, allocated_bytes);
            self.used.bytes = self.used.bytes - before + allocated_bytes;
            return;
        }
        let row = Row { key, allocated_bytes, unit_count, units: 0, doubted };
        let number = match self.free.pop() {
            Some(number) => {
                self.rows[number as usize] = Some(row);
                number
            }
            None => {
                self.rows.push(Some(row));
                self.rows.len() as u32 - 1
            }
        };
        self.by_key.insert(key, number);
        self.used.bytes += allocated_bytes;
        self.used.files += 1;
        self.doubts += u64::from(doubted);
    }

    /// [`Self::set_file`] for one that an earlier process left.
    pub fn load_file(&mut self, key: FileKey, unit_count: u32, allocated_bytes: u64, doubted: bool) {
        self.set_file(key, unit_count, allocated_bytes, doubted);
        if let Some(left) = &mut self.not_loaded {
            left.bytes = left.bytes.saturating_sub(allocated_bytes + DISK_NAME_BYTES);
            left.files = left.files.saturating_sub(1);
        }
    }

    /// Takes a unit of a known file into the books. One of before a restart is as good as one that was asked for again.
    pub fn add_unit(&mut self, key: FileKey, unit: u32, bytes: u64, loaded: bool) {
        let Some(token) = self.token(key, unit) else { return };
        if self.has_unit(key, unit) {
            return;
        }
        let wanted = self.ghosts.take(self.hasher.hash_one((key, unit))) || loaded;
        let queues = if self.preferred_blobs.contains(&key.id) { &mut self.preferred } else { &mut self.ordinary };
        queues.insert(token, bytes, wanted);
        if let Some(row) = self.row_mut(key) {
            row.units += 1;
        }
    }

    /// Takes a unit out of the books.
    pub fn remove_unit(&mut self, key: FileKey, unit: u32) {
        let Some(token) = self.token(key, unit) else { return };
        if self.ordinary.remove(token).or_else(|| self.preferred.remove(token)).is_some()
            && let Some(row) = self.row_mut(key)
        {
            row.units -= 1;
        }
    }

    /// Takes a file and its units out of the books.
    pub fn remove_file(&mut self, key: FileKey) {
        let Some(number) = self.by_key.remove(&key) else { return };
        let Some(row) = self.rows[number as usize].take() else { return };
        let mut left = row.units;
        for unit in 0..row.unit_count {
            if left == 0 {
                break;
            }
            let token = Token { file: number, unit };
            if self.ordinary.remove(token).or_else(|| self.preferred.remove(token)).is_some() {
                left -= 1;
            }
        }
        self.free.push(number);
        self.used.bytes -= row.allocated_bytes;
        self.used.files -= 1;
        self.doubts -= u64::from(row.doubted);
    }

    /// The unit that goes next: one of a preferred blob only when there is no other.
    pub fn victim(&mut self) -> Option<Victim> {
        let (token, bytes) = loop {
            let Some((token, bytes)) = self.ordinary.pop() else { break self.preferred.pop()? };
            let id = self.rows[token.file as usize].as_ref()?.key.id;
            if !self.preferred_blobs.contains(&id) {
                break (token, bytes);
            }
            // It was named after it had come.
            self.preferred.insert(token, bytes, true);
        };
        let row = self.rows[token.file as usize].as_mut()?;
        row.units -= 1;
        let victim = Victim { file: row.key, unit: token.unit, is_last: row.units == 0, bytes };
        self.ghosts.push(self.hasher.hash_one((victim.file, victim.unit)), DISK_GHOSTS_MAX);
        Some(victim)
    }

    /// Somebody is reading it: another time.
    pub fn put_back(&mut self, victim: &Victim) {
        self.add_unit(victim.file, victim.unit, victim.bytes, true);
    }

    /// The blobs that are to stay longest; those named before and not now are ordinary again.
    pub fn prefer(&mut self, blobs: HashSet<BlobId>) {
        self.preferred_blobs = blobs;
        // Units of blobs that are named only now are moved when it would be their turn to go.
        for (token, bytes) in self.preferred.drain() {
            let Some(row) = &self.rows[token.file as usize] else { continue };
            let is_preferred = self.preferred_blobs.contains(&row.key.id);
            let queues = if is_preferred { &mut self.preferred } else { &mut self.ordinary };
            // The last release's are on probation like what is new.
            queues.insert(token, bytes, is_preferred);
        }
    }

    /// The next unit at or behind a place, for whoever walks over all of them: file numbers, then units.
    pub fn unit_from(&self, file: u32, unit: u32) -> Option<(u32, FileKey, u32)> {
        let mut first_unit = unit;
        for number in file..self.rows.len() as u32 {
            if let Some(row) = &self.rows[number as usize].as_ref().filter(|row| row.units > 0) {
                let here = (first_unit..row.unit_count).find(|unit| self.has_unit(row.key, *unit));
                if let Some(unit) = here {
                    return Some((number, row.key, unit));
                }
            }
            first_unit = 0;
        }
        None
    }

    /// Numbers that files have had: [`Self::unit_from`] walks up to here.
    pub fn file_numbers(&self) -> u32 {
        self.rows.len() as u32
    }

    fn row(&self, key: FileKey) -> Option<&Row> {
        self.rows[*self.by_key.get(&key)? as usize].as_ref()
    }

    fn row_mut(&mut self, key: FileKey) -> Option<&mut Row> {
        self.rows[*self.by_key.get(&key)? as usize].as_mut()
    }

    fn token(&self, key: FileKey, unit: u32) -> Option<Token> {
        Some(Token { file: *self.by_key.get(&key)?, unit })
    }
}
