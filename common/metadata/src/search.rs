//! [`Search`]: finding a target through delegations, the specification §5.6.7, as a state machine without I/O.
//!
//! Roles are visited in pre-order, depth first, each delegator's delegates in its order of priority, and only those that cover
//! the target. Each is fetched when its turn comes and not before.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::UnixSeconds;

use crate::delegated;
use crate::delegations::Next;
use crate::error::{MetadataError, Rule};
use crate::limits::{self, Caps};
use crate::role::{FileMeta, Role, RoleName};
use crate::rules::{self, Held};
use crate::target::{TargetDescription, TargetName};
use crate::targets::Targets;
use crate::trust::TrustedSet;
use crate::update::{Answer, Step};

/// Whose keys sign a delegated role.
pub(crate) const BY_DELEGATOR: &str = "its delegator's keys for it";

/// A target that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The delegated role that gave it; nothing for the targets role at the top.
    pub role: Option<RoleName>,
    /// The role to which the targets role at the top delegates on the way there: `role`, or one above it.
    pub through: Option<RoleName>,
    /// What that role says.
    pub target: TargetDescription,
}

/// The order in which roles are visited.
#[derive(Debug)]
struct Walk {
    name: TargetName,
    /// To be visited, next one last.
    open: Vec<Visit>,
    visited: BTreeSet<RoleName>,
}

/// A role to be visited, and on whose word.
#[derive(Debug, Clone)]
struct Visit {
    role: RoleName,
    delegator: Arc<Targets>,
    depth: u64,
    /// The role below the top one that leads here; nothing where that is this one.
    through: Option<RoleName>,
}

impl Walk {
    fn new(name: TargetName, top: &Arc<Targets>) -> Self {
        let mut walk = Self { name, open: Vec::new(), visited: BTreeSet::new() };
        walk.open_delegates(top, 1, None);
        walk
    }

    /// §5.6.7.2: in order of priority; a terminating delegate is the last, also of what was still to come elsewhere.
    fn open_delegates(&mut self, delegator: &Arc<Targets>, depth: u64, through: Option<&RoleName>) {
        let Some(delegations) = delegator.delegations() else { return };
        let next = delegations.next(&self.name);
        if next.last().is_some_and(|last| last.terminating) {
            self.open.clear();
        }
        let visit = |next: Next| {
            let (delegator, through) = (delegator.clone(), through.cloned());
            Visit { role: next.name, delegator, depth, through }
        };
        self.open.extend(next.into_iter().rev().map(visit));
    }

    /// The next role; nothing at the end.
    fn next(&mut self) -> Result<Option<Visit>, Rule> {
        // §5.6.7.1: a role that was visited is passed over, so cycles end.
        while let Some(visit) = self.open.pop() {
            if self.visited.contains(&visit.role) {
                continue;
            }
            let (roles_max, depth_max) = (limits::SEARCH_ROLES_MAX, limits::SEARCH_DEPTH_MAX);
            if self.visited.len() as u64 == roles_max || visit.depth > depth_max {
                return Err(Rule::SearchTooWide { roles_max, depth_max });
            }
            self.visited.insert(visit.role.clone());
            return Ok(Some(visit));
        }
        Ok(None)
    }

    /// Goes into a role: what it says itself, else its delegates are next.
    fn enter(&mut self, visit: &Visit, role: &Arc<Targets>) -> Option<Found> {
        let through = visit.through.as_ref().unwrap_or(&visit.role);
        if let Some(target) = role.get(&self.name) {
            return Some(Found { role: Some(visit.role.clone()), through: Some(through.clone()), target });
        }
        self.open_delegates(role, visit.depth + 1, Some(through));
        None
    }
}

impl Visit {
    /// Whether the delegator that leads here vouches for what is held. Another one's word, on another way here, is not
    /// enough.
    fn vouches_for(&self, held: &Held<Targets>) -> bool {
        let ring = self.delegator.delegations().and_then(|delegations| delegations.keyring(&self.role));
        ring.is_some_and(|ring| held.is_signed_by(ring))
    }
}

/// The target as far as the roles that are held tell.
pub(crate) fn held(set: &TrustedSet, name: &TargetName) -> Option<TargetDescription> {
    let top = &set.targets.as_ref()?.role;
    if let Some(target) = top.get(name) {
        return Some(target);
    }
    let mut walk = Walk::new(name.clone(), top);
    loop {
        let visit = walk.next().ok()??;
        let meta = set.snapshot()?.meta().get(&visit.role.listed_as())?;
        let held = set.delegated.get(&visit.role)?;
        let is_listed =
            held.role.version() == meta.version && rules::against_parent(&held.bytes, meta, Role::Snapshot).is_ok();
        if !is_listed || !visit.vouches_for(held) {
            return None;
        }
        if let Some(found) = walk.enter(&visit, &held.role) {
            return Some(found.target);
        }
    }
}

/// One search in a set that an [`crate::Update`] has just refreshed.
#[derive(Debug)]
pub struct Search {
    set: TrustedSet,
    now: UnixSeconds,
    caps: Caps,
    state: State,
}

