//! [`Audit`]: one line per act, to the log and, if asked for, to a file of JSON lines.
//!
//! What is signed has a chained log of its own in the repository; this one says who asked for it over the network.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use colibri_common::UnixSeconds;
use serde::Serialize;

/// One act.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AuditLine<'a> {
    /// When, in seconds since 1970.
    pub time: UnixSeconds,
    /// Who, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<&'a str>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// What, as far as understood.
    pub act: &'a str,
    /// To which repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<&'a str>,
    /// About which blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
    /// What came of it, or why not.
    pub outcome: &'a str,
}

/// Where acts are recorded.
pub(crate) struct Audit(Option<Mutex<File>>);

impl Audit {
    /// Opens the file for appending; made, for its owner only, if it is missing.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path: &Path| OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        Ok(Self(path.map(open).transpose()?.map(Mutex::new)))
    }

    /// Records an act. A file that cannot be written is said in the log, which has the line too. Blocks for a moment.
    pub fn record(&self, line: &AuditLine<'_>) {
        let AuditLine { who, peer, act, repository, blob, status, outcome, .. } = line;
        tracing::info!(
            target: "colibri::audit",
            who, peer, act, repository, blob, status, outcome, "write API"
        );
        let Some(file) = &self.0 else { return };
        let written = serde_json::to_vec(line).map_err(io::Error::other).and_then(|mut text| {
            text.push(b'\n');
            // One write per line: appended whole, whoever else appends.
            file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text)
        });
        if let Err(error) = written {
            tracing::error!(%error, "the audit file cannot be written");
        }
    }
}
