//! [`Eager`]: packages whose version a signed answer says, updated apart from the system (RFC-0145; reference "Fuchsia device
//! and update" §9).
//!
//! An answer counts if one of the package's own keys signed it for the very request that was asked, if it offers the very
//! package hash, and if its version is not below the minimum. It is kept as it was signed and verified again at every start:
//! what lies on the disk is believed no more than what comes over a network. Deliberately absent: asking (requests and when),
//! and the `executable` flag, which the original reads and does not use either.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use colibri_common::BlobId;
use colibri_package::url::{PinnedPackageUrl, UnpinnedPackageUrl};
use colibri_release::ProductVersion;
use colibri_release::cup::{CupError, CupExchange};
use colibri_release::omaha::{OmahaAnswer, OmahaError};
use colibri_store::{DocumentName, Documents};
use serde::{Deserialize, Serialize};

use crate::authority::{EagerAnswer, EagerPackages};
use crate::device::Device;
use crate::error::DeviceError;
use crate::fetch::{FetchReport, Observer};
use crate::limits::EAGER_BYTES_MAX;
use crate::sets::{SetError, Table, Upgrade, key};
pub use config::{EagerConfig, parse_configs};

const FORMAT: u64 = 1;

/// Why an answer about an eager package does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EagerError {
    /// Nobody configured it.
    #[error("`{0}` is no eager package of this device")]
    NotConfigured(String),
    /// The configuration.
    #[error("eager packages: {0}")]
    Config(String),
    /// Nobody who is trusted made this answer.
    #[error("the answer about `{url}`: {error}")]
    Cup {
        /// The package.
        url: String,
        /// What is wrong.
        error: CupError,
    },
    /// It says nothing that can be acted on.
    #[error("the answer about `{url}`: {error}")]
    Omaha {
        /// The package.
        url: String,
        /// What is wrong.
        error: OmahaError,
    },
    /// It offers something else.
    #[error("the answer does not offer `{0}`")]
    NotOffered(String),
    /// Older than the configuration accepts.
    #[error("version {version} of `{url}` is older than {minimum}, the oldest that is accepted")]
    BelowMinimum {
        /// The package.
        url: String,
        /// As offered.
        version: ProductVersion,
        /// The bound.
        minimum: ProductVersion,
    },
}

/// The eager packages of a device.
#[derive(Debug)]
pub struct Eager {
    documents: Documents,
    state: Mutex<BTreeMap<String, Package>>,
    /// One write at a time.
    turn: tokio::sync::Mutex<()>,
}

/// One of them.
#[derive(Debug, Clone)]
struct Package {
    config: EagerConfig,
    /// The answer in use, verified.
    current: Option<Answer>,
}

/// An answer that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    upgrade: Upgrade,
    kept: KeptAnswer,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptAnswer {
    hash: BlobId,
    cup: CupExchange,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u64,
    /// By unpinned URL with a variant.
    answers: BTreeMap<String, KeptAnswer>,
}

impl Package {
    /// The version that an answer gives this package, if it counts.
    fn verify(&self, hash: BlobId, cup: &CupExchange) -> Result<Upgrade, EagerError> {
        let url = || self.config.url.to_string();
        let body = cup.verify(&self.config.keys).map_err(|error| EagerError::Cup { url: url(), error })?;
        let answer = OmahaAnswer::parse(body).map_err(|error| EagerError::Omaha { url: url(), error })?;
        let wanted = key(&self.config.url);
        let is_it = |offered: &String| {
            offered.parse::<PinnedPackageUrl>().is_ok_and(|it| it.hash() == hash && key(it.as_unpinned()) == wanted)
        };
        let offers = answer.apps.iter().filter_map(|app| app.offer.as_ref());
        let offer = offers.into_iter().find(|offer| offer.urls.iter().any(is_it));
        let version = offer.ok_or_else(|| EagerError::NotOffered(format!("{}?hash={hash}", url())))?.version;
        if version < self.config.minimum {
            return Err(EagerError::BelowMinimum { url: url(), version, minimum: self.config.minimum });
        }
        Ok(Upgrade { hash, version })
    }
}

impl Eager {
    /// Takes up the answers that were kept, those that count still; what does not is told in the log and left out.
    pub(crate) fn open(documents: Documents, configs: Vec<EagerConfig>) -> Result<Self, DeviceError> {
        let package = |config: EagerConfig| (key(&config.url), Package { config, current: None });
        let mut state: BTreeMap<String, Package> = configs.into_iter().map(package).collect();
        if !state.is_empty() {
            for (url, kept) in read(&documents)? {
                let Some(package) = state.get_mut(&url) else { continue };
                match package.verify(kept.hash, &kept.cup) {
                    Ok(upgrade) => package.current = Some(Answer { upgrade, kept }),
                    Err(error) => tracing::warn!("the answer that was kept about {url} is left out: {error}"),
                }
            }
        }
        Ok(Self { documents, state: Mutex::new(state), turn: tokio::sync::Mutex::default() })
    }

