//! One run by scenario, from what is to be started to its report; shown on the way as a picture or in plain lines.

use std::io::{self, BufReader, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use colibri_common::{Clock, SystemClock};
use colibri_device::DeviceConfig;
use colibri_fetch::SourceUrl;
use colibri_loadtest::Scenario;
use colibri_loadtest::outcome::Report;
use colibri_loadtest::plan::access_log::replay;
use colibri_loadtest::plan::file::{PlanError, PlanFile};
use colibri_loadtest::plan::{Plan, PlannedWake};
use colibri_loadtest::runner::{self, Measured, Progress, RunConfig, RunError};
use colibri_loadtest::slice::Slice;
use colibri_loadtest::spawned::{Spawned, Target};

use super::view::View;
use super::{LoadtestError, Run, cpu};
use crate::device::configuration::{self, Format, replace_mirrors};
use crate::device::interrupt;
use crate::files;
use crate::progress::step;

/// How often a picture is drawn.
const DRAWN_EVERY: Duration = Duration::from_millis(250);

/// How often a plain line is written.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// The plan as it happens.
pub(super) type Wakes = Box<dyn Iterator<Item = Result<PlannedWake, PlanError>> + Send>;

/// Where a plan comes from: the scenario, a file of it, or an access log, which changes the scenario.
pub(super) fn plan_of(
    plan: Option<&Path>,
    access_log: Option<&Path>,
    scenario: &mut Scenario,
) -> Result<Wakes, LoadtestError> {
    match (plan, access_log) {
        (Some(path), _) => {
            let file = BufReader::new(files::open(path).map_err(LoadtestError::Files)?);
            Ok(Box::new(PlanFile::open(file, scenario).map_err(LoadtestError::Plan)?))
        }
        (None, Some(path)) => {
            let file = BufReader::new(files::open(path).map_err(LoadtestError::Files)?);
            let wrong = |reason| LoadtestError::AccessLog { file: path.display().to_string(), reason };
            let replay = replay(file, scenario).map_err(wrong)?;
            eprintln!(
                "  {}: {} wakes of {} devices in {} s, {} different blobs; {} other lines, {} wishes left out",
                path.display(),
                replay.wakes.len(),
                scenario.devices,
                scenario.duration_s,
                scenario.system.packages,
                replay.other_lines,
                replay.wishes_left_out
            );
            Ok(Box::new(replay.wakes.into_iter().map(Ok)))
        }
        (None, None) => Ok(Box::new(Plan::of(scenario).map(Ok))),
    }
}

/// Which part of the plan is this process's: as it was told, or as Kubernetes numbers the pods of an indexed Job.
pub(super) fn slice_of(args: &Run) -> Result<Option<Slice>, LoadtestError> {
    match (args.slice, args.slices) {
        (Some(slice), _) => Ok(Some(slice)),
        (None, Some(count)) => {
            let index = std::env::var("JOB_COMPLETION_INDEX").ok().and_then(|index| index.trim().parse::<u32>().ok());
            let index = index.ok_or(LoadtestError::NoJobIndex)?;
            Ok(Some(Slice::new(index.saturating_add(1), count).map_err(LoadtestError::Slice)?))
        }
        (None, None) => Ok(None),
    }
}

/// Lets a scenario happen, and judges it. A person who interrupts it once gets the report of what there was until then.
pub(super) async fn perform(
    args: &Run,
    mut scenario: Scenario,
    stop: impl Future<Output = ()>,
    progress: Arc<Progress>,
) -> Result<Report, LoadtestError> {
    let slice = slice_of(args)?;
    let work = tempfile::Builder::new().prefix("colibri-loadtest-").tempdir()?;
    let cpu_before_ms = cpu::used_ms();
    let control = progress.clone();
    let interrupted = async {
        stop.await;
        control.control.stop();
        interrupt().await;
    };
    let mut measured = tokio::select! {
        measured = Box::pin(measure(args, &mut scenario, slice, work.path(), progress.clone())) => measured?,
        () = interrupted => {
            return Err(LoadtestError::Stopped { sessions: progress.sessions.load(Ordering::Relaxed) });
        }
    };
    if let Some(used_ms) = cpu::used_ms().zip(cpu_before_ms).map(|(after, before)| after.saturating_sub(before)) {
        measured.record.add("process_cpu_ms", used_ms);
    }
    let mut report = Report::of_run(&scenario, &measured, !args.no_times);
    report.slice = slice;
    Ok(report)
}

/// Starts what is to be started, and lets the plan happen.
async fn measure(
    args: &Run,
    scenario: &mut Scenario,
    slice: Option<Slice>,
    work: &Path,
    progress: Arc<Progress>,
) -> Result<Measured, LoadtestError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    if args.target.is_empty() != args.spawn {
        return Err(LoadtestError::NoTarget);
    }
    let mut plan = None;
    if args.access_log.is_some() {
        plan = Some(plan_of(None, args.access_log.as_deref(), scenario)?);
    }
    let system = if args.spawn { Some(started(scenario, work, clock.clone()).await?) } else { None };
    let target = match &system {
        Some(system) => system.target().map_err(RunError::Spawn)?,
        None => target(args, scenario).await?,
    };
    let (tls, http3) = (args.connection.trust(), args.connection.http3());
    let device = DeviceConfig { tls, http3, ..configuration::defaults() };
    let plan = match plan {
        Some(plan) => plan,
        None => plan_of(args.plan.as_deref(), None, scenario)?,
    };
    let packages = scenario.system.packages;
    let plan = plan.filter_map(move |planned| match planned {
        Ok(planned) => fitting(planned, slice, packages).map(Ok),
        Err(error) => Some(Err(error)),
    });
    let config = RunConfig { scenario: scenario.clone(), target, device, clock };
    let of = slice.map_or_else(String::new, |slice| format!(", slice {slice}"));
    let title = format!("{}: {} devices for {} s{of}", scenario.name, scenario.devices, scenario.duration_s);
    let running = runner::run(config, plan, system.clone(), progress.clone());
    let measured = watched(running, &title, args.json || args.plain, &progress).await;
    if let Some(system) = system.and_then(Arc::into_inner) {
        system.stop().await;
    }
    measured
}

