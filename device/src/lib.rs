//! The device: resolve `fuchsia-pkg://` URLs through TUF, fetch what is missing from any source, verify, keep.
//!
//! A library first: it takes paths, a clock and configuration as arguments, prints nothing and reads no environment. What it
//! keeps goes through [`keep::Keep`]: the durable store of a real device, or a tally in a synthetic fleet.

pub mod authority;
pub mod boot_packages;
mod boot_sets;
mod cache;
mod clock_floor;
mod collect;
pub mod config;
mod context;
#[cfg(feature = "daemon")]
pub mod daemon;
mod device;
pub mod eager;
pub mod error;
mod fetch;
pub mod keep;
mod lagging;
pub mod limits;
pub mod materialise;
mod metadata;
pub mod overlay;
pub mod repositories;
pub mod rewrite;
mod rollout;
pub mod rules;
pub mod sets;
pub mod static_config;
mod trees;
mod trusted;
pub mod update;
mod verify;
mod writers;

pub use authority::{EagerAnswer, EagerPackages, ResolvedBy};
pub use boot_packages::{BootError, BootPackages};
pub use boot_sets::boot_packages_of;
pub use cache::{CollectionReport, Depth, Lease, LeaseInfo, Rank};
pub use clock_floor::FloorError;
pub use collect::Opened;
pub use config::{DeviceConfig, Preference, Watermarks};
pub use context::Context;
pub use device::{Device, PackageContents, PackageStatus, Resolved};
pub use error::DeviceError;
pub use fetch::{Event, FetchCounts, FetchReport, Observer};
pub use keep::{Keep, KeepError, KeptBlob, PartialKeep, Purpose};
pub use overlay::{Overlaid, Overlay};
pub use repositories::Repositories;
pub use rewrite::{RewriteError, Rule};
pub use rules::Rules;
pub use static_config::StaticConfig;
pub use verify::{Damage, VerifyAt, VerifyOptions, VerifyReport};
