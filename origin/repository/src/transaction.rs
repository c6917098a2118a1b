//! One change of the repository's metadata: let through the gate, drafted on the newest set, committed; or all again if another
//! was first.
//!
//! Every way to change what is offered ends here. Deliberately absent: what changes (the plan), and signing (`draft`).

use crate::draft::{Change, Signing};
use crate::error::RepositoryError;
use crate::gate::{self, Pass};
use crate::limits;
use crate::metadata::{Head, Terms};
use crate::repository::{Repository, Versions};

impl Repository {
    /// Commits what `plan` wants changed, given the set it builds on. The plan is asked again, with the new set, when another
    /// publisher was first; until the commit it may be dropped at any moment and nobody has seen anything.
    pub(crate) fn transact(
        &self,
        terms: &Terms,
        pass: &Pass<'_>,
        plan: &mut dyn FnMut(&Head) -> Result<Change, RepositoryError>,
    ) -> Result<Versions, RepositoryError> {
        self.transact_with(terms, pass, plan, &mut |_| Ok(()))
    }

    /// [`Self::transact`], with something to be told to the audit log before anything is signed.
    pub(crate) fn transact_with(
        &self,
        terms: &Terms,
        pass: &Pass<'_>,
        plan: &mut dyn FnMut(&Head) -> Result<Change, RepositoryError>,
        first: &mut dyn FnMut(&mut Signing<'_>) -> Result<(), RepositoryError>,
    ) -> Result<Versions, RepositoryError> {
        let _lock = self.storage.lock()?;
        for _ in 0..limits::COMMIT_ATTEMPTS_MAX {
            let head = self.metadata.head()?;
            self.metadata.heal(&head)?;
            let mut change = plan(&head)?;
            change.unproven = gate::check(&self.metadata, &self.blobs, &head, &change, pass)?;
            if change.unproven != gate::let_through(&head.set) {
                // Only a new snapshot can say it.
                change.timestamp_only = false;
            }
            let unproven = change.unproven.clone();
            let mut signing = self.signing(Some(&head.set), terms.now)?;
            first(&mut signing)?;
            let draft = self.metadata.draft(&head.set, signing, change, terms)?;
            // Before anybody can see what was signed; whose lines come first is the first.
            if !self.audit.append(&draft.audit)? {
                continue;
            }
            if self.metadata.commit(head.number, &draft, terms.now, unproven)?.is_some() {
                return Ok(Versions::of(&draft.set));
            }
            tracing::debug!(repository = %self.dir.display(), "another publisher was first: drafting again");
        }
        Err(RepositoryError::Contended { path: self.dir.clone(), attempts: limits::COMMIT_ATTEMPTS_MAX })
    }
}
