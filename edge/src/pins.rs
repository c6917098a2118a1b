//! [`Pins`]: how much of what has left the tiers may live on because readers are still at it.
//!
//! A reader holds its unit while there is room. Beyond that it holds it loosely: when the unit is let go before the reader
//! has read it, the reader asks for it again, and that is counted. So no number of slow readers pins memory.

use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room is handed out in this size, bytes.
const PERMIT_BYTES: u64 = 64 << 10;

/// Room for things of known size.
#[derive(Debug, Clone)]
pub(crate) struct Pins {
    room: Arc<Semaphore>,
    permits: usize,
}

impl Pins {
    pub fn new(bytes: u64) -> Self {
        let permits = usize::try_from(bytes / PERMIT_BYTES).unwrap_or(0).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(permits)), permits }
    }

    /// How much there is room for.
    pub const fn budget_bytes(&self) -> u64 {
        self.permits as u64 * PERMIT_BYTES
    }

    /// How much of that is taken.
    pub fn used_bytes(&self) -> u64 {
        self.permits.saturating_sub(self.room.available_permits()) as u64 * PERMIT_BYTES
    }

    /// Holds `thing`, which takes `bytes`: firmly if there is room.
    pub fn hold<T>(&self, thing: &Arc<T>, bytes: u64) -> Held<T> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        match self.room.clone().try_acquire_many_owned(permits) {
            Ok(permit) => Held::Firm(thing.clone(), permit),
            Err(_) => Held::Loose(Arc::downgrade(thing)),
        }
    }
}

/// Something a reader is at.
#[derive(Debug)]
pub(crate) enum Held<T> {
    /// It stays.
    Firm(Arc<T>, #[expect(dead_code, reason = "gives its room back when it is dropped")] OwnedSemaphorePermit),
    /// It may go.
    Loose(Weak<T>),
}

impl<T> Held<T> {
    pub fn get(&self) -> Option<Arc<T>> {
        match self {
            Self::Firm(thing, _) => Some(thing.clone()),
            Self::Loose(thing) => thing.upgrade(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firm_while_there_is_room_and_loose_beyond() {
        let pins = Pins::new(2 * PERMIT_BYTES);
        let thing = Arc::new(7);
        let first = pins.hold(&thing, PERMIT_BYTES + 1);
        let second = pins.hold(&thing, 1);
        assert_eq!((first.get(), second.get()), (Some(Arc::new(7)), Some(Arc::new(7))));
        drop(thing);
        assert_eq!(first.get(), Some(Arc::new(7)));
        drop(first);
        assert_eq!(second.get(), None, "nobody held it any more");
        assert_eq!((pins.used_bytes(), pins.budget_bytes()), (0, 2 * PERMIT_BYTES));
        let third = pins.hold(&Arc::new(8), 2 * PERMIT_BYTES);
        assert_eq!(third.get(), Some(Arc::new(8)), "the room was given back");
        assert_eq!(pins.used_bytes(), 2 * PERMIT_BYTES);
    }
}
