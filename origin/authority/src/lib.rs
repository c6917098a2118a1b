//! The versioning authority: Omaha endpoint, rollouts, counters, audit.
