//! [`audit`]: every anchored package of a release with all of its subpackages, as lines that people review (RFC-0212, change 3).
//!
//! Versions are left out on purpose: they change with every release, and what should catch the eye is a package that was not
//! there before. Deliberately absent: files.

use std::collections::BTreeSet;

use colibri_common::BlobId;

use crate::error::ReleaseError;
use crate::grid::Versioning;
use crate::limits::AUDIT_LINES_MAX;
use crate::release::Release;

/// How a list differs from the golden one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditDiff {
    /// Lines of the release only.
    pub added: Vec<String>,
    /// Lines of the golden list only.
    pub removed: Vec<String>,
}

/// The list of a release, sorted: `SET URL`, and for subpackages `SET URL NAME/NAME`, to any depth. Boot packages are anchored
/// too, and their set is called `boot`.
///
/// # Errors
/// There are too many, as when subpackages are nested so as to multiply.
pub fn audit(release: &Release) -> Result<BTreeSet<String>, ReleaseError> {
    let mut lines = BTreeSet::new();
    let anchored = release.packages().iter().filter(|package| package.versioning == Versioning::Anchored);
    let anchored = anchored.filter_map(|package| {
        Some((format!("{} & {} {}", package.availability, package.versioning, package.url), package.hash?))
    });
    let boot = release.boot().iter().map(|package| (format!("boot fuchsia-boot:///{}", package.name), package.hash));
    for (name, hash) in anchored.chain(boot) {
        lines.insert(name.clone());
        let mut open: Vec<(BlobId, Vec<BlobId>, String)> = vec![(hash, Vec::new(), String::new())];
        while let Some((hash, above, path)) = open.pop() {
            if above.contains(&hash) {
                // A document could say so; no package can.
                continue;
            }
            for subpackage in release.contents_of(hash).into_iter().flat_map(|contents| &contents.subpackages) {
                let separator = if path.is_empty() { "" } else { "/" };
                let path = format!("{path}{separator}{}", subpackage.name);
                lines.insert(format!("{name} {path}"));
                if lines.len() as u64 > AUDIT_LINES_MAX {
                    return Err(ReleaseError::TooMany {
                        what: "anchored packages and subpackages",
                        limit: AUDIT_LINES_MAX,
                    });
                }
                open.push((subpackage.hash, [&above[..], &[hash]].concat(), path));
            }
        }
    }
    Ok(lines)
}

impl AuditDiff {
    /// Compares a list with a golden file: lines in any order; empty ones and those that begin with `#` do not count.
    pub fn of(lines: &BTreeSet<String>, golden: &str) -> Self {
        let golden = golden.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let golden: BTreeSet<String> = golden.map(str::to_owned).collect();
        Self {
            added: lines.difference(&golden).cloned().collect(),
            removed: golden.difference(lines).cloned().collect(),
        }
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}
