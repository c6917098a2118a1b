//! [`Update`]: one refresh, the client workflow of the TUF specification §5, as a state machine without I/O.
//!
//! Ask [`Update::next`] what it wants, give it to [`Update::supply`], until done. Anything that was proven on the way
//! survives a failure in [`Update::into_floor`].

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::error::{MetadataError, Rule};
use crate::limits::{self, Caps};
use crate::online::{Snapshot, Timestamp};
use crate::role::{FileMeta, Role};
use crate::root::Root;
use crate::rules::{self, BY_ROOT, Held};
use crate::trust::{TrustAnchor, TrustedSet};

/// What an update starts from.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one of it, for a moment")]
pub enum Start {
    /// Nothing seen yet.
    FromAnchor(TrustAnchor),
    /// The last trusted set, also if it has expired.
    FromSet(TrustedSet),
}

/// A file that the update needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Name below the repository's metadata address, such as `2.root.json` or `timestamp.json`.
    pub name: String,
    /// Most bytes to read; more is an error.
    pub bytes_max: u64,
    /// The role of the file; targets for a delegated role, too.
    pub role: Role,
}

/// What the update does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It needs a file.
    Want(Want),
    /// It needs nothing more: [`Update::finish`] tells the outcome.
    Done,
}

/// What a source said about the wanted file.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The file. Longer than wanted is allowed here and refused there, so a reader may stop one byte beyond the cap.
    Found(Bytes),
    /// The source definitely does not have it. A failure to reach the source is not this.
    NotFound,
}

/// One refresh.
#[derive(Debug)]
pub struct Update {
    now: UnixSeconds,
    caps: Caps,
    phase: Phase,
    roots_taken: u64,
}

#[derive(Debug)]
enum Phase {
    FirstRoot { anchor: AnchorKeys },
    Roots(TrustedSet),
    Timestamp(TrustedSet),
    Snapshot(TrustedSet, FileMeta),
    Targets(TrustedSet, FileMeta),
    Done(TrustedSet),
    Failed(Option<TrustedSet>, MetadataError),
}

#[derive(Debug)]
struct AnchorKeys {
    keys: Vec<crate::PublicKey>,
    threshold: u32,
    version: u32,
}

impl Update {
    /// Begins at `now`, which stays fixed for the whole update (§5.1). A start that cannot be used shows in
    /// [`Self::finish`].
    pub fn start(start: Start, now: UnixSeconds) -> Self {
        let phase = match start {
            Start::FromSet(set) => Phase::Roots(set),
            // §5.2: the trusted root comes out of band; its expiry does not matter yet.
            Start::FromAnchor(TrustAnchor::RootFile(bytes)) => match TrustedSet::from_root_file(&bytes) {
                Ok(set) => Phase::Roots(set),
                Err(e) => {
                    Phase::Failed(None, MetadataError::new(Role::Root, e.file(), Rule::Anchor(e.rule().to_string())))
                }
            },
            Start::FromAnchor(TrustAnchor::Keys { root_keys, root_threshold, root_version }) => {
                Self::start_keys(root_keys, root_threshold, root_version)
            }
        };
        let mut update = Self { now, caps: Caps::default(), phase, roots_taken: 0 };
        update.end_chain_at_last_version();
        update
    }

