//! How a `device` verb fails: one line each.

use std::path::PathBuf;
use std::process::ExitCode;

use colibri_device::materialise::MaterialiseError;
use colibri_device::update::UpdateError;
use colibri_device::{DeviceError, RewriteError};
use colibri_store::StoreError;

use super::configuration::ConfigurationError;
use crate::files::FilesError;

/// Why a verb on a device failed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceVerbError {
    /// The asynchronous runtime could not start.
    #[error("the runtime could not start: {0}")]
    Runtime(std::io::Error),
    /// Standard output.
    #[error("printing failed: {0}")]
    Output(#[from] std::io::Error),
    /// An argument that is not what it should be.
    #[error("`{given}`: {reason}")]
    Argument {
        /// As given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nothing in the folder.
    #[error("there is no device in {}: make one with `device repo add`, or name its folder with --dir", dir.display())]
    NoDevice {
        /// The folder.
        dir: PathBuf,
    },
    /// One process at a time.
    #[error("the device in {} is in use by another process: let it finish, or name another folder with --dir; if it is the device's daemon, name its socket with --socket", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// A repository that is to be removed or shown.
    #[error("no repository {0} is configured: `device repo` lists those that are")]
    NoRepository(String),
    /// A repository's configuration.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// A file of rewrite rules.
    #[error("{}: {error}", path.display())]
    RulesFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: RewriteError,
    },
    /// A release document.
    #[error("{}: {error}", path.display())]
    ReleaseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: colibri_release::ReleaseError,
    },
    /// A file that was given.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Laying out a package's files.
    #[error(transparent)]
    Materialise(#[from] MaterialiseError),
    /// A folder that should be made.
    #[error("{}: {error}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// What the device says.
    #[error(transparent)]
    Problem(#[from] colibri_device::daemon::wire::Problem),
    /// The daemon's socket.
    #[error("the device's daemon at {}: {error}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The daemon, or what it says.
    #[error(
        "the device or its daemon does not answer as it should: {0}; what was fetched and verified is kept: see `device status`, then try again"
    )]
    Daemon(String),
    /// The daemon's socket cannot be made.
    #[error(transparent)]
    Transport(#[from] colibri_transport::TransportError),
    /// Mistakes in the layers of configuration.
    #[error(transparent)]
    Config(#[from] colibri_service::ConfigErrors),
    /// A value of the configuration that means nothing.
    #[error("{key}: {reason}")]
    ConfigKey {
        /// Which part of it.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What every long-running process has.
    #[error(transparent)]
    Service(#[from] colibri_service::ServiceError),
    /// An update.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The device's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task was lost.
    #[error("an internal task stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A person pressed Ctrl-C.
    #[error("interrupted: what was fetched and verified is kept; the same command goes on from there")]
    Interrupted,
}

impl DeviceVerbError {
    /// 2 for wrong usage, 64 for a bad configuration, else 1.
    pub fn exit_code(&self) -> ExitCode {
        if matches!(self, Self::Config(_) | Self::ConfigKey { .. }) {
            return ExitCode::from(colibri_service::EXIT_BAD_CONFIGURATION);
        }
        let is_usage = match self {
            Self::Argument { .. } => true,
            Self::Configuration(error) => error.is_usage(),
            _ => false,
        };
        if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}
