//! How fetching fails: one attempt at one source ([`AttemptError`]), bad bytes pinned on somebody ([`Blame`]), and the
//! whole fetch ([`FetchError`]).

use std::fmt;
use std::time::Duration;

use colibri_common::BlobId;
use colibri_common::merkle::LeavesError;
use colibri_metadata::MetadataError;
use colibri_package::delivery::{DeliveryError, Encoding, StrictError};
use colibri_transport::{BodyError, ClientError, CodingError};

use crate::evidence::BadPiece;

/// Why one attempt at one source failed. What the fetcher does next depends on the variant.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The source does not have it: ask another; not a fault.
    #[error("not found")]
    NotFound {
        /// How many milliseconds ago its own upstream said so, if it tells that.
        above_ms: Option<u64>,
    },
    /// The source asks for patience or is in trouble (429, 5xx).
    #[error("answered {status}{}", after(*.retry_after))]
    Busy {
        /// Its status code.
        status: u16,
        /// `Retry-After`, if it sent one.
        retry_after: Option<Duration>,
    },
    /// Another status, a header that does not fit the request, a body that is cut off or goes on for ever.
    #[error("{0}")]
    Unexpected(String),
    /// It answered 508: its own upstreams lead back to itself or to us.
    #[error("asks in a circle (508)")]
    Loop,
    /// It answers a request for a range with the whole: to be used only when nobody better is left.
    #[error("ignores ranges")]
    IgnoresRanges,
    /// More bytes than were asked for, or than we take of such a thing.
    #[error("has more than {bytes_max} bytes")]
    TooLong {
        /// Bytes that may be there.
        bytes_max: u64,
    },
    /// More bytes than a signature or a hash says there are: bad bytes.
    #[error("bad bytes: more than the {signed_bytes} that were signed")]
    OverSigned {
        /// Bytes that there are.
        signed_bytes: u64,
    },
    /// It says that the whole has another length than was proven: bad bytes.
    #[error("bad bytes: says a length of {claimed_bytes} bytes, proven are {proven}")]
    OtherLength {
        /// What it says.
        claimed_bytes: u64,
        /// What there is, as far as it is proven.
        proven: String,
    },
    /// Too few bytes in too long a time.
    #[error("sent {bytes} bytes in {} ms", .within.as_millis())]
    Slow {
        /// Bytes received.
        bytes: u64,
        /// In this time.
        within: Duration,
    },
    /// We ask it for as much as we may already: not its fault.
    #[error("its budget left no place for {} ms", .within.as_millis())]
    OverBudget {
        /// How long a place was waited for.
        within: Duration,
    },
    /// The source has another encoded form of the same content: fine, but its bytes cannot join this fetch.
    #[error("has another encoded form")]
    OtherIdentity,
    /// The connection or the request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The body broke off, stalled or did not have the announced length.
    #[error("the body failed: {0}")]
    Body(#[from] BodyError),
    /// A coded document cannot be decoded, or decodes to more than was asked for.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// The leaf list is not this blob's: bad bytes.
    #[error("bad leaves: {0}")]
    BadLeaves(#[from] LeavesError),
    /// The bytes are not this blob's, or not in strict form: bad bytes.
    #[error("bad bytes: {0}")]
    BadBytes(#[from] StrictError),
    /// A whole delivery blob is not one: bad bytes.
    #[error("bad bytes: {0}")]
    BadForm(DeliveryError),
    /// The content hashes to another blob: bad bytes.
    #[error("bad bytes: the content is blob {found}")]
    WrongContent {
        /// What it should be.
        expected: BlobId,
        /// What the content is.
        found: BlobId,
    },
    /// A document does not have the hash that its name says: bad bytes.
    #[error("bad bytes: {0}")]
    WrongHash(String),
    /// Bad bytes, and here they are.
    #[error("{error}")]
    Shown {
        /// Why they are bad.
        error: Box<Self>,
        /// What was sent.
        piece: Box<BadPiece>,
    },
}

fn after(retry_after: Option<Duration>) -> String {
    retry_after.map_or(String::new(), |pause| format!(" and asked for {} s", pause.as_secs()))
}

impl AttemptError {
    /// True if the source served bytes that are provably not what it was asked for.
    pub const fn is_bad_bytes(&self) -> bool {
        match self {
            Self::BadLeaves(_)
            | Self::BadBytes(_)
            | Self::BadForm(_)
            | Self::WrongContent { .. }
            | Self::WrongHash(_)
            | Self::OverSigned { .. }
            | Self::OtherLength { .. }
            | Self::Shown { .. } => true,
            Self::NotFound { .. }
            | Self::Busy { .. }
            | Self::Unexpected(_)
            | Self::TooLong { .. }
            | Self::Loop
            | Self::IgnoresRanges
            | Self::Slow { .. }
            | Self::OverBudget { .. }
            | Self::OtherIdentity
            | Self::Client(_)
            | Self::Coding(_)
            | Self::Body(_) => false,
        }
    }

    /// True if there was more than may be.
    pub(crate) const fn is_too_long(&self) -> bool {
        matches!(self, Self::TooLong { .. } | Self::Coding(CodingError::TooLong { .. }))
    }

    /// The same for something whose length is known beforehand from what is signed: to have more is bad.
    pub(crate) fn if_signed(self, signed_bytes: Option<u64>) -> Self {
        match (self, signed_bytes) {
            (Self::TooLong { bytes_max }, Some(signed_bytes)) if bytes_max == signed_bytes => {
                Self::OverSigned { signed_bytes }.shown(signed_bytes, &[])
            }
            (error, _) => error,
        }
    }

    /// The same as no proof of malice, where a connection cut short would look alike.
    pub(crate) fn or_cut_short(self, promised: Option<u64>) -> Self {
        if promised.is_none() && self.is_bad_bytes() {
            Self::Unexpected(format!("sent a body without saying its length, perhaps cut short: {self}"))
        } else {
            self
        }
    }
}

/// Proof that a source served bad bytes, or metadata that had to be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blame {
    /// Authority of the source, as in its URL.
    pub source: String,
    /// The blob it was asked for; nothing for metadata.
    pub blob: Option<BlobId>,
    /// The encoding it was asked for; nothing for leaves and metadata.
    pub encoding: Option<Encoding>,
    /// What was wrong and where, with the expected and the found hash when a leaf failed.
    pub detail: String,
    /// Where it was, and which hash was expected and found. A [`Witness`](crate::Witness) that hears of it at once sees what was
    /// sent as well; the blames that a set of sources keeps are without these bytes.
    pub piece: Option<Box<BadPiece>>,
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.blob {
            Some(blob) => write!(f, "{} served bad bytes for blob {blob}: {}", self.source, self.detail),
            None => write!(f, "{} served metadata that is refused: {}", self.source, self.detail),
        }
    }
}

