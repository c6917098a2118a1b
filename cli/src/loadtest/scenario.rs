//! `loadtest run SCENARIO` and `loadtest plan`: arguments, progress and exit codes of runs by scenario.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use colibri_common::{Clock, SystemClock};
use colibri_device::DeviceConfig;
use colibri_fetch::SourceUrl;
use colibri_loadtest::limits::{SCENARIO_BYTES_MAX, SCENARIO_DEVICES_MAX};
use colibri_loadtest::outcome::{Report, Standing};
use colibri_loadtest::plan::file::{PlanError, PlanFile, write};
use colibri_loadtest::plan::{Plan, PlannedWake};
use colibri_loadtest::runner::{self, Measured, Progress, RunConfig, RunError};
use colibri_loadtest::scenario::shipped;
use colibri_loadtest::spawned::{Spawned, Target};
use colibri_loadtest::{Scenario, html};

use super::{LoadtestError, Run, cpu, print};
use crate::device::configuration::{self, Format, replace_mirrors};
use crate::files;
use crate::progress::step;

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(250);

/// How many devices, and the seed.
#[derive(Debug, Clone, clap::Args)]
pub struct Changes {
    /// Seed of everything random: the scenario's own, or 1 without one
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Number of devices: the scenario's own, or 100 without one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(SCENARIO_DEVICES_MAX)))]
    pub devices: Option<u32>,
}

/// Arguments of `loadtest plan`.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// A scenario that comes with the program, or a file
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Where to write the plan; standard output without it
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Changes to the scenario
    #[command(flatten)]
    pub changes: Changes,
}

