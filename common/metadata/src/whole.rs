//! Whole sets: every delegated role that a snapshot lists, verified at once, for who passes a repository on or takes it back.
//!
//! A [`crate::Search`] meets roles one by one and needs no more than a target's; here all are wanted, nested ones too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::envelope::Keyring;
use crate::error::{MetadataError, Rule};
use crate::fields::malformed;
use crate::limits;
use crate::role::{FileMeta, Role, RoleName};
use crate::rules::{self, Held};
use crate::search::BY_DELEGATOR;
use crate::targets::Targets;
use crate::trust::TrustedSet;

impl TrustedSet {
    /// The delegated roles that the snapshot lists, and what it says of their files. Whether anybody delegates to them is not
    /// said.
    pub fn listed_roles(&self) -> impl Iterator<Item = (RoleName, &FileMeta)> {
        let listed = self.snapshot().into_iter().flat_map(|snapshot| snapshot.meta());
        listed.filter_map(|(name, meta)| Some((name.strip_suffix(".json")?.parse().ok()?, meta)))
    }

    /// The name under which a repository serves the file of a delegated role.
    pub fn file_of(&self, role: &RoleName, version: u32) -> String {
        if self.root().consistent_snapshot() { role.numbered_file(version) } else { role.file() }
    }

    /// This set with every delegated role that its snapshot lists and that can be reached from targets. The first that delegates
    /// to a role, from the top down, decides whether it is signed as it must be. `read` gives the file of a role, if it is there.
    ///
    /// # Errors
    /// This set is not whole, or a role is missing, has expired at `now`, or breaks another rule of a search.
    pub fn with_delegated(
        mut self,
        mut read: impl FnMut(&RoleName, &FileMeta) -> Option<Bytes>,
        now: UnixSeconds,
    ) -> Result<Self, MetadataError> {
        let top = self.targets.as_ref().filter(|_| self.is_whole()).map(|held| held.role.clone());
        let top =
            top.ok_or_else(|| error(Role::Targets.file(), Rule::OutOfStep("the set is not whole: refresh it first")))?;
        let listed: BTreeMap<RoleName, FileMeta> =
            self.listed_roles().map(|(role, meta)| (role, meta.clone())).collect();
        if listed.len() as u64 > limits::DELEGATED_ROLES_HELD_MAX {
            let rule = malformed(format!("it lists more than {} roles", limits::DELEGATED_ROLES_HELD_MAX));
            return Err(error(Role::Snapshot.file(), rule));
        }
        let (mut open, mut met, mut found) = (VecDeque::from([top]), BTreeSet::new(), BTreeMap::new());
        while let Some(delegator) = open.pop_front() {
            for (name, ring) in delegates(&delegator, &listed) {
                if !met.insert(name.clone()) {
                    continue;
                }
                let meta = &listed[name];
                let held = check(read(name, meta), meta, ring, now).map_err(|rule| error(&name.file(), rule))?;
                open.push_back(held.role.clone());
                found.insert(name.clone(), held);
            }
        }
        self.delegated = found;
        Ok(self)
    }
}

/// The listed roles that one role delegates to.
fn delegates<'a>(
    delegator: &'a Arc<Targets>,
    listed: &'a BTreeMap<RoleName, FileMeta>,
) -> impl Iterator<Item = (&'a RoleName, Keyring<'a>)> {
    let delegations = delegator.delegations().into_iter();
    delegations.flat_map(move |to| {
        let named = to.roles().iter().filter_map(|role| Some((listed.get_key_value(&role.name)?.0, &role.keys)));
        let bins = to.succinct_roles().into_iter().flat_map(|_| listed.keys());
        let bins = bins.filter_map(|name| Some((name, to.role_keys(name)?)));
        named.chain(bins).map(|(name, role)| (name, Keyring { keys: to.keys(), role }))
    })
}

/// §5.6.2 to §5.6.5 for a delegated role.
fn check(file: Option<Bytes>, meta: &FileMeta, ring: Keyring<'_>, now: UnixSeconds) -> Result<Held<Targets>, Rule> {
    let bytes = file.ok_or(Rule::Missing)?;
    rules::size(&bytes, Role::Targets.bytes_max())?;
    rules::against_parent(&bytes, meta, Role::Snapshot)?;
    let held: Held<Targets> = rules::signed(&bytes, ring, BY_DELEGATOR)?;
    rules::expect_version(held.role.version(), meta.version)?;
    rules::fresh(held.role.expires(), now)?;
    Ok(held)
}

fn error(file: &str, rule: Rule) -> MetadataError {
    MetadataError::new(Role::Targets, file, rule)
}
