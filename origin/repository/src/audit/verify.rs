//! Whether the audit log tells all: the chain of its lines, and every signed snapshot at hand that names one of them.
//!
//! What this can find: a line that was changed, taken out, put in or moved; lines missing at the end that a snapshot names, or
//! that tell of files which are visible now. What it cannot: lies told in a line when it was written.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::UnixSeconds;
use colibri_metadata::Role;
use serde_json::Value;

use super::{Anchor, Line, NO_LINE, digests, lines_of};
use crate::draft::{Change, Signing};
use crate::error::RepositoryError;
use crate::gate::Pass;
use crate::repository::Repository;
use crate::{layout, roles};

/// What the audit log is worth.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditReport {
    /// Lines that hold together with the lines before them.
    pub lines: u64,
    /// Hash of the last one.
    pub head: String,
    /// Signed snapshots whose word on the log was checked.
    pub anchors: u64,
    /// What must not be: any of these and the log does not tell all.
    pub findings: Vec<String>,
    /// What is worth knowing, such as losses that were admitted.
    pub notices: Vec<String>,
}

impl AuditReport {
    /// Whether nothing was found.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What was read, and what is wrong with it before each admitted or open loss.
#[derive(Default)]
struct Walk {
    lines: Vec<Line>,
    /// Numbers of `gap` lines and what is wrong before them; the last without a number is what is wrong after all of them.
    stretches: Vec<(Option<u64>, Vec<String>)>,
    open: Vec<String>,
}

impl Repository {
    /// Follows the audit log from its first line to its last and compares it with every snapshot in the repository.
    ///
    /// # Errors
    /// The metadata is damaged, or the log cannot be read. What is wrong with the log is in the report.
    pub fn audit_verify(&self) -> Result<AuditReport, RepositoryError> {
        let committed = self.metadata.committed()?;
        let mut report = AuditReport { head: NO_LINE.to_owned(), ..AuditReport::default() };
        let mut walk = self.walk()?;
        for line in &walk.lines {
            report.lines += 1;
            report.head.clone_from(&line.hash);
        }
        let by_number: BTreeMap<u64, &Line> = walk.lines.iter().map(|line| (line.number, line)).collect();
        let last_gap = walk.stretches.iter().rev().find_map(|(gap, _)| *gap).unwrap_or(0);
        let mut missing = Vec::new();
        let mut before = 0;
        for (file, anchor) in self.anchors()? {
            match anchor.lines.checked_sub(1).and_then(|number| by_number.get(&number)) {
                Some(line) if line.hash == anchor.head => report.anchors += 1,
                // What a gap replaced is told by the gap.
                _ if anchor.lines <= last_gap => before += 1,
                Some(line) => missing.push(format!("{file} names another line {} than the log has", line.number)),
                None => missing.push(format!("{file} names line {}, which the log does not have", anchor.lines)),
            }
        }
        if before > 0 {
            report.notices.push(format!("{before} snapshots name lines that were lost before line {last_gap}"));
        }
        if Anchor::of(&committed).is_some() {
            let told: BTreeSet<&str> = walk.lines.iter().filter_map(|line| line.text("sha256")).collect();
            let untold = digests(&committed).into_iter().filter(|(_, digest)| !told.contains(digest.as_str()));
            // What was signed elsewhere, before a loss, stays untold.
            let online = [Role::Snapshot.file(), Role::Timestamp.file()];
            let untold = untold.filter(|(file, _)| last_gap == 0 || online.contains(&file.as_str()));
            missing.extend(untold.map(|(file, _)| format!("no line tells of {file}, which is in force")));
        } else {
            report.notices.push("the snapshot in force names no line of the log: another tool signed it".to_owned());
        }
        walk.open.extend(missing);
        let admitted = admitted(&walk.lines);
        for (gap, wrong) in walk.stretches.drain(..) {
            let Some(gap) = gap else { continue };
            if admitted.contains(&gap) {
                report.notices.push(format!("line {gap} tells that lines were lost, which was admitted"));
                report.notices.extend(wrong);
            } else {
                report.findings.push(format!(
                    "line {gap} tells that lines were lost; nobody has said why (`repo audit admit --reason TEXT`)"
                ));
                report.findings.extend(wrong);
            }
        }
        report.findings.append(&mut walk.open);
        Ok(report)
    }

