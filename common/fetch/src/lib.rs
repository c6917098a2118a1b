//! Verified units and verified metadata sets from a set of unreliable sources: health, budgets,
//! hedging, failover, blame, resume.
//!
//! Everything that leaves this package has been checked: [`BlobFetcher`] hands out [`VerifiedPieces`] and checked
//! [`Leaves`](colibri_common::merkle::Leaves), [`metadata::refresh`] a trusted set. A bad source is named, demoted and
//! replaced at the piece it spoiled. Deliberately absent: tiers and stores (the caller's), and any decision about what to fetch.
//!
//! [`VerifiedPieces`]: colibri_package::delivery::VerifiedPieces

mod assemble;
mod attempt;
pub mod bandwidth;
pub mod blob;
pub mod budget;
pub mod class;
pub mod document;
pub mod error;
mod evidence;
pub mod follow;
pub mod health;
pub mod hedge;
pub mod limits;
pub mod listen;
pub mod metadata;
pub mod nearby;
mod open;
pub mod patience;
pub mod persistence;
mod pieces;
mod recorder;
mod retry_after;
mod round;
mod signed_size;
pub mod source;
pub mod trust_store;
pub mod urgency;
mod whole;
mod witness;

pub use assemble::{Assembler, Sink, read_unit};
pub use bandwidth::Bandwidth;
pub use blob::{BlobFetcher, OpenedBlob, ProvenLeaves};
pub use budget::{Budget, BudgetLimits, Permit};
pub use class::Class;
pub use document::Unverified;
pub use error::{AttemptError, Blame, FetchError};
pub use evidence::{BadPiece, Refused};
pub use health::Standing;
pub use hedge::Hedging;
pub use nearby::{Nearby, Part};
pub use patience::{Pace, Patience};
pub use persistence::Persistence;
pub use recorder::Recorder;
pub use signed_size::SignedSize;
pub use source::{CurrentSources, Lagging, Source, SourceCounts, SourceOrder, SourceUrl, Sources};
pub use urgency::Urgency;
pub use whole::Known;
pub use witness::{Given, Witness};
