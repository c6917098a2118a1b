//! Which repositories the running release trusts: those that it lists, by the root that it lists. Any other may be configured,
//! and is refused by name when its metadata is wanted. Blobs may come from anywhere, since their hashes are what is believed.

use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, RepoConfig, Role, Start, Step, TrustedSet, Update};
use colibri_release::{Release, TrustedRepository};

use crate::device::Device;
use crate::error::DeviceError;
use crate::repositories::Repository;

impl Device {
    /// Refuses a repository that the running release does not trust; one that an overlay in force names excepted.
    pub(crate) fn check_trusted(&self, repository: &Repository) -> Result<(), DeviceError> {
        let Some(release) = self.release() else { return Ok(()) };
        let host = repository.config().host();
        if self.overlay_trusts(host) {
            return Ok(());
        }
        check(&release, repository.config(), repository.proven().as_deref(), self.now()).map_err(|reason| {
            let release = format!("{} {}", release.product(), release.version());
            DeviceError::UntrustedRepository { repository: host.to_owned(), release, reason }
        })
    }
}

/// Whether what is proven from a configuration is at least as good as what is proven from the release's root.
fn check(
    release: &Release,
    config: &RepoConfig,
    proven: Option<&TrustedSet>,
    now: UnixSeconds,
) -> Result<(), &'static str> {
    let host = config.host();
    let listed = release.repositories().iter().find(|listed| listed.url.host() == host);
    let listed = listed.ok_or("it is not among those that the release lists")?;
    if names_its_keys(listed, config) || proven.is_some_and(|set| is_its_successor(listed, set, now)) {
        Ok(())
    } else {
        Err("its root keys are not those of the release; add it anew from the publisher's current configuration")
    }
}

/// The configuration believes only keys of the release's root, and wants as many signatures as that does.
fn names_its_keys(listed: &TrustedRepository, config: &RepoConfig) -> bool {
    let Ok(set) = TrustedSet::from_root_file(&listed.root.clone().into()) else { return false };
    let keys: Vec<_> = set.root().public_keys(Role::Root).collect();
    let enough = config.root_threshold >= set.root().role_keys(Role::Root).threshold;
    enough && config.root_keys.iter().all(|key| keys.contains(&key.0))
}

/// The root that is trusted now is the release's, or the next one and signed for by it. Never the other way round: an older
/// root that somebody made up can easily list a key that signed the release's.
fn is_its_successor(listed: &TrustedRepository, set: &TrustedSet, now: UnixSeconds) -> bool {
    let Some((_, root)) = set.files().find(|(name, _)| *name == Role::Root.file()) else { return false };
    if **root == *listed.root.as_bytes() {
        return true;
    }
    let mut update = Update::start(Start::FromAnchor(listed.trust_anchor()), now);
    let next = Role::Root.numbered_file(set.root().version());
    match update.next() {
        Step::Want(want) => want.name == next && update.supply(Answer::Found(root.clone())).is_ok(),
        Step::Done => false,
    }
}
