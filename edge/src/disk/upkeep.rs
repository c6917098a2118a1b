//! What the disk tier does besides answering, on a thread of its own: take what an earlier process left into the books, notice
//! that the folder was removed or replaced, keep the epoch's totals fresh, hold the budget, and scrub.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use colibri_store::{Belief, BlobFile, Glance, Run, StoreError};

use super::epoch::{self, Epoch};
use super::files::{FOLDERS, Files, is_not_found, lock};
use super::ledger::{FileKey, Totals};
use super::{Damage, Inner, Part};
use crate::limits::{DISK_BLOCK_BYTES, DISK_LOADED_TOGETHER_MIN, DISK_LOADERS, DISK_PAUSE_MS, DISK_UPKEEP_MS};
use crate::unit::UnitKey;

/// The thread; dropping this ends it.
#[derive(Debug)]
pub(super) struct Running {
    stop: mpsc::SyncSender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn start(inner: &Arc<Inner>) -> Option<Self> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let weak = Arc::downgrade(inner);
        let thread = std::thread::Builder::new().name("edge-disk".to_owned()).spawn(move || run(&weak, &stopped));
        thread
            .inspect_err(|error| tracing::error!(%error, "nobody looks after the disk tier: no thread to be had"))
            .ok()
            .map(|thread| Self { stop, thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take()
            // It may itself have been the last to hold the tier.
            && thread.thread().id() != std::thread::current().id()
        {
            _ = thread.join();
        }
    }
}

fn run(weak: &Weak<Inner>, stopped: &mpsc::Receiver<()>) {
    let mut upkeep = Upkeep::default();
    let mut wait = Duration::ZERO;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(wait) {
        let Some(inner) = weak.upgrade() else { return };
        wait = inner.tick(&mut upkeep);
    }
}

/// Where the thread is.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// The next folder to take into the books.
    folder: u16,
    written: Totals,
    /// The next unit to scrub.
    file: u32,
    unit: u32,
    /// The file being scrubbed, as long as all of it was right.
    right_so_far: Option<FileKey>,
}

impl Inner {
    /// One round; how long to wait before the next.
    pub(super) fn tick(&self, upkeep: &mut Upkeep) -> Duration {
        if self.is_loading() {
            self.load_folder(upkeep);
            self.show();
            return Duration::ZERO;
        }
        self.watch_folder(upkeep);
        // Only fails when there is no folder, which the next round notices.
        _ = self.files.probe();
        // Holds what was configured now: it may be less than last time.
        drop(self.make_room(Totals::default()));
        self.scrub(upkeep, self.scrub_bytes_per_s * DISK_UPKEEP_MS / 1000);
        self.show();
        Duration::from_millis(DISK_UPKEEP_MS)
    }

    /// Takes the files of the next folder into the books.
    fn load_folder(&self, upkeep: &mut Upkeep) {
        let Some(folder) = Files::folders().nth(upkeep.folder.into()) else {
            lock(&self.ledger).all_loaded();
            self.loading.store(false, Ordering::SeqCst);
            let totals = lock(&self.ledger).totals();
            tracing::info!(files = totals.files, bytes = totals.bytes, "the disk tier is in the books");
            upkeep.folder = 0;
            self.metrics.disk_unseen_folders.set(0);
            return;
        };
        upkeep.folder += 1;
        self.metrics.disk_unseen_folders.set(i64::from(FOLDERS - upkeep.folder + 1));
        match self.files.list(folder) {
            Ok(keys) => self.load_files(&keys),
            Err(error) => {
                tracing::warn!(folder, %error, "a folder of the disk tier cannot be listed");
                self.alarm();
            }
        }
    }

    /// Several at a time: each waits for the disk most of the while.
    fn load_files(&self, keys: &[FileKey]) {
        let part = keys.len().div_ceil(DISK_LOADERS).max(DISK_LOADED_TOGETHER_MIN);
        std::thread::scope(|scope| {
            for part in keys.chunks(part) {
                let load = move || part.iter().for_each(|key| self.load_file(*key));
                if std::thread::Builder::new().spawn_scoped(scope, load).is_err() {
                    // No more threads to be had: one after the other is as good.
                    load();
                }
            }
        });
    }

