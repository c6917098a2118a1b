//! [`StaticConfig`]: what a device was shipped with, in the folder `config` beside its store (reference "Fuchsia device side"
//! §7.4): `config.json`, `repositories/*.json`, `rewrites.json`, `eager_package_config.json`. It is read and never written.
//!
//! What cannot be used is told in the log and left out: a device must still be able to update.

use std::path::Path;
use std::sync::Arc;

use colibri_metadata::RepoConfig;
use colibri_metadata::limits::{REPO_CONFIG_BYTES_MAX, REPO_CONFIG_LIST_BYTES_MAX};
use colibri_store::{Disk, DocumentName, Documents};
use serde::Deserialize;

use crate::eager::{EagerConfig, parse_configs};
use crate::limits::{EAGER_CONFIG_BYTES_MAX, REPOSITORIES_MAX, RULES_BYTES_MAX};
use crate::rewrite::{self, Rule};

const EAGER_FILE: &str = "eager_package_config.json";

/// What a device was shipped with.
#[derive(Debug, Clone)]
pub struct StaticConfig {
    /// Its repositories.
    pub repositories: Vec<RepoConfig>,
    /// Its rewrite rules, in the order in which they are tried.
    pub rules: Vec<Rule>,
    /// Its eager packages.
    pub eager: Vec<EagerConfig>,
    /// Whether people may add repositories and set rules.
    pub dynamic: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Switches {
    enable_dynamic_configuration: bool,
}

impl StaticConfig {
    /// Nothing, and people may add and set what they want.
    pub const fn none() -> Self {
        Self { repositories: Vec::new(), rules: Vec::new(), eager: Vec::new(), dynamic: true }
    }

    /// Reads the folder; if there is none, [`StaticConfig::none`].
    pub fn read(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        let mut config = Self::none();
        if disk.list_dir(dir).is_err() {
            return config;
        }
        let documents = match Documents::open(disk.clone(), dir) {
            Ok(documents) => documents,
            Err(error) => {
                tracing::error!("what this device was shipped with cannot be read: {error}");
                return config;
            }
        };
        let file = File { documents, dir };
        if let Some(bytes) = file.read("config.json", REPO_CONFIG_BYTES_MAX) {
            // Whoever wrote the file wanted to say something about it: what cannot be read permits nothing.
            let switches = serde_json::from_slice::<Switches>(&bytes).map_err(|error| file.told("config.json", &error));
            config.dynamic = switches.is_ok_and(|switches| switches.enable_dynamic_configuration);
        }
        if let Some(bytes) = file.read("rewrites.json", RULES_BYTES_MAX) {
            let rules = rewrite::parse(&bytes).map_err(|error| file.told("rewrites.json", &error));
            config.rules = rules.unwrap_or_default();
        }
        if let Some(bytes) = file.read(EAGER_FILE, EAGER_CONFIG_BYTES_MAX) {
            let eager = parse_configs(&bytes).map_err(|error| file.told(EAGER_FILE, &error));
            config.eager = eager.unwrap_or_default();
        }
        config.repositories = file.repositories();
        config
    }
}

/// The folder.
struct File<'a> {
    documents: Documents,
    dir: &'a Path,
}

impl File<'_> {
    fn read(&self, name: &str, bytes_max: u64) -> Option<bytes::Bytes> {
        let name: DocumentName = name.parse().ok()?;
        self.documents.get(&name, bytes_max).unwrap_or_else(|error| {
            self.told(name.as_str(), &error);
            None
        })
    }

    fn told(&self, name: &str, error: &dyn std::fmt::Display) {
        tracing::error!("{} is left out: {error}", self.dir.join(name).display());
    }

    /// Files with one configuration each, or with a list of them; of two for one host the first by file name counts.
    fn repositories(&self) -> Vec<RepoConfig> {
        let names = self.documents.list("repositories/").unwrap_or_else(|error| {
            self.told("repositories", &error);
            Vec::new()
        });
        let mut found: Vec<RepoConfig> = Vec::new();
        for name in names.iter().filter(|name| name.as_str().ends_with(".json")) {
            let Some(bytes) = self.read(name.as_str(), REPO_CONFIG_LIST_BYTES_MAX) else { continue };
            let parsed = RepoConfig::parse_list(&bytes).or_else(|_| RepoConfig::parse(&bytes).map(|one| vec![one]));
            let configs = parsed.unwrap_or_else(|error| {
                self.told(name.as_str(), &error);
                Vec::new()
            });
            for config in configs {
                if found.iter().any(|other| other.host() == config.host()) {
                    self.told(name.as_str(), &format!("{} is configured twice", config.repo_url));
                } else if found.len() < REPOSITORIES_MAX {
                    found.push(config);
                }
            }
        }
        found
    }
}
