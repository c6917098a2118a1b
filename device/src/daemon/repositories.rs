//! Repositories and rewrite rules.

use colibri_fetch::Lagging;
use colibri_metadata::limits::REPO_CONFIG_BYTES_MAX;
use colibri_metadata::{RepoConfig, Role, utc};
use colibri_transport::{Body, Response};

use super::Daemon;
use super::answer::{json, read_bytes};
use super::wire::{
    LaggingEntry, LaggingMirror, MirrorEntry, Problem, RepositoryAdded, RepositoryEntry, Rules, TrustedVersions,
};
use crate::error::DeviceError;
use crate::limits::RULES_BYTES_MAX;
use crate::repositories::Repository;
use crate::rewrite;

fn described(repository: &Repository) -> RepositoryEntry {
    let trusted = repository.trusted().map(|set| TrustedVersions {
        root: set.version(Role::Root),
        targets: set.version(Role::Targets),
        snapshot: set.version(Role::Snapshot),
        timestamp: set.version(Role::Timestamp),
        expires: utc::format(set.earliest_expiry()),
    });
    let mirror = |source: &std::sync::Arc<colibri_fetch::Source>| {
        let counts = source.counts();
        MirrorEntry {
            source: source.url.authority().to_owned(),
            requests: counts.requests,
            body_bytes: counts.body_bytes,
            blames: counts.blames,
            failures: counts.failures,
            lagging: source.lagging().map(|Lagging { since, last, what }| LaggingEntry { since, last, what }),
        }
    };
    RepositoryEntry {
        config: repository.config().clone(),
        shipped: repository.is_static(),
        trusted,
        damage: repository.damage().map(str::to_owned),
        checked_at: repository.checked_at(),
        mirrors: repository.sources().list().iter().map(mirror).collect(),
    }
}

impl Daemon {
    /// Mirrors that lag behind, of all repositories.
    pub(super) fn lagging(&self) -> Vec<LaggingMirror> {
        let of = |entry: RepositoryEntry| {
            let repository = entry.config.repo_url;
            let mirrors = entry.mirrors.into_iter();
            mirrors.filter_map(move |mirror| {
                let (repository, source) = (repository.clone(), mirror.source);
                mirror.lagging.map(|lagging| LaggingMirror { repository, source, lagging })
            })
        };
        self.repositories().into_iter().flat_map(of).collect()
    }

    pub(super) fn repositories(&self) -> Vec<RepositoryEntry> {
        self.device().repositories().list().iter().map(|repository| described(repository)).collect()
    }

    pub(super) fn repository(&self, host: &str) -> Result<Response, Problem> {
        Ok(json(&described(&*self.device().repositories().get(host)?)))
    }

    pub(super) async fn add_repository(&self, body: Body) -> Result<Response, Problem> {
        let config = RepoConfig::parse(&read_bytes(body, REPO_CONFIG_BYTES_MAX).await?).map_err(DeviceError::from)?;
        let repositories = self.device().repositories();
        let host = config.host().to_owned();
        let replaced = repositories.get(&host).ok().map(|old| old.config().clone());
        repositories.add(config)?;
        self.inner.changed.notify_one();
        let added = described(&*repositories.get(&host)?);
        Ok(json(&RepositoryAdded { added, replaced }))
    }

    pub(super) fn remove_repository(&self, host: &str) -> Result<Response, Problem> {
        if !self.device().repositories().remove(host)? {
            return Err(DeviceError::RepositoryNotFound(host.to_owned()).into());
        }
        self.inner.changed.notify_one();
        Ok(json(&serde_json::json!({ "removed": format!("fuchsia-pkg://{host}") })))
    }

    pub(super) fn rules(&self) -> Rules {
        let rules = self.device().rules();
        let all = rules.list().iter().map(|rule| serde_json::json!(rule)).collect();
        Rules { all, dynamic: rewrite::to_json(&rules.dynamic()) }
    }

    pub(super) async fn replace_rules(&self, body: Body) -> Result<Response, Problem> {
        let text = read_bytes(body, RULES_BYTES_MAX).await?;
        let rules = rewrite::parse(&text).map_err(|error| Problem::bad_request(error.to_string()))?;
        self.device().rules().replace(rules)?;
        Ok(json(&self.rules()))
    }
}
