//! What a load test costs the machine that runs it: idle devices that are only scheduled, and devices that keep an HTTP/3 connection.
//!
//! The servers are processes of their own: what is counted is the generator's process alone. It runs the runner of `colibri loadtest`
//! with a scenario in which many devices are scheduled and a part of them wakes: nobody at first, then one after the other, then
//! nobody again. Memory is what the system says is resident (VmRSS), which includes all that a run has besides.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use colibri_common::SystemClock;
use colibri_device::DeviceConfig;
use colibri_loadtest::Scenario;
use colibri_loadtest::plan::Plan;
use colibri_loadtest::runner::{self, Progress, RunConfig};
use colibri_loadtest::spawned::Target;

use crate::cost::cpu_s;
use crate::device::edge::Edge;
use crate::device::world::{URL, World};

/// What a connection may take on the client's side, bytes.
const CONNECTION_BYTES_MAX: f64 = 65_536.0;

/// What a device that is only scheduled may take, bytes.
const IDLE_BYTES_MAX: f64 = 256.0;

/// Seconds before the first device wakes.
const LEAD_S: f64 = 5.0;

struct Options {
    devices: u32,
    connected: u32,
    edges: usize,
    connect_s: f64,
    idle_s: f64,
    dir: PathBuf,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, Box<dyn Error>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let mut options = Self { devices: 1_000_000, connected: 10_000, edges: 4, connect_s: 100.0, idle_s: 30.0, dir };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
            match name.as_str() {
                "--devices" => options.devices = value.parse()?,
                "--connected" => options.connected = value.parse()?,
                "--edges" => options.edges = value.parse()?,
                "--connect-s" => options.connect_s = value.parse()?,
                "--idle-s" => options.idle_s = value.parse()?,
                "--dir" => options.dir = value.into(),
                _ => return Err(format!("{name} is not an option of this benchmark").into()),
            }
        }
        if options.connected == 0 || options.connected > options.devices || options.edges == 0 {
            return Err("at least one edge, and from one device to all of them can be connected".into());
        }
        Ok(options)
    }

    /// Everybody polls so rarely that as many as are wanted wake in the time that there is.
    fn scenario(&self) -> Result<Scenario, Box<dyn Error>> {
        let (devices, connect_s) = (self.devices, self.connect_s);
        let interval_s = connect_s * f64::from(devices) / f64::from(self.connected);
        let text = format!(
            "name = 'fleet'\ndevices = {devices}\nduration_s = {connect_s}\nhold_connections = true\n\
             [arrivals]\nkind = 'poll'\ninterval_s = {interval_s}\n\
             [system]\npackages = 0\n[generator]\nlag_p99_ms_max = 1e6\nsessions_at_once = 2000\n"
        );
        // A plan holds nobody who would wake after the end: all are scheduled only if the end is after everybody's first wake.
        let scheduled = Scenario::parse(&text)?;
        Ok(Scenario { duration_s: interval_s, ..scheduled })
    }
}

/// One look at this process.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    resident_bytes: f64,
    cpu_s: f64,
    connected: u64,
}

impl Look {
    fn now(progress: &Progress) -> Result<Self, Box<dyn Error>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let resident_kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
        let connected = progress.connected.load(Ordering::Relaxed);
        Ok(Self { at: Instant::now(), resident_bytes: resident_kib * 1024.0, cpu_s: cpu_s()?, connected })
    }

    /// Share of one processor since an earlier look.
    fn processor_since(&self, earlier: &Self) -> f64 {
        (self.cpu_s - earlier.cpu_s) / self.at.duration_since(earlier.at).as_secs_f64()
    }
}

