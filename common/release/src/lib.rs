//! Product releases and package sets (RFC-0212) as data: what a product consists of, which packages are kept how; pure.
//!
//! Fetching, eviction, collection, forecast and audit all read the same table. Here too, as they are built: rollout policy,
//! `decide`, Omaha and CUP messages. Deliberately absent: files, the network, signing.

mod grid;
pub mod limits;
mod release;
mod version;

pub use grid::{Availability, NotApplicable, PackageSet, Versioning};
pub use release::{DiscoverableDomain, Release, ReleaseBlob, ReleaseError, ReleasePackage};
pub use version::{ProductVersion, VersionError};