    /// Every document of the log in order; what does not hold together is told.
    fn walk(&self) -> Result<Walk, RepositoryError> {
        let mut walk = Walk::default();
        for number in self.audit.parts()? {
            let Some(bytes) = self.audit.part(number)? else { continue };
            let Some(lines) = lines_of(&bytes).filter(|lines| lines[0].number == number) else {
                walk.open.push(format!("audit/{number:012} was changed: its lines do not follow each other"));
                continue;
            };
            let (next, head) = walk.lines.last().map_or((0, NO_LINE), |line| (line.number + 1, line.hash.as_str()));
            if lines[0].text("act") == Some("gap") {
                let wrong = std::mem::take(&mut walk.open);
                walk.stretches.push((Some(number), wrong));
            } else if lines[0].number != next || lines[0].previous != head {
                walk.open.push(format!(
                    "line {number} does not follow the line before it: a line was changed, taken out, put in or moved"
                ));
            }
            walk.lines.extend(lines);
        }
        Ok(walk)
    }

    /// What every snapshot in the repository says of the log.
    fn anchors(&self) -> Result<Vec<(String, Anchor)>, RepositoryError> {
        let mut anchors = Vec::new();
        for name in self.storage.list(&format!("{}/", layout::SERVED))? {
            if !name.as_str().ends_with(Role::Snapshot.file()) {
                continue;
            }
            let bytes = self.storage.read(&name, Role::Snapshot.bytes_max())?;
            let anchor = bytes.and_then(|bytes| Anchor::of_signed(&roles::signed_part(&bytes)?));
            anchors.extend(anchor.map(|anchor| (name.as_str().to_owned(), anchor)));
        }
        Ok(anchors)
    }

    /// Every line of the log that can be read, as JSON, in order.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn audit_lines(&self) -> Result<Vec<Value>, RepositoryError> {
        Ok(self.walk()?.lines.into_iter().map(|line| line.value).collect())
    }

    /// Says for every loss in the log why it is one, so that [`Self::audit_verify`] no longer fails for it; signs a snapshot,
    /// so that the words cannot be taken back. Gives how many losses there were.
    ///
    /// # Errors
    /// There is no reason (see [`Self::with_act`]), nothing to admit, or a key is missing.
    pub fn audit_admit(&self, now: UnixSeconds) -> Result<u64, RepositoryError> {
        if self.act.reason.as_ref().is_none_or(|reason| reason.trim().is_empty()) {
            return Err(RepositoryError::AuditText("a loss is admitted with a reason".to_owned()));
        }
        let open = |repository: &Self| {
            let walk = repository.walk()?;
            let admitted = admitted(&walk.lines);
            let gaps = walk.stretches.iter().filter_map(|(gap, _)| *gap).filter(|gap| !admitted.contains(gap));
            Ok::<_, RepositoryError>(gaps.collect::<Vec<_>>())
        };
        let pass = Pass { now, because: None, past_gate: None, look_at_all: false };
        if open(self)?.is_empty() {
            // A loss that nobody has signed over yet becomes a line now; if there is none, nothing has changed.
            if self.audit_verify()?.is_good() {
                return Err(RepositoryError::AuditText("it has no loss that is not admitted yet".to_owned()));
            }
            self.transact(&self.terms(now, false), &pass, &mut |_| Ok(Change::default()))?;
        }
        let gaps = open(self)?;
        if gaps.is_empty() {
            return Err(RepositoryError::AuditText(
                "what is wrong with it is not at its end, where lines are added: keep a copy of the folder audit/"
                    .to_owned(),
            ));
        }
        let plan = &mut |_: &_| Ok(Change::default());
        self.transact_with(&self.terms(now, false), &pass, plan, &mut |signing: &mut Signing<'_>| {
            gaps.iter().try_for_each(|gap| signing.pending().admit(*gap))
        })?;
        Ok(gaps.len() as u64)
    }
}

/// Numbers of the losses that were admitted.
fn admitted(lines: &[Line]) -> BTreeSet<u64> {
    let admits = lines.iter().filter(|line| line.text("act") == Some("admit"));
    admits.filter_map(|line| line.value.get("gap")?.as_u64()).collect()
}