/// Runs and judges.
pub fn run(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let options = Options::parse(words)?;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let world = World::make(&dir.path().join("world"), 4_096, 1)?;
    let edges = (0..options.edges).map(|_| Edge::start(&world.dir, 0)).collect::<Result<Vec<_>, _>>()?;
    let repository = world.config(&edges.iter().collect::<Vec<_>>())?;
    let scenario = options.scenario()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let progress = Arc::new(Progress::default());
    let before = Look::now(&progress)?;
    let (lead_us, end_us) = ((LEAD_S * 1e6) as u64, (options.connect_s * 1e6) as u64);
    let last_us = lead_us + end_us + (options.idle_s * 1e6) as u64;
    let plan = Plan::of(&scenario);
    // After a lead those wake whose time comes in the time that there is; then nobody, until one last device ends the run. The
    // plan lives on meanwhile: everybody else is scheduled.
    let (mut has_ended, mut plan) = (false, plan);
    let wakes = std::iter::from_fn(move || {
        if has_ended {
            return None;
        }
        let mut planned = plan.next()?;
        has_ended = planned.wake.at_us >= end_us;
        planned.wake.at_us = if has_ended { last_us } else { planned.wake.at_us + lead_us };
        Some(Ok(planned))
    });
    let device = DeviceConfig::default();
    let target = Target { repository, packages: vec![URL.parse()?] };
    let config = RunConfig { scenario: scenario.clone(), target, device, clock: Arc::new(SystemClock) };
    let running = runtime.spawn(runner::run(config, wakes, None, progress.clone()));
    std::thread::sleep(Duration::from_secs_f64(LEAD_S * 0.8));
    let scheduled = Look::now(&progress)?;
    std::thread::sleep(Duration::from_secs_f64(LEAD_S * 0.2 + options.connect_s));
    // Sessions under way come to their end, and a slow machine gets the time that it needs.
    while progress.sessions.load(Ordering::Relaxed) > progress.connected.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
        if running.is_finished() {
            break;
        }
    }
    let connected = Look::now(&progress)?;
    std::thread::sleep(Duration::from_secs_f64(options.idle_s * 0.8));
    let idle = Look::now(&progress)?;
    let measured = runtime.block_on(running)??;
    let live = measured.record.counter("live_h3_connections");
    print(&options, &measured.record, [before, scheduled, connected, idle]);
    let per_device = (scheduled.resident_bytes - before.resident_bytes) / f64::from(options.devices);
    let per_connection = (idle.resident_bytes - scheduled.resident_bytes) / idle.connected as f64;
    let failed = measured.record.counter("sessions_failed");
    let wanted = [
        ("bytes for each scheduled device", per_device, per_device < IDLE_BYTES_MAX),
        ("bytes for each HTTP/3 connection", per_connection, per_connection < CONNECTION_BYTES_MAX),
        ("live HTTP/3 connections at the end", live as f64, live >= idle.connected),
        ("failed sessions", failed as f64, failed == 0),
    ];
    println!();
    for (what, found, holds) in wanted {
        println!("- {what}: {found:.0}: {}", if holds { "holds" } else { "MISSED" });
    }
    Ok(wanted.iter().all(|(.., holds)| *holds))
}

fn print(options: &Options, record: &colibri_loadtest::record::Record, looks: [Look; 4]) {
    let [before, scheduled, connected, idle] = looks;
    let mib = |look: &Look| look.resident_bytes / f64::from(1 << 20);
    println!("{} devices scheduled, {} connected, to {} edges:\n", options.devices, idle.connected, options.edges);
    println!("| | resident MiB | processor, % of one |");
    println!("|---|---:|---:|");
    println!("| before the plan | {:.1} | |", mib(&before));
    println!("| all scheduled, none connected | {:.1} | |", mib(&scheduled));
    let sessions = record.counter("sessions");
    let connecting = connected.processor_since(&scheduled) * 100.0;
    println!("| {sessions} sessions over {:.0} s | {:.1} | {connecting:.1} |", options.connect_s, mib(&connected));
    let idling = idle.processor_since(&connected) * 100.0;
    println!("| {} connected and idle | {:.1} | {idling:.1} |", idle.connected, mib(&idle));
    println!("\nlag behind the plan, p99: {:.1} ms", record.lag.value_at_quantile(0.99) as f64 / 1e3);
}
