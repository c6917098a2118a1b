//! [`SignedSize`]: how long a blob is according to something that was signed: a release, a target's description, a list of
//! blobs. A source that sends more is stopped there and blamed, before a hash could tell.

use colibri_common::merkle::LEAF_BYTES;
use colibri_package::delivery::Encoding;

/// What was signed about the size of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedSize {
    /// Length of its content, bytes.
    pub content_bytes: u64,
    /// Largest length of the delivery form that is asked for, bytes, if something is signed about that.
    pub encoded_bytes: Option<u64>,
}

impl SignedSize {
    /// Bytes of its list of leaves.
    pub(crate) const fn leaves_bytes(self) -> u64 {
        if self.content_bytes <= LEAF_BYTES { 0 } else { self.content_bytes.div_ceil(LEAF_BYTES) * 32 }
    }

    /// Most bytes that it has in a form.
    pub(crate) const fn of(self, encoding: Encoding) -> Option<u64> {
        match encoding {
            Encoding::Raw => Some(self.content_bytes),
            Encoding::Delivery(_) => self.encoded_bytes,
        }
    }
}
