//! Product releases and package sets (RFC-0212) as data: what a product consists of, which packages are kept how; pure.
//!
//! Fetching, eviction, collection, forecast and audit all read the same table. Here too: bundles, what a rollout may refer to, what
//! a system update consists of, the client's side of Omaha and CUP, and, as they are built, rollout policy and `decide`. Deliberately absent: files, the network, signing.

mod audit;
mod builder;
pub mod bundle;
mod check;
pub mod cup;
mod diff;
mod error;
mod grid;
pub mod limits;
pub mod omaha;
pub mod ota_manifest;
mod release;
mod rollout;
#[cfg(test)]
mod tests;
mod update_images;
pub mod update_package;
mod version;

pub use audit::{AuditDiff, audit};
pub use builder::{Missing, ReleaseBuilder};
pub use bundle::{Bundle, BundleError, BundleHead};
pub use diff::{Beside, ReleaseDiff, fetched_bytes, raw_bytes};
pub use error::ReleaseError;
pub use grid::{Availability, NotApplicable, PackageSet, Versioning};
pub use release::{
    BootPackage, CachePackage, DiscoverableDomain, EncodedForm, FORMAT, PackageContents, Release, ReleaseBlob,
    ReleasePackage, Subpackage, TrustedRepository,
};
pub use rollout::{ListedPackages, Rollout, RolloutError, check_references};
pub use version::{ProductVersion, VersionError};
