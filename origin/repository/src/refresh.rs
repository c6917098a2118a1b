//! Signing again what would expire: what is due when, and doing it with the keys at hand.
//!
//! A role is due at two thirds of its life: then there is a third left for noticing that nobody signed. Deliberately absent:
//! waiting (the origin's refresher does that), a clock.

use colibri_common::UnixSeconds;
use colibri_metadata::{Role, Snapshot, Targets, Timestamp, TrustedSet};

use crate::draft::{Change, RootChange, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::Pass;
use crate::keys::KeyRole;
use crate::offer::Offer;
use crate::repository::{Repository, Versions};

/// When a role is to be signed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The role.
    pub role: KeyRole,
    /// When two thirds of its life are over.
    pub at: UnixSeconds,
    /// When it expires.
    pub expires: UnixSeconds,
    /// Whether the keys for it are here.
    pub can_sign: bool,
}

/// When `role` of `set` expires, if it is there.
pub(crate) fn expires(set: &TrustedSet, role: Role) -> Option<UnixSeconds> {
    match role {
        Role::Root => Some(set.root().expires()),
        Role::Timestamp => set.timestamp().map(Timestamp::expires),
        Role::Snapshot => set.snapshot().map(Snapshot::expires),
        Role::Targets => set.targets().map(Targets::expires),
    }
}

impl Repository {
    /// What is to be signed again and when, the first to come first. What is due has `at` in the past.
    ///
    /// # Errors
    /// The metadata on disk is damaged, or a key file is.
    pub fn refresh_due(&self) -> Result<Vec<Due>, RepositoryError> {
        self.due_in(&self.metadata.committed()?)
    }

    fn due_in(&self, committed: &TrustedSet) -> Result<Vec<Due>, RepositoryError> {
        let mut due = Vec::new();
        for role in Role::ALL {
            let expires = match role {
                // With hash bins, of all files that these keys sign.
                Role::Targets => self.metadata.targets_expire(committed)?,
                _ => expires(committed, role),
            };
            let Some(expires) = expires else { continue };
            let at = UnixSeconds(expires.0.saturating_sub(self.expiries.life_s(role.into()) / 3));
            let can_sign = self.keys.can_sign(committed.root(), role)?;
            due.push(Due { role: role.into(), at, expires, can_sign });
        }
        if let Some((wanted, rollout)) = self.rollout_in(committed)? {
            let role = KeyRole::Rollout;
            let at = UnixSeconds(rollout.expires().0.saturating_sub(self.expiries.life_s(role) / 3));
            let can_sign = self.keys.matching(role, &wanted)?.len() >= wanted.threshold as usize;
            due.push(Due { role, at, expires: rollout.expires(), can_sign });
        }
        due.sort_by_key(|due| due.at);
        Ok(due)
    }

    /// Signs again what is due at `now` and can be signed here, and what follows from that. Gives the roles that were due;
    /// none means that nothing was signed.
    ///
    /// # Errors
    /// A key cannot be used, or the disk refuses.
    pub fn refresh_what_is_due(&self, now: UnixSeconds) -> Result<Vec<KeyRole>, RepositoryError> {
        let due = |role: KeyRole, all: &[Due]| all.iter().any(|due| due.role == role && due.at <= now && due.can_sign);
        let mut signed = Vec::new();
        let all = self.refresh_due()?;
        if !KeyRole::ALL.into_iter().any(|role| due(role, &all)) {
            return Ok(signed);
        }
        let pass = Pass { now, because: None, past_gate: None, look_at_all: true };
        self.transact(&self.terms(now, false), &pass, &mut |head| {
            let all = self.due_in(&head.set)?;
            signed = KeyRole::ALL.into_iter().filter(|role| due(*role, &all)).collect();
            let mut change = Self::due_change(&signed);
            change.timestamp_only =
                !signed.iter().any(|role| matches!(role, KeyRole::Targets | KeyRole::Snapshot | KeyRole::Rollout));
            Ok(change)
        })?;
        Ok(signed)
    }

    /// Signs snapshot and timestamp again, due or not, and root and targets too where they are due and their keys are here.
    ///
    /// # Errors
    /// A key is missing, or the disk refuses.
    pub fn refresh(&self, now: UnixSeconds) -> Result<Versions, RepositoryError> {
        self.refresh_with(now, None)
    }

    /// Like [`Self::refresh`]; with a reason, also if blobs of what is offered are absent or wrong. The snapshot says so to
    /// everybody.
    ///
    /// # Errors
    /// A key is missing, blobs are not ready and there is no reason, or the disk refuses.
    pub fn refresh_with(&self, now: UnixSeconds, because: Option<&str>) -> Result<Versions, RepositoryError> {
        let pass = Pass { now, because, past_gate: None, look_at_all: true };
        self.transact(&self.terms(now, false), &pass, &mut |head| {
            let mut due = self.due_in(&head.set)?;
            due.retain(|due| due.at <= now && due.can_sign);
            let roles: Vec<_> = due.into_iter().map(|due| due.role).collect();
            Ok(Self::due_change(&roles))
        })
    }

    fn due_change(roles: &[KeyRole]) -> Change {
        let mut change = Change::default();
        if roles.contains(&KeyRole::Root) {
            change.root = RootChange::Again;
        }
        if roles.contains(&KeyRole::Targets) {
            change.targets = TargetsChange::Offer(Offer::renew());
        }
        if roles.contains(&KeyRole::Rollout) {
            change.rollout = Some(Offer::default());
        }
        change
    }
}
