//! Bytes on one disk behind a [`Disk`] seam: verified unit I/O, the durable store, and [`Documents`].
//!
//! All calls are synchronous; callers on an async runtime use its blocking pool. Deliberately absent: tokio, networking,
//! eviction policy, any way to store bytes of a blob that have not been verified.

mod blob_file;
mod blob_reader;
pub mod disk;
mod document_name;
mod documents;
mod error;
mod hole_punching;
mod index;
mod layout;
pub mod limits;
mod partial;
mod recovery;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use blob_file::{Belief, BlobFile, Glance, Run, UnitGuard};
pub use blob_reader::BlobReader;
pub use disk::{Disk, DiskFile, OpenMode, OsDisk};
pub use document_name::DocumentName;
pub use documents::{DocumentReader, DocumentWriter, Documents};
pub use error::StoreError;
pub use hole_punching::HolePunching;
pub use partial::Partial;
pub use recovery::Recovery;
pub use store::{Store, StoreStats, SweepReport};
