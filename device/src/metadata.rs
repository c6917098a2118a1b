//! Metadata of repositories, as a device uses it: refreshed when it is stale, the last trusted set where no mirror answers, and
//! the package hash that it lists for a name, also through delegated roles.

use std::sync::Arc;
use std::time::Duration;

use colibri_common::BlobId;
use colibri_fetch::metadata::{Mirrors, Unfinished};
use colibri_fetch::{FetchError, Sources};
use colibri_metadata::{Found, Rule, Search, Step, TargetName, TrustedSet};
use colibri_package::url::AbsolutePackageUrl;

use crate::device::Device;
use crate::error::DeviceError;
use crate::limits::REFRESH_AGAIN_S;
use crate::rollout::{self, ROLLOUT};

impl Device {
    /// Refreshes a repository's metadata if it is stale, or in any case if `force`d. Trusted metadata that is here goes on being
    /// used when a refresh fails because no mirror answers in time, or because all of them lag behind it (and nobody insists on
    /// news). That a mirror has none, or serves what must be refused otherwise, is an error.
    pub async fn refresh(&self, host: &str, force: bool) -> Result<Arc<TrustedSet>, DeviceError> {
        let repository = self.repositories().get(host)?;
        self.check_trusted(&repository)?;
        let _one_at_a_time = repository.refreshing.lock().await;
        let now = self.now();
        let life_s = self.config().metadata_life_s;
        // A clock that was set back makes nothing fresh.
        let is_fresh = repository.checked_at().is_some_and(|at| at <= now && now < at.plus(life_s));
        if let Some(set) = repository.trusted().filter(|set| !force && is_fresh && now < set.earliest_expiry()) {
            return Ok(set);
        }
        if let Some(set) = repository.trusted().filter(|set| {
            // Mirrors that were all away a moment ago are not walked again for every lookup.
            let failed_just_now = repository.failed_at().is_some_and(|at| at <= now && now < at.plus(REFRESH_AGAIN_S));
            !force && failed_just_now && now < set.earliest_expiry()
        }) {
            return Ok(set);
        }
        let start = repository.start()?;
        let mirrors = self.mirrors(repository.sources());
        let fetched = self.in_time(mirrors.refresh(start, now)).await;
        self.repositories().note_lagging();
        let fetched = match fetched {
            Ok(set) => {
                self.repositories().trust(&repository, set, Some(now))?;
                // The set is trusted either way.
                if let Some(Err(error)) = self.floor().map(|floor| floor.trusted(now)) {
                    tracing::warn!(%error, "how late it is at least could not be written down");
                }
                Ok(())
            }
            Err(unfinished) => {
                if let Some(floor) = unfinished.floor {
                    self.repositories().trust(&repository, floor, None)?;
                }
                Err(unfinished.error)
            }
        };
        match (fetched, repository.trusted()) {
            (Ok(()), _) => {}
            (Err(error), Some(old)) if now < old.earliest_expiry() && may_go_on(&error, force) => {
                repository.failed(now);
                tracing::warn!(%host, %error, "metadata could not be refreshed: using what is trusted already");
            }
            (Err(error), _) => return Err(DeviceError::Metadata { repository: host.to_owned(), error }),
        }
        repository.trusted().ok_or_else(|| DeviceError::RepositoryNotFound(host.to_owned()))
    }

    /// Metadata from these, within the bounds of this device.
    fn mirrors<'a>(&'a self, sources: &'a Sources) -> Mirrors<'a> {
        Mirrors { client: self.client(), sources, place: "", agent: self.agent(), bandwidth: self.bandwidth() }
    }

    /// What comes of asking mirrors for metadata, within the time that there is for it.
    async fn in_time<T>(
        &self,
        asking: impl Future<Output = Result<T, Unfinished<FetchError>>>,
    ) -> Result<T, Unfinished<FetchError>> {
        let seconds = self.config().metadata_timeout_s;
        // A refresh is a large future: in a box it does not make everything larger that waits for one.
        if let Ok(came) = tokio::time::timeout(Duration::from_secs(seconds), Box::pin(asking)).await {
            return came;
        }
        let error = FetchError::AllFailed {
            what: "repository metadata".to_owned(),
            causes: format!("it did not come within {seconds} s"),
            bad_bytes: false,
            absent_somewhere: false,
            other_form: false,
            rate_limited: false,
        };
        Err(Unfinished { error, floor: None })
    }

    /// What the URL pins, else what its repository lists, whatever a release says.
    pub(crate) async fn pinned_or_listed(&self, meant: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        let listed = self.listed_hash(meant).await?;
        Ok(meant.hash().unwrap_or(listed))
    }

    /// The hash that the repository lists for the name in a URL, whatever the URL pins.
    pub(crate) async fn listed_hash(&self, url: &AbsolutePackageUrl) -> Result<BlobId, DeviceError> {
        let host = url.repository().host();
        let package = url.path().to_string();
        let name: TargetName = package
            .parse()
            .map_err(|error| DeviceError::InvalidUrl { url: url.to_string(), reason: format!("{error}") })?;
        let set = self.refresh(host, false).await?;
        let delegates = set.targets().is_some_and(|targets| targets.delegations().is_some());
        // What an online role may name is a document to be checked, never a package.
        let found = match url.name().as_str() == ROLLOUT {
            true => None,
            false if delegates => self.search(host, set, &name).await?.1.and_then(rollout::unless_of_rollout),
            false => set.find(&name),
        };
        let repository = host.to_owned();
        let Some(target) = found else { return Err(DeviceError::PackageNotFound { repository, package }) };
        let hash = target.merkle().ok_or(DeviceError::TargetWithoutHash { repository, package })?;
        // The target is the meta.far.
        self.expect_listed(hash, target.length);
        Ok(hash)
    }

    /// Looks through delegated roles; those that are not here yet are fetched, and stay for the next lookup. Gives the set with
    /// all that were met.
    pub(crate) async fn search(
        &self,
        host: &str,
        set: Arc<TrustedSet>,
        name: &TargetName,
    ) -> Result<(TrustedSet, Option<Found>), DeviceError> {
        let now = self.now();
        let mut local = Search::start((*set).clone(), name.clone(), now);
        let searched = match local.next() {
            Step::Done => local.finish().map_err(|error| FetchError::Metadata {
                source_name: "what is trusted here".to_owned(),
                error: Arc::new(error),
            }),
            Step::Want(_) => {
                let repository = self.repositories().get(host)?;
                let sources = repository.sources();
                let mirrors = self.mirrors(sources);
                let searched = self.in_time(mirrors.search((*set).clone(), name, now)).await;
                if let Ok((grown, _)) = &searched {
                    repository.keep_delegated(&set, grown);
                }
                searched.map_err(|unfinished| unfinished.error)
            }
        };
        searched.map_err(|error| DeviceError::Metadata { repository: host.to_owned(), error })
    }
}

/// Whether a refresh that failed like this lets a device go on with what it trusts.
fn may_go_on(error: &FetchError, is_news_wanted: bool) -> bool {
    match error {
        FetchError::AllFailed { .. } => true,
        FetchError::Metadata { error, .. } => {
            !is_news_wanted && error.is_lagging() && !matches!(error.rule(), Rule::Missing)
        }
        _ => false,
    }
}