    /// Every configured package by its unpinned URL with a variant, with the version in use.
    pub fn list(&self) -> Vec<(String, Option<Upgrade>)> {
        let list = self.lock();
        list.iter().map(|(url, package)| (url.clone(), package.current.as_ref().map(|it| it.upgrade))).collect()
    }

    /// The version in use of one of them.
    pub fn current(&self, url: &UnpinnedPackageUrl) -> Option<Upgrade> {
        self.lock().get(&key(url))?.current.as_ref().map(|answer| answer.upgrade)
    }

    /// Package hashes in use.
    pub(crate) fn hashes(&self) -> BTreeSet<BlobId> {
        self.lock().values().filter_map(|package| Some(package.current.as_ref()?.upgrade.hash)).collect()
    }

    /// Puts the versions in use in the place of what is remembered of upgradable packages without a proof.
    pub(crate) fn overrule(&self, upgrades: &mut BTreeMap<String, Upgrade>) {
        for (url, upgrade) in self.list() {
            match upgrade {
                Some(upgrade) => _ = upgrades.insert(url, upgrade),
                None => _ = upgrades.remove(&url),
            }
        }
    }

    /// Keeps and uses an answer, durably.
    fn keep(&self, url: &str, answer: Answer) -> Result<(), DeviceError> {
        let mut state = self.lock();
        let mut changed = state.clone();
        if let Some(package) = changed.get_mut(url) {
            package.current = Some(answer);
        }
        let answers = changed.iter().filter_map(|(url, it)| Some((url.clone(), it.current.as_ref()?.kept.clone())));
        let document = Document { format: FORMAT, answers: answers.collect() };
        let json = serde_json::to_vec(&document).map_err(|error| DeviceError::Internal(error.to_string()))?;
        self.documents.put(&document_name(), &json)?;
        *state = changed;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Package>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EagerPackages for Eager {
    fn hash_for(&self, url: &UnpinnedPackageUrl) -> EagerAnswer {
        match self.lock().get(&key(url)) {
            None => EagerAnswer::NotConfigured,
            Some(Package { current: Some(answer), .. }) => EagerAnswer::Hash(answer.upgrade.hash),
            Some(package) if package.config.cache_fallback => EagerAnswer::AbsentWithCacheFallback,
            Some(_) => EagerAnswer::Absent,
        }
    }
}

impl Device {
    /// Takes an answer about an eager package: verifies it, fetches the package that it offers, and only then keeps and uses
    /// it. If the running release has the package in an upgradable set, its version there is this one from now on.
    ///
    /// # Errors
    /// The answer does not count, or the package cannot be had: then the version in use stays.
    pub async fn write_eager(
        &self,
        url: &PinnedPackageUrl,
        cup: CupExchange,
        observer: Observer,
    ) -> Result<FetchReport, DeviceError> {
        let eager = self.eager()?;
        let _turn = eager.turn.lock().await;
        let (unpinned, hash) = (url.as_unpinned(), url.hash());
        let package = eager.lock().get(&key(unpinned)).cloned();
        let package = package.ok_or_else(|| EagerError::NotConfigured(unpinned.to_string()))?;
        let upgrade = package.verify(hash, &cup)?;
        let release = self.release();
        if let Some(release) = &release {
            match Table::new(release, &BTreeMap::new()).check_upgrade(unpinned, upgrade) {
                // In no upgradable set: then the chain of authorities asks here.
                Ok(()) | Err(SetError::NotUpgradable { .. }) => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        let (report, fetching) = self.fetch_tracked(unpinned.repository().host(), hash, observer).await?;
        // Both are protected until it is durable which of them counts.
        self.cache().change(|kept| _ = kept.eager.insert(hash)).await?;
        eager.keep(&key(unpinned), Answer { upgrade, kept: KeptAnswer { hash, cup } })?;
        let mut upgrades = self.cache().upgrades();
        upgrades.insert(key(unpinned), upgrade);
        let change = |kept: &mut crate::cache::Kept| {
            kept.eager = eager.hashes();
            if let Some(release) = &release {
                Table::new(release, &upgrades).apply(kept);
            }
        };
        self.cache().change(change).await?;
        fetching.finish()?;
        Ok(report)
    }
}

fn read(documents: &Documents) -> Result<BTreeMap<String, KeptAnswer>, DeviceError> {
    let Some(json) = documents.get(&document_name(), EAGER_BYTES_MAX)? else { return Ok(BTreeMap::new()) };
    match serde_json::from_slice::<Document>(&json) {
        Ok(Document { format: FORMAT, answers }) => Ok(answers),
        Ok(Document { format, .. }) => {
            tracing::error!(
                "answers about eager packages (eager.json) are left out: format {format} is not known here"
            );
            Ok(BTreeMap::new())
        }
        Err(error) => {
            tracing::error!("answers about eager packages (eager.json) are left out: {error}");
            Ok(BTreeMap::new())
        }
    }
}

fn document_name() -> DocumentName {
    "eager.json".parse().expect("a good name")
}
