//! Licences, bans and advisories of everything we link.

use crate::run::{Failure, cargo, run};

/// Holds `deny.toml` against the lock file.
pub fn check() -> Result<(), Failure> {
    run(cargo("deny --locked check"))
}