    fn load_file(&self, key: FileKey) {
        let name = self.files.lock(key);
        if lock(&self.ledger).has_file(key) {
            return;
        }
        let doubted = self.doubtful.load(Ordering::SeqCst);
        let found = match BlobFile::glance(&*self.files.disk, &self.files.path(key)) {
            Err(error) if is_not_found(&error) => return,
            found => found.unwrap_or_else(|error| {
                tracing::warn!(blob = %key.id, %error, "a file of the disk tier cannot be read and goes");
                None
            }),
        };
        let ours = |found: &Glance| (found.id, found.encoding) == (key.id, key.encoding) && !found.units.is_empty();
        let Some(found) = found.filter(ours) else { return self.files.remove(&name, key) };
        let is_partial = found.units.len() < found.unit_count as usize;
        if doubted && is_partial {
            // A process that was killed may have left parts of units that are in nobody's books.
            return self.load_partial(&name, key);
        }
        let mut ledger = lock(&self.ledger);
        ledger.load_file(key, found.unit_count, found.allocated_bytes, doubted);
        let unit_bytes = found.allocated_bytes / found.units.len() as u64;
        for unit in found.units {
            ledger.add_unit(key, unit, unit_bytes, true);
        }
    }

    fn load_partial(&self, name: &super::files::NameLock<'_>, key: FileKey) {
        let loaded = self.files.open(name, key, Belief::Leaves).and_then(|file| {
            let Some(file) = file else { return Ok(()) };
            file.trim()?;
            self.take_into_books(key, &file, file.allocated_bytes()?);
            Ok(())
        });
        if let Err(error) = loaded {
            tracing::warn!(blob = %key.id, %error, "a file of the disk tier cannot be used and goes");
            self.files.remove(name, key);
        }
    }

    /// Notices that the folder is not the one that this process knows, and begins again with what is there.
    fn watch_folder(&self, upkeep: &mut Upkeep) {
        let totals = lock(&self.ledger).totals();
        let (disk, dir) = (&*self.files.disk, &self.files.dir);
        let is_ours = match Epoch::read(disk, dir) {
            Ok(Some(found)) => found.is_of_run(&lock(&self.epoch)),
            // Never written: the disk was full.
            Ok(None) if !self.marked.load(Ordering::SeqCst) => true,
            _ => false,
        };
        if !is_ours {
            tracing::warn!(dir = %dir.display(), "the folder of the disk tier was removed or replaced: beginning again");
            self.begin_again(upkeep);
        } else if totals != upkeep.written {
            // Not synced: after a power loss nobody believes it anyway.
            let epoch = lock(&self.epoch).now(totals, false);
            match epoch.write(disk, dir, false) {
                Ok(()) => {
                    self.marked.store(true, Ordering::SeqCst);
                    upkeep.written = totals;
                }
                Err(error) => tracing::debug!(%error, "the epoch of the disk tier cannot be written"),
            }
        }
    }

    fn begin_again(&self, upkeep: &mut Upkeep) {
        lock(&self.ledger).clear();
        self.files.forget_all();
        self.doubtful.store(true, Ordering::SeqCst);
        let begun = self.mark_folder();
        match begun {
            Ok(has_files) => {
                *upkeep = Upkeep::default();
                if has_files {
                    lock(&self.ledger).set_not_loaded(None);
                    self.loading.store(true, Ordering::SeqCst);
                }
                self.relieve();
            }
            Err(error) => {
                tracing::warn!(%error, "the folder of the disk tier cannot be used");
                lock(&self.paused).writes = Some(Instant::now() + Duration::from_millis(DISK_PAUSE_MS));
                self.alarm();
            }
        }
    }

    /// Makes the folder ours; true if there are files in it.
    fn mark_folder(&self) -> Result<bool, StoreError> {
        let (disk, dir) = (&*self.files.disk, &self.files.dir);
        self.files.make_folder(dir)?;
        // The old lock is on a file that has no name any more, or on this one.
        let mut held = lock(&self.folder_lock);
        *held = None;
        *held = Some(epoch::lock_folder(disk, dir)?);
        drop(held);
        // Another one: should the old folder come back, it is not this one.
        let epoch = Epoch::begin(Totals::default());
        epoch.write(disk, dir, true)?;
        *lock(&self.epoch) = epoch;
        self.marked.store(true, Ordering::SeqCst);
        self.files.has_folders().map_err(|source| StoreError::Io { path: dir.clone(), source })
    }

