//! Package formats: FAR, `meta/*`, subpackages, manifests, archives, `fuchsia-pkg` URLs, delivery blobs and their verification.
//!
//! Everything here is bytes in, values out (and back). What is deliberately absent: files, sockets, clocks, repositories.

mod abi;
pub mod archive;
pub mod build;
mod closure;
pub mod delivery;
pub mod diff;
mod error;
pub mod far;
pub mod limits;
pub mod manifest;
pub mod meta_contents;
pub mod meta_package;
pub mod name;
pub mod package;
pub mod resource_path;
pub mod subpackages;
mod unique_map;
pub mod url;

pub use abi::AbiRevision;
pub use archive::PackageArchive;
pub use build::PackageBuild;
pub use closure::PackageClosure;
pub use error::PackageError;
pub use manifest::PackageManifest;
pub use meta_contents::MetaContents;
pub use meta_package::MetaPackage;
pub use name::{PackageName, PackagePath, PackageVariant};
pub use package::MetaFar;
pub use resource_path::ResourcePath;
pub use subpackages::MetaSubpackages;
