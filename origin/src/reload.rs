//! [`Reloader`]: the configuration of a running origin, read again. What is logged and what clients may have of the read API
//! change at once; repositories, the write API and ports take a start. Tokens and repositories themselves are files, which are
//! read as they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use colibri_service::telemetry::Filter;
use colibri_service::{Changes, LogFilter, Registry, Reload, ReloadError, Reloading, ServiceError, listener, reload};
use colibri_transport::BoundsHandle;

use crate::error::OriginError;
use crate::serve::OriginServerConfig;

/// The keys that can change while an origin runs. A key stands for what is below it, too.
pub fn changeable() -> Vec<&'static str> {
    [&["log"], listener::CHANGEABLE].concat()
}

/// Reads the configuration of one process again. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reloader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Reload<OriginServerConfig>,
    log: Option<LogFilter>,
    /// Of the read API.
    bounds: Vec<BoundsHandle>,
}

impl Reloader {
    pub(crate) fn new(
        reloading: Reloading,
        running: &OriginServerConfig,
        bounds: Vec<BoundsHandle>,
        registry: &Registry,
    ) -> Result<Self, OriginError> {
        let Reloading { sources, log } = reloading;
        let config = Reload::new(sources, running, changeable(), registry)?;
        Ok(Self(Arc::new(Inner { config, log, bounds })))
    }

    /// Reads all layers of the configuration again and takes over what is new. What was found is logged and counted as well as
    /// returned.
    ///
    /// # Errors
    /// What is wrong with the configuration; then nothing has changed.
    pub fn reload(&self) -> Result<Changes, ReloadError> {
        self.0.config.reload(|new, changes| self.0.take(new, changes))
    }

    /// Does so on SIGHUP and when the file of the configuration has changed. Never completes.
    pub(crate) async fn follow(self, every: Duration) {
        let file = self.0.config.file().map(PathBuf::from);
        let read_again = || {
            let reloader = self.clone();
            async move {
                // What became of it is logged and counted.
                _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
            }
        };
        reload::follow(file, every, read_again).await;
    }
}

impl Inner {
    fn take(&self, new: &OriginServerConfig, changes: &Changes) -> Result<(), ServiceError> {
        let filter: Filter = new.log.parse()?;
        new.listener.check(new.listen_plain)?;
        let limits = new.listener.limits();
        self.bounds.iter().for_each(|bounds| bounds.set(&limits));
        if let Some(log) = self.log.as_ref().filter(|_| changes.applied.iter().any(|key| key == "log")) {
            log.set(filter);
        }
        Ok(())
    }
}
