//! Our TUF core: what the four top-level roles say and whether to believe them.
//!
//! [`Update`] walks the client workflow of the TUF specification §5 as a state machine: it asks for a named file with a
//! cap and takes bytes; [`TrustedSet`] is what it proved. Deliberately absent: signing, files, sockets, a clock (now is an
//! argument), delegated roles. Persisting a set is the caller's business.

pub mod canonical;
mod envelope;
pub mod error;
pub mod key;
pub mod limits;
pub mod repo_config;
pub mod role;
mod rules;
pub mod target;
pub mod trust;
pub mod update;
pub mod utc;

pub use error::{MetadataError, Rule};
pub use key::{KeyId, PublicKey};
pub use repo_config::{RepoConfig, RepoConfigError};
pub use role::{FileMeta, Role, RoleKeys, Root, Snapshot, Targets, Timestamp};
pub use target::{Hashes, TargetDescription, TargetName, TargetNameError};
pub use trust::{TrustAnchor, TrustedSet};
pub use update::{Answer, Start, Step, Update, Want};
