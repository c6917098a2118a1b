//! The cache packages of a system image as the last authority, and when they may be asked: repository not known, not to be
//! opened, without metadata that could be had and believed; and, as devices in the field still need it, a package that it does
//! not list. Never because a blob could not be had: with a repository that answers, an old version must not be used.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use colibri_common::{BlobId, UnixSeconds};
use colibri_package::PackageVariant;
use colibri_package::url::AbsolutePackageUrl;

use super::{Lookup, ResolvedBy};
use crate::device::Device;
use crate::error::DeviceError;
use crate::limits::{SLOW_FALLBACK_AGAIN_S, SLOW_FALLBACK_S};
use crate::sets::key;

/// When a slow fallback was last told.
#[derive(Debug, Default)]
pub(super) struct SlowFallbacks(Mutex<Option<UnixSeconds>>);

impl SlowFallbacks {
    /// Whether this one is to be told.
    fn is_news(&self, took: Duration, now: UnixSeconds) -> bool {
        if took < Duration::from_secs(SLOW_FALLBACK_S) {
            return false;
        }
        let mut told_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told_at.is_none_or(|at| now < at || now >= at.plus(SLOW_FALLBACK_AGAIN_S));
        if is_news {
            *told_at = Some(now);
        }
        is_news
    }
}

/// Whether TUF failed in a way that lets the cache packages speak.
const fn permits(error: &DeviceError) -> bool {
    matches!(
        error,
        DeviceError::RepositoryNotFound(_)
            | DeviceError::DamagedTrust { .. }
            | DeviceError::Metadata { .. }
            | DeviceError::PackageNotFound { .. }
            | DeviceError::TargetWithoutHash { .. }
    )
}

impl Device {
    /// The cache package of a URL as it was given: of variant 0, and of the version that the URL pins, if it pins one.
    pub(super) fn cached(&self, url: &AbsolutePackageUrl) -> Option<BlobId> {
        if url.variant().is_some_and(|variant| *variant != PackageVariant::zero()) {
            return None;
        }
        let hash = self.cache().named().cache.get(&key(url.as_unpinned())).copied()?;
        url.hash().is_none_or(|pin| pin == hash).then_some(hash)
    }

    /// What the cache packages say after TUF failed like this, after so long; else that error.
    pub(super) async fn fall_back(
        &self,
        url: &AbsolutePackageUrl,
        error: DeviceError,
        took: Duration,
    ) -> Result<Lookup, DeviceError> {
        let Some(hash) = self.cached(url).filter(|_| permits(&error)) else { return Err(error) };
        if !self.is_on_device(hash).await? {
            return Err(error);
        }
        tracing::warn!("{url} is taken from the cache packages, which are deprecated: {}: {error}", error.kind());
        if self.authorities().slow.is_news(took, self.now()) {
            tracing::warn!("it took {} s to find out that {url} must fall back to the cache packages", took.as_secs());
        }
        Ok(Lookup { url: url.clone(), hash, by: ResolvedBy::CachePackages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_fallbacks_are_told_once_in_ten_minutes() {
        let (slow, quick) = (Duration::from_secs(SLOW_FALLBACK_S), Duration::from_millis(9999));
        let told = SlowFallbacks::default();
        let at = UnixSeconds(1_000_000);
        assert!(!told.is_news(quick, at), "a quick one is no news");
        assert!(told.is_news(slow, at));
        assert!(!told.is_news(slow, at.plus(SLOW_FALLBACK_AGAIN_S - 1)));
        assert!(told.is_news(slow, at.plus(SLOW_FALLBACK_AGAIN_S)));
        assert!(told.is_news(slow, at), "a clock that was set back silences nobody");
    }

    #[test]
    fn only_the_ways_of_tuf_to_fail_permit_it() {
        let blob = || DeviceError::Blob(colibri_fetch::FetchError::NoSource("blob".to_owned()));
        assert!(permits(&DeviceError::RepositoryNotFound("host".to_owned())));
        assert!(permits(&DeviceError::PackageNotFound { repository: "h".to_owned(), package: "p/0".to_owned() }));
        assert!(permits(&DeviceError::DamagedTrust { repository: "h".to_owned(), reason: String::new() }));
        let error = colibri_fetch::FetchError::NoSource("metadata".to_owned());
        assert!(permits(&DeviceError::Metadata { repository: "h".to_owned(), error }));
        assert!(!permits(&blob()));
        assert!(!permits(&DeviceError::Internal(String::new())));
        assert!(!permits(&DeviceError::EagerNotFound(String::new())));
        assert!(!permits(&DeviceError::InvalidUrl { url: String::new(), reason: String::new() }));
    }
}
