//! Who says which version of a package a URL means: the chain of authorities, in order (reference "Fuchsia device side" §7.1).
//!
//! | | authority | asked with | says | network |
//! |---|---|---|---|---|
//! | 0 | boot packages | `fuchsia-boot:///NAME` | another kind of URL, so it never meets the others | no |
//! | – | the developer overlay | the URL as given | engineering mode only: what goes before all that follows | yes |
//! | 1 | base | the URL as given, unpinned | the permanent & anchored packages of the release, or of the running system's update package or image | no |
//! | 1 | the release | the URL as given | its other anchored packages; a pin must be the same version | no |
//! | 2 | upgradable | the URL as given, which must not be pinned | the last answer of their own authority, else the version to fall back to | no |
//! | 3 | rewrite rules | the URL as given | another URL, for all that follows | no |
//! | 4 | eager | the rewritten URL, unpinned | the answer that was verified; configured without an answer is "not found" | no |
//! | 5 | TUF | the rewritten URL | what the repository lists; a pin then takes the place of the hash | yes |
//! | 6 | cache packages | the URL as given | the cache set of the system image, only if TUF failed in one of the ways that `fallback` lists | no |
//!
//! `Device::look_up` is that table from top to bottom. It says a hash and who said it, never fetches a package, and is done
//! before the first blob is asked for: a blob that cannot be had is no reason for another version.
//!
//! What others fill in: [`EagerPackages`] (persisted, signed answers: their verification and keeping), and
//! [`Device::set_upgradable`] (whoever talks to the authority of upgradable packages).

mod fallback;
mod upgradable;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use colibri_common::BlobId;
use colibri_package::url::{AbsolutePackageUrl, UnpinnedPackageUrl};

use crate::device::Device;
use crate::error::DeviceError;
use crate::sets::{Authority, SetError, Table, key};
use fallback::SlowFallbacks;
use upgradable::Gate;

/// Who said which version a URL means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResolvedBy {
    /// The package archive that was given at start.
    Boot,
    /// The developer overlay.
    Overlay,
    /// Permanent & anchored packages of the release, or of the system image.
    Base,
    /// Other anchored packages of the release or the system image.
    Release,
    /// The authority of an upgradable package.
    Upgradable,
    /// The version that the release falls back to where the authority of an upgradable package gave none.
    Fallback,
    /// A signed answer about an eager package.
    Eager,
    /// The repository.
    Tuf,
    /// The cache set of the system image, since TUF failed.
    CachePackages,
}

impl ResolvedBy {
    /// As it stands in the log, behind `with`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot packages",
            Self::Overlay => "overlay",
            Self::Base => "base",
            Self::Release => "release",
            Self::Upgradable => "upgradable packages",
            Self::Fallback => "fallback of the release",
            Self::Eager => "eager packages",
            Self::Tuf => "TUF",
            Self::CachePackages => "cache packages",
        }
    }
}

impl fmt::Display for ResolvedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the eager packages say about a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EagerAnswer {
    /// It is no eager package.
    NotConfigured,
    /// It is one, and there is no answer that could be used: not found, and nobody else is asked.
    Absent,
    /// It is one without an answer that could be used, and its configuration lets it fall back to the cache packages.
    AbsentWithCacheFallback,
    /// The version of the newest verified answer.
    Hash(BlobId),
}

/// Eager packages: those whose version a signed answer says (CUP), kept over restarts and verified again at each start.
///
/// Answers at once and from memory: it is asked in the middle of a resolve. [`Device::set_eager`] puts it into the chain.
pub trait EagerPackages: Send + Sync + fmt::Debug {
    /// The version of the package of exactly this URL, which rewrite rules made.
    fn hash_for(&self, url: &UnpinnedPackageUrl) -> EagerAnswer;
}

/// Which version a URL means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lookup {
    /// The URL that is meant: after rewriting, if rules had a say.
    pub url: AbsolutePackageUrl,
    /// The package hash.
    pub hash: BlobId,
    /// Who said so.
    pub by: ResolvedBy,
}

/// What the chain remembers besides the release and the repositories.
#[derive(Debug, Default)]
pub(crate) struct Authorities {
    eager: RwLock<Option<Arc<dyn EagerPackages>>>,
    upgradable: Gate,
    slow: SlowFallbacks,
}

impl Authorities {
    fn eager_answer(&self, url: &AbsolutePackageUrl) -> EagerAnswer {
        let eager = self.eager.read().unwrap_or_else(PoisonError::into_inner).clone();
        match (eager, url) {
            (Some(eager), AbsolutePackageUrl::Unpinned(url)) => eager.hash_for(url),
            (Some(_), AbsolutePackageUrl::Pinned(_)) | (None, _) => EagerAnswer::NotConfigured,
        }
    }
}

impl Device {
    /// Puts eager packages into the chain, in the place of those that were there.
    pub fn set_eager(&self, eager: Arc<dyn EagerPackages>) {
        *self.authorities().eager.write().unwrap_or_else(PoisonError::into_inner) = Some(eager);
    }

