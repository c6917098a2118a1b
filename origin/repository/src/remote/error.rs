//! [`RemoteError`]: why publishing over the network failed, naming what is at fault.

use colibri_transport::{ClientError, ClientErrorKind, TransportError};
use http::StatusCode;

use crate::error::RepositoryError;
use crate::wire::{NeededBlob, WriteProblem};

/// Blobs and packages named in one message.
const SHOWN_MAX: usize = 10;

/// Why a running origin did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The address is not one.
    #[error("{0}")]
    Url(String),
    /// The token cannot stand in a header.
    #[error("the token has characters that no token has: is it the right file?")]
    Token,
    /// Nobody says who the origin is.
    #[error("writing needs to know whom it talks to: name a certificate authority or a pin")]
    Untrusted,
    /// A file of the publisher.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A certificate, key or trust setting.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No answer.
    #[error("the origin cannot be reached: {0}")]
    Client(#[from] ClientError),
    /// The origin says no.
    #[error("the origin refuses ({}): {}{}", .status.as_u16(), .problem.detail, listed(.problem))]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What it says.
        problem: Box<WriteProblem>,
        /// Where an upload goes on, if it says.
        offset: Option<u64>,
    },
    /// An answer that is none.
    #[error("the origin's answer to {what} cannot be used: {reason}")]
    Answer {
        /// What was asked.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// An upload never came to its end.
    #[error("the upload of {path} (blob {id}) stopped {attempts} times without getting on; last: {last}")]
    Stuck {
        /// The source file.
        path: String,
        /// The blob.
        id: colibri_common::BlobId,
        /// How often.
        attempts: u32,
        /// Why the last time.
        last: Box<RemoteError>,
    },
    /// This program is ending.
    #[error("stopped")]
    Stopped,
}

fn listed(problem: &WriteProblem) -> String {
    let blobs = problem.blobs.iter().map(NeededBlob::to_string);
    let packages = problem.wrong.iter().map(|wrong| format!("package {}: {}", wrong.package, wrong.reason));
    let all: Vec<_> = blobs.chain(packages).collect();
    let mut text: String = all.iter().take(SHOWN_MAX).map(|line| format!("\n  {line}")).collect();
    if all.len() > SHOWN_MAX {
        text.push_str(&format!("\n  and {} more", all.len() - SHOWN_MAX));
    }
    text
}

impl RemoteError {
    pub(super) fn refused(status: StatusCode, mut problem: WriteProblem, offset: Option<u64>) -> Self {
        if problem.detail.is_empty() {
            problem.detail = "no reason was given; is this the write API of an origin?".to_owned();
        }
        Self::Refused { status, problem: Box::new(problem), offset }
    }

    pub(super) fn answer(what: &str, reason: &dyn std::fmt::Display) -> Self {
        Self::Answer { what: what.to_owned(), reason: reason.to_string() }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Client(error) => !matches!(error.kind, ClientErrorKind::Tls | ClientErrorKind::Request),
            Self::Refused { status, problem, .. } => {
                let shed = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                // A gate that did not open has been waited for already.
                *status == StatusCode::SERVICE_UNAVAILABLE && !problem.kind.ends_with(":held") || shed.contains(status)
            }
            _ => false,
        }
    }
}
