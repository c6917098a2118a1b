//! [`Flights`]: what is coming, so that one thing is filled once at a time however many ask for it.
//!
//! The decision between what is here, what is coming and what must be fetched is made in one place, and so that a fill that
//! has just landed is never begun again. Generic over what is filled: `tests/model` explores it with every order of events.

use std::collections::HashMap;
use std::hash::Hash;

use crate::sync::{Arc, Mutex, PoisonError};

/// Fills under way, by key.
#[derive(Debug)]
pub(crate) struct Flights<K, F>(Mutex<HashMap<K, Arc<F>>>);

/// Where a thing comes from.
#[derive(Debug)]
pub(crate) enum Decision<T, F> {
    /// It is here.
    Here(T),
    /// Somebody is filling it.
    Join(Arc<F>),
    /// Whoever got this fills it, and takes it off with [`Flights::leave`] once it is here or has failed.
    Start(Arc<F>),
}

impl<K: Eq + Hash + Copy, F> Flights<K, F> {
    pub fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Decides. `look` looks where things are kept; a fill must put its thing there before it leaves.
    pub fn decide<T>(&self, key: K, look: impl Fn() -> Option<T>, fresh: impl FnOnce() -> F) -> Decision<T, F> {
        if let Some(here) = look() {
            return Decision::Here(here);
        }
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return Decision::Join(flight.clone());
        }
        // One may have landed between the look and the lock: it was here before it left.
        if let Some(here) = look() {
            return Decision::Here(here);
        }
        let flight = Arc::new(fresh());
        flights.insert(key, flight.clone());
        Decision::Start(flight)
    }

    /// Whether a thing is being filled.
    pub fn has(&self, key: &K) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Takes a fill off: whoever asks from now on does not meet it.
    pub fn leave(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
