//! Package formats: FAR, `meta/*`, subpackages, manifests, archives, `fuchsia-pkg` URLs, delivery blobs and their verification.
//!
//! Everything here is bytes in, values out (and back). What is deliberately absent: files, sockets, clocks, repositories.

pub mod delivery;
pub mod far;
pub mod limits;
pub mod name;
pub mod resource_path;
pub mod url;

pub use name::{PackageName, PackagePath, PackageVariant};
pub use resource_path::ResourcePath;
