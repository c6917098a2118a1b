//! Verified units and verified metadata from a set of unreliable sources: health, failover, blame.
