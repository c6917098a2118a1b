//! [`Persistence`]: how often and how long one thing is asked for before giving up. Deliberately absent: how slow a single
//! answer may be (module `patience`).

use std::time::Duration;

use crate::limits::{ATTEMPTS_MAX, PASSES_MAX, PAUSE_MAX, PERSISTENCE_MAX};

/// The budget of one thing: a unit of a blob, its head, a document, a set of metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Persistence {
    /// Walks over all sources that bring nothing, for a thing that somebody waits for; less urgent fetches do with fewer in any
    /// case.
    pub passes_max: u32,
    /// Attempts at all sources together, whatever they bring.
    pub attempts_max: u32,
    /// No walk begins, and no pause, that would end later than this after the last progress.
    pub time_max: Duration,
    /// A source that asks to be left alone for longer is not asked again for this thing.
    pub pause_max: Duration,
}

impl Default for Persistence {
    fn default() -> Self {
        Self { passes_max: PASSES_MAX, attempts_max: ATTEMPTS_MAX, time_max: PERSISTENCE_MAX, pause_max: PAUSE_MAX }
    }
}