    /// Which version a URL means, and who says so.
    ///
    /// # Errors
    /// Nobody says, the running release does not let this be resolved, or the metadata of its repository cannot be had.
    pub(crate) async fn look_up(&self, url: &AbsolutePackageUrl) -> Result<Lookup, DeviceError> {
        // In boxes: whoever resolves would carry the state of every authority about with him.
        if let Some(found) = Box::pin(self.overlaid(url)).await? {
            return Ok(found);
        }
        let meant = self.rules().rewrite(url);
        match self.said_here(url).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            // An alias is no package of the release; what it stands for may be.
            Err(DeviceError::Set(SetError::NotEligible { .. })) if meant != *url => {}
            Err(error) => return Err(error),
        }
        match self.authorities().eager_answer(&meant) {
            EagerAnswer::NotConfigured => {}
            EagerAnswer::Hash(hash) => return Ok(Lookup { url: meant, hash, by: ResolvedBy::Eager }),
            EagerAnswer::AbsentWithCacheFallback => {
                return match self.cached(url) {
                    Some(hash) => Ok(Lookup { url: url.clone(), hash, by: ResolvedBy::CachePackages }),
                    None => Err(DeviceError::EagerNotFound(meant.to_string())),
                };
            }
            EagerAnswer::Absent => return Err(DeviceError::EagerNotFound(meant.to_string())),
        }
        if meant != *url
            && let Some(found) = self.said_here(&meant).await?
        {
            return Ok(found);
        }
        tracing::info!("attempting to resolve {url} as {meant} with {}", ResolvedBy::Tuf);
        let began = tokio::time::Instant::now();
        match Box::pin(self.pinned_or_listed(&meant)).await {
            Ok(hash) => Ok(Lookup { url: meant, hash, by: ResolvedBy::Tuf }),
            Err(error) => self.fall_back(url, error, began.elapsed()).await,
        }
    }

    /// What is said without a rule and without a network: base, what else the release anchors, upgradable packages.
    async fn said_here(&self, url: &AbsolutePackageUrl) -> Result<Option<Lookup>, DeviceError> {
        let found = |hash, by| Ok(Some(Lookup { url: url.clone(), hash, by }));
        let Some(release) = self.release() else {
            // An image or an update package says what its own packages are; a pin asks for a version, which is no question for it.
            let AbsolutePackageUrl::Unpinned(unpinned) = url else { return Ok(None) };
            let named = self.cache().named();
            let wanted = key(unpinned);
            let base = if named.system.is_empty() { &named.base } else { &named.system };
            return match (base.get(&wanted), named.anchored.get(&wanted)) {
                (Some(hash), _) => found(*hash, ResolvedBy::Base),
                (None, Some(hash)) => found(*hash, ResolvedBy::Release),
                (None, None) => Ok(None),
            };
        };
        let said = || Table::new(&release, &self.cache().upgrades()).authority(url);
        let mut said_now = said();
        let may_be_said_yet =
            matches!(said_now, Ok(Authority::Fallback(_) | Authority::Upgradable) | Err(SetError::NoVersionYet { .. }));
        if may_be_said_yet && self.authorities().upgradable.opened_within(self.config().upgradable_wait_s).await {
            said_now = said();
        }
        match said_now? {
            Authority::Base(hash) => found(hash, ResolvedBy::Base),
            Authority::Anchored(hash) => found(hash, ResolvedBy::Release),
            Authority::Upgraded(hash) => found(hash, ResolvedBy::Upgradable),
            Authority::Fallback(hash) => found(hash, ResolvedBy::Fallback),
            Authority::Upgradable | Authority::Discoverable | Authority::Cache => Ok(None),
        }
    }

    /// The version that somebody says who goes before the repository of the URL, if one does.
    pub(crate) async fn known_here(&self, url: &AbsolutePackageUrl) -> Result<Option<BlobId>, DeviceError> {
        if let Some(found) = Box::pin(self.overlaid(url)).await? {
            return Ok(Some(found.hash));
        }
        match self.said_here(url).await {
            Ok(found) => Ok(found.map(|found| found.hash)),
            Err(DeviceError::Set(SetError::NotEligible { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Does what follows a lookup, and tells the log what came of both, in the words of real devices.
pub(crate) async fn told<T>(
    device: &Device,
    url: &AbsolutePackageUrl,
    found: Result<Lookup, DeviceError>,
    then: impl AsyncFnOnce(&Lookup) -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    let (meant, by, outcome) = match found {
        Err(error) => (device.rules().rewrite(url), ResolvedBy::Tuf, Err(error)),
        Ok(found) => match then(&found).await {
            Ok(done) => {
                tracing::info!("resolved {url} as {} to {} with {}", found.url, found.hash, found.by);
                return Ok(done);
            }
            Err(error) => (found.url, found.by, Err(error)),
        },
    };
    // Whoever asked is told by the error; this is for the log alone.
    outcome.inspect_err(|error: &DeviceError| {
        tracing::info!("failed to resolve {url} as {meant} with {by}: {}: {error}", error.kind());
    })
}
