//! [`TrustAnchor`]: what a program is told to trust at first; [`TrustedSet`]: what an update proved, with exact bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::envelope::Keyring;
use crate::error::{MetadataError, Rule};
use crate::key::PublicKey;
use crate::limits::{self, Caps};
use crate::online::{Snapshot, Timestamp};
use crate::role::{Document, Role, RoleName};
use crate::root::Root;
use crate::rules::{self, BY_ROOT, Held};
use crate::search;
use crate::target::{TargetDescription, TargetName};
use crate::targets::Targets;

/// What a device or an edge is told to trust before it has seen anything.
#[derive(Debug, Clone)]
pub enum TrustAnchor {
    /// A whole root file, obtained over a channel that is trusted.
    RootFile(Bytes),
    /// Root keys, as in a repository configuration: the root with this version must be signed by enough of them.
    Keys {
        /// The keys.
        root_keys: Vec<PublicKey>,
        /// How many of them must sign, at least one.
        root_threshold: u32,
        /// Version of the first root to fetch, at least one.
        root_version: u32,
    },
}

/// Verified metadata with the exact bytes of each file, as the caller stores them.
///
/// Freshness is not part of it: expired copies stay a floor against rollback. An [`crate::Update`] decides freshness.
#[derive(Debug, Clone)]
pub struct TrustedSet {
    pub(crate) root: Held<Root>,
    pub(crate) timestamp: Option<Held<Timestamp>>,
    pub(crate) snapshot: Option<Held<Snapshot>>,
    pub(crate) targets: Option<Held<Targets>>,
    /// Delegated roles that searches met. No floor: that is what the snapshot says of their versions.
    pub(crate) delegated: BTreeMap<RoleName, Held<Targets>>,
    /// Kept, because finding out hashes whole files; see [`TrustedSet::settle`].
    whole: bool,
    set_aside: Vec<MetadataError>,
}

impl TrustedSet {
    /// A set that holds only a root, from a file that is trusted as it is. It must be signed by its own keys.
    ///
    /// # Errors
    /// The rule that the file breaks.
    pub fn from_root_file(bytes: &Bytes) -> Result<Self, MetadataError> {
        Self::from_root_within(bytes, &Caps::default())
    }

    fn from_root_within(bytes: &Bytes, caps: &Caps) -> Result<Self, MetadataError> {
        let at = |rule| MetadataError::new(Role::Root, Role::Root.file(), rule);
        rules::size(bytes, caps.root_bytes).map_err(at)?;
        Ok(Self::from_root(rules::own_root(bytes).map_err(at)?))
    }

    pub(crate) fn from_root(root: Held<Root>) -> Self {
        let delegated = BTreeMap::new();
        Self { root, timestamp: None, snapshot: None, targets: None, delegated, whole: false, set_aside: Vec::new() }
    }

    /// Takes back stored files under their unnumbered names (see [`Self::files`]; other names are ignored), re-verified
    /// against the stored root. A file that the root does not vouch for is left out and listed by [`Self::set_aside`]:
    /// after a crash between two files that is normal, and the next update fetches it again.
    ///
    /// # Errors
    /// No root, or one that is not signed by its own keys.
    pub fn load<N: AsRef<str>>(files: impl IntoIterator<Item = (N, Bytes)>) -> Result<Self, MetadataError> {
        Self::load_within(files, &Caps::default())
    }

    /// [`Self::load`] for files that may be larger, or must be smaller, than by default.
    ///
    /// # Errors
    /// As there.
    pub fn load_within<N: AsRef<str>>(
        files: impl IntoIterator<Item = (N, Bytes)>,
        caps: &Caps,
    ) -> Result<Self, MetadataError> {
        let mut found: [Option<Bytes>; 4] = [None, None, None, None];
        let mut delegated = BTreeMap::new();
        for (name, bytes) in files {
            if let Some(role) = Role::ALL.iter().position(|role| role.file() == name.as_ref()) {
                found[role] = Some(bytes);
            } else if let Some(role) = RoleName::of_file(name.as_ref()) {
                delegated.insert(role, bytes);
            }
        }
        let [root, timestamp, snapshot, targets] = found;
        let root = root.ok_or_else(|| MetadataError::new(Role::Root, Role::Root.file(), Rule::Missing))?;
        let mut set = Self::from_root_within(&root, caps)?;
        set.timestamp = set.take_back(timestamp, caps);
        set.snapshot = set.take_back(snapshot, caps);
        set.targets = set.take_back(targets, caps);
        set.take_back_delegated(delegated, caps);
        set.settle();
        Ok(set)
    }