/// A wake of this slice, with what there is of its wishes; nothing if there is none.
fn fitting(mut planned: PlannedWake, slice: Option<Slice>, packages: usize) -> Option<PlannedWake> {
    planned.wants.retain(|package| usize::from(*package) <= packages);
    (slice.is_none_or(|slice| slice.has(planned.wake.device)) && !planned.wants.is_empty()).then_some(planned)
}

async fn started(scenario: &Scenario, work: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Spawned>, LoadtestError> {
    let step = step("generating a repository and starting servers");
    let system = Spawned::start(scenario, work, clock).await.map_err(RunError::Spawn)?;
    step.done(&format!("{} edges and an origin run on this machine", scenario.system.edges));
    Ok(Arc::new(system))
}

/// Shows a run while it goes on: on a terminal as a picture, else in lines.
async fn watched(
    running: impl Future<Output = Result<Measured, RunError>>,
    title: &str,
    plain: bool,
    progress: &Progress,
) -> Result<Measured, LoadtestError> {
    let mut running = Box::pin(running);
    progress.control.watch();
    let mut view = if plain || !io::stdout().is_terminal() { None } else { Some(View::open(title)?) };
    let mut tick = tokio::time::interval(if view.is_some() { DRAWN_EVERY } else { TOLD_EVERY });
    if view.is_none() {
        eprintln!("… {title}");
    }
    let mut asked_to_stop = false;
    loop {
        tokio::select! {
            measured = &mut running => return Ok(measured?),
            _ = tick.tick() => {}
        }
        let live = progress.control.live();
        match (&mut view, live) {
            (Some(view), live) => {
                // On a terminal of its own Ctrl-C is a key: once to end the run, twice to leave it.
                if view.is_interrupted()? {
                    if asked_to_stop {
                        return Err(LoadtestError::Stopped { sessions: progress.sessions.load(Ordering::Relaxed) });
                    }
                    asked_to_stop = true;
                    progress.control.stop();
                }
                view.draw(&live.unwrap_or_default(), asked_to_stop)?;
            }
            (None, Some(live)) => eprintln!(
                "  {:.0} s: {} due, {} ok, {} failed, {} under way; {} of {} devices updated; lag {:.1} ms",
                live.at_s, live.due, live.ok, live.failed, live.under_way, live.updated, live.devices, live.lag_p99_ms
            ),
            (None, None) => {}
        }
    }
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