    /// Takes other sizes of files than by default.
    #[must_use]
    pub fn within(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    fn start_keys(mut keys: Vec<crate::PublicKey>, threshold: u32, version: u32) -> Phase {
        keys.sort_unstable();
        keys.dedup();
        let problem = if threshold == 0 || version == 0 {
            "root threshold and root version are at least 1".to_owned()
        } else if keys.len() < threshold as usize {
            format!("it asks for {threshold} signatures but has {} distinct keys", keys.len())
        } else {
            return Phase::FirstRoot { anchor: AnchorKeys { keys, threshold, version } };
        };
        let file = Role::Root.numbered_file(version);
        Phase::Failed(None, MetadataError::new(Role::Root, file, Rule::Anchor(problem)))
    }

    /// What is wanted now. Asking again without supplying gives the same answer; after an error it is `Done`.
    #[expect(clippy::should_implement_trait, reason = "a step is not an iterator's item: supply comes in between")]
    pub fn next(&mut self) -> Step {
        match self.want() {
            Some(want) => Step::Want(want),
            None => Step::Done,
        }
    }

    fn want(&self) -> Option<Want> {
        let want = |role: Role, name: String| Want { name, bytes_max: self.caps.of(role), role };
        let below = |set: &TrustedSet, role: Role, meta: &FileMeta| {
            // §5.5.1, §5.6.1: numbered only if the root says so; at most the signed length.
            let numbered = set.root().consistent_snapshot();
            let name = if numbered { role.numbered_file(meta.version) } else { role.file().to_owned() };
            let bytes_max = meta.length.map_or(self.caps.of(role), |length| length.min(self.caps.of(role)));
            Want { name, bytes_max, role }
        };
        match &self.phase {
            Phase::FirstRoot { anchor } => Some(want(Role::Root, Role::Root.numbered_file(anchor.version))),
            // §5.3.2: the root after the trusted one.
            Phase::Roots(set) => {
                let next = set.root().version().saturating_add(1);
                Some(want(Role::Root, Role::Root.numbered_file(next)))
            }
            Phase::Timestamp(_) => Some(want(Role::Timestamp, Role::Timestamp.file().to_owned())),
            Phase::Snapshot(set, meta) => Some(below(set, Role::Snapshot, meta)),
            Phase::Targets(set, meta) => Some(below(set, Role::Targets, meta)),
            Phase::Done(_) | Phase::Failed(..) => None,
        }
    }

    /// Takes the answer to the last want.
    ///
    /// # Errors
    /// The file breaks a rule. The update is over then: to try another source, start again from [`Self::into_floor`].
    pub fn supply(&mut self, answer: Answer) -> Result<(), MetadataError> {
        let Some(want) = self.want() else {
            return Err(MetadataError::new(Role::Root, "(none)", Rule::OutOfStep("no file is wanted")));
        };
        let idle = Rule::OutOfStep("no file is wanted");
        let placeholder = Phase::Failed(None, MetadataError::new(want.role, want.name.as_str(), idle));
        let phase = std::mem::replace(&mut self.phase, placeholder);
        self.phase = match self.advance(phase, &want, answer) {
            Ok(phase) => phase,
            Err(failure) => failure.into_phase(want.role, &want.name),
        };
        self.end_chain_at_last_version();
        match &self.phase {
            Phase::Failed(_, error) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn advance(&mut self, phase: Phase, want: &Want, answer: Answer) -> Result<Phase, Box<Failure>> {
        let bytes = match answer {
            Answer::Found(bytes) => bytes,
            Answer::NotFound => {
                return match phase {
                    // §5.3.3: no next root ends the chain.
                    Phase::Roots(set) => self.after_roots(set),
                    other => Err(failed(other.into_set(), Rule::Missing)),
                };
            }
        };
        if let Err(rule) = rules::size(&bytes, want.bytes_max) {
            return Err(failed(phase.into_set(), rule));
        }
        match phase {
            Phase::FirstRoot { anchor } => {
                let root = rules::anchored_root(&bytes, &anchor.keys, anchor.threshold, anchor.version);
                let root = root.map_err(|rule| failed(None, rule))?;
                Ok(Phase::Roots(TrustedSet::from_root(root)))
            }
            Phase::Roots(set) => self.take_root(set, &bytes),
            Phase::Timestamp(set) => self.take_timestamp(set, &bytes),
            Phase::Snapshot(set, meta) => self.take_snapshot(set, &meta, &bytes),
            Phase::Targets(set, meta) => self.take_targets(set, &meta, &bytes),
            over @ (Phase::Done(_) | Phase::Failed(..)) => Ok(over),
        }
    }

    /// §5.3.4 to §5.3.9.
    fn take_root(&mut self, mut set: TrustedSet, bytes: &Bytes) -> Result<Phase, Box<Failure>> {
        if self.roots_taken == limits::ROOTS_PER_UPDATE_MAX {
            return Err(failed(set, Rule::ChainTooLong(limits::ROOTS_PER_UPDATE_MAX)));
        }
        let root = match rules::next_root(bytes, set.root()) {
            Ok(root) => root,
            Err(rule) => return Err(failed(set, rule)),
        };
        self.roots_taken += 1;
        if rules::online_keys_revoked(set.root(), &root.role) {
            // §5.3.11, at the step where it happened: a key may come back in a later root.
            set.timestamp = None;
            set.snapshot = None;
        }
        set.root = root;
        Ok(Phase::Roots(set))
    }

    /// A root with the last possible version has no successor to ask for.
    fn end_chain_at_last_version(&mut self) {
        if !matches!(&self.phase, Phase::Roots(set) if set.root().version() == u32::MAX) {
            return;
        }
        let idle = MetadataError::new(Role::Root, Role::Root.file(), Rule::OutOfStep("no file is wanted"));
        if let Phase::Roots(set) = std::mem::replace(&mut self.phase, Phase::Failed(None, idle)) {
            self.phase = match self.after_roots(set) {
                Ok(phase) => phase,
                Err(failure) => failure.into_phase(Role::Root, Role::Root.file()),
            };
        }
    }

    /// §5.3.10 and §5.3.11.
    fn after_roots(&self, mut set: TrustedSet) -> Result<Phase, Box<Failure>> {
        let root = set.root.role.clone();
        if let Err(rule) = rules::fresh(root.expires(), self.now) {
            let file = Role::Root.numbered_file(root.version());
            return Err(Box::new(Failure { set: Some(set), rule, file: Some(file) }));
        }
        // What is held was checked against the root that is held: anew only under a newer one.
        if self.roots_taken > 0 {
            let vouched = set.timestamp.as_ref().is_none_or(|held| held.is_signed_by(root.keyring(Role::Timestamp)))
                && set.snapshot.as_ref().is_none_or(|held| held.is_signed_by(root.keyring(Role::Snapshot)));
            if !vouched {
                set.timestamp = None;
                set.snapshot = None;
            }
            if set.targets.as_ref().is_some_and(|held| !held.is_signed_by(root.keyring(Role::Targets))) {
                set.targets = None;
            }
        }
        Ok(Phase::Timestamp(set))
    }

    /// §5.4.
    fn take_timestamp(&self, mut set: TrustedSet, bytes: &Bytes) -> Result<Phase, Box<Failure>> {
        match self.check_timestamp(&set, bytes) {
            // §5.4.3.1: an equal version is discarded; the trusted one stays and must itself be fresh.
            Ok(None) => {}
            Ok(Some(timestamp)) => set.timestamp = Some(timestamp),
            Err(rule) => return Err(failed(set, rule)),
        }
        let Some(timestamp) = &set.timestamp else { return Err(failed(set, Rule::Missing)) };
        let meta = timestamp.role.snapshot().clone();
        if set.snapshot.as_ref().is_some_and(|held| held.serves_as(&meta, Role::Timestamp, self.now)) {
            return self.after_snapshot(set);
        }
        if let Err(rule) = rules::within_cap(&meta, Role::Snapshot, &self.caps) {
            return Err(failed(set, rule));
        }
        Ok(Phase::Snapshot(set, meta))
    }

    fn check_timestamp(&self, set: &TrustedSet, bytes: &Bytes) -> Result<Option<Held<Timestamp>>, Rule> {
        let held: Held<Timestamp> = rules::signed(bytes, set.root().keyring(Role::Timestamp), BY_ROOT)?;
        let new = &held.role;
        if let Some(trusted) = set.timestamp() {
            if new.version() == trusted.version() {
                rules::fresh(trusted.expires(), self.now)?;
                return Ok(None);
            }
            rules::timestamp_not_older(new, trusted)?;
        }
        if let Some(trusted) = set.snapshot() {
            rules::snapshot_named_not_older(new, trusted)?;
        }
        rules::fresh(new.expires(), self.now)?;
        Ok(Some(held))
    }

    /// §5.5.
    fn take_snapshot(&self, mut set: TrustedSet, meta: &FileMeta, bytes: &Bytes) -> Result<Phase, Box<Failure>> {
        match self.check_snapshot(&set, meta, bytes) {
            Ok(snapshot) => set.snapshot = Some(snapshot),
            Err(rule) => return Err(failed(set, rule)),
        }
        self.after_snapshot(set)
    }

    fn check_snapshot(&self, set: &TrustedSet, meta: &FileMeta, bytes: &Bytes) -> Result<Held<Snapshot>, Rule> {
        rules::against_parent(bytes, meta, Role::Timestamp)?;
        let held: Held<Snapshot> = rules::signed(bytes, set.root().keyring(Role::Snapshot), BY_ROOT)?;
        rules::expect_version(held.role.version(), meta.version)?;
        if let Some(trusted) = set.snapshot() {
            rules::snapshot_not_older(&held.role, trusted)?;
        }
        rules::fresh(held.role.expires(), self.now)?;
        Ok(held)
    }

    fn after_snapshot(&self, set: TrustedSet) -> Result<Phase, Box<Failure>> {
        let listed = set.snapshot().and_then(|snapshot| snapshot.meta().get(Role::Targets.file()));
        let Some(meta) = listed.cloned() else { return Err(failed(set, Rule::Missing)) };
        if set.targets.as_ref().is_some_and(|held| held.serves_as(&meta, Role::Snapshot, self.now)) {
            return Ok(Phase::Done(set));
        }
        if let Err(rule) = rules::within_cap(&meta, Role::Targets, &self.caps) {
            return Err(failed(set, rule));
        }
        Ok(Phase::Targets(set, meta))
    }

    /// §5.6 for the targets role at the top; the rest of §5.6 is [`crate::Search`].
    fn take_targets(&self, mut set: TrustedSet, meta: &FileMeta, bytes: &Bytes) -> Result<Phase, Box<Failure>> {
        let check = || {
            rules::against_parent(bytes, meta, Role::Snapshot)?;
            let held: Held<crate::Targets> = rules::signed(bytes, set.root().keyring(Role::Targets), BY_ROOT)?;
            rules::expect_version(held.role.version(), meta.version)?;
            rules::fresh(held.role.expires(), self.now)?;
            Ok(held)
        };
        match check() {
            Ok(targets) => set.targets = Some(targets),
            Err(rule) => return Err(failed(set, rule)),
        }
        Ok(Phase::Done(set))
    }

    /// The verified set.
    ///
    /// # Errors
    /// The update failed, or is not done.
    pub fn finish(self) -> Result<TrustedSet, MetadataError> {
        match self.phase {
            Phase::Done(mut set) => {
                set.settle_whole();
                Ok(set)
            }
            Phase::Failed(_, error) => Err(error),
            other => {
                let role = other.role();
                Err(MetadataError::new(role, role.file(), Rule::OutOfStep("files are still wanted")))
            }
        }
    }

    /// What was proven so far, also after a failure: newer roots, timestamps and snapshots are a floor for the next
    /// attempt, and the caller should store them (§5.3.8, §5.4.5, §5.5.7). Nothing if not even a root was.
    pub fn into_floor(self) -> Option<TrustedSet> {
        let mut set = self.phase.into_set()?;
        set.settle();
        Some(set)
    }

    /// The root trusted at this point of the update.
    pub fn root(&self) -> Option<&Root> {
        match &self.phase {
            Phase::FirstRoot { .. } => None,
            Phase::Roots(set) | Phase::Timestamp(set) | Phase::Done(set) => Some(set.root()),
            Phase::Snapshot(set, _) | Phase::Targets(set, _) => Some(set.root()),
            Phase::Failed(set, _) => set.as_ref().map(TrustedSet::root),
        }
    }
}

/// What had been proven, the rule that broke, and the file at fault if it is not the one wanted.
struct Failure {
    set: Option<TrustedSet>,
    rule: Rule,
    file: Option<String>,
}

impl Failure {
    fn into_phase(self, role: Role, wanted: &str) -> Phase {
        let file = self.file.unwrap_or_else(|| wanted.to_owned());
        Phase::Failed(self.set, MetadataError::new(role, file, self.rule))
    }
}

fn failed(set: impl Into<Option<TrustedSet>>, rule: Rule) -> Box<Failure> {
    Box::new(Failure { set: set.into(), rule, file: None })
}

impl Phase {
    fn into_set(self) -> Option<TrustedSet> {
        match self {
            Self::FirstRoot { .. } => None,
            Self::Roots(set) | Self::Timestamp(set) | Self::Done(set) => Some(set),
            Self::Snapshot(set, _) | Self::Targets(set, _) => Some(set),
            Self::Failed(set, _) => set,
        }
    }

    fn role(&self) -> Role {
        match self {
            Self::FirstRoot { .. } | Self::Roots(_) => Role::Root,
            Self::Timestamp(_) => Role::Timestamp,
            Self::Snapshot(..) => Role::Snapshot,
            Self::Targets(..) | Self::Done(_) => Role::Targets,
            Self::Failed(_, error) => error.role(),
        }
    }
}
