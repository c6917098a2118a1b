//! The audit log: one line for each signing act, each with the hash of the line before it.
//!
//! The lines of one draft are one document, `audit/N` (N is the number of the first), made by a create-only write: it is there
//! whole or not at all, whatever crashes, and two publishers cannot both continue the log. Every snapshot signed here names the
//! last line (`custom.audit`), so that whoever has a snapshot can tell whether lines are missing, changed or in another order.
//! Lines are durable before what they tell of becomes visible. Lines that a signed snapshot names and that are gone leave a
//! `gap` line, for which [`Repository::audit_verify`](crate::Repository::audit_verify) fails until somebody has admitted it.
//! Deliberately absent: who may sign; reading the log for people (`verify`).

mod verify;

use std::sync::Arc;

use bytes::Bytes;
use colibri_common::{UnixSeconds, hex, sha256};
use colibri_metadata::{Role, TrustedSet, canonical, utc};
use colibri_store::DocumentName;
use serde_json::{Map, Value, json};

use crate::bins::Bins;
use crate::error::RepositoryError;
use crate::keys::KeyRole;
use crate::roles::{self, SignedFile};
use crate::storage::Storage;
use crate::{layout, limits};

pub use verify::AuditReport;

/// The line before the first.
pub(crate) const NO_LINE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Who signs and why, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Act {
    /// Who, as far as the caller knows.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What a snapshot says of the log: how many lines there were, the hash of the last, and where the document begins whose
/// lines tell of the snapshot itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub lines: u64,
    pub head: String,
    pub part: u64,
}

impl Anchor {
    /// What the signed part of a snapshot says.
    pub fn of_signed(signed: &Map<String, Value>) -> Option<Self> {
        Self::of_custom(signed.get("custom")?)
    }

    fn of_custom(custom: &Value) -> Option<Self> {
        let audit = custom.get("audit")?;
        let number = |name: &str| audit.get(name)?.as_u64();
        Some(Self { lines: number("lines")?, head: audit.get("head")?.as_str()?.to_owned(), part: number("part")? })
    }

    fn of(committed: &TrustedSet) -> Option<Self> {
        Self::of_custom(committed.snapshot()?.custom())
    }
}

/// A line that was read.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub number: u64,
    pub previous: String,
    pub hash: String,
    pub value: Value,
}

impl Line {
    /// Reads one line, without its end.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let value = canonical::parse(bytes).ok()?;
        let number = value.get("n")?.as_u64()?;
        let previous = value.get("prev")?.as_str()?.to_owned();
        Some(Self { number, previous, hash: hex(&sha256(bytes)), value })
    }

    /// One of its texts.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.value.get(name)?.as_str()
    }
}

/// The lines of one document, which follow each other; nothing if one does not.
pub(crate) fn lines_of(bytes: &[u8]) -> Option<Vec<Line>> {
    let text = bytes.strip_suffix(b"\n")?;
    let lines = text.split(|byte| *byte == b'\n').map(Line::parse).collect::<Option<Vec<_>>>()?;
    let follow =
        |pair: &[Line]| pair[1].previous == pair[0].hash && pair[0].number.checked_add(1) == Some(pair[1].number);
    lines.windows(2).all(follow).then_some(lines)
}

/// The log of one repository.
#[derive(Debug, Clone)]
pub(crate) struct AuditLog {
    storage: Arc<dyn Storage>,
}

