//! Bytes on one disk behind a [`Disk`] seam: verified unit I/O, the durable store, and [`Documents`].
//!
//! All calls are synchronous; callers on an async runtime use its blocking pool. Deliberately absent: tokio, networking,
//! eviction policy, any way to store bytes of a blob that have not been verified.

pub mod disk;
mod document_name;
mod documents;
mod error;
pub mod limits;

pub use disk::{Disk, DiskFile, OsDisk};
pub use document_name::DocumentName;
pub use documents::{DocumentReader, DocumentWriter, Documents};
pub use error::StoreError;
