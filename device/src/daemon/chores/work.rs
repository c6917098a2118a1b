//! What each chore does. Each may be cut off at any point, as by a loss of power, and is taken up the next time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::board::{Board, Outcome};
use super::{Chores, Install};
use crate::daemon::Daemon;
use crate::daemon::wire::{Chore, Went};
use crate::error::DeviceError;
use crate::update::{AttemptState, Offered, SlotHealth, UpdateError, Updater};
use crate::verify::{VerifyAt, VerifyOptions};

fn done(said: impl Into<String>) -> Outcome {
    Outcome { went: Went::Done, said: said.into() }
}

fn incomplete(said: impl Into<String>) -> Outcome {
    Outcome { went: Went::Incomplete, said: said.into() }
}

fn failed(error: &impl ToString) -> Outcome {
    Outcome { went: Went::Failed, said: error.to_string() }
}

impl Daemon {
    pub(super) async fn chore(&self, chore: Chore, how: &Chores, board: &Board) -> Outcome {
        match chore {
            Chore::UpdateCheck => self.look_for_update(how).await.unwrap_or_else(|error| failed(&error)),
            Chore::Automatic => self.fetch_what_is_automatic().await,
            Chore::Verify => self.verify_on(how, board).await.unwrap_or_else(|error| failed(&error)),
            Chore::Space => self.watch_space().await.unwrap_or_else(|error| failed(&error)),
        }
    }

    async fn look_for_update(&self, how: &Chores) -> Result<Outcome, UpdateError> {
        let (Some(updater), Some(source)) = (&self.inner.parts.updater, &how.update) else {
            return Ok(done("nobody says where updates are"));
        };
        let offered = Box::pin(updater.check(source)).await?;
        let version = &offered.version;
        if offered.is_running {
            return Ok(done(format!("up to date: version {version}")));
        }
        if updater.next_system()?.is_some_and(|next| next.update == offered.update) {
            return Ok(done(format!("version {version} is installed, and starts next")));
        }
        match how.install {
            Install::WhenAsked => return Ok(done(format!("version {version} is there to be installed"))),
            Install::ByItself => {}
        }
        if was_given_up(updater, &offered) {
            return Ok(done(format!("version {version} is there, but was given up before: install it by hand")));
        }
        if let Some(slot) = updater.boot().running()?.slot()
            && updater.boot().health(slot)? != SlotHealth::Healthy
        {
            return Ok(incomplete(format!("version {version} is there, but the running system is not committed")));
        }
        tracing::info!(%version, %source, "installing");
        match Box::pin(updater.install(source, Arc::new(|_| ()))).await {
            Ok(attempt) => {
                let place = if attempt.recovery { "as recovery" } else { "in the slot that does not run" };
                Ok(done(format!("version {} is installed {place}, and starts next", attempt.to_version)))
            }
            Err(UpdateError::Busy) => Ok(incomplete("something is being installed")),
            Err(error) => Err(error),
        }
    }

    async fn fetch_what_is_automatic(&self) -> Outcome {
        let report = match self.device().fetch_automatic(Arc::new(|_| ())).await {
            Ok(report) => report,
            Err(DeviceError::NoRelease) => return done("the device follows no release"),
            Err(DeviceError::PendingCommit) => {
                return done("nothing is fetched before the running system is committed");
            }
            Err(error) => return failed(&error),
        };
        let here = report.delivered.len();
        let mut said = format!("{here} of {} are here", here + report.deferred.len() + report.failed.len());
        if !report.deferred.is_empty() {
            said.push_str(&format!("; there is no space for {}", report.deferred.len()));
        }
        if let Some((package, error)) = report.failed.first() {
            said.push_str(&format!("; {} could not be fetched: {package}: {error}", report.failed.len()));
        }
        if report.deferred.is_empty() && report.failed.is_empty() { done(said) } else { incomplete(said) }
    }

    async fn verify_on(&self, how: &Chores, board: &Board) -> Result<Outcome, DeviceError> {
        let after = board.verified_to();
        let options = VerifyOptions { bytes_per_s: how.verify_bytes_per_s, only_look: false, after };
        let (tell, mut heard) = watch::channel(VerifyAt::default());
        let mut verifying = Box::pin(self.device().verify(options, Arc::new(|_| ()), move |at| {
            tell.send_replace(at);
        }));
        let mut saved_bytes = 0;
        let report = loop {
            tokio::select! {
                biased;
                report = &mut verifying => break report?,
                Ok(()) = heard.changed() => {
                    let VerifyAt { bytes, done, .. } = *heard.borrow_and_update();
                    board.set_verified_to(done);
                    if bytes - saved_bytes >= how.verify_save_bytes {
                        saved_bytes = bytes;
                        board.save().await;
                    }
                }
            }
        };
        // Written down with how it went.
        board.set_verified_to(None);
        let lost = report.damaged.iter().filter(|damage| damage.lost.is_some()).count();
        let since = if after.is_some() { ", from where it had stopped" } else { "" };
        let (blobs, bytes, damaged) = (report.blobs, report.bytes, report.damaged.len());
        let mut said = format!("{blobs} blobs of {bytes} bytes{since}: {damaged} damaged");
        if damaged > 0 {
            said.push_str(&format!(", {} repaired", damaged - lost));
        }
        if lost > 0 {
            said.push_str("; those that are not are fetched by whoever needs them next");
        }
        Ok(done(said))
    }

    async fn watch_space(&self) -> Result<Outcome, DeviceError> {
        let space = self.device().config().space;
        let free_bytes = self.device().free_bytes().await?;
        if free_bytes >= space.low_bytes {
            return Ok(done(format!("{free_bytes} bytes are free")));
        }
        if !self.device().committed().load(Ordering::SeqCst) {
            return Ok(incomplete(format!(
                "{free_bytes} bytes are free, and nothing is collected before the running system is committed"
            )));
        }
        let removed_bytes = self.device().collect_to_high().await?.removed_bytes;
        let free_bytes = self.device().free_bytes().await?;
        let said = format!("{removed_bytes} bytes were collected, {free_bytes} are free");
        Ok(if free_bytes >= space.low_bytes { done(said) } else { incomplete(said) })
    }
}

/// Whether the version that is offered was installed, started, and fell back.
fn was_given_up(updater: &Updater, offered: &Offered) -> bool {
    let attempts = updater.history();
    let last = attempts.iter().rev().find(|attempt| attempt.to_version == offered.version);
    last.is_some_and(|attempt| attempt.state == AttemptState::FellBack)
}