    /// Verifies the next units against the leaves, about so many bytes of them. What is bad is repaired, or goes.
    pub(super) fn scrub(&self, upkeep: &mut Upkeep, mut allowance_bytes: u64) {
        while allowance_bytes > 0 {
            let next = lock(&self.ledger).unit_from(upkeep.file, upkeep.unit);
            if next.is_none_or(|(file, ..)| file != upkeep.file)
                && let Some(key) = upkeep.right_so_far.take()
            {
                lock(&self.ledger).set_trusted(key);
            }
            let Some((file, key, unit)) = next else {
                (upkeep.file, upkeep.unit) = (0, 0);
                break;
            };
            let is_right = self.scrub_unit(key, unit, &mut allowance_bytes);
            let is_first = (file, 0) != (upkeep.file, 0) || upkeep.unit == 0;
            upkeep.right_so_far = (is_first || upkeep.right_so_far == Some(key)).then_some(key).filter(|_| is_right);
            (upkeep.file, upkeep.unit) = (file, unit + 1);
        }
        let ledger = lock(&self.ledger);
        let done = u64::from(upkeep.file) * 1000 / u64::from(ledger.file_numbers().max(1));
        self.metrics.disk_scrub_permille.set(i64::try_from(done).unwrap_or(i64::MAX));
        let pass_s = ledger.totals().bytes.checked_div(self.scrub_bytes_per_s).unwrap_or(0);
        self.metrics.disk_scrub_pass_s.set(i64::try_from(pass_s).unwrap_or(i64::MAX));
    }

    fn scrub_unit(&self, key: FileKey, unit: u32, allowance_bytes: &mut u64) -> bool {
        let bytes = |file: &BlobFile| file.layout().unit_range(unit).len();
        let file = self.file(key);
        let taken = file.as_ref().map_or(0, bytes).max(DISK_BLOCK_BYTES);
        *allowance_bytes = allowance_bytes.saturating_sub(taken);
        let Some(file) = file else { return false };
        // What is still in memory says nothing about the disk.
        _ = file.forget_cached();
        let runs = file.read_unit(unit, Belief::Leaves).unwrap_or_default();
        self.metrics.disk_scrubbed_bytes.inc_by(bytes(&file));
        let bad: Vec<Run> = runs.into_iter().filter(|run| matches!(run, Run::Missing { .. })).collect();
        if bad.is_empty() {
            return true;
        }
        let missing = bad.into_iter().map(|run| match self.part(&file, run) {
            Part::Missing(pieces) => pieces.len() as u64,
            Part::Here(_) => 0,
        });
        let key_of_unit = UnitKey::of(file.layout(), unit);
        let damage = Damage { key: key_of_unit, pieces: missing.sum() };
        // What is right of it is served meanwhile, and readers repair it, too.
        if self.repairs.get().is_some_and(|repairs| repairs.ask(damage)) {
            tracing::warn!(blob = %key.id, unit, pieces = damage.pieces, "a scrub found damage: it is fetched again");
        } else {
            tracing::warn!(blob = %key.id, unit, "a scrub found damage: the unit goes");
            self.drop_unit(key, unit);
        }
        false
    }

    /// The end of a clean stop.
    pub(super) fn close(&self) {
        let totals = lock(&self.ledger).totals();
        let (disk, dir) = (&*self.files.disk, &self.files.dir);
        let last = lock(&self.epoch).now(totals, true);
        let found = Epoch::read(disk, dir).unwrap_or_default();
        let is_ours = found.is_some_and(|found| found.is_of_run(&last));
        // What was doubted and never read since must be doubted again.
        let believed = lock(&self.ledger).doubts() == 0 && !(self.is_loading() && self.doubtful.load(Ordering::SeqCst));
        if believed && is_ours {
            let closed = disk
                .sync_everything(dir)
                .map_err(|source| StoreError::Io { path: dir.clone(), source })
                .and_then(|()| last.write(disk, dir, true));
            if let Err(error) = closed {
                tracing::warn!(%error, "the disk tier could not be closed cleanly: the next start verifies more");
            }
        }
        *lock(&self.folder_lock) = None;
    }
}
