//! Offering packages whose blobs are here already: what a publisher that works over the network does, in three steps. It asks
//! which blobs are missing, uploads them (`upload`), and submits names; if anything is absent or wrong it is told exactly what.
//!
//! Deliberately absent: the network, who may submit.

use std::collections::BTreeSet;
use std::fmt;

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::Role;
use colibri_package::PackagePath;

use crate::announce::{Announced, Announcement};
use crate::blobs::Standing;
use crate::draft::{Change, TargetsChange};
use crate::error::RepositoryError;
use crate::gate::{Check, Pass, PublishGate};
use crate::limits;
use crate::named_targets::{self, NamedTargets};
use crate::offer::Offer;
use crate::repository::{Repository, Versions};

/// What to offer from now on, of packages whose blobs are here.
#[derive(Clone)]
pub struct Submit<'a> {
    /// Names and package hashes.
    pub packages: Vec<(PackagePath, BlobId)>,
    /// Packages to offer no longer.
    pub remove: Vec<PackagePath>,
    /// Offer only `packages` instead of adding them to those offered now.
    pub clean: bool,
    /// Versions of targets, snapshot and timestamp are seconds since 1970.
    pub time_versioning: bool,
    /// The time.
    pub now: UnixSeconds,
    /// Offer all this although blobs are absent or wrong; the signed snapshot says why.
    pub unproven_because: Option<String>,
    /// Asked when all blobs are proven and before anything is signed.
    pub gate: Option<&'a dyn PublishGate>,
    /// Why no gate is asked that should have been; the signed snapshot says it.
    pub past_gate_because: Option<String>,
    /// Refuse unless targets has this version at the moment of the change. In a repository with hash bins a change of a bin
    /// does not move it.
    pub if_targets_version: Option<u32>,
    /// Refuse unless the snapshot has this version at the moment of the change: it moves with every change of what is offered,
    /// whichever file says it, and when it is signed again.
    pub if_snapshot_version: Option<u32>,
}

impl Submit<'_> {
    /// Nothing yet, added to what is offered.
    pub fn new(now: UnixSeconds) -> Self {
        Self {
            packages: Vec::new(),
            remove: Vec::new(),
            clean: false,
            time_versioning: false,
            now,
            unproven_because: None,
            gate: None,
            past_gate_because: None,
            if_targets_version: None,
            if_snapshot_version: None,
        }
    }
}

impl fmt::Debug for Submit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit")
            .field("packages", &self.packages)
            .field("remove", &self.remove)
            .field("clean", &self.clean)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Which of these blobs must be brought before a package that names them can be offered: those that are not here, proven,
    /// in any encoding. What is here and on offer nowhere stays for the grace period of collection from when it was stored.
    ///
    /// # Errors
    /// More blobs than one question may name, or the disk refuses.
    pub fn missing_blobs(&self, ids: &[BlobId]) -> Result<Vec<BlobId>, RepositoryError> {
        if ids.len() as u64 > limits::BLOBS_ASKED_MAX {
            return Err(RepositoryError::TooMany { what: "blobs asked for", limit: limits::BLOBS_ASKED_MAX });
        }
        self.blobs.receipts.read_new()?;
        let mut missing = Vec::new();
        for id in ids {
            if self.blobs.any_standing(*id, UnixSeconds(0))? != Standing::Proven {
                missing.push(*id);
            }
        }
        self.blobs.receipts.flush()?;
        Ok(missing)
    }

    /// Offers packages whose blobs are here, and no longer offers others; signs targets, snapshot and timestamp.
    ///
    /// # Errors
    /// [`RepositoryError::Unready`] says which blobs of which packages are absent or wrong. What was visible before stays
    /// visible.
    pub fn submit(&self, submit: &Submit<'_>) -> Result<Versions, RepositoryError> {
        let packages = submit.packages.iter().map(|(_, hash)| *hash).collect();
        let announced = Announced { packages, ..Announced::default() };
        let _announced = Announcement::make(self.storage.as_ref(), &announced, submit.now)?;
        self.blobs.receipts.read_new()?;
        let mut check = Check::new(&self.blobs, submit.now);
        for (name, hash) in &submit.packages {
            check.package(&name.to_string(), *hash)?;
        }
        if check.count > 0 && submit.unproven_because.is_none() {
            return Err(RepositoryError::Unready { blobs: check.unready, count: check.count });
        }
        let named = self.named_targets(&submit.packages)?;
        if let Some(gate) = submit.gate {
            gate.pass(&check.proven()).map_err(|reason| RepositoryError::Held { reason })?;
        }
        let terms = self.terms(submit.now, submit.time_versioning);
        let pass = Pass {
            now: submit.now,
            because: submit.unproven_because.as_deref(),
            past_gate: submit.past_gate_because.as_deref(),
            look_at_all: false,
        };
        let remove = submit.remove.iter().map(|name| named_targets::target_name(&name.to_string()));
        let remove: BTreeSet<_> = remove.collect::<Result<_, _>>()?;
        self.transact(&terms, &pass, &mut |head| {
            for (role, expected) in
                [(Role::Targets, submit.if_targets_version), (Role::Snapshot, submit.if_snapshot_version)]
            {
                let found = head.set.version(role).unwrap_or(0);
                if let Some(expected) = expected.filter(|expected| *expected != found) {
                    return Err(RepositoryError::Moved { role, found, expected });
                }
            }
            self.blobs.put_targets(&named.files)?;
            let (put, remove) = (named.entries.clone(), remove.clone());
            let offer = Offer { put, remove, clean: submit.clean, ..Offer::default() };
            Ok(Change { targets: TargetsChange::Offer(offer), ..Change::default() })
        })
    }

    /// Meta.fars as files, and entries, of packages that are here.
    pub(crate) fn named_targets(&self, packages: &[(PackagePath, BlobId)]) -> Result<NamedTargets, RepositoryError> {
        let mut targets = NamedTargets::default();
        for (path, hash) in packages {
            targets.package(path, *hash, self.blobs.content(*hash)?.into())?;
        }
        Ok(targets)
    }
}
