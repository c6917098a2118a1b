//! Runs a scenario against servers: devices wake when the plan says so, whatever came of the others, and every latency counts from
//! the moment that was meant.
//!
//! An idle device is a `DeviceState` (module `state`) and a wake in the plan; it has a connection only if the scenario has devices keep
//! theirs. How they reach servers is in module `ways`. Deliberately absent: judging (see [`crate::outcome`]).

mod control;
mod session;
pub(crate) mod state;
mod ways;

use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use colibri_cluster::catalogue::Published;
use colibri_common::{BlobId, Clock};
use colibri_device::DeviceConfig;
use colibri_transport::Client;
use tokio::task::{JoinError, JoinSet};

use crate::plan::file::PlanError;
use crate::plan::{PlannedWake, Population, Wake, microseconds};
use crate::record::{Record, Slow};
use crate::scenario::{Fault, Place, Scenario};
use crate::spawned::{SpawnError, Spawned, Target};
use crate::tally::{Audit, MetaFars};
pub use control::{Control, Live, LiveStep};
use session::{Done, Shared, Waking, Watch};
use state::{Common, DeviceState};
use ways::{Ailments, DeviceClock, Ways};

/// Of so many devices one has all that it fetches hashed once more.
const AUDITED_ONE_IN: u32 = 16;

/// How often devices that are behind at the end are woken once more.
const CATCH_UP_ROUNDS: u32 = 3;

/// How long a run waits before each of these rounds: edges may answer with a timestamp this old.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(6);

/// A run.
pub struct RunConfig {
    /// What is to happen.
    pub scenario: Scenario,
    /// Where devices go.
    pub target: Target,
    /// How each device behaves.
    pub device: DeviceConfig,
    /// The devices' clock.
    pub clock: Arc<dyn Clock>,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not even one device got through before the start.
    #[error("the target cannot be used: {0}")]
    Unreachable(String),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The system of the run.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// A task was lost.
    #[error("an internal task stopped: {0}")]
    Task(#[from] JoinError),
}

/// How far a run is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Sessions that ended.
    pub sessions: AtomicU64,
    /// Of these, failed.
    pub failed: AtomicU64,
    /// Devices that took the newest release.
    pub updated: AtomicU64,
    /// Devices that are idle and have kept their connections.
    pub connected: AtomicU64,
    /// What to do when, and what to show.
    pub control: Control,
}

/// Something that happened, for timelines.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// Seconds after the start.
    pub at_s: f64,
    /// What.
    pub what: String,
}

/// What a run measured.
#[derive(Debug)]
pub struct Measured {
    /// Measurements.
    pub record: Record,
    /// Faults and releases.
    pub marks: Vec<Mark>,
    /// Bad bytes by the address they came from.
    pub blames: BTreeMap<String, u64>,
    /// When the last release was published, seconds after the start; zero without one.
    pub released_at_s: f64,
    /// Devices that woke.
    pub devices: u64,
    /// Whether there was a release to converge on.
    pub converges: bool,
    /// From the start to the last session's end, seconds.
    pub duration_s: f64,
    /// Whether it was told to end before its plan was over.
    pub interrupted: bool,
}

/// What is to happen at a time.
#[derive(Debug, Clone, Copy)]
enum Event {
    Publish,
    Fault { index: usize, on: bool },
}

/// Runs a scenario by `plan`, on the system of the run if there is one.
pub async fn run(
    config: RunConfig,
    plan: impl Iterator<Item = Result<PlannedWake, PlanError>>,
    system: Option<Arc<Spawned>>,
    progress: Arc<Progress>,
) -> Result<Measured, RunError> {
    let mut runner = Runner::new(config, system, progress);
    runner.prepare().await?;
    runner.progress.control.begin().await;
    runner.go(plan.peekable()).await?;
    if !runner.interrupted {
        runner.catch_up().await?;
    }
    Ok(runner.finish())
}

