//! [`TrustAnchor`]: what a program is told to trust at first; [`TrustedSet`]: what an update proved, with exact bytes.

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::error::{MetadataError, Rule};
use crate::key::PublicKey;
use crate::role::{Document, Role, Root, Snapshot, Targets, Timestamp};
use crate::rules::{self, Held};
use crate::target::{TargetDescription, TargetName};

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
    /// Kept, because finding out hashes whole files; see [`TrustedSet::settle`].
    whole: bool,
    set_aside: Vec<MetadataError>,
}

impl TrustedSet {
    /// A set that holds only a root, from a file that is trusted as it is. It must be signed by its own keys.
    ///
    /// # Errors
    /// The rule that the file breaks.
    pub fn from_root_file(bytes: Bytes) -> Result<Self, MetadataError> {
        let at = |rule| MetadataError::new(Role::Root, Role::Root.file(), rule);
        rules::size(&bytes, Role::Root.bytes_max()).map_err(at)?;
        let root = rules::own_root(&bytes).map_err(at)?;
        Ok(Self::from_root(bytes, root))
    }

    pub(crate) fn from_root(bytes: Bytes, root: Root) -> Self {
        let root = Held::new(bytes, root);
        Self { root, timestamp: None, snapshot: None, targets: None, whole: false, set_aside: Vec::new() }
    }

    /// Takes back stored files under their unnumbered names (see [`Self::files`]; other names are ignored), re-verified
    /// against the stored root. A file that the root does not vouch for is left out and listed by [`Self::set_aside`]:
    /// after a crash between two files that is normal, and the next update fetches it again.
    ///
    /// # Errors
    /// No root, or one that is not signed by its own keys.
    pub fn load<N: AsRef<str>>(files: impl IntoIterator<Item = (N, Bytes)>) -> Result<Self, MetadataError> {
        let mut found: [Option<Bytes>; 4] = [None, None, None, None];
        for (name, bytes) in files {
            if let Some(role) = Role::ALL.iter().position(|role| role.file() == name.as_ref()) {
                found[role] = Some(bytes);
            }
        }
        let [root, timestamp, snapshot, targets] = found;
        let root = root.ok_or_else(|| MetadataError::new(Role::Root, Role::Root.file(), Rule::Missing))?;
        let mut set = Self::from_root_file(root)?;
        set.timestamp = set.take_back(timestamp);
        set.snapshot = set.take_back(snapshot);
        set.targets = set.take_back(targets);
        set.settle();
        Ok(set)
    }

    fn take_back<T: Document>(&mut self, bytes: Option<Bytes>) -> Option<Held<T>> {
        let bytes = bytes?;
        let read = rules::size(&bytes, T::ROLE.bytes_max()).and_then(|()| rules::signed(&bytes, &self.root.role));
        match read {
            Ok(role) => Some(Held::new(bytes, role)),
            Err(rule) => {
                self.set_aside.push(MetadataError::new(T::ROLE, T::ROLE.file(), rule));
                None
            }
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

    /// What targets says about `name`, if this set is whole.
    pub fn find(&self, name: &TargetName) -> Option<&TargetDescription> {
        if !self.is_whole() {
            return None;
        }
        self.targets()?.targets().get(name)
    }

    /// Whether all four roles are there and name each other: false after an update that broke off half-way.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Finds out whether the set is whole, after it was put together or changed.
    pub(crate) fn settle(&mut self) {
        self.whole = self.names_itself();
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

    /// The files that are there, unnumbered name and exact bytes, root first.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        let below = [
            self.timestamp.as_ref().map(|held| (Role::Timestamp.file(), &held.bytes)),
            self.snapshot.as_ref().map(|held| (Role::Snapshot.file(), &held.bytes)),
            self.targets.as_ref().map(|held| (Role::Targets.file(), &held.bytes)),
        ];
        std::iter::once((Role::Root.file(), &self.root.bytes)).chain(below.into_iter().flatten())
    }

    /// When the first of the files that are there expires.
    pub fn earliest_expiry(&self) -> UnixSeconds {
        let below = [
            self.timestamp().map(Timestamp::expires),
            self.snapshot().map(Snapshot::expires),
            self.targets().map(Targets::expires),
        ];
        below.into_iter().flatten().fold(self.root().expires(), UnixSeconds::min)
    }
}
