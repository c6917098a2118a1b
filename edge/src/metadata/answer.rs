//! What a followed repository answers for a metadata file: from the set that is served, from the history, or from upstream
//! with a check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use colibri_api::{ApiError, MetadataFile};
use colibri_fetch::{BlobFetcher, FetchError, Unverified};
use colibri_metadata::{MetadataError, Role, RoleName, Targets, TrustedSet};
use quick_cache::Weighter;

use super::Followed;
use super::published::{File, Published};
use crate::freshness::Freshness;
use crate::limits::{ABSENT_FLOOR_MS, AWAY_MS, EXTRA_BYTES_MAX, REFRESH_WAIT_MS};
use crate::serve::api_error;

/// Bytes an entry costs besides name and content.
const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// A file to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    pub file: Arc<File>,
    pub freshness: Freshness,
    /// How long ago upstream was known to have nothing newer; nothing for what never changes.
    pub age_s: Option<u64>,
}

/// What upstream was asked for beyond the sets.
#[derive(Debug, Clone)]
pub(super) enum Extra {
    Found(Arc<File>),
    Absent(Instant),
}

#[derive(Debug, Clone)]
pub(super) struct ByBytes;

impl Weighter<String, Extra> for ByBytes {
    fn weight(&self, name: &String, extra: &Extra) -> u64 {
        let bytes = match extra {
            Extra::Found(file) => file.bytes.len(),
            Extra::Absent(_) => 0,
        };
        (name.len() + bytes) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

const _: () = assert!(EXTRA_BYTES_MAX / 10 * 9 > colibri_metadata::limits::TARGETS_BYTES_MAX, "the largest is kept");

/// On whose word a file from upstream is believed.
#[derive(Debug, Clone)]
enum Check {
    /// A root before the configured one: it can only vouch for itself.
    Root(u32),
    /// Signed by the keys that the newest root gives the role.
    Top(Role, u32),
    /// Listed by this set, and signed by whom a role of it delegates to.
    Delegated(Arc<Published>, RoleName),
}

impl Followed {
    /// The file, as new as the client wishes and as can be had. `fetcher` asks upstream on behalf of the request.
    pub async fn answer(
        self: &Arc<Self>,
        wanted: &MetadataFile,
        insists: bool,
        fetcher: &BlobFetcher,
    ) -> Result<Answered, ApiError> {
        self.metrics.documents_asked.inc();
        match wanted.version() {
            Some(version) => self.numbered(wanted.role(), version, insists, fetcher).await,
            None => self.unnumbered(wanted.role(), insists, fetcher).await,
        }
    }

    /// A file of the newest set. Beyond the bound of staleness it is an error: silence would be a freeze.
    async fn unnumbered(
        self: &Arc<Self>,
        role: &str,
        insists: bool,
        fetcher: &BlobFetcher,
    ) -> Result<Answered, ApiError> {
        let freshness = self.bring_up_to_date(insists).await;
        let (current, age, failed) = {
            let state = self.state();
            let age = state.checked_at.map(|at| at.elapsed());
            (state.current.clone(), age, state.failed.as_ref().map(|(_, error)| error.to_string()))
        };
        let because = failed.unwrap_or_else(|| "upstream has not answered yet".to_owned());
        let name = &self.name;
        let Some(current) = current else {
            return Err(ApiError::GatewayTimeout(format!("there is no metadata of {name} here: {because}")));
        };
        let expires = current.set().earliest_expiry();
        if expires <= self.clock.now() {
            let text = format!("the newest metadata of {name} that is known here has expired: {because}");
            return Err(ApiError::GatewayTimeout(text));
        }
        let bound = self.lifetimes.max_age().max(self.lifetimes.stale_max());
        let Some(age) = age.filter(|age| *age < bound || freshness != Freshness::Stale) else {
            let text = format!("metadata of {name} is older than {} s: {because}", bound.as_secs());
            return Err(ApiError::GatewayTimeout(text));
        };
        if freshness == Freshness::Stale {
            self.metrics.documents_stale.inc();
        }
        let file = if role == Role::Root.name() {
            self.state().roots.last_key_value().map(|(_, file)| file.clone())
        } else {
            current.file(&format!("{role}.json"))
        };
        let age_s = Some(age.as_secs());
        if let Some(file) = file {
            return Ok(Answered { file, freshness, age_s });
        }
        // A delegated role of a large repository.
        let listed = role.parse().ok().and_then(|role: RoleName| current.listed(&role));
        let version = listed.ok_or_else(|| self.absent(role, None))?;
        let answered = self.numbered(role, version, false, fetcher).await?;
        Ok(Answered { age_s, ..answered })
    }

    /// A delegated role of a set, for reading it.
    pub async fn delegated(
        self: &Arc<Self>,
        published: &Published,
        role: &RoleName,
    ) -> Result<Option<Arc<Targets>>, String> {
        if let Some(held) = published.set().delegated_role(role) {
            return Ok(Some(held));
        }
        let Some(version) = published.listed(role) else { return Ok(None) };
        let file = self.numbered(role.as_str(), version, false, &self.fetcher).await;
        let bytes = file.map_err(|error| error.to_string())?.file.bytes.clone();
        let read = published.set().check_delegated(role, &bytes, self.clock.now());
        read.map(Some).map_err(|error| error.to_string())
    }

    /// Asks upstream if what is here is too old, or if the client insists.
    async fn bring_up_to_date(self: &Arc<Self>, insists: bool) -> Freshness {
        let (known, fresh, away, ended) = {
            let state = self.state();
            let pause = Duration::from_millis(AWAY_MS).min(self.lifetimes.max_age());
            let away = state.failed.as_ref().is_some_and(|(at, _)| at.elapsed() < pause);
            let fresh = state.checked_at.is_some_and(|at| at.elapsed() < self.lifetimes.max_age());
            (state.current.is_some(), fresh, away, state.refreshes_ended)
        };
        if known && fresh && !insists {
            return Freshness::Hit;
        }
        let otherwise = if fresh { Freshness::Hit } else { Freshness::Stale };
        if known && away {
            return otherwise;
        }
        let wait = Duration::from_millis(REFRESH_WAIT_MS);
        match tokio::time::timeout(wait, self.refresh(ended)).await {
            Ok((Ok(()), joined)) => Freshness::of_flight(joined),
            Ok((Err(_), _)) | Err(_) => otherwise,
        }
    }

    async fn numbered(
        self: &Arc<Self>,
        role: &str,
        version: u32,
        insists: bool,
        fetcher: &BlobFetcher,
    ) -> Result<Answered, ApiError> {
        let hit = |file| Answered { file, freshness: Freshness::Hit, age_s: None };
        if let Some(file) = self.held(role, version) {
            return Ok(hit(file));
        }
        if self.newest(role).is_none_or(|newest| version > newest) {
            let floor = Duration::from_millis(ABSENT_FLOOR_MS);
            let lately = self.state().checked_at.is_some_and(|at| at.elapsed() < floor.min(self.lifetimes.max_age()));
            let freshness = self.bring_up_to_date(insists && !lately).await;
            if let Some(file) = self.held(role, version) {
                return Ok(Answered { freshness, ..hit(file) });
            }
        }
        let check = self.check(role, version).ok_or_else(|| self.absent(role, Some(version)))?;
        self.extra(role, version, check, fetcher).await
    }

    /// What is here of this version.
    fn held(&self, role: &str, version: u32) -> Option<Arc<File>> {
        let state = self.state();
        if role == Role::Root.name() {
            return state.roots.get(&version).cloned();
        }
        let sets = state.current.iter().chain(state.past.newest_first());
        sets.into_iter().find_map(|published| published.numbered(role, version))
    }

    /// The newest version that is known of a role.
    fn newest(&self, role: &str) -> Option<u32> {
        let state = self.state();
        match Role::ALL.into_iter().find(|known| known.name() == role) {
            Some(Role::Root) => state.roots.last_key_value().map(|(version, _)| *version),
            Some(role) => state.current.as_ref()?.version(role),
            None => state.current.as_ref()?.listed(&role.parse().ok()?),
        }
    }

    /// How a file that is not here can be believed if upstream has it; nothing if it cannot.
    fn check(&self, role: &str, version: u32) -> Option<Check> {
        let state = self.state();
        let current = state.current.as_ref();
        match Role::ALL.into_iter().find(|known| known.name() == role) {
            Some(Role::Root) => {
                let oldest = state.roots.first_key_value().map(|(version, _)| *version)?;
                (version < oldest).then_some(Check::Root(version))
            }
            Some(Role::Timestamp) => None,
            Some(top) => (version < current?.version(top)?).then_some(Check::Top(top, version)),
            None => {
                let name: RoleName = role.parse().ok()?;
                let mut sets = current.into_iter().chain(state.past.newest_first());
                let listing = sets.find(|published| published.listed(&name) == Some(version))?;
                Some(Check::Delegated(listing.clone(), name))
            }
        }
    }

    /// A file that no set holds, from upstream, verified; kept for a while.
    async fn extra(
        self: &Arc<Self>,
        role: &str,
        version: u32,
        check: Check,
        fetcher: &BlobFetcher,
    ) -> Result<Answered, ApiError> {
        let file = format!("{version}.{role}.json");
        match self.extras.get(&file) {
            Some(Extra::Found(file)) => return Ok(Answered { file, freshness: Freshness::Hit, age_s: None }),
            Some(Extra::Absent(since)) if since.elapsed() < self.lifetimes.max_age() => {
                return Err(self.absent(role, Some(version)));
            }
            _ => {}
        }
        let (this, fetcher, name) = (self.clone(), fetcher.clone(), file.clone());
        let work = async move {
            // Another flight may have landed since.
            if let Some(Extra::Found(file)) = this.extras.peek(&name) {
                return Ok(file);
            }
            let answer = this.fetch_extra(&fetcher, &name, check).await;
            if matches!(answer, Err(FetchError::NotFound { .. })) {
                this.extras.insert(name, Extra::Absent(Instant::now()));
            }
            answer
        };
        let (answer, joined) = self.extra_flights.join(file, work).await;
        let file = answer.map_err(|error| api_error(&error))?;
        Ok(Answered { file, freshness: Freshness::of_flight(joined), age_s: None })
    }

    async fn fetch_extra(&self, fetcher: &BlobFetcher, name: &str, check: Check) -> Result<Arc<File>, FetchError> {
        self.metrics.documents_fetched.inc();
        let numbered = self.state().current.as_ref().is_none_or(|set| set.set().root().consistent_snapshot());
        let file = match &check {
            Check::Delegated(_, role) if !numbered => role.file(),
            Check::Delegated(set, role) => set.set().delegated_want(role).map_or(name.to_owned(), |want| want.name),
            _ => name.to_owned(),
        };
        let path = format!("{}/{file}", self.place);
        let believed = |bytes: &[u8]| self.believe(&check, bytes).map_err(|error| error.to_string());
        let most = colibri_metadata::limits::TARGETS_BYTES_MAX;
        match fetcher.lasting_document(&path, most, None, &believed).await? {
            Unverified::Document { bytes, coded, .. } => {
                let file = Arc::new(File::new(bytes));
                if let Some((coding, form)) = coded {
                    self.forms.keep(file.sha256, coding, form);
                }
                self.extras.insert(name.to_owned(), Extra::Found(file.clone()));
                Ok(file)
            }
            Unverified::NotModified => {
                Err(FetchError::Local(format!("{path}: upstream answered 304 to an unconditional request")))
            }
        }
    }

    fn believe(&self, check: &Check, bytes: &[u8]) -> Result<(), NotBelieved> {
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let expected = |found: Option<u32>, version: u32| match found {
            Some(found) if found == version => Ok(()),
            _ => Err(NotBelieved::Other(format!("it is not version {version} of its role"))),
        };
        match check {
            Check::Root(version) => expected(Some(TrustedSet::from_root_file(&bytes)?.root().version()), *version),
            Check::Top(role, version) => {
                let root = self.state().roots.last_key_value().map(|(_, root)| root.bytes.clone());
                let root = root.ok_or_else(|| NotBelieved::Other("there is no root".to_owned()))?;
                let set = TrustedSet::load([(Role::Root.file(), root), (role.file(), bytes)])?;
                match set.set_aside().first() {
                    Some(refused) => Err(refused.clone().into()),
                    None => expected(set.version(*role), *version),
                }
            }
            Check::Delegated(published, role) => {
                published.set().check_delegated(role, &bytes, self.clock.now())?;
                Ok(())
            }
        }
    }

    fn absent(&self, role: &str, version: Option<u32>) -> ApiError {
        let name = &self.name;
        ApiError::NotFound(match version {
            Some(version) => format!("{name} has no version {version} of {role}, as far as is known here"),
            None => format!("{name} has no role {role}, as far as is known here"),
        })
    }
}

/// Why a file is not believed.
#[derive(Debug, thiserror::Error)]
enum NotBelieved {
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{0}")]
    Other(String),
}
