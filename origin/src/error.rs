//! [`OriginError`]: what can go wrong in an origin, each naming the thing at fault.

use std::path::PathBuf;

use colibri_api::{ApiError, RepositoryName};
use colibri_common::BlobId;
use colibri_repository::RepositoryError;
use colibri_service::{MetricsError, ServiceError};
use colibri_transport::{CodingError, TransportError};

use crate::limits::{REPOSITORIES_MAX, SMALL_FILE_BYTES_MAX};
use crate::write::TokenError;

/// Why an origin cannot start, or cannot serve something that is there.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Nothing to serve.
    #[error("no repository is configured: name at least one, with its folder")]
    NoRepositories,
    /// Too much to serve.
    #[error("{0} repositories are configured; the most are {REPOSITORIES_MAX}")]
    TooManyRepositories(usize),
    /// Two repositories of one name.
    #[error("repository {0} is configured twice")]
    Duplicate(RepositoryName),
    /// The folder is not a repository.
    #[error("{} is not a repository: it has no root.json, neither itself nor in repository/; create one with `colibri repo create`", .0.display())]
    NotARepository(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A metadata or target file is larger than is served.
    #[error("{} has {length} bytes; metadata and targets have at most {SMALL_FILE_BYTES_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// A file never holds still long enough to be read whole.
    #[error("{} changes while it is read: whoever writes it should rename a finished file into place", .0.display())]
    Unsettled(PathBuf),
    /// A stored file is not the blob that its name says.
    #[error("{} is not blob {id}: {reason}; publish the blob again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The blob.
        id: BlobId,
        /// Which check failed.
        reason: String,
    },
    /// The repository's metadata does not say what is needed.
    #[error("the metadata of repository {repository} cannot be used: {reason}")]
    Metadata {
        /// The repository.
        repository: RepositoryName,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be compressed.
    #[error(transparent)]
    Coding(#[from] CodingError),
    /// The configuration of the write API contradicts itself.
    #[error("{0}")]
    WriteConfig(String),
    /// The tokens of the write API.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A repository that is to be written.
    #[error("a repository cannot be written over the write API: {0}")]
    Writable(#[from] Box<RepositoryError>),
    /// The audit file cannot be opened.
    #[error("audit file {path}: {source}")]
    AuditFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Keys in the environment that cannot be used.
    #[error("{0}")]
    Keys(Box<RepositoryError>),
    /// A port or certificate cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The admin port cannot be used.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The metrics cannot be made.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A task of the process ended early, as while stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl OriginError {
    /// What a client is told: names and reasons, never a path of this machine.
    pub(crate) fn to_client(&self) -> ApiError {
        match self {
            Self::Corrupt { id, .. } => {
                ApiError::NotFound(format!("blob {id} is not served: its stored file is damaged"))
            }
            Self::TooLarge { .. } => {
                ApiError::Internal(format!("the file is over the limit of {SMALL_FILE_BYTES_MAX} bytes"))
            }
            Self::Unsettled(_) => ApiError::Unavailable("the file is being replaced; try again".to_owned()),
            Self::Metadata { .. } => ApiError::Internal(self.to_string()),
            Self::Stopping => ApiError::Unavailable(self.to_string()),
            _ => ApiError::Internal("the repository's files cannot be read".to_owned()),
        }
    }
}
