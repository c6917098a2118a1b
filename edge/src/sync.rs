//! The locks of what `tests/model` explores: there, this module is another.

pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
