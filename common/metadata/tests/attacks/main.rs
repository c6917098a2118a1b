//! One test per attack on a repository, each with a repository built and signed here.

mod fixture;

mod chain;
mod delegated;
mod delegations;
mod forms;
mod keys;
mod malformed;
mod rollback;
mod signatures;
mod stale;