struct Runner {
    scenario: Scenario,
    population: Population,
    shared: Arc<Shared>,
    system: Option<Arc<Spawned>>,
    progress: Arc<Progress>,
    watch: Watch,
    states: Vec<DeviceState>,
    common: Common,
    record: Record,
    marks: Vec<Mark>,
    blames: BTreeMap<String, u64>,
    sessions: JoinSet<Done>,
    publishing: JoinSet<Result<Published, SpawnError>>,
    /// Faults that begin or end.
    changing: JoinSet<Result<(), SpawnError>>,
    /// Connections that idle devices kept.
    clients: HashMap<u32, Client>,
    newest: Option<BlobId>,
    released_at_s: f64,
    origin_bytes_before: u64,
    hits_before: (u64, u64),
    tiers_before: [u64; 4],
    interrupted: bool,
}

impl Runner {
    fn new(config: RunConfig, system: Option<Arc<Spawned>>, progress: Arc<Progress>) -> Self {
        let RunConfig { scenario, target, device, clock } = config;
        let ailments = Arc::new(Ailments::default());
        let shared = Shared {
            repository: target.repository,
            packages: target.packages,
            ways: Ways::new(&scenario, &device),
            device,
            clock: Arc::new(DeviceClock { true_clock: clock, ailments: ailments.clone() }),
            ailments,
            meta_fars: Arc::new(MetaFars::default()),
            audit: Arc::new(Audit::default()),
        };
        Self {
            population: Population::of(&scenario),
            states: vec![DeviceState::default(); scenario.devices as usize],
            scenario,
            shared: Arc::new(shared),
            system,
            progress,
            watch: Watch(Instant::now()),
            common: Common::default(),
            record: Record::default(),
            marks: Vec::new(),
            blames: BTreeMap::new(),
            sessions: JoinSet::new(),
            publishing: JoinSet::new(),
            changing: JoinSet::new(),
            clients: HashMap::new(),
            newest: None,
            released_at_s: 0.0,
            origin_bytes_before: 0,
            hits_before: (0, 0),
            tiers_before: [0; 4],
            interrupted: false,
        }
    }

    /// One device goes ahead, unmeasured: the target can be reached, and the first release can be had. If devices begin with
    /// it, what it has now is what all have.
    async fn prepare(&mut self) -> Result<(), RunError> {
        let wake = Wake { at_us: 0, device: 0, number: u32::MAX };
        let wants = if self.scenario.popularity.base { vec![0] } else { Vec::new() };
        let waking = self.waking(PlannedWake { wake, link: 0, wants: wants.clone() });
        let fresh = Waking { trusted: None, held: Vec::new(), blobs: Vec::new(), release: None, ..waking };
        let done = session::run(self.shared.clone(), fresh, self.watch).await;
        if let Some(failure) = done.failures.first() {
            return Err(RunError::Unreachable(failure.clone()));
        }
        let state = self.after(DeviceState::default(), &done);
        self.newest = done.got.first().map(|(_, hash, _)| *hash);
        if self.scenario.installed {
            self.states.fill(state);
        }
        if let Some(system) = &self.system {
            self.origin_bytes_before = system.origin_bytes();
            self.hits_before = system.hits_and_asked();
            self.tiers_before = system.tiers();
        }
        Ok(())
    }

