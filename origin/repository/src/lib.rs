//! Create, publish, sign and list a repository on a directory: a library for the desk and for the server; all signing code.
//!
//! A publish makes blobs durable and proven first and metadata last (`timestamp.json` at the very end), so that a release is
//! visible only when whole. Deliberately absent: serving, the network, a clock (now is an argument).

mod announce;
mod audit;
mod bins;
mod blobs;
mod bundle;
mod ceremony;
mod collect;
mod commit;
mod contents;
#[cfg(test)]
mod crash_tests;
mod draft;
mod edge_gate;
mod error;
mod export;
mod folders;
mod gate;
#[cfg(test)]
mod gate_tests;
mod gc;
#[cfg(test)]
mod gc_tests;
mod ingest;
mod keys;
pub mod layout;
pub mod limits;
mod lock;
mod merge;
mod metadata;
mod named_targets;
mod offer;
mod parallel;
mod pins;
mod profile;
mod publish;
mod receipts;
mod recover;
mod refresh;
mod release;
mod release_bundle;
pub mod remote;
mod repository;
mod roles;
mod rollout;
mod rotation;
mod settings;
mod sign_snapshot;
pub mod sign_targets;
mod status;
#[cfg(feature = "stock-client")]
pub mod stock_client;
mod storage;
mod submit;
#[cfg(test)]
mod test_desk;
#[cfg(test)]
mod test_disk;
mod transaction;
#[cfg(test)]
mod transaction_tests;
mod transfer;
mod upload;
#[cfg(test)]
mod upload_tests;
mod verify;
pub mod wire;

pub use audit::{Act, AuditReport};
pub use bundle::{RepositorySource, sources};
pub use ceremony::{Ceremony, CeremonyFile, Need, NeedState};
pub use commit::Unproven;
pub use contents::PackageBlob;
pub use edge_gate::EdgeGate;
pub use error::RepositoryError;
pub use export::{Export, export};
pub use folders::ListedDocument;
pub use gate::{Fault, PublishGate, UnreadyBlob};
pub use gc::{Collect, CollectReport};
pub use keys::{
    AskPassphrase, KeyForm, KeyRole, KeySources, ListedKey, Passphrase, Secret, Signer, UnknownRole, generate_key_file,
};
pub use merge::Prefer;
pub use named_targets::ExtraTarget;
pub use pins::Pin;
pub use profile::{NearCap, Profile, UnknownProfile};
pub use publish::{Publish, PublishProgress, PublishReport};
pub use recover::{Recover, RecoverReport, Testimony, Witness};
pub use refresh::Due;
pub use release_bundle::BundleReport;
pub use repository::{CreateOptions, KeyCount, PackageEntry, Repository, Versions};
pub use roles::Expiries;
pub use rotation::KeyChange;
pub use status::{KeyStatus, RoleStatus};
pub use storage::keep_blobs_in;
pub use submit::Submit;
pub use transfer::{CopyMode, Transfer, TransferProgress, TransferReport};
pub use upload::{Upload, Uploaded};
pub use verify::{BlobUse, Damage, Unreferenced, VerifyProgress, VerifyReport, verify};