impl AuditLog {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
    }

    fn part(&self, first_line: u64) -> Result<Option<Bytes>, RepositoryError> {
        Ok(self.storage.read(&layout::audit(first_line)?, limits::AUDIT_PART_BYTES_MAX)?)
    }

    /// The numbers of first lines, growing.
    pub fn parts(&self) -> Result<Vec<u64>, RepositoryError> {
        let prefix = format!("{}/", layout::AUDIT);
        let number = |name: &DocumentName| name.as_str().strip_prefix(&prefix)?.parse().ok();
        let mut parts: Vec<u64> = self.storage.list(&prefix)?.iter().filter_map(number).collect();
        parts.sort_unstable();
        Ok(parts)
    }

    /// Where the next line goes, after `committed`. If lines are missing that it names, the first new line says so.
    pub fn begin(
        &self,
        committed: Option<&TrustedSet>,
        act: &Act,
        now: UnixSeconds,
    ) -> Result<Pending, RepositoryError> {
        let anchor = committed.and_then(Anchor::of);
        let at = utc::format(now).ok_or_else(|| RepositoryError::OutOfRange(format!("the time {} s", now.0)))?;
        let after = |lines, head| Pending { first: lines, lines, head, at, act: act.clone(), text: Vec::new() };
        let end = match (&anchor, committed) {
            (Some(anchor), Some(committed)) => self.end_after(anchor, &online_digests(committed))?,
            // Nothing visible names a line: whatever holds together is the log.
            _ => self.end_from(0, NO_LINE.to_owned(), &mut Vec::new())?,
        };
        if let Some((lines, head)) = end {
            let mut pending = after(lines, head);
            if lines == 0 {
                pending.push(json!({"act": "begin"}))?;
            }
            return Ok(pending);
        }
        tracing::error!(repository = %self.storage.place().display(), "the audit log lacks lines that the signed snapshot names");
        let free = self.parts()?.last().map_or(0, |last| last + limits::AUDIT_PART_LINES_MAX);
        let (lines, head) = anchor.map_or((0, NO_LINE.to_owned()), |anchor| (anchor.lines, anchor.head));
        let mut pending = after(lines.max(free), head);
        pending.push(json!({"act": "gap"}))?;
        Ok(pending)
    }

    /// The end of the log, if it holds what the anchor names and tells of what is visible.
    fn end_after(
        &self,
        anchor: &Anchor,
        digests: &[(String, String)],
    ) -> Result<Option<(u64, String)>, RepositoryError> {
        let Some(bytes) = self.part(anchor.part)? else { return Ok(None) };
        let Some(mut lines) = lines_of(&bytes).filter(|lines| lines[0].number == anchor.part) else { return Ok(None) };
        let named = lines.iter().find(|line| line.number.checked_add(1) == Some(anchor.lines));
        let held = match named {
            Some(line) => line.hash == anchor.head,
            // The snapshot is the first thing that this document tells of.
            None => lines[0].number == anchor.lines && lines[0].previous == anchor.head,
        };
        let last = lines.last().map(|line| (line.number + 1, line.hash.clone()));
        let (Some((next, head)), true) = (last, held) else { return Ok(None) };
        let end = self.end_from(next, head, &mut lines)?;
        let told = |file: &str| {
            let digest = digests.iter().find(|(name, _)| name == file).map(|(_, digest)| digest.as_str());
            digest.is_some_and(|digest| lines.iter().any(|line| line.text("sha256") == Some(digest)))
        };
        Ok(end.filter(|_| told(Role::Snapshot.file()) && told(Role::Timestamp.file())))
    }

    /// Follows the log from line `next` to its end; nothing if a document does not follow.
    fn end_from(
        &self,
        mut next: u64,
        mut head: String,
        lines: &mut Vec<Line>,
    ) -> Result<Option<(u64, String)>, RepositoryError> {
        while let Some(bytes) = self.part(next)? {
            let Some(part) = lines_of(&bytes) else { return Ok(None) };
            if part[0].number != next || part[0].previous != head {
                return Ok(None);
            }
            next += part.len() as u64;
            head.clone_from(&part[part.len() - 1].hash);
            lines.extend(part);
        }
        Ok(Some((next, head)))
    }

    /// Makes the lines durable; false if another program has continued the log meanwhile. What they tell of must not be
    /// visible before.
    pub fn append(&self, pending: &Pending) -> Result<bool, RepositoryError> {
        if pending.text.is_empty() {
            return Ok(true);
        }
        Ok(self.storage.create(&layout::audit(pending.first)?, &pending.text.clone().into())?)
    }
}

/// SHA-256 of each file that is committed, by name. Hash bins are left out: they are told of together, and which are held is
/// chance.
pub(crate) fn digests(committed: &TrustedSet) -> Vec<(String, String)> {
    let files = committed.files().filter(|(name, _)| !name.strip_suffix(".json").is_some_and(Bins::is_bin));
    files.map(|(name, bytes)| (name.to_string(), hex(&sha256(bytes)))).collect()
}

