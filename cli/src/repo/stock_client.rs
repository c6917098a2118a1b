//! The part of `repo verify --stock-client` that depends on the feature of that name.

use std::path::Path;

use super::RepoError;

/// What the client of real devices would refuse.
#[cfg(feature = "stock-client")]
pub(super) fn refusals(dir: &Path) -> Result<Vec<String>, RepoError> {
    Ok(colibri_repository::stock_client::refusals(dir)?)
}

/// Says how to get that client.
#[cfg(not(feature = "stock-client"))]
pub(super) fn refusals(_: &Path) -> Result<Vec<String>, RepoError> {
    Err(RepoError::NoStockClient)
}