#[derive(Debug)]
enum State {
    Walking(Walk),
    Wanting(Walk, Visit, FileMeta),
    Done(Option<Found>),
    Failed(MetadataError),
}

impl Search {
    /// Begins to look for `name`, at the time of the update that refreshed `set`.
    pub fn start(set: TrustedSet, name: TargetName, now: UnixSeconds) -> Self {
        let state = match &set.targets {
            Some(targets) if set.is_whole() => match targets.role.get(&name) {
                Some(target) => State::Done(Some(Found { role: None, through: None, target })),
                None => State::Walking(Walk::new(name, &targets.role)),
            },
            _ => State::Failed(error(Role::Targets.file(), Rule::OutOfStep("the set is not whole: refresh it first"))),
        };
        Self { set, now, caps: Caps::default(), state }
    }

    /// Takes other sizes of files than by default.
    #[must_use]
    pub fn within(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    /// What is wanted now. Asking again without supplying gives the same answer; after an error it is `Done`.
    #[expect(clippy::should_implement_trait, reason = "a step is not an iterator's item: supply comes in between")]
    pub fn next(&mut self) -> Step {
        while matches!(self.state, State::Walking(_)) {
            self.state = match std::mem::replace(&mut self.state, State::Done(None)) {
                State::Walking(walk) => self.step(walk).unwrap_or_else(State::Failed),
                other => other,
            };
        }
        match &self.state {
            State::Wanting(_, visit, meta) => {
                let numbered = self.set.root().consistent_snapshot();
                Step::Want(delegated::want(&visit.role, meta, numbered, &self.caps))
            }
            _ => Step::Done,
        }
    }

    /// To the next role that is to be visited.
    fn step(&self, mut walk: Walk) -> Result<State, MetadataError> {
        let visit = walk.next().map_err(|rule| error(Role::Targets.file(), rule))?;
        let Some(visit) = visit else { return Ok(State::Done(None)) };
        // §5.6.1 for a delegated role: what the snapshot does not list is not used.
        let listed_as = visit.role.listed_as();
        let meta = self.set.snapshot().and_then(|snapshot| snapshot.meta().get(&listed_as)).cloned();
        let meta = meta.ok_or_else(|| error(Role::Snapshot.file(), Rule::NotListed(listed_as)))?;
        rules::within_cap(&meta, Role::Targets, &self.caps).map_err(|rule| error(&visit.role.file(), rule))?;
        let held = self.set.delegated.get(&visit.role);
        match held.filter(|held| held.serves_as(&meta, Role::Snapshot, self.now) && visit.vouches_for(held)) {
            None => Ok(State::Wanting(walk, visit, meta)),
            Some(held) => Ok(match walk.enter(&visit, &held.role) {
                Some(found) => State::Done(Some(found)),
                None => State::Walking(walk),
            }),
        }
    }

    /// Takes the answer to the last want.
    ///
    /// # Errors
    /// The file breaks a rule, or was not wanted. The search is over then; [`Self::into_set`] keeps what it proved.
    pub fn supply(&mut self, answer: Answer) -> Result<(), MetadataError> {
        let (mut walk, visit, meta) = match std::mem::replace(&mut self.state, State::Done(None)) {
            State::Wanting(walk, visit, meta) => (walk, visit, meta),
            other => {
                self.state = other;
                return Err(error("(none)", Rule::OutOfStep("no file is wanted")));
            }
        };
        let taken = match answer {
            Answer::NotFound => Err(Rule::Missing),
            Answer::Found(bytes) => self.check(&visit, &meta, &bytes),
        };
        match taken {
            Ok(held) => {
                self.state = match walk.enter(&visit, &held.role) {
                    Some(found) => State::Done(Some(found)),
                    None => State::Walking(walk),
                };
                self.set.keep_delegated(visit.role, held);
                Ok(())
            }
            Err(rule) => {
                let error = error(&visit.role.file(), rule);
                self.state = State::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn check(&self, visit: &Visit, meta: &FileMeta, bytes: &Bytes) -> Result<Held<Targets>, Rule> {
        let ring = visit.delegator.delegations().and_then(|delegations| delegations.keyring(&visit.role));
        delegated::believe(bytes, meta, ring, &self.caps, self.now)
    }

    /// What was found, and the set with the roles that the search met; nothing found means that the repository has no such
    /// target.
    ///
    /// # Errors
    /// The search failed, or is not done.
    pub fn finish(self) -> Result<(TrustedSet, Option<Found>), MetadataError> {
        match self.state {
            State::Done(found) => Ok((self.set, found)),
            State::Failed(error) => Err(error),
            State::Walking(_) | State::Wanting(..) => {
                Err(error(Role::Targets.file(), Rule::OutOfStep("files are still wanted")))
            }
        }
    }

    /// The set with the roles that the search met so far, also after a failure.
    pub fn into_set(self) -> TrustedSet {
        self.set
    }
}

fn error(file: &str, rule: Rule) -> MetadataError {
    MetadataError::new(Role::Targets, file, rule)
}
