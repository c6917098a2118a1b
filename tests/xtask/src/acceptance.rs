//! `cargo xtask acceptance`: what needs outside tools or long time. A tool that is missing is a loud failure that says how
//! to get it, never a skip. Nothing is installed from here.

mod licences;
mod tools;

use crate::run::Failure;

/// Runs every step; the first failure ends it.
pub fn acceptance() -> Result<(), Failure> {
    tools::all_present()?;
    licences::check()
}
