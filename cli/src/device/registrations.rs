//! What `repo target` does to a device: its repositories and the rules that lead to them, asked of its daemon if one runs, else
//! of the device in its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::SystemClock;
use colibri_device::daemon::wire::{RepositoryAdded, RepositoryEntry, Rules};
use colibri_device::{Device, Rule, rewrite};
use colibri_metadata::RepoConfig;
use serde_json::{Value, json};

use super::api::{self, Api};
use super::{DeviceVerbError, configuration, in_use};

/// A device, and where its daemon answers if that is not in its folder.
#[derive(Debug, Clone)]
pub(crate) struct DevicePlace {
    pub dir: PathBuf,
    pub socket: Option<PathBuf>,
}

impl DevicePlace {
    /// A device whose daemon answers in its folder.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), socket: None }
    }

    /// Asks the device, which is made if there is none. Also for those who are in a runtime themselves.
    pub fn ask<T: Send>(
        &self,
        work: impl AsyncFnOnce(Registrations) -> Result<T, DeviceVerbError> + Send,
    ) -> Result<T, DeviceVerbError> {
        let asking = || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
            runtime.map_err(DeviceVerbError::Runtime)?.block_on(async { work(Registrations(self.api().await?)).await })
        };
        std::thread::scope(|scope| scope.spawn(asking).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    async fn api(&self) -> Result<Api, DeviceVerbError> {
        if let Some(daemon) = api::daemon_at(&self.dir, self.socket.as_deref()).await? {
            return Ok(Api::Daemon(daemon));
        }
        let opened = Device::open(&self.dir, configuration::defaults(), Arc::new(SystemClock));
        let (device, store) = opened.map_err(|error| in_use(error, &self.dir))?;
        Ok(Api::here(device, store, &self.dir, None))
    }
}

/// What a device knows of repositories.
pub(crate) struct Registrations(Api);

impl Registrations {
    /// Configurations of its repositories.
    pub async fn configs(&self) -> Result<Vec<RepoConfig>, DeviceVerbError> {
        let entries: Vec<RepositoryEntry> = self.0.get("/repositories").await?;
        Ok(entries.into_iter().map(|entry| entry.config).collect())
    }

    /// All its rewrite rules, and those among them that were set.
    pub async fn rules(&self) -> Result<(Vec<Rule>, Vec<Rule>), DeviceVerbError> {
        let Rules { all, dynamic } = self.0.get("/rules").await?;
        Ok((parsed(&json!({ "version": "1", "content": all }))?, parsed(&dynamic)?))
    }

    /// Puts rules in the place of all that were set.
    pub async fn replace_rules(&self, rules: &[Rule]) -> Result<(), DeviceVerbError> {
        let text = rewrite::to_json(rules).to_string();
        self.0.put::<Rules>("/rules", Bytes::from(text)).await.map(drop)
    }

    /// Adds a repository, or replaces that of the same host.
    pub async fn add(&self, config: &RepoConfig) -> Result<(), DeviceVerbError> {
        self.0.post::<RepositoryAdded>("/repositories", config).await.map(drop)
    }

    /// Removes a repository.
    pub async fn remove(&self, host: &str) -> Result<(), DeviceVerbError> {
        self.0.delete(&format!("/repositories/{host}")).await.map_err(|error| match error {
            DeviceVerbError::Problem(problem) if &*problem.kind == "RepoNotFound" => {
                DeviceVerbError::NoRepository(format!("fuchsia-pkg://{host}"))
            }
            error => error,
        })
    }
}

fn parsed(rules: &Value) -> Result<Vec<Rule>, DeviceVerbError> {
    rewrite::parse(rules.to_string().as_bytes()).map_err(|error| DeviceVerbError::Daemon(error.to_string()))
}
