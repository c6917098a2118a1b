//! [`Control`]: what others tell a run while it goes on, to begin and to end, and what it shows them: [`Live`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Mark, RunError, Runner};
use crate::record::{Outcome, Record, Step};

/// What is shown is made at most this often.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// How long sessions that are under way may take when a run is told to end.
const WINDING_DOWN_MAX: Duration = Duration::from_secs(5);

/// Faults and releases that are shown, the newest.
const MARKS_SHOWN_MAX: usize = 8;

/// Others hold on to it while the run goes on.
#[derive(Debug, Default)]
pub struct Control {
    begin_at: OnceLock<Instant>,
    stop: Notify,
    is_watched: AtomicBool,
    shown: Mutex<Option<(Instant, Live)>>,
}

/// How a step does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveStep {
    /// The step.
    pub step: Step,
    /// How often it ended well.
    pub count: u64,
    /// How often it failed.
    pub failed: u64,
    /// Median of those that ended well, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, likewise.
    pub p99_ms: f64,
}

/// A run as it is now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Live {
    /// Seconds since it began.
    pub at_s: f64,
    /// Of how many.
    pub of_s: f64,
    /// Sessions meant to have begun.
    pub due: u64,
    /// Sessions under way.
    pub under_way: u64,
    /// Sessions that ended well.
    pub ok: u64,
    /// Sessions that failed.
    pub failed: u64,
    /// Devices with the newest release.
    pub updated: u64,
    /// Devices that there are.
    pub devices: u64,
    /// By step.
    pub steps: Vec<LiveStep>,
    /// Bytes by hop, from the origin on.
    pub bytes: Vec<(&'static str, u64)>,
    /// Faults and releases, the newest last.
    pub marks: Vec<Mark>,
    /// 99th percentile of the generator's lag, milliseconds.
    pub lag_p99_ms: f64,
}

impl Control {
    /// Has the run begin at this moment, after all has been prepared.
    pub fn begin_at(&self, moment: Instant) {
        // The first one to say so is right.
        _ = self.begin_at.set(moment);
    }

    /// Has the run end now. What was measured until then is reported.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Somebody watches from now on.
    pub fn watch(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
    }

    /// What is to be seen; nothing before the first session has ended, or when nobody watches.
    pub fn live(&self) -> Option<Live> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, live)| live.clone())
    }

    pub(super) async fn begin(&self) {
        if let Some(moment) = self.begin_at.get() {
            tokio::time::sleep_until((*moment).into()).await;
        }
    }

    pub(super) async fn stopped(&self) {
        self.stop.notified().await;
    }

    /// Whether it is time to show something new.
    fn wants(&self, now: Instant) -> bool {
        let shown = || self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_watched.load(Ordering::Relaxed)
            && shown().as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= SHOWN_EVERY)
    }
}

impl Runner {
    /// Shows how far the run is, if somebody watches.
    pub(super) fn show(&self) {
        let (control, now) = (&self.progress.control, Instant::now());
        if control.wants(now) {
            let live = self.live();
            *control.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, live));
        }
    }

    fn live(&self) -> Live {
        let record = &self.record;
        let mut bytes = vec![("devices received", record.counter("device_bytes"))];
        if let Some(system) = &self.system {
            bytes.insert(0, ("the origin sent", system.origin_bytes().saturating_sub(self.origin_bytes_before)));
        }
        let sum = |of: fn(&crate::record::Second) -> u64| record.timeline.iter().map(of).sum();
        Live {
            at_s: self.watch.now_us() as f64 / 1e6,
            of_s: self.scenario.duration_s,
            due: sum(|second| second.due),
            under_way: self.sessions.len() as u64,
            ok: sum(|second| second.ok),
            failed: sum(|second| second.failed),
            updated: sum(|second| second.updated),
            devices: u64::from(self.scenario.devices),
            steps: Step::ALL.iter().filter_map(|(step, _)| live_step(record, *step)).collect(),
            bytes,
            marks: self.marks.iter().rev().take(MARKS_SHOWN_MAX).rev().cloned().collect(),
            lag_p99_ms: record.lag.value_at_quantile(0.99) as f64 / 1e3,
        }
    }

    /// Somebody wants the run to end: sessions that are under way may end, but not for long.
    pub(super) async fn wind_down(&mut self) -> Result<(), RunError> {
        self.interrupted = true;
        let end = Instant::now() + WINDING_DOWN_MAX;
        while let Ok(Some(done)) = tokio::time::timeout_at(end.into(), self.sessions.join_next()).await {
            self.fold(done?);
        }
        self.record.add("sessions_cut_off", self.sessions.len() as u64);
        self.sessions.shutdown().await;
        Ok(())
    }
}

fn live_step(record: &Record, step: Step) -> Option<LiveStep> {
    let ok = record.of(step, Some(Outcome::Ok), None);
    let failed = record.of(step, Some(Outcome::Failed), None).map_or(0, |of| of.len());
    if ok.is_none() && failed == 0 {
        return None;
    }
    let ms = |quantile| ok.as_ref().map_or(0.0, |of| of.value_at_quantile(quantile) as f64 / 1e3);
    Some(LiveStep { step, count: ok.as_ref().map_or(0, |of| of.len()), failed, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}