/// SHA-256 of what is signed with every change.
fn online_digests(committed: &TrustedSet) -> Vec<(String, String)> {
    let is_online = |name: &str| [Role::Snapshot.file(), Role::Timestamp.file()].contains(&name);
    let online = committed.files().filter(|(name, _)| is_online(name));
    online.map(|(name, bytes)| (name.to_string(), hex(&sha256(bytes)))).collect()
}

/// Lines that are not durable yet.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Number of the first of them.
    first: u64,
    /// Number of the next one.
    lines: u64,
    head: String,
    at: String,
    act: Act,
    text: Vec<u8>,
}

impl Pending {
    /// Adds a line.
    fn push(&mut self, mut line: Value) -> Result<(), RepositoryError> {
        if let Value::Object(map) = &mut line {
            map.insert("n".into(), json!(self.lines));
            map.insert("prev".into(), json!(self.head));
            map.insert("at".into(), json!(self.at));
            for (name, text) in [("by", &self.act.by), ("reason", &self.act.reason)] {
                if let Some(text) = text {
                    map.insert(name.into(), json!(text));
                }
            }
        }
        roles::check_text(&line).map_err(RepositoryError::AuditText)?;
        let bytes = canonical::encode(&line).map_err(|e| RepositoryError::AuditText(e.to_string()))?;
        if bytes.len() as u64 > limits::AUDIT_LINE_BYTES_MAX {
            return Err(RepositoryError::AuditText(format!("it has more than {} bytes", limits::AUDIT_LINE_BYTES_MAX)));
        }
        if self.lines - self.first >= limits::AUDIT_PART_LINES_MAX {
            return Err(RepositoryError::AuditText("too many lines at once".to_owned()));
        }
        self.head = hex(&sha256(&bytes));
        self.lines += 1;
        self.text.extend_from_slice(&bytes);
        self.text.push(b'\n');
        Ok(())
    }

    /// Tells of targets files that were signed (`sign`) or taken over (`adopt`) together. Where they are many, as when all hash bins are signed, one line tells
    /// how many, with a hash over names, versions and hashes in the order of names; `targets.json` has a line of its own.
    pub fn record_targets(&mut self, act: &str, files: &[SignedFile]) -> Result<(), RepositoryError> {
        if files.len() as u64 <= limits::AUDIT_FILES_NAMED_MAX {
            return files.iter().try_for_each(|file| self.record(act, KeyRole::Targets, file));
        }
        let line = |file: &SignedFile| format!("{} {} {}\n", file.file, file.version, hex(&sha256(&file.bytes)));
        let (top, bins): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.is(Role::Targets));
        let mut listed: Vec<String> = bins.iter().map(|file| line(file)).collect();
        listed.sort_unstable();
        self.push(json!({
            "act": act,
            "role": KeyRole::Targets.name(),
            "files": bins.len(),
            "sha256": hex(&sha256(listed.concat().as_bytes())),
            "keys": files[0].key_ids,
        }))?;
        top.into_iter().try_for_each(|file| self.record(act, KeyRole::Targets, file))
    }

    /// Tells of a file: `sign`, or `adopt` if it was signed elsewhere.
    pub fn record(&mut self, act: &str, role: KeyRole, file: &SignedFile) -> Result<(), RepositoryError> {
        self.push(json!({
            "act": act,
            "role": role.name(),
            "file": file.file,
            "version": file.version,
            "length": file.bytes.len(),
            "sha256": hex(&sha256(&file.bytes)),
            "keys": file.key_ids,
        }))
    }

    /// Admits the gap at line `number`.
    pub fn admit(&mut self, number: u64) -> Result<(), RepositoryError> {
        self.push(json!({"act": "admit", "gap": number}))
    }

    /// What the snapshot signed next says of the log.
    pub fn anchor(&self) -> Value {
        json!({"lines": self.lines, "head": self.head, "part": self.first})
    }
}