/// Why something could not be had from any source.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// Every source answered and none has it.
    #[error("{what}: no source has it (asked {asked})")]
    NotFound {
        /// The thing.
        what: String,
        /// The sources' authorities.
        asked: String,
    },
    /// Every source failed, the last errors in a list.
    #[error("{what}: every source failed: {causes}")]
    AllFailed {
        /// The thing.
        what: String,
        /// `authority: cause` of each source, last pass.
        causes: String,
        /// True if some source served bad bytes.
        bad_bytes: bool,
        /// True if some source said that it does not have it.
        absent_somewhere: bool,
        /// True if some source has another encoded form of it.
        other_form: bool,
        /// True if everybody who may have it asked for patience (429) to the end.
        rate_limited: bool,
    },
    /// Every source says that the question leads back to where it has been.
    #[error("{what}: the sources ask each other in a circle (asked {asked})")]
    Circle {
        /// The thing.
        what: String,
        /// The sources' authorities.
        asked: String,
    },
    /// Two signed statements contradict each other: no source is to blame, whoever published it is.
    #[error(
        "blob {blob} has {proven_bytes} bytes by its hash, and was signed as one of {signed_bytes}: publish it anew"
    )]
    SignedSize {
        /// The blob.
        blob: BlobId,
        /// What was signed.
        signed_bytes: u64,
        /// What its hash proves.
        proven_bytes: u64,
    },
    /// There is nobody to ask.
    #[error("{0}: no source is configured")]
    NoSource(String),
    /// Metadata was fetched but cannot be believed.
    #[error("{source_name}: {error}")]
    Metadata {
        /// Authority or directory it came from.
        source_name: String,
        /// The rule that refused it.
        error: std::sync::Arc<MetadataError>,
    },
    /// A URL cannot be used.
    #[error("`{url}` is not a usable server address: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A local file could not be read or written.
    #[error("{0}")]
    Local(String),
}
