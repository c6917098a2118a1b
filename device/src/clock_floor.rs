//! [`FlooredClock`]: the time as a device believes it. A machine whose clock was reset must not take expired metadata for
//! fresh: time never goes below a floor, which is when the device was built or, if that is later, when it last refreshed
//! metadata with success. From the floor on time passes as it does.
//!
//! The floor cannot run away: what was refreshed had not expired by then, so the signed dates bound it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use colibri_common::{Clock, UnixSeconds};
use colibri_store::{DocumentName, Documents, StoreError};
use serde::{Deserialize, Serialize};

use crate::limits::{FLOOR_BYTES_MAX, FLOOR_STEP_S};

/// Version of the document.
const VERSION: u32 = 1;

/// A clock with a floor that outlives the process.
pub(crate) struct FlooredClock {
    clock: Arc<dyn Clock>,
    documents: Documents,
    floor: Mutex<Floor>,
}

#[derive(Debug, Clone, Copy)]
struct Floor {
    /// It was at least this late,
    at: UnixSeconds,
    /// then.
    then: Instant,
    /// What is durable.
    written: UnixSeconds,
}

impl Floor {
    fn now(self) -> UnixSeconds {
        self.at.plus(self.then.elapsed().as_secs())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    /// Seconds since 1970.
    trusted_unix_s: UnixSeconds,
}

impl FlooredClock {
    /// A clock that shows no time before `built_at`, nor before what `documents` know to have been.
    ///
    /// # Errors
    /// The disk refuses, or a newer program wrote what is there. What cannot be read at all is told in the log and made anew:
    /// a device that knows less is better than one that does nothing.
    pub fn open(clock: Arc<dyn Clock>, documents: Documents, built_at: UnixSeconds) -> Result<Self, FloorError> {
        let stored = documents.get(&name(), FLOOR_BYTES_MAX)?;
        let parsed = stored.and_then(|stored| {
            serde_json::from_slice::<Document>(&stored)
                .inspect_err(|error| {
                    tracing::error!("how late it was at least cannot be read (state/clock.json): {error}");
                })
                .ok()
        });
        let written = match parsed {
            Some(document) if document.version > VERSION => return Err(FloorError::Newer(document.version)),
            Some(document) => document.trusted_unix_s,
            None => UnixSeconds(0),
        };
        let at = written.max(built_at);
        let shown = clock.now();
        if shown < at {
            let behind_s = at.0 - shown.0;
            tracing::warn!(behind_s, "the clock of this device is behind what is known: going on from there");
        }
        Ok(Self { clock, documents, floor: Mutex::new(Floor { at, then: Instant::now(), written }) })
    }

    /// Metadata was refreshed with success at `now`: it will not have been earlier.
    ///
    /// # Errors
    /// The disk refuses; in this process it counts all the same.
    pub fn trusted(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let mut floor = self.floor();
        if now > floor.now() {
            (floor.at, floor.then) = (now, Instant::now());
        }
        if now >= floor.written.plus(FLOOR_STEP_S) {
            let document = Document { version: VERSION, trusted_unix_s: now };
            let text = serde_json::json!(document).to_string();
            self.documents.put(&name(), text.as_bytes())?;
            floor.written = now;
        }
        Ok(())
    }

    fn floor(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FlooredClock {
    fn now(&self) -> UnixSeconds {
        self.clock.now().max(self.floor().now())
    }
}

/// Why the floor is not known.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer program wrote it.
    #[error("state/clock.json has version {0}, which a newer program wrote: use that one")]
    Newer(u32),
}

fn name() -> DocumentName {
    "clock.json".parse().expect("a good name")
}

#[cfg(test)]
mod tests {
    use colibri_common::ManualClock;
    use colibri_store::Disk;
    use colibri_store::testing::CrashDisk;

    use super::*;

    const BUILT: UnixSeconds = UnixSeconds(1_000_000);
    const LATER: UnixSeconds = UnixSeconds(5_000_000);

    fn documents(disk: &CrashDisk) -> Documents {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Documents::open(disk, "/device/state".as_ref()).unwrap()
    }

    fn open(disk: &CrashDisk, clock: &Arc<ManualClock>) -> FlooredClock {
        FlooredClock::open(clock.clone(), documents(disk), BUILT).unwrap()
    }

    /// At `expected`, or a little later: time passes while a test runs.
    fn shows(clock: &FlooredClock, expected: UnixSeconds) {
        let now = clock.now();
        assert!((expected..expected.plus(600)).contains(&now), "{now:?}, not {expected:?}");
    }

    #[test]
    fn a_device_that_boots_in_1970_goes_on_from_what_it_knows() {
        let (disk, clock) = (CrashDisk::new(), Arc::new(ManualClock::new(UnixSeconds(0))));
        shows(&open(&disk, &clock), BUILT);
        let floored = open(&disk, &clock);
        clock.set(LATER);
        shows(&floored, LATER);
        floored.trusted(LATER).unwrap();
        // Set back while it runs, and at the next start.
        clock.set(UnixSeconds(7));
        shows(&floored, LATER);
        drop(floored);
        let floored = open(&disk, &clock);
        shows(&floored, LATER);
        // What was not refreshed at is no floor: a clock that was wrong for a while does no harm.
        clock.set(UnixSeconds(u64::MAX / 2));
        assert_eq!(floored.now(), UnixSeconds(u64::MAX / 2));
        clock.set(LATER.plus(5));
        shows(&open(&disk, &clock), LATER.plus(5));
    }

    #[test]
    fn the_disk_is_not_written_to_at_each_refresh() {
        let (disk, clock) = (CrashDisk::new(), Arc::new(ManualClock::new(LATER)));
        let floored = open(&disk, &clock);
        let stored = || documents(&disk).get(&name(), FLOOR_BYTES_MAX).unwrap().unwrap();
        floored.trusted(LATER).unwrap();
        let first = stored();
        floored.trusted(LATER.plus(FLOOR_STEP_S - 1)).unwrap();
        assert_eq!(stored(), first);
        floored.trusted(LATER.plus(FLOOR_STEP_S)).unwrap();
        assert_ne!(stored(), first);
        // Never back.
        floored.trusted(LATER).unwrap();
        shows(&floored, LATER.plus(FLOOR_STEP_S));
    }

    #[test]
    fn what_cannot_be_read_is_made_anew_and_what_is_newer_refused() {
        let (disk, clock) = (CrashDisk::new(), Arc::new(ManualClock::new(UnixSeconds(0))));
        documents(&disk).put(&name(), b"{").unwrap();
        let floored = open(&disk, &clock);
        shows(&floored, BUILT);
        floored.trusted(LATER).unwrap();
        shows(&open(&disk, &clock), LATER);
        documents(&disk).put(&name(), br#"{"version":2,"trusted_unix_s":7}"#).unwrap();
        let error = FlooredClock::open(clock, documents(&disk), BUILT).err().unwrap().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
