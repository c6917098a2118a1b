//! Synthetic fleets: the device's real work, done by the thousand, with a store that keeps hashes and counts.
//!
//! A [`scenario::Scenario`] says what is to happen; its [`plan::Plan`] is pure and seeded; [`runner::run`] does one open-loop
//! (latency counts from the intended start, so a slow system cannot hide behind devices that wait); a [`record::Record`] is what was
//! measured, and an [`outcome::Report`] judges it by the rules of [`slo`]. [`simulate`] computes what
//! fleets would do that no machine can run. [`fleet::run`] is the short way without a scenario. Deliberately absent: any shortcut around the device's code — every leaf is
//! verified — and any figure that was not measured in the run.

pub mod compare;
mod draw;
pub mod fleet;
pub mod html;
pub mod limits;
pub mod merge;
pub mod outcome;
pub mod plan;
pub mod predict;
pub mod record;
pub mod report;
pub mod runner;
pub mod scenario;
pub mod shares;
pub mod simulate;
pub mod slice;
pub mod slo;
pub mod spawned;
mod tally;

pub use fleet::{FleetConfig, run};
pub use report::FleetReport;
pub use scenario::Scenario;
