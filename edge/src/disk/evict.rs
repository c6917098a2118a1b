//! Making room: what goes is chosen by the books, and room is promised before anything is written.

use colibri_store::{HolePunching, StoreError};

use super::Inner;
use super::files::lock;
use super::ledger::{FileKey, Totals, Victim};
use crate::limits::DISK_HELD_VICTIMS_MAX;

/// Room that was promised to a writer, until this is dropped.
pub(super) struct Promised<'a> {
    inner: &'a Inner,
    room: Totals,
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        lock(&self.inner.ledger).release(self.room);
    }
}

impl Inner {
    /// Lets units go until this fits; nothing if it does not, whatever goes.
    pub(super) fn make_room(&self, room: Totals) -> Option<Promised<'_>> {
        let mut held = 0;
        loop {
            let victim = {
                let mut ledger = lock(&self.ledger);
                if ledger.reserve(room) {
                    return Some(Promised { inner: self, room });
                }
                let budget = ledger.budget();
                if !ledger.is_sure()
                    || room.bytes > budget.bytes
                    || room.files > budget.files
                    || held > DISK_HELD_VICTIMS_MAX
                {
                    return None;
                }
                let whole_file = ledger.lacks_files(room.files);
                (ledger.victim()?, whole_file)
            };
            if !self.evict(&victim.0, victim.1) {
                held += 1;
            }
        }
    }

    /// Frees the room of a unit; false if somebody reads it. Its file goes with its last unit, or at once where holes cannot
    /// be punched or files are what is lacking.
    fn evict(&self, victim: &Victim, whole_file: bool) -> bool {
        let key = victim.file;
        let name = self.files.lock(key);
        self.metrics.disk_evictions.inc();
        let whole_file = whole_file || victim.is_last || self.files.punching() == HolePunching::Unsupported;
        // Whoever reads it goes on reading what has no name any more.
        let gone = if whole_file { Ok(None) } else { self.punch_out(&name, victim) };
        match gone {
            Ok(Some(freed)) => return freed,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(blob = %key.id, unit = victim.unit, %error, "a unit could not be evicted: its file goes");
                self.alarm();
            }
        }
        self.files.remove(&name, key);
        lock(&self.ledger).remove_file(key);
        true
    }

    /// True if the unit's room is free now, false if it is held; nothing if the file has to go.
    fn punch_out(&self, name: &super::files::NameLock<'_>, victim: &Victim) -> Result<Option<bool>, StoreError> {
        let Some(file) = self.files.open(name, victim.file, self.belief(victim.file))? else { return Ok(None) };
        let before = file.allocated_bytes()?;
        if file.evict(victim.unit)?.is_none() {
            lock(&self.ledger).put_back(victim);
            return Ok(Some(false));
        }
        let after = file.allocated_bytes()?;
        lock(&self.ledger).set_file(victim.file, file.layout().unit_count(), after, false);
        // A file that was opened before holes were known about does not shrink.
        Ok((after < before).then_some(true))
    }

    /// Takes a unit out, with its file if there is nothing else in it.
    pub(super) fn drop_unit(&self, key: FileKey, unit: u32) {
        let name = self.files.lock(key);
        lock(&self.ledger).remove_unit(key, unit);
        let file = self.files.open(&name, key, self.belief(key)).unwrap_or_default();
        let freed = file.as_ref().map_or(Ok(None), |file| file.evict(unit));
        if file.is_none_or(|file| file.used_units().is_empty()) || freed.is_err() {
            self.files.remove(&name, key);
            lock(&self.ledger).remove_file(key);
        }
    }
}