    fn events(&self) -> Vec<(u64, Event)> {
        let end_us = microseconds(self.scenario.duration_s);
        let mut events: Vec<_> =
            self.scenario.releases_at_s.iter().map(|at_s| (microseconds(*at_s), Event::Publish)).collect();
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            events.push((microseconds(fault.at_s), Event::Fault { index, on: true }));
            events.push((microseconds(fault.at_s + fault.for_s), Event::Fault { index, on: false }));
        }
        let can_happen = |event: &Event| match event {
            Event::Fault { index, .. } if self.scenario.faults[*index].place == Place::Devices => true,
            _ => self.system.is_some(),
        };
        events.retain(|(at_us, event)| can_happen(event) && *at_us <= end_us);
        // The next one is last.
        events.sort_by_key(|(at_us, _)| std::cmp::Reverse(*at_us));
        events
    }

    async fn go(
        &mut self,
        mut plan: Peekable<impl Iterator<Item = Result<PlannedWake, PlanError>>>,
    ) -> Result<(), RunError> {
        let mut events = self.events();
        self.watch = Watch(Instant::now());
        loop {
            let wake_us = match plan.peek() {
                Some(Ok(planned)) => Some(planned.wake.at_us),
                Some(Err(_)) => Some(0),
                None => None,
            };
            let event_us = events.last().map(|(at_us, _)| *at_us);
            let next_us = wake_us.into_iter().chain(event_us).min();
            if next_us.is_none() && self.sessions.is_empty() && self.publishing.is_empty() && self.changing.is_empty() {
                return Ok(());
            }
            let due = Duration::from_micros(next_us.unwrap_or(0));
            tokio::select! {
                biased;
                () = self.progress.control.stopped() => return self.wind_down().await,
                () = tokio::time::sleep_until((self.watch.0 + due).into()), if next_us.is_some() => {
                    let now_us = self.watch.now_us();
                    if let Some((_, event)) = events.pop_if(|(at_us, _)| *at_us <= now_us) {
                        self.happen(event);
                    }
                    while let Some(planned) = plan.next_if(|next| !next.as_ref().is_ok_and(|next| next.wake.at_us > now_us)) {
                        self.wake(planned?);
                    }
                }
                Some(done) = self.sessions.join_next() => self.fold(done?),
                Some(changed) = self.changing.join_next() => changed??,
                Some(published) = self.publishing.join_next() => self.released(published??),
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Publish => {
                if let Some(system) = self.system.clone() {
                    self.publishing.spawn(async move { system.publish().await });
                }
            }
            Event::Fault { index, on } => {
                let fault = self.scenario.faults[index];
                self.set(fault, on);
                let what = format!("{} {} {}", fault.place, fault.kind.name(), if on { "begins" } else { "ends" });
                self.mark(what);
            }
        }
    }

    /// Begins or ends a fault. Servers take their time for some; devices go on waking meanwhile.
    fn set(&mut self, fault: Fault, on: bool) {
        if fault.place == Place::Devices {
            self.shared.ailments.set(&fault, on);
        } else if let Some(system) = self.system.clone() {
            self.changing.spawn(async move { system.set(&fault, on).await });
        }
    }

    fn mark(&mut self, what: String) {
        self.marks.push(Mark { at_s: self.watch.now_us() as f64 / 1e6, what });
    }

    fn released(&mut self, published: Published) {
        self.newest = Some(published.hash);
        self.released_at_s = self.watch.now_us() as f64 / 1e6;
        self.mark(format!("release {} is out", published.release));
        // What counts is who has the newest.
        self.record.timeline.iter_mut().for_each(|second| second.updated = 0);
        self.progress.updated.store(0, Ordering::Relaxed);
    }

    fn waking(&mut self, planned: PlannedWake) -> Waking {
        let device = planned.wake.device;
        let client = self.clients.remove(&device);
        let state = self.states[device as usize];
        let edge = self.population.edge_of(device, self.shared.repository.mirrors.len().max(1));
        Waking {
            planned,
            edge,
            trusted: self.common.set(state.trusted),
            held: self.common.hashes_of(&state),
            blobs: self.common.blobs_of(&state),
            release: self.common.hash(state.release),
            client,
            is_audited: device.is_multiple_of(AUDITED_ONE_IN),
        }
    }

    fn wake(&mut self, planned: PlannedWake) {
        self.record.second(planned.wake.at_us).due += 1;
        let state = &mut self.states[planned.wake.device as usize];
        if state.is_busy {
            // A device polls again after its session, not in it.
            return self.record.add("busy_wakes", 1);
        }
        if self.sessions.len() >= self.scenario.generator.sessions_at_once {
            return self.record.add("dropped_starts", 1);
        }
        (state.is_busy, state.has_woken) = (true, true);
        let waking = self.waking(planned);
        self.sessions.spawn(session::run(self.shared.clone(), waking, self.watch));
    }

    /// What a device is after a session.
    fn after(&mut self, mut state: DeviceState, done: &Done) -> DeviceState {
        state.is_busy = false;
        if let Some(set) = &done.trusted {
            state.trusted = self.common.number_of_set(set);
        }
        for (number, hash, blobs) in &done.got {
            let package = match self.common.number_of(hash) {
                Some(known) => known,
                None => self.common.number_of_package(*hash, blobs),
            };
            if *number == 0 { state.release = package } else { state.take(package) }
        }
        state
    }

    fn fold(&mut self, mut done: Done) {
        let Some(planned) = done.planned.clone() else { return };
        let before = self.take(&planned, &mut done);
        let has_failed = !done.failures.is_empty();
        self.record.lag.saturating_record(done.started_us.saturating_sub(planned.wake.at_us));
        for (step, outcome, took_us) in &done.steps {
            self.record.took((*step, *outcome, planned.link), *took_us);
        }
        self.record.add("sessions", 1);
        self.record.add("sessions_failed", u64::from(has_failed));
        let (wake, took_us) = (planned.wake, done.ended_us.saturating_sub(planned.wake.at_us));
        let link = planned.link;
        self.record.slow(Slow { took_us, device: wake.device, at_us: wake.at_us, link, ok: !has_failed });
        let second = self.record.second(done.ended_us);
        *(if has_failed { &mut second.failed } else { &mut second.ok }) += 1;
        self.progress.sessions.fetch_add(1, Ordering::Relaxed);
        self.progress.failed.fetch_add(u64::from(has_failed), Ordering::Relaxed);
        done.failures.iter().for_each(|text| self.record.failed(text));
        self.updated(before, &done, planned.wake.device);
        self.show();
    }

    /// Counts what any session brought and puts the device back to sleep; what it was before.
    fn take(&mut self, planned: &PlannedWake, done: &mut Done) -> DeviceState {
        if let Some(client) = done.client.take().filter(|_| self.scenario.hold_connections) {
            self.clients.insert(planned.wake.device, client);
        }
        self.progress.connected.store(self.clients.len() as u64, Ordering::Relaxed);
        let device = planned.wake.device as usize;
        let before = self.states[device];
        self.states[device] = self.after(before, done);
        let record = &mut self.record;
        record.second(done.ended_us).device_bytes += done.received_bytes;
        for (name, count) in [
            ("device_bytes", done.received_bytes),
            ("content_bytes", done.content_bytes),
            ("blobs", done.blobs),
            ("packages", done.got.len() as u64),
            ("h3_requests", done.requests.h3_requests),
            ("h2_requests", done.requests.h2_requests),
            ("h1_requests", done.requests.h1_requests),
            ("requests", done.requests.requests()),
            ("reused_requests", done.requests.reused),
            ("retried_requests", done.requests.retries),
            ("connections", done.requests.connections()),
            ("h3_connections", done.requests.h3_connections),
            ("h2_connections", done.requests.h2_connections),
            ("h1_connections", done.requests.h1_connections),
            ("resumed_connections", done.requests.resumed()),
            ("dead_udp_paths", done.requests.dead_udp_paths),
            ("blames", done.blames.iter().map(|(_, count)| count).sum()),
            (
                "rollbacks",
                u64::from(
                    done.went_back
                        || self.system.as_ref().is_some_and(|system| went_back(system, &self.common, &before, done)),
                ),
            ),
        ] {
            record.add(name, count);
        }
        for (source, count) in &done.blames {
            *self.blames.entry(source.clone()).or_default() += count;
        }
        before
    }

    fn updated(&mut self, before: DeviceState, done: &Done, device: u32) {
        let newest = self.newest.and_then(|hash| self.common.number_of(&hash));
        let has = self.states[device as usize].release;
        if newest.is_some_and(|newest| has == newest && before.release != newest) {
            self.record.second(done.ended_us).updated += 1;
            self.progress.updated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Faults are over: devices that woke and are behind wake once more, a few times at most.
    async fn catch_up(&mut self) -> Result<(), RunError> {
        for fault in self.scenario.faults.clone() {
            // A node that was taken away for good stays away.
            if !fault.kind.takes_the_node() || fault.at_s + fault.for_s <= self.scenario.duration_s {
                self.set(fault, false);
            }
        }
        while let Some(changed) = self.changing.join_next().await {
            changed??;
        }
        for round in 0..CATCH_UP_ROUNDS {
            let behind = self.behind();
            if behind.is_empty() {
                break;
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
            self.record.add("catch_up_sessions", behind.len() as u64);
            for device in behind {
                if self.sessions.len() >= self.scenario.generator.sessions_at_once
                    && let Some(done) = self.sessions.join_next().await
                {
                    self.caught_up(done?);
                }
                let wake = Wake { at_us: self.watch.now_us(), device, number: u32::MAX - 1 - round };
                let planned = PlannedWake { wake, link: self.population.link_of(device), wants: vec![0] };
                let waking = self.waking(planned);
                self.sessions.spawn(session::run(self.shared.clone(), waking, self.watch));
            }
            while let Some(done) = self.sessions.join_next().await {
                self.caught_up(done?);
            }
        }
        Ok(())
    }

    fn caught_up(&mut self, mut done: Done) {
        if let Some(planned) = done.planned.clone() {
            let before = self.take(&planned, &mut done);
            self.updated(before, &done, planned.wake.device);
        }
    }

    /// Devices that woke and do not have the newest release.
    fn behind(&self) -> Vec<u32> {
        if !self.scenario.popularity.base {
            return Vec::new();
        }
        let newest = self.newest.and_then(|hash| self.common.number_of(&hash));
        let is_behind = |state: &DeviceState| state.has_woken && (state.release == 0 || Some(state.release) != newest);
        (0..).zip(&self.states).filter(|(_, state)| is_behind(state)).map(|(device, _)| device).collect()
    }

    fn finish(mut self) -> Measured {
        let devices = self.states.iter().filter(|state| state.has_woken).count() as u64;
        let not_converged = self.behind().len() as u64;
        let live = self.clients.values().map(|client| client.live_http3_connections() as u64).sum();
        let record = &mut self.record;
        record.add("live_h3_connections", live);
        record.add("not_converged", not_converged);
        record.add("devices", devices);
        let updated = record.timeline.iter().map(|second| second.updated).sum();
        record.add("devices_updated", updated);
        for name in ["dropped_starts", "busy_wakes", "sessions", "sessions_failed", "rollbacks", "blames"] {
            record.add(name, 0);
        }
        let (audited, unverified) = self.shared.audit.counts();
        record.add("audited_bytes", audited);
        record.add("unverified_bytes", unverified);
        if let Some(system) = &self.system {
            // On loopback what devices received is what edges sent them.
            record.add("edge_bytes", record.counter("device_bytes"));
            record.add("origin_bytes", system.origin_bytes() - self.origin_bytes_before);
            let (hits, asked) = system.hits_and_asked();
            record.add("edge_hits", hits.saturating_sub(self.hits_before.0));
            record.add("edge_requests", asked.saturating_sub(self.hits_before.1));
            let tiers = ["units_memory", "units_disk", "units_joined", "units_upstream"];
            for ((name, after), before) in tiers.into_iter().zip(system.tiers()).zip(self.tiers_before) {
                record.add(name, after.saturating_sub(before));
            }
        }
        Measured {
            duration_s: self.watch.now_us() as f64 / 1e6,
            interrupted: self.interrupted,
            record: self.record,
            marks: self.marks,
            blames: self.blames,
            released_at_s: self.released_at_s,
            devices,
            converges: self.scenario.popularity.base,
        }
    }
}

/// Whether a device went from a release of this run to an earlier one.
fn went_back(system: &Spawned, common: &Common, before: &DeviceState, done: &Done) -> bool {
    let number =
        |hash: BlobId| system.releases().iter().find(|release| release.hash == hash).map(|release| release.release);
    let had = common.hash(before.release).and_then(number);
    let has = done.got.iter().find(|(package, ..)| *package == 0).and_then(|(_, hash, _)| number(*hash));
    had.zip(has).is_some_and(|(had, has)| has < had)
}
