//! Systems: what is offered, installing it, keeping it. An installation goes on when whoever asked for it is gone; its
//! outcome is in the history.

use std::sync::{Arc, Mutex, PoisonError};

use colibri_transport::Response;

use super::answer::{Without, json, query, read};
use super::releases::plan_of;
use super::wire::{
    Chore, Event, Installing, Problem, RunningSystem, UpdateCheck, UpdateCommit, UpdateCommitted, UpdateHistory,
    UpdateInstall,
};
use super::{Asked, Daemon};
use crate::limits::DAEMON_DOCUMENT_BYTES_MAX;
use crate::update::{SlotHealth, UpdateError, UpdateProgress, UpdateSource, Updater};

impl Daemon {
    fn updater(&self) -> Result<&Arc<Updater>, Problem> {
        let updater = self.inner.parts.updater.as_ref();
        updater.ok_or_else(|| Problem::conflict("systems are not updated here".to_owned()))
    }

    pub(super) async fn update(&self, verb: &str, asked: Asked) -> Result<Response, Problem> {
        match (asked.method.as_str(), verb) {
            ("GET", "check") => self.update_check(&query(&asked.query, "update")?).await,
            ("GET", "history") => Ok(json(&history(self.updater()?)?)),
            ("POST", "install") => {
                let wanted: UpdateInstall = read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?;
                self.update_install(&wanted.update)
            }
            ("POST", "commit") => self.update_commit(read(asked.body, DAEMON_DOCUMENT_BYTES_MAX).await?).await,
            (method, verb) => Err(Problem::no_such_thing(method, &format!("/update/{verb}"))),
        }
    }

    async fn update_check(&self, source: &str) -> Result<Response, Problem> {
        let updater = self.updater()?;
        let offered = updater.check(&source.parse()?).await?;
        let running = updater.running()?;
        let running = running.map(|running| RunningSystem { update: running.update, version: running.version });
        Ok(json(&UpdateCheck {
            offered: offered.update,
            version: offered.version,
            running,
            update_available: !offered.is_running,
            plan: offered.plan.as_ref().map(plan_of),
        }))
    }

    fn update_install(&self, source: &str) -> Result<Response, Problem> {
        let (updater, source): (_, UpdateSource) = (self.updater()?.clone(), source.parse()?);
        let place = self.operation()?;
        let latest: Arc<Mutex<Option<UpdateProgress>>> = Arc::default();
        let hear = latest.clone();
        let hear = Arc::new(move |progress| *hear.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress));
        let working = self.work(Without::GoesOn, async move {
            let _place = place;
            Ok(updater.install(&source, hear).await?)
        });
        Ok(self.lines(|mut lines| async move {
            let progress = || {
                let latest = *latest.lock().unwrap_or_else(PoisonError::into_inner);
                latest.map(|at| {
                    Event::Installing(Installing {
                        phase: at.phase,
                        fetched_bytes: at.fetched_bytes,
                        image_bytes: at.image_bytes,
                        image_bytes_total: at.image_bytes_total,
                        packages: at.packages,
                        packages_total: at.packages_total,
                        content_bytes: at.content_bytes,
                        content_bytes_total: at.content_bytes_total,
                    })
                })
            };
            let Some(installed) = working.watched(&mut lines, progress).await else { return };
            let last = installed.map_or_else(Event::Failed, Event::Installed);
            if lines.send(&last).await.is_ok() {
                lines.finish();
            }
        }))
    }

    async fn update_commit(&self, wanted: UpdateCommit) -> Result<Response, Problem> {
        let updater = self.updater()?;
        updater.commit(std::future::ready(wanted.unhealthy.map_or(Ok(()), Err))).await?;
        let version = updater.running()?.map(|running| running.version);
        self.want(Chore::Automatic);
        Ok(json(&UpdateCommitted { committed: true, version }))
    }
}

fn history(updater: &Updater) -> Result<UpdateHistory, UpdateError> {
    let (running, next) = (updater.boot().running()?, updater.boot().next()?);
    let health = running.slot().map(|slot| updater.boot().health(slot)).transpose()?;
    Ok(UpdateHistory {
        running,
        next,
        committed: health == Some(SlotHealth::Healthy),
        version: updater.running()?.map(|running| running.version),
        attempts: updater.history(),
    })
}