    fn take_back<T: Document>(&mut self, bytes: Option<Bytes>, caps: &Caps) -> Option<Held<T>> {
        let bytes = bytes?;
        let ring = self.root.role.keyring(T::ROLE);
        let read = rules::size(&bytes, caps.of(T::ROLE)).and_then(|()| rules::signed(&bytes, ring, BY_ROOT));
        match read {
            Ok(held) => Some(held),
            Err(rule) => {
                self.set_aside.push(MetadataError::new(T::ROLE, T::ROLE.file(), rule));
                None
            }
        }
    }

    /// Walks down from targets: a delegated role comes back if a role that came back vouches for it.
    fn take_back_delegated(&mut self, mut found: BTreeMap<RoleName, Bytes>, caps: &Caps) {
        let mut refused: BTreeMap<RoleName, Rule> = BTreeMap::new();
        let mut open: Vec<_> = self.targets.iter().map(|held| held.role.clone()).collect();
        while let Some(delegator) = open.pop() {
            let Some(delegations) = delegator.delegations() else { continue };
            let named: Vec<_> = found.keys().filter(|name| delegations.role_keys(name).is_some()).cloned().collect();
            for name in named {
                let (Some(ring), Some(bytes)) = (delegations.keyring(&name), found.get(&name)) else { continue };
                let read = rules::size(bytes, caps.targets_bytes)
                    .and_then(|()| rules::signed::<Targets>(bytes, ring, search::BY_DELEGATOR));
                match read {
                    Ok(held) => {
                        found.remove(&name);
                        open.push(held.role.clone());
                        self.keep_delegated(name, held);
                    }
                    Err(rule) => _ = refused.insert(name, rule),
                }
            }
        }
        for name in found.into_keys() {
            let rule = refused.remove(&name).unwrap_or(Rule::NotDelegated);
            self.set_aside.push(MetadataError::new(Role::Targets, name.file(), rule));
        }
    }

    pub(crate) fn keep_delegated(&mut self, name: RoleName, held: Held<Targets>) {
        self.delegated.insert(name, held);
        if self.delegated.len() as u64 > limits::DELEGATED_ROLES_HELD_MAX {
            self.delegated.pop_first();
        }
    }

    /// Stored files that [`Self::load`] left out, and why.
    pub fn set_aside(&self) -> &[MetadataError] {
        &self.set_aside
    }

    /// The trusted root.
    pub fn root(&self) -> &Root {
        &self.root.role
    }

