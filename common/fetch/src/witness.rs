//! [`Witness`]: whoever wants to know which source gave what, such as an access log or a memory of where bytes came from. It is
//! told of what was verified, or is a document, and of who sent what was not right; it decides nothing.

use colibri_common::BlobId;
use colibri_package::delivery::Encoding;
use http::HeaderMap;

use crate::error::Blame;

/// Something that a source gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// A document; unverified.
    Document,
    /// The leaves or the shape of a blob.
    Head(BlobId),
    /// A unit of a blob, or the last of it that was missing.
    Unit {
        /// The blob.
        blob: BlobId,
        /// The encoding.
        encoding: Encoding,
        /// The unit's number.
        unit: u32,
    },
}

/// Is told which source gave what. It must not block.
pub trait Witness: std::fmt::Debug + Send + Sync {
    /// The source at `authority` (`host:port`) gave this.
    fn gave(&self, authority: &str, given: Given);

    /// A source begins to answer, with these fields. What comes may still turn out to be bad.
    fn answers(&self, fields: &HeaderMap) {
        _ = fields;
    }

    /// A source sent what is not right; what it sent comes along.
    fn blamed(&self, blame: &Blame);
}