/// Reads a scenario by name or from a file.
pub(super) fn read(name: &str, changes: &Changes) -> Result<Scenario, LoadtestError> {
    let path = Path::new(name);
    let text = match shipped::text(name).filter(|_| !path.exists()) {
        Some(text) => text.to_owned(),
        None => {
            let names: Vec<_> = shipped::ALL.iter().map(|(name, _)| *name).collect();
            let unreadable = |error: io::Error| LoadtestError::Scenario {
                name: name.to_owned(),
                reason: format!("{error}; scenarios that come with the program: {}", names.join(", ")),
            };
            let mut text = String::new();
            let file = File::open(path).map_err(unreadable)?;
            file.take(SCENARIO_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
            text
        }
    };
    let wrong = |error: colibri_loadtest::scenario::ScenarioError| LoadtestError::Scenario {
        name: name.to_owned(),
        reason: error.to_string(),
    };
    let mut scenario = Scenario::parse(&text).map_err(wrong)?;
    scenario.seed = changes.seed.unwrap_or(scenario.seed);
    scenario.devices = changes.devices.unwrap_or(scenario.devices);
    Ok(scenario)
}

/// Writes a plan out.
pub(super) fn plan(args: &PlanArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let scenario = read(&args.scenario, &args.changes)?;
    match &args.output {
        Some(path) => {
            let file = File::create(path).map_err(files::FilesError::io("creating", path))?;
            let mut file = BufWriter::new(file);
            let wakes = write(&scenario, &mut file).map_err(LoadtestError::Plan)?;
            file.flush()?;
            writeln!(out, "{}: {wakes} wakes of {} devices, seed {}", path.display(), scenario.devices, scenario.seed)?;
        }
        None => {
            write(&scenario, &mut BufWriter::new(out)).map_err(LoadtestError::Plan)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a scenario until it is over or a person stops it.
pub(super) async fn run(
    args: &Run,
    name: &str,
    stop: impl Future<Output = ()>,
    out: &mut dyn Write,
) -> Result<ExitCode, LoadtestError> {
    let mut scenario = read(name, &args.changes)?;
    let work = tempfile::Builder::new().prefix("colibri-loadtest-").tempdir()?;
    let progress = Arc::new(Progress::default());
    let cpu_before_ms = cpu::used_ms();
    let mut measured = {
        let running = measure(args, &mut scenario, work.path(), progress.clone());
        tokio::select! {
            measured = running => measured?,
            () = stop => return Err(LoadtestError::Stopped { sessions: progress.sessions.load(Ordering::Relaxed) }),
        }
    };
    if let Some(used_ms) = cpu::used_ms().zip(cpu_before_ms).map(|(after, before)| after.saturating_sub(before)) {
        measured.record.add("process_cpu_ms", used_ms);
    }
    let report = Report::of_run(&scenario, &measured, !args.no_times);
    tell(&report, args.json, &args.output, out)?;
    Ok(exit_code(&report))
}

/// Starts what is to be started, and lets the plan happen.
async fn measure(
    args: &Run,
    scenario: &mut Scenario,
    work: &Path,
    progress: Arc<Progress>,
) -> Result<Measured, LoadtestError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let spawn = args.target.is_empty();
    if spawn != args.spawn {
        return Err(LoadtestError::NoTarget);
    }
    let system = if spawn {
        let step = step("generating a repository and starting servers");
        let system = Spawned::start(scenario, work, clock.clone()).await.map_err(RunError::Spawn)?;
        step.done(&format!("{} edges and an origin run on this machine", scenario.system.edges));
        Some(Arc::new(system))
    } else {
        None
    };
    let target = match &system {
        Some(system) => system.target().map_err(RunError::Spawn)?,
        None => target(args, scenario).await?,
    };
    let (tls, http3) = (args.connection.trust(), args.connection.http3());
    let device = DeviceConfig { tls, http3, ..configuration::defaults() };
    let plan = plan_of(args.plan.as_deref(), scenario)?;
    let config = RunConfig { scenario: scenario.clone(), target, device, clock };
    let title = format!("{}: {} devices for {} s", scenario.name, scenario.devices, scenario.duration_s);
    let step = step(&title);
    let running = runner::run(config, plan, system.clone(), progress.clone());
    tokio::pin!(running);
    let mut tick = tokio::time::interval(TICK);
    let measured = loop {
        tokio::select! {
            measured = &mut running => break measured,
            _ = tick.tick() => {
                let [sessions, failed, updated] =
                    [&progress.sessions, &progress.failed, &progress.updated].map(|count| count.load(Ordering::Relaxed));
                step.note(&format!("{sessions} sessions, {failed} failed, {updated} devices updated"));
            }
        }
    };
    if let Some(system) = system.and_then(Arc::into_inner) {
        system.stop().await;
    }
    Ok(measured?)
}

type Wakes = Box<dyn Iterator<Item = Result<PlannedWake, PlanError>> + Send>;

fn plan_of(file: Option<&Path>, scenario: &Scenario) -> Result<Wakes, LoadtestError> {
    let Some(path) = file else { return Ok(Box::new(Plan::of(scenario).map(Ok))) };
    let file = BufReader::new(files::open(path).map_err(LoadtestError::Files)?);
    Ok(Box::new(PlanFile::open(file, scenario).map_err(LoadtestError::Plan)?))
}

/// Servers that run somewhere else.
async fn target(args: &Run, scenario: &mut Scenario) -> Result<Target, LoadtestError> {
    if scenario.acts_on_servers() {
        return Err(LoadtestError::OnlySpawned(scenario.name.clone()));
    }
    let Some(first) = args.target.first() else { return Err(LoadtestError::NoTarget) };
    let url: SourceUrl = first.join("/repo.config").parse().map_err(|_| LoadtestError::NoTarget)?;
    let unreachable = |error: configuration::ConfigurationError| RunError::Unreachable(error.to_string());
    let content = configuration::fetch(&args.connection, &url).await.map_err(unreachable)?;
    let mut repository = configuration::parse(url.as_str(), &content, Format::Two, None)?;
    replace_mirrors(&mut repository, &args.target);
    super::of_repository(&args.packages, &repository)?;
    // The first package is the release; what a scenario says of others holds for those that are there.
    scenario.system.packages = args.packages.len().saturating_sub(1);
    let (wanted, packages) = (scenario.popularity.on_demand, scenario.system.packages);
    if args.packages.is_empty() || wanted > packages {
        return Err(LoadtestError::TooFewPackages { needed: wanted + 1, given: args.packages.len() });
    }
    Ok(Target { repository, packages: args.packages.clone() })
}

/// Where reports go.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Output {
    /// Write the whole report as JSON, for `loadtest compare`
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Write percentiles as CSV
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write one page of HTML, without scripts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Prints a report and writes it where it is wanted.
pub(super) fn tell(report: &Report, json: bool, output: &Output, out: &mut dyn Write) -> Result<(), LoadtestError> {
    keep(report, output)?;
    if json {
        writeln!(out, "{}", serde_json::to_string(report).map_err(io::Error::from)?)?;
    } else {
        print::report(report, out)?;
    }
    Ok(())
}

/// Writes a report where it is wanted.
pub(super) fn keep(report: &Report, output: &Output) -> Result<(), LoadtestError> {
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> Result<String, LoadtestError>| match path {
        Some(path) => Ok(std::fs::write(path, text()?).map_err(files::FilesError::io("writing", path))?),
        None => Ok::<_, LoadtestError>(()),
    };
    write(&output.save, &|| Ok(serde_json::to_string(report).map_err(io::Error::from)?))?;
    write(&output.csv, &|| Ok(report.csv()))?;
    write(&output.html, &|| {
        let record = report.load_record();
        let record = record.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(html::page(report, &record))
    })
}

pub(super) fn exit_code(report: &Report) -> ExitCode {
    ExitCode::from(match report.standing() {
        Standing::Passed => 0,
        Standing::Failed => 1,
        Standing::Invalid => 3,
    })
}
