//! Delegated roles of a [`TrustedSet`] taken by name, for who keeps or passes on whole sets. Who looks for one target searches
//! instead ([`crate::Search`]), and meets only the roles that cover it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::delegations::Delegations;
use crate::envelope::Keyring;
use crate::error::{MetadataError, Rule};
use crate::limits::Caps;
use crate::role::{FileMeta, Role, RoleName};
use crate::rules::{self, Held};
use crate::search::BY_DELEGATOR;
use crate::targets::Targets;
use crate::trust::TrustedSet;
use crate::update::Want;

/// §5.6.2 to §5.6.5 for a delegated role: what the snapshot says of the file, the delegator's keys, version and expiry.
pub(crate) fn believe(
    file: &Bytes,
    meta: &FileMeta,
    ring: Option<Keyring<'_>>,
    caps: &Caps,
    now: UnixSeconds,
) -> Result<Held<Targets>, Rule> {
    rules::size(file, bytes_max(meta, caps))?;
    rules::against_parent(file, meta, Role::Snapshot)?;
    let held: Held<Targets> = rules::signed(file, ring.ok_or(Rule::NotDelegated)?, BY_DELEGATOR)?;
    rules::expect_version(held.role.version(), meta.version)?;
    rules::fresh(held.role.expires(), now)?;
    Ok(held)
}

fn bytes_max(meta: &FileMeta, caps: &Caps) -> u64 {
    meta.length.map_or(caps.targets_bytes, |length| length.min(caps.targets_bytes))
}

/// What to ask for to get a delegated role.
pub(crate) fn want(role: &RoleName, meta: &FileMeta, numbered: bool, caps: &Caps) -> Want {
    let name = if numbered { role.numbered_file(meta.version) } else { role.file() };
    Want { name, bytes_max: bytes_max(meta, caps), role: Role::Targets }
}

impl TrustedSet {
    /// The delegated roles that [`Self::delegated_names`] gives, but which are not held. More may come up when these are
    /// taken: delegates delegate, too.
    pub fn delegated_missing(&self) -> Vec<RoleName> {
        let mut names = self.delegated_names();
        names.retain(|name| !self.delegated.contains_key(name));
        names
    }

    /// The delegated roles that the snapshot lists and a role held here delegates to.
    pub fn delegated_names(&self) -> Vec<RoleName> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let delegations: Vec<_> = self.delegators().collect();
        let named: BTreeSet<&RoleName> =
            delegations.iter().flat_map(|delegations| delegations.roles().iter().map(|role| &role.name)).collect();
        let succinct: Vec<_> =
            delegations.iter().filter(|delegations| delegations.succinct_roles().is_some()).collect();
        let is_delegated =
            |name: &RoleName| named.contains(name) || succinct.iter().any(|bins| bins.role_keys(name).is_some());
        let names = snapshot.meta().keys().filter_map(|listed| listed.strip_suffix(".json")?.parse::<RoleName>().ok());
        names.filter(is_delegated).collect()
    }

    /// The file to ask for to get a delegated role that the snapshot lists.
    pub fn delegated_want(&self, name: &RoleName) -> Option<Want> {
        let meta = self.snapshot()?.meta().get(&name.listed_as())?;
        Some(want(name, meta, self.root().consistent_snapshot(), &Caps::default()))
    }

    /// A delegated role that is held.
    pub fn delegated_role(&self, name: &RoleName) -> Option<Arc<Targets>> {
        self.delegated.get(name).map(|held| held.role.clone())
    }

    /// Whether `file` is the delegated role of this name that the snapshot lists, on the word of a role held here, and has
    /// not expired at `now`; then what it says.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn check_delegated(
        &self,
        name: &RoleName,
        file: &Bytes,
        now: UnixSeconds,
    ) -> Result<Arc<Targets>, MetadataError> {
        self.believe_delegated(name, file, now).map(|held| held.role)
    }

    /// [`Self::check_delegated`], and keeps the role.
    ///
    /// # Errors
    /// As there.
    pub fn take_delegated(&mut self, name: &RoleName, file: &Bytes, now: UnixSeconds) -> Result<(), MetadataError> {
        let held = self.believe_delegated(name, file, now)?;
        self.keep_delegated(name.clone(), held);
        Ok(())
    }

    fn believe_delegated(
        &self,
        name: &RoleName,
        file: &Bytes,
        now: UnixSeconds,
    ) -> Result<Held<Targets>, MetadataError> {
        let wrong = |rule| MetadataError::new(Role::Targets, name.file(), rule);
        let meta = self.snapshot().and_then(|snapshot| snapshot.meta().get(&name.listed_as()));
        let meta = meta.ok_or_else(|| wrong(Rule::NotListed(name.listed_as())))?;
        let mut refused = Rule::NotDelegated;
        for ring in self.delegators().filter_map(|delegations| delegations.keyring(name)) {
            match believe(file, meta, Some(ring), &Caps::default(), now) {
                Ok(held) => return Ok(held),
                Err(rule) => refused = rule,
            }
        }
        Err(wrong(refused))
    }

    fn delegators(&self) -> impl Iterator<Item = &Delegations> {
        let top = self.targets.iter().map(|held| &held.role);
        top.chain(self.delegated.values().map(|held| &held.role)).filter_map(|role| role.delegations())
    }
}
