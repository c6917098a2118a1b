//! Resolve, fetch, keep, collect, update; prints nothing, reads no environment.
