//! Synthetic fleets: the device's real work, done by the thousand, with a store that keeps hashes and counts.
//!
//! A [`plan::Plan`] is pure and seeded; [`fleet::run`] does it open-loop (latency counts from the intended start, so a slow
//! system cannot hide behind devices that wait); [`report::FleetReport`] is what came out. Deliberately absent: any shortcut
//! around the device's code — every leaf is verified — and any figure that was not measured in the run.

pub mod fleet;
pub mod limits;
pub mod plan;
pub mod report;
mod tally;

pub use fleet::{FleetConfig, run};
pub use plan::{Plan, PlanConfig};
pub use report::FleetReport;
