//! Serves repositories over the read API.
