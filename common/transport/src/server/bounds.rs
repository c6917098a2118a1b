//! [`BoundsHandle`]: the bounds of a running server that can be changed, and how they are.
//!
//! Nothing that is under way is ended by a tighter bound: it counts, and nothing new comes in until there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ServerLimits;
use super::admission::Admission;

/// What a server bounds while it runs.
pub(super) struct Bounds {
    pub(super) admission: Admission,
    pub(super) connections: Arc<Connections>,
    retry_from_connections: AtomicUsize,
}

impl Bounds {
    pub(super) fn new(limits: &ServerLimits) -> Arc<Self> {
        Arc::new(Self {
            admission: Admission::new(limits.total, limits.client, limits.client_connections_max),
            connections: Connections::new(limits.connections_max),
            retry_from_connections: AtomicUsize::new(limits.retry_from_connections),
        })
    }

    /// So many connections that a new client must first prove that it can receive at its address.
    pub(super) fn is_crowded(&self) -> bool {
        self.connections.taken() >= self.retry_from_connections.load(Ordering::Relaxed)
    }
}

/// Changes the bounds of a running server. Clones share them; it keeps no port open.
#[derive(Clone)]
pub struct BoundsHandle(pub(super) Arc<Bounds>);

impl std::fmt::Debug for BoundsHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundsHandle").finish_non_exhaustive()
    }
}

impl BoundsHandle {
    /// Has those of `limits` hold from now on that can change: connections, of all and of one client, what one client and all
    /// together may have, and from when on addresses are to be proven. The others stay as they were when the server was bound.
    pub fn set(&self, limits: &ServerLimits) {
        self.0.admission.set(limits.total, limits.client, limits.client_connections_max);
        self.0.retry_from_connections.store(limits.retry_from_connections, Ordering::Relaxed);
        self.0.connections.set(limits.connections_max);
    }
}

/// Places for connections.
pub(super) struct Connections {
    places: Arc<Semaphore>,
    count: Mutex<Count>,
}

struct Count {
    max: usize,
    /// Places that are taken away as soon as they are given back.
    owed: usize,
}

impl Connections {
    fn new(max: usize) -> Arc<Self> {
        let max = clamp(max);
        Arc::new(Self { places: Arc::new(Semaphore::new(max)), count: Mutex::new(Count { max, owed: 0 }) })
    }

    /// Waits for a place.
    pub(super) async fn enter(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.clone().acquire_owned().await.ok()?;
        Some(Place { permit: Some(permit), connections: self.clone() })
    }

    /// A place, if there is one at once.
    pub(super) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(Place { permit: Some(permit), connections: self.clone() })
    }

    fn taken(&self) -> usize {
        let count = self.count();
        // The listener on TCP holds a place for whoever comes next.
        let free = self.places.available_permits() + 1;
        (count.max + count.owed).saturating_sub(free)
    }

    fn set(&self, max: usize) {
        let max = clamp(max);
        let mut count = self.count();
        let places = count.max + count.owed;
        if max >= places {
            count.owed = 0;
            self.places.add_permits(max - places);
        } else if max > count.max {
            count.owed -= max - count.max;
        } else {
            let fewer = count.max - max;
            count.owed += fewer - self.places.forget_permits(fewer);
        }
        count.max = max;
    }

    fn count(&self) -> std::sync::MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clamp(max: usize) -> usize {
    max.clamp(1, Semaphore::MAX_PERMITS)
}

/// One connection's place, until it is dropped.
pub(super) struct Place {
    permit: Option<OwnedSemaphorePermit>,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.connections.count();
        if count.owed > 0
            && let Some(permit) = self.permit.take()
        {
            count.owed -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(connections: &Arc<Connections>) -> usize {
        std::iter::from_fn(|| connections.try_enter()).collect::<Vec<_>>().len()
    }

    #[test]
    fn fewer_places_take_effect_as_connections_end_and_more_at_once() {
        let connections = Connections::new(4);
        let mut taken: Vec<_> = std::iter::from_fn(|| connections.try_enter()).collect();
        assert_eq!(taken.len(), 4);
        connections.set(2);
        assert_eq!(connections.taken(), 3, "four, one of which waits for whoever comes");
        taken.truncate(2);
        assert_eq!(free(&connections), 0, "two are taken, and there are two");
        taken.truncate(1);
        assert_eq!(free(&connections), 1);
        connections.set(1);
        connections.set(5);
        assert_eq!(free(&connections), 4);
        drop(taken);
        assert_eq!(free(&connections), 5);
    }

    #[test]
    fn places_that_are_owed_are_given_back_when_there_are_to_be_more() {
        let connections = Connections::new(4);
        let taken: Vec<_> = std::iter::from_fn(|| connections.try_enter()).collect();
        connections.set(1);
        connections.set(3);
        drop(taken);
        assert_eq!(free(&connections), 3);
        connections.set(0);
        assert_eq!(free(&connections), 1, "nobody could change it back through no connection at all");
    }
}
