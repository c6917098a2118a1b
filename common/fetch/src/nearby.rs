//! [`Nearby`]: a seam for whoever knows a better first source for a certain part of a blob than the ordered list does, such as
//! the peers of a region, of which each gets some parts for all. Deliberately absent: who they are.

use std::fmt;
use std::sync::Arc;

use colibri_common::BlobId;
use http::header::HeaderName;

use crate::source::Source;

/// In a request from one peer to another: it is not to be passed on to a third.
pub const FROM_PEER: HeaderName = HeaderName::from_static("colibri-peer");

/// In the answer of a source that is about to stop: it is not to be asked for anything new.
pub const LEAVING: HeaderName = HeaderName::from_static("colibri-leaving");

/// In the answer of a source nearby that has not got something: how many milliseconds ago its own upstream said that it does
/// not have it either, rounded up; 0 if it was asked for this request.
pub const ABSENT_ABOVE: HeaderName = HeaderName::from_static("colibri-absent");

/// A part of a blob, as far as it matters who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Leaves, unit H, and the last piece, which proves the length.
    Head,
    /// A unit of a blob of so many.
    Unit {
        /// Its number.
        unit: u32,
        /// How many there are.
        of: u32,
    },
}

/// Knows whom to ask first.
pub trait Nearby: fmt::Debug + Send + Sync {
    /// The source to ask before all others, once; nothing if the list is to be asked.
    fn first(&self, blob: &BlobId, part: Part) -> Option<Arc<Source>>;
}
