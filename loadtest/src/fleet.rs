//! Runs a plan: each device wakes at its time with nothing, and resolves its packages over its own connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use colibri_common::Clock;
use colibri_device::{Device, DeviceConfig, DeviceError, Repositories};
use colibri_metadata::RepoConfig;
use colibri_package::url::AbsolutePackageUrl;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::limits::{DEVICES_AT_ONCE_MAX, FAILURE_TEXTS_MAX};
use crate::plan::{Plan, PlannedWake};
use crate::report::{FleetReport, Latencies, new_latencies};
use crate::scenario::{Arrivals, Popularity, Scenario, System};
use crate::tally::{MetaFars, TallyKeep};

/// A fleet and where it goes.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Repository and mirrors, as every device is configured.
    pub repository: RepoConfig,
    /// Packages to choose from.
    pub packages: Vec<AbsolutePackageUrl>,
    /// How each device behaves.
    pub device: DeviceConfig,
    /// Number of devices.
    pub devices: u32,
    /// Mean arrivals per second.
    pub arrivals_per_s: f64,
    /// Packages per device.
    pub packages_per_device: usize,
    /// Seed of the plan.
    pub seed: u64,
}

/// What one device did.
struct DeviceOutcome {
    packages: u64,
    failures: Vec<String>,
    blobs: u64,
    content_bytes: u64,
    received_bytes: u64,
    requests: colibri_transport::RequestCounts,
    latency_us: u64,
}

/// Runs the fleet. `done` counts devices that have finished, for progress.
pub async fn run(config: FleetConfig, clock: Arc<dyn Clock>, done: Arc<AtomicU64>) -> FleetReport {
    let plan = Plan::of(&scenario(&config));
    let mut report = FleetReport::new(config.seed);
    let mut latencies = new_latencies();
    let config = Arc::new(config);
    let meta_fars = Arc::new(MetaFars::default());
    let places = Arc::new(Semaphore::new(DEVICES_AT_ONCE_MAX));
    let start = Instant::now();
    let mut devices = JoinSet::new();
    for PlannedWake { wake, wants, .. } in plan {
        let at = Duration::from_micros(wake.at_us);
        let (config, clock, meta_fars) = (config.clone(), clock.clone(), meta_fars.clone());
        let (places, done) = (places.clone(), done.clone());
        devices.spawn(async move {
            tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
            let _place = places.acquire().await;
            let mut outcome = one_device(&config, &wants, clock, meta_fars).await;
            // Open loop: the clock started when the device meant to start.
            let since_intended = start.elapsed().saturating_sub(at);
            outcome.latency_us = u64::try_from(since_intended.as_micros()).unwrap_or(u64::MAX);
            done.fetch_add(1, Ordering::Relaxed);
            outcome
        });
    }
    while let Some(joined) = devices.join_next().await {
        match joined {
            Ok(outcome) => add(&mut report, &mut latencies, outcome),
            Err(error) => fail(&mut report, error.to_string()),
        }
    }
    report.set_latencies(&latencies);
    report.duration_s = start.elapsed().as_secs_f64();
    report
}

/// Devices that wake once, each choosing among all packages with equal chances.
fn scenario(config: &FleetConfig) -> Scenario {
    let on_demand = config.packages_per_device.clamp(1, config.packages.len().max(1));
    Scenario {
        seed: config.seed,
        devices: config.devices,
        duration_s: f64::INFINITY,
        arrivals: Arrivals::Cold { rate_per_s: config.arrivals_per_s.max(f64::MIN_POSITIVE) },
        popularity: Popularity { base: false, on_demand, zipf: 0.0 },
        system: System { packages: config.packages.len(), ..System::default() },
        ..Scenario::empty()
    }
}

async fn one_device(
    config: &FleetConfig,
    wants: &[u16],
    clock: Arc<dyn Clock>,
    meta_fars: Arc<MetaFars>,
) -> DeviceOutcome {
    let keep = TallyKeep::new(meta_fars);
    let mut outcome = DeviceOutcome {
        packages: 0,
        failures: Vec::new(),
        blobs: 0,
        content_bytes: 0,
        received_bytes: 0,
        requests: colibri_transport::RequestCounts::default(),
        latency_us: 0,
    };
    let device = match build_device(config, keep.clone(), clock) {
        Ok(device) => device,
        Err(error) => {
            outcome.failures.push(error.to_string());
            return outcome;
        }
    };
    // Package 0 of a plan is a release, which this fleet does not have.
    for package in wants.iter().filter_map(|package| config.packages.get(usize::from(*package).checked_sub(1)?)) {
        match device.resolve(package, Arc::new(|_| ())).await {
            Ok(_) => outcome.packages += 1,
            Err(error) => outcome.failures.push(error.to_string()),
        }
    }
    (outcome.blobs, outcome.content_bytes) = keep.totals();
    outcome.requests = device.client().counts();
    let sources = device.repositories().list();
    let received = sources.iter().flat_map(|repository| repository.sources().list()).map(|source| source.body_bytes());
    outcome.received_bytes = received.sum();
    outcome
}

fn build_device(config: &FleetConfig, keep: TallyKeep, clock: Arc<dyn Clock>) -> Result<Device, DeviceError> {
    let repositories = Repositories::in_memory();
    repositories.add(config.repository.clone())?;
    Device::with_keep(Arc::new(keep), repositories, config.device.clone(), clock)
}

fn add(report: &mut FleetReport, latencies: &mut Latencies, outcome: DeviceOutcome) {
    report.devices += 1;
    report.packages += outcome.packages;
    report.blobs += outcome.blobs;
    report.content_bytes += outcome.content_bytes;
    report.received_bytes += outcome.received_bytes;
    report.h3_requests += outcome.requests.h3_requests;
    report.h2_requests += outcome.requests.h2_requests;
    report.h1_requests += outcome.requests.h1_requests;
    // A device that failed fast must not look like a fast device.
    if outcome.failures.is_empty() {
        latencies.saturating_record(outcome.latency_us);
    }
    outcome.failures.into_iter().for_each(|text| fail(report, text));
}

fn fail(report: &mut FleetReport, text: String) {
    report.failures += 1;
    if report.failure_texts.len() < FAILURE_TEXTS_MAX && !report.failure_texts.contains(&text) {
        report.failure_texts.push(text);
    }
}
