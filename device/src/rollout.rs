//! What the versioning authority says: `rollout/NAME`, a document that chooses among the releases that targets lists.
//!
//! The role that signs it has an online key, so its word is taken for nothing but a choice: every release that the document
//! refers to must be listed by targets itself, and what that role lists is never a package. Deliberately absent: following a
//! rollout, and what else a document says (the authority).

use std::sync::Arc;

use colibri_common::BlobId;
use colibri_metadata::{Found, TargetDescription, TargetName, TrustedSet};
use colibri_release::limits::{ROLLOUT_BYTES_MAX, ROLLOUT_RELEASES_MAX};
use colibri_release::{ListedPackages, Rollout, RolloutError, check_references};

use crate::device::Device;
use crate::error::DeviceError;

/// The delegated role of the versioning authority, and the folder of what it may name: never packages, else whoever has its
/// online key could introduce one.
pub(crate) const ROLLOUT: &str = "rollout";

/// What was found, unless the role `rollout` or somebody on its word says it. Targets leaves it `rollout/*` alone, but a
/// careless delegation must not make a package of what it says.
pub(crate) fn unless_of_rollout(found: Found) -> Option<TargetDescription> {
    let by_rollout = [&found.role, &found.through].into_iter().flatten().any(|role| role.as_str() == ROLLOUT);
    (!by_rollout).then_some(found.target)
}

/// Under which names targets lists what a rollout refers to, as `custom.releases` of its target says: whoever signs the rollout
/// spares its readers the search through all hash bins. A hint only; what is found there counts.
fn hints(target: &TargetDescription) -> impl Iterator<Item = (BlobId, TargetName)> + '_ {
    let hints = target.custom.get("releases").and_then(|value| value.as_object()).into_iter().flatten();
    let hints = hints.filter_map(|(hash, name)| Some((hash.parse().ok()?, name.as_str()?.parse().ok()?)));
    hints.take(usize::try_from(ROLLOUT_RELEASES_MAX).unwrap_or(usize::MAX))
}

impl Device {
    /// The rollout that the repository of `host` offers under `rollout/NAME`: found through TUF, with the length and hashes that
    /// metadata says, and referring to nothing that targets does not list.
    ///
    /// # Errors
    /// There is none, it cannot be had, or it must not be followed, whoever signed it.
    pub async fn rollout(&self, host: &str, name: &str) -> Result<Rollout, DeviceError> {
        let (repository, rollout) = (host.to_owned(), name.to_owned());
        let not_found = || DeviceError::RolloutNotFound { repository: repository.clone(), rollout: rollout.clone() };
        let refused = |error| DeviceError::Rollout { repository: repository.clone(), rollout: rollout.clone(), error };
        let target_name = Some(name).filter(|name| !name.contains('/'));
        let target_name = target_name.and_then(|name| format!("{ROLLOUT}/{name}").parse::<TargetName>().ok());
        let target_name = target_name.ok_or_else(not_found)?;
        let set = self.refresh(host, false).await?;
        let (set, found) = self.search(host, set, &target_name).await?;
        let target = found.ok_or_else(not_found)?.target;
        if target.length > ROLLOUT_BYTES_MAX {
            return Err(refused(RolloutError::TooLarge(target.length)));
        }
        let from = self.repositories().get(host)?;
        let numbered = set.root().consistent_snapshot();
        let document = self.fetcher(&from).target("/targets", &target_name, &target, numbered).await;
        let document = document.map_err(|error| DeviceError::Metadata { repository: host.to_owned(), error })?;
        let listed = self.listed_packages(host, set, &target).await?;
        check_references(&document, |hash| listed.contains(hash)).map_err(refused)
    }

    /// What targets lists, as far as it is held here and where the hints of a rollout lead.
    async fn listed_packages(
        &self,
        host: &str,
        mut set: TrustedSet,
        target: &TargetDescription,
    ) -> Result<ListedPackages, DeviceError> {
        let mut listed = ListedPackages::of(&set, self.now());
        let open: Vec<_> = hints(target).filter(|(hash, _)| !listed.contains(*hash)).collect();
        if !open.is_empty() {
            for (_, name) in open {
                (set, _) = self.search(host, Arc::new(set), &name).await?;
            }
            listed = ListedPackages::of(&set, self.now());
        }
        Ok(listed)
    }
}
