//! Our TUF core: what roles say and whether to believe them (TUF specification 1.0.x, TAP 15).
//!
//! [`Update`] walks the client workflow of the specification §5.1 to §5.6 as a state machine: it asks for a named file with a
//! cap and takes bytes; [`TrustedSet`] is what it proved. [`Search`] goes on from there through delegated roles, fetching
//! them as they are needed (§5.6.7). Deliberately absent: signing, files, sockets, a clock (now is an argument). Persisting a
//! set is the caller's business.

pub mod canonical;
mod delegated;
pub mod delegations;
mod envelope;
pub mod error;
mod fields;
mod json;
pub mod key;
mod key_id;
pub mod limits;
pub mod online;
pub mod pattern;
pub mod repo_config;
pub mod role;
pub mod root;
mod rules;
pub mod search;
mod spki;
pub mod target;
pub mod targets;
pub mod trust;
pub mod update;
pub mod utc;
mod whole;

pub use delegations::{Covers, DelegatedRole, Delegations, SuccinctRoles};
pub use error::{MetadataError, Rule};
pub use key::{KeyError, PublicKey};
pub use key_id::KeyId;
pub use limits::Caps;
pub use online::{Snapshot, Timestamp};
pub use pattern::{HashPrefix, PathPattern};
pub use repo_config::{RepoConfig, RepoConfigError};
pub use role::{FileMeta, Role, RoleKeys, RoleName, RoleNameError};
pub use root::Root;
pub use search::{Found, Search};
pub use target::{Hashes, TargetDescription, TargetName, TargetNameError};
pub use targets::Targets;
pub use trust::{TrustAnchor, TrustedSet};
pub use update::{Answer, Start, Step, Update, Want};