    /// The trusted timestamp.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.timestamp.as_ref().map(|held| &*held.role)
    }

    /// The trusted snapshot.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref().map(|held| &*held.role)
    }

    /// The trusted targets.
    pub fn targets(&self) -> Option<&Targets> {
        self.targets.as_ref().map(|held| &*held.role)
    }

    /// A delegated role that a search has met. Its delegator vouched for it then; a search checks that anew.
    pub fn delegated(&self, name: &RoleName) -> Option<&Targets> {
        self.delegated.get(name).map(|held| &*held.role)
    }

    /// The delegated roles that are held, each as whoever led there vouched for it.
    pub fn delegated_roles(&self) -> impl Iterator<Item = (&RoleName, &Targets)> {
        self.delegated.iter().map(|(name, held)| (name, &*held.role))
    }

    /// The roles whose word is that of targets, if this set is whole: the one at the top, and those it delegates to that are
    /// signed as it must be itself, by enough of its own keys (hash bins); of the latter those that are held here and fresh
    /// at `now`. Whoever else has delegated to a role of that name does not count, nor do roles further down.
    pub fn own_targets(&self, now: UnixSeconds) -> Vec<&Targets> {
        let Some(top) = self.targets.as_ref().filter(|_| self.whole) else { return Vec::new() };
        let mut own = vec![&*top.role];
        let (Some(delegations), Some(snapshot)) = (top.role.delegations(), self.snapshot()) else { return own };
        let asked = self.root.role.keyring(Role::Targets);
        let by_name: BTreeMap<_, _> = delegations.roles().iter().map(|role| (&role.name, &role.keys)).collect();
        for (name, held) in &self.delegated {
            let keys = by_name.get(name).copied();
            let keys = keys.or_else(|| delegations.succinct_roles().and_then(|_| delegations.role_keys(name)));
            let (Some(keys), Some(meta)) = (keys, snapshot.meta().get(&name.listed_as())) else { continue };
            let ring = Keyring { keys: delegations.keys(), role: keys };
            // Of two names for the same keys it is enough to ask one.
            let is_own = ring.says_the_same(asked) || held.is_signed_by(asked);
            if is_own && held.serves_as(meta, Role::Snapshot, now) && held.is_signed_by(ring) {
                own.push(&held.role);
            }
        }
        own
    }

    /// What targets says about `name`, if this set is whole. If it is left to a delegated role, the answer is what the roles
    /// held here say, and nothing if one that comes first is not held: [`crate::Search`] fetches it.
    pub fn find(&self, name: &TargetName) -> Option<TargetDescription> {
        if !self.is_whole() {
            return None;
        }
        search::held(self, name)
    }

    /// Whether all four roles are there and name each other: false after an update that broke off half-way.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Finds out whether the set is whole, after it was put together or changed.
    pub(crate) fn settle(&mut self) {
        self.whole = self.names_itself();
        self.drop_outdated();
    }

    /// [`Self::settle`] for a set whose files were each checked against the one above.
    pub(crate) fn settle_whole(&mut self) {
        self.whole = true;
        self.drop_outdated();
    }

    /// Forgets delegated roles of other versions than the snapshot lists: nobody asks for them any more.
    fn drop_outdated(&mut self) {
        let Some(snapshot) = &self.snapshot else { return };
        let listed = |name: &RoleName| snapshot.role.meta().get(&name.listed_as()).map(|meta| meta.version);
        self.delegated.retain(|name, held| listed(name) == Some(held.role.version()));
    }

    fn names_itself(&self) -> bool {
        let (Some(timestamp), Some(snapshot), Some(targets)) = (&self.timestamp, &self.snapshot, &self.targets) else {
            return false;
        };
        let named = timestamp.role.snapshot();
        let Some(listed) = snapshot.role.meta().get(Role::Targets.file()) else { return false };
        snapshot.role.version() == named.version
            && targets.role.version() == listed.version
            && rules::against_parent(&snapshot.bytes, named, Role::Timestamp).is_ok()
            && rules::against_parent(&targets.bytes, listed, Role::Snapshot).is_ok()
    }

    /// Version of `role`, if it is there.
    pub fn version(&self, role: Role) -> Option<u32> {
        match role {
            Role::Root => Some(self.root().version()),
            Role::Timestamp => self.timestamp().map(Timestamp::version),
            Role::Snapshot => self.snapshot().map(Snapshot::version),
            Role::Targets => self.targets().map(Targets::version),
        }
    }

    /// The files that are there, unnumbered name and exact bytes: root first, delegated roles last.
    pub fn files(&self) -> impl Iterator<Item = (Cow<'static, str>, &Bytes)> {
        let below = [
            self.timestamp.as_ref().map(|held| (Role::Timestamp, &held.bytes)),
            self.snapshot.as_ref().map(|held| (Role::Snapshot, &held.bytes)),
            self.targets.as_ref().map(|held| (Role::Targets, &held.bytes)),
        ];
        let top = std::iter::once((Role::Root, &self.root.bytes)).chain(below.into_iter().flatten());
        let top = top.map(|(role, bytes)| (Cow::Borrowed(role.file()), bytes));
        top.chain(self.delegated.iter().map(|(name, held)| (Cow::Owned(name.file()), &held.bytes)))
    }

    /// When the first of the four roles that are there expires. A delegated role's life is looked at when it is searched.
    pub fn earliest_expiry(&self) -> UnixSeconds {
        let below = [
            self.timestamp().map(Timestamp::expires),
            self.snapshot().map(Snapshot::expires),
            self.targets().map(Targets::expires),
        ];
        below.into_iter().flatten().fold(self.root().expires(), UnixSeconds::min)
    }
}
