//! `colibri loadtest`: synthetic fleets, measured or simulated.
//!
//! What the devices do is in `colibri-loadtest`; here are its arguments, progress and reports. Runs by scenario are in
//! [`scenario`], what is computed from one in [`simulate`]; a run without one is here.

pub mod compare;
pub mod coordinate;
mod cpu;
mod crew;
mod measure;
pub mod predict;
mod print;
pub mod scenario;
pub mod simulate;
#[cfg(test)]
mod tests;
mod view;
pub mod work;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use colibri_common::{Clock, SystemClock};
use colibri_device::DeviceConfig;
use colibri_fetch::SourceUrl;
use colibri_loadtest::compare::CompareError;
use colibri_loadtest::limits::DEVICES_MAX;
use colibri_loadtest::merge::MergeError;
use colibri_loadtest::plan::access_log::AccessLogError;
use colibri_loadtest::plan::file::PlanError;
use colibri_loadtest::predict::PredictError;
use colibri_loadtest::runner::RunError;
use colibri_loadtest::simulate::{CalibrationError, SimulateError};
use colibri_loadtest::slice::{Slice, SliceError};
use colibri_loadtest::spawned::SpawnError;
use colibri_loadtest::{FleetConfig, FleetReport};
use colibri_metadata::RepoConfig;
use colibri_package::url::AbsolutePackageUrl;

use crate::device::configuration::{self, ConfigurationError, Connection, Format, replace_mirrors};
use crate::device::interrupt;
use crate::files::FilesError;
use crate::progress::{bytes, step};

/// Devices of a run without a scenario that says no other number.
const DEVICES: u32 = 100;

/// Runs synthetic fleets.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with a fleet.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Runs a scenario, or lets devices wake at random times and resolve packages
    ///
    /// A scenario says how many devices wake when, what they want, what breaks and what must hold. It runs against servers that
    /// you name (--target) or against an origin and edges that are started for it (--spawn). Latencies count from the moment at
    /// which a device meant to wake.
    ///
    /// Exit status: 0 every rule and invariant was kept, 1 some were not, 2 wrong usage, 3 the generator could not keep to its
    /// plan and the run says nothing, 4 the target cannot be reached. Without a scenario: 0 every resolve succeeded, 1 some failed.
    #[command(
        after_help = "Examples:\n  colibri loadtest run smoke --spawn\n  colibri loadtest run ./mine.toml --target https://edge:8443/devhost --package fuchsia-pkg://devhost/system\n  colibri loadtest run --repo-url https://edge:8443/devhost/repo.config --package fuchsia-pkg://devhost/hello --devices 50"
    )]
    Run(Box<Run>),
    /// Writes out who wakes when and wants what: the same scenario and seed give the same bytes
    ///
    /// `run --plan FILE` replays it.
    #[command(after_help = "Example: colibri loadtest plan steady --seed 7 -o steady.plan")]
    Plan(scenario::PlanArgs),
    /// Computes what a scenario would come to, on a virtual clock, or as a fluid for fleets of any size
    ///
    /// Faults are not simulated. Exit status: 0 every rule was kept, 1 some were not, 2 wrong usage.
    #[command(
        after_help = "Examples:\n  colibri loadtest simulate release-wave --devices 1000000\n  colibri loadtest simulate release-wave --fluid 1000000000"
    )]
    Simulate(simulate::SimulateArgs),
    /// Writes down what work costs on this machine, from the report of a run on servers of its own
    ///
    /// `simulate --calibration FILE` uses it.
    #[command(
        after_help = "Example:\n  colibri loadtest run steady --spawn --save steady.json\n  colibri loadtest calibrate steady steady.json -o machine.toml"
    )]
    Calibrate(predict::CalibrateArgs),
    /// Puts a simulation beside the run that it predicted: hit ratio, bytes from the origin, time to 99 %
    ///
    /// Exit status: 0 all within the bound, 1 something is not, 2 wrong usage.
    #[command(
        after_help = "Example:\n  colibri loadtest simulate release-wave --seed 7 --calibration machine.toml --save predicted.json\n  colibri loadtest run release-wave --seed 7 --spawn --save measured.json\n  colibri loadtest predict predicted.json measured.json --html report.html"
    )]
    Predict(predict::PredictArgs),
    /// Hands one run to several workers and judges what they measured as one
    ///
    /// Each worker takes a slice of the devices; all begin at the same moment. A worker that is lost makes the run invalid. Exit
    /// statuses are those of `run`.
    #[command(
        after_help = "Example:\n  colibri loadtest coordinate steady --listen 0.0.0.0:7400 --workers 4 --target https://edge:8443/devhost --package fuchsia-pkg://devhost/system fuchsia-pkg://devhost/extra\n  colibri loadtest work --coordinator coordinator:7400      # four times, anywhere"
    )]
    Coordinate(coordinate::CoordinateArgs),
    /// Does a slice of a run for a coordinator
    #[command(after_help = "Example: colibri loadtest work --coordinator coordinator:7400")]
    Work(work::WorkArgs),
    /// Makes one report of those of all slices (`run --slice`): histograms are merged exactly, rules judged once
    ///
    /// Exit statuses are those of `run`; a slice that is missing makes the run invalid.
    #[command(
        after_help = "Example:\n  colibri loadtest run steady --slice 1/2 --target URL --package URL --save 1.json\n  colibri loadtest run steady --slice 2/2 --target URL --package URL --save 2.json\n  colibri loadtest merge 1.json 2.json --html whole.html"
    )]
    Merge(coordinate::MergeArgs),
    /// Says what changed between two reports of one scenario (`run --save FILE`) by more than chance
    ///
    /// Exit status: 0 nothing got worse, 1 something did, 2 wrong usage.
    #[command(after_help = "Example: colibri loadtest compare before.json after.json --tolerance 10")]
    Compare(compare::CompareArgs),
}

/// Arguments of `loadtest run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// A scenario that comes with the program (smoke, steady, release-wave, ...), or a file
    #[arg(value_name = "SCENARIO", conflicts_with_all = ["repo_config", "repo_url", "mirrors", "arrivals_per_s", "packages_per_device"])]
    pub scenario: Option<String>,
    /// Start an origin and edges for the scenario, with content of their own
    #[arg(long, requires = "scenario", conflicts_with_all = ["target", "packages"])]
    pub spawn: bool,
    /// Repositories on servers that run, as https://HOST/REPOSITORY; each one is a mirror (repeatable)
    #[arg(long, value_name = "URL", num_args = 1.., requires = "scenario", requires = "packages")]
    pub target: Vec<SourceUrl>,
    /// Replay this plan of the scenario
    #[arg(long, value_name = "FILE", requires = "scenario")]
    pub plan: Option<PathBuf>,
    /// Replay an edge's access log: who came when, and how often each blob was asked for
    #[arg(long, value_name = "FILE", requires = "scenario", conflicts_with = "plan")]
    pub access_log: Option<PathBuf>,
    /// Do this part of the plan only, as 2/5; `merge` puts the reports together
    #[arg(long, value_name = "I/N", requires = "target", conflicts_with = "slices")]
    pub slice: Option<Slice>,
    /// Do the part that JOB_COMPLETION_INDEX says of so many, as Kubernetes sets it in an indexed Job
    #[arg(long, value_name = "N", requires = "target")]
    pub slices: Option<u32>,
    /// Show plain lines on the way, on a terminal, too
    #[arg(long, requires = "scenario")]
    pub plain: bool,
    /// Show rules about times without judging them: for machines that do other things, too
    #[arg(long, requires = "scenario")]
    pub no_times: bool,
    /// Where the report of a scenario goes besides
    #[command(flatten)]
    pub output: scenario::Output,
    /// Configuration of the repository (repo.config)
    #[arg(long, value_name = "FILE", required_unless_present_any = ["repo_url", "scenario"], conflicts_with = "repo_url")]
    pub repo_config: Option<PathBuf>,
    /// The same, fetched from its whole address, as https://HOST/REPOSITORY/repo.config
    #[arg(long, value_name = "URL")]
    pub repo_url: Option<SourceUrl>,
    /// Mirrors to use in place of those that the configuration names (repeatable)
    #[arg(long = "mirror", value_name = "URL", num_args = 1..)]
    pub mirrors: Vec<SourceUrl>,
    /// Packages that devices choose from, fuchsia-pkg://HOST/NAME (repeatable); in a scenario the first one is the release
    #[arg(long = "package", value_name = "URL", num_args = 1.., required_unless_present = "scenario")]
    pub packages: Vec<AbsolutePackageUrl>,
    /// Devices that wake per second, on average
    #[arg(long, value_name = "X", default_value_t = 10.0, value_parser = parse_rate)]
    pub arrivals_per_s: f64,
    /// Packages that each device resolves
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub packages_per_device: usize,
    /// How many devices, and the seed of who wakes when and wants what
    #[command(flatten)]
    pub changes: scenario::Changes,
    /// How devices connect
    #[command(flatten)]
    pub connection: Connection,
    /// Print one JSON object on standard output instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Why a load test did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum LoadtestError {
    /// The asynchronous runtime could not start.
    #[error("the runtime could not start: {0}")]
    Runtime(io::Error),
    /// Standard output.
    #[error("printing failed: {0}")]
    Output(#[from] io::Error),
    /// The repository's configuration.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// No repository was given.
    #[error("which repository? Give --repo-config or --repo-url")]
    NoRepository,
    /// A package of another repository.
    #[error("--package {package}: the configuration is that of {repository}")]
    OtherRepository {
        /// The package.
        package: String,
        /// The repository that is configured.
        repository: String,
    },
    /// More packages per device than there are, or none.
    #[error("--packages-per-device {wanted}: choose from 1 to {packages}, the number of packages given")]
    PackagesPerDevice {
        /// As given.
        wanted: usize,
        /// How many there are.
        packages: usize,
    },
    /// A scenario that cannot be used.
    #[error("scenario {name}: {reason}")]
    Scenario {
        /// Its name or file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Neither servers nor --spawn.
    #[error("against which servers? Give --target URL, or --spawn to start some")]
    NoTarget,
    /// A scenario that needs a system of its own.
    #[error(
        "scenario {0} publishes releases or breaks things: that is done only to servers it started itself (--spawn)"
    )]
    OnlySpawned(String),
    /// Fewer packages than the scenario wants.
    #[error("the scenario needs {needed} packages (--package, the release first), {given} are given")]
    TooFewPackages {
        /// Needed.
        needed: usize,
        /// Given.
        given: usize,
    },
    /// More devices than can be run without a scenario.
    #[error("--devices {0}: without a scenario at most {DEVICES_MAX} can wake")]
    TooManyDevices(u32),
    /// A run by scenario.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A plan file.
    #[error(transparent)]
    Plan(PlanError),
    /// A simulation.
    #[error(transparent)]
    Simulate(SimulateError),
    /// The fluid picture is of polls.
    #[error("scenario {0}: its devices do not poll, and the fluid picture is one of polls")]
    NoFluid(String),
    /// A stored report.
    #[error("report {file}: {reason}")]
    Report {
        /// Its file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Reports that cannot be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A calibration that cannot be made or read.
    #[error("calibration {file}: {reason}")]
    Calibration {
        /// Of which file.
        file: String,
        /// What is wrong with it.
        reason: CalibrationError,
    },
    /// An access log.
    #[error("access log {file}: {reason}")]
    AccessLog {
        /// Its file.
        file: String,
        /// What is wrong with it.
        reason: AccessLogError,
    },
    /// A slice that is none.
    #[error(transparent)]
    Slice(SliceError),
    /// Kubernetes says nothing.
    #[error("--slices: JOB_COMPLETION_INDEX is not a number from 0; outside of an indexed Job use --slice I/N")]
    NoJobIndex,
    /// Reports that are not of one run.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A coordinator and its workers.
    #[error("{0}")]
    Crew(String),
    /// A prediction and a run that do not belong together.
    #[error(transparent)]
    Predict(#[from] PredictError),
    /// A file of this verb.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A person pressed Ctrl-C in the middle of a scenario.
    #[error("interrupted after {sessions} sessions: there is no report")]
    Stopped {
        /// Sessions that had ended.
        sessions: u64,
    },
    /// A person pressed Ctrl-C.
    #[error("interrupted when {done} of {devices} devices had finished: there is no report")]
    Interrupted {
        /// Devices that had finished.
        done: u64,
        /// Devices in all.
        devices: u32,
    },
}

impl LoadtestError {
    /// 2 for wrong usage, 4 for a target that cannot be reached, else 1.
    pub fn exit_code(&self) -> ExitCode {
        let is_usage = match self {
            Self::NoRepository
            | Self::OtherRepository { .. }
            | Self::PackagesPerDevice { .. }
            | Self::Scenario { .. }
            | Self::NoTarget
            | Self::OnlySpawned(_)
            | Self::TooFewPackages { .. }
            | Self::TooManyDevices(_)
            | Self::Plan(_)
            | Self::Simulate(_)
            | Self::NoFluid(_)
            | Self::Report { .. }
            | Self::Compare(_)
            | Self::Calibration { .. }
            | Self::Predict(_)
            | Self::AccessLog { .. }
            | Self::Slice(_)
            | Self::NoJobIndex
            | Self::Merge(_)
            | Self::Run(RunError::Plan(_) | RunError::Spawn(SpawnError::TooManyEdges(_))) => true,
            Self::Configuration(error) => error.is_usage(),
            _ => false,
        };
        match self {
            Self::Run(RunError::Unreachable(_)) => ExitCode::from(4),
            // Without all workers there is no run to judge.
            Self::Crew(_) => ExitCode::from(3),
            _ if is_usage => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("it must be greater than 0".to_owned()) }
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    match &args.verb {
        Verb::Run(args) => run_until(args, interrupt(), out, &mut io::stderr()),
        Verb::Plan(args) => scenario::plan(args, out),
        Verb::Simulate(args) => simulate::run(args, out),
        Verb::Compare(args) => compare::run(args, out),
        Verb::Coordinate(args) => runtime()?.block_on(coordinate::run(args, interrupt(), out)),
        Verb::Work(args) => runtime()?.block_on(work::run(args, interrupt())),
        Verb::Merge(args) => coordinate::merge_files(args, out),
        Verb::Calibrate(args) => predict::calibrate(args, out),
        Verb::Predict(args) => predict::run(args, out),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, LoadtestError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(LoadtestError::Runtime)
}

fn run_until(
    args: &Run,
    stop: impl Future<Output = ()>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ExitCode, LoadtestError> {
    let runtime = runtime()?;
    if let Some(name) = &args.scenario {
        return runtime.block_on(scenario::run(args, name, stop, out));
    }
    let done = Arc::new(AtomicU64::new(0));
    let devices = args.changes.devices.unwrap_or(DEVICES);
    let report = runtime.block_on(async {
        tokio::select! {
            report = fleet(args, done.clone()) => report,
            () = stop => {
                Err(LoadtestError::Interrupted { done: done.load(Ordering::Relaxed), devices })
            }
        }
    })?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::from)?)?;
    } else {
        for text in &report.failure_texts {
            writeln!(err, "failed: {text}")?;
        }
        print_fleet(&report, out)?;
    }
    Ok(if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fleet(args: &Run, done: Arc<AtomicU64>) -> Result<FleetReport, LoadtestError> {
    let devices = args.changes.devices.unwrap_or(DEVICES);
    if devices > DEVICES_MAX {
        return Err(LoadtestError::TooManyDevices(devices));
    }
    let repository = repository(args).await?;
    of_repository(&args.packages, &repository)?;
    let (wanted, packages) = (args.packages_per_device, args.packages.len());
    if wanted == 0 || wanted > packages {
        return Err(LoadtestError::PackagesPerDevice { wanted, packages });
    }
    let (tls, http3) = (args.connection.trust(), args.connection.http3());
    let config = FleetConfig {
        repository,
        packages: args.packages.clone(),
        device: DeviceConfig { tls, http3, ..DeviceConfig::default() },
        devices,
        arrivals_per_s: args.arrivals_per_s,
        packages_per_device: wanted,
        seed: args.changes.seed.unwrap_or(1),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let step = step(&format!("{devices} devices, {} per second", args.arrivals_per_s));
    let run = colibri_loadtest::run(config, clock, done.clone());
    Ok(step.watch(run, || (done.load(Ordering::Relaxed), u64::from(devices))).await)
}

/// Refuses packages of another repository.
fn of_repository(packages: &[AbsolutePackageUrl], repository: &RepoConfig) -> Result<(), LoadtestError> {
    match packages.iter().find(|package| package.repository().host() != repository.host()) {
        Some(package) => {
            let (package, repository) = (package.to_string(), repository.repo_url.clone());
            Err(LoadtestError::OtherRepository { package, repository })
        }
        None => Ok(()),
    }
}

async fn repository(args: &Run) -> Result<RepoConfig, LoadtestError> {
    let (from, content) = match (&args.repo_config, &args.repo_url) {
        (Some(file), _) => (file.display().to_string(), configuration::read(file)?),
        (None, Some(url)) => (url.as_str().to_owned(), configuration::fetch(&args.connection, url).await?),
        (None, None) => return Err(LoadtestError::NoRepository),
    };
    let mut config = configuration::parse(&from, &content, Format::Two, None)?;
    replace_mirrors(&mut config, &args.mirrors);
    Ok(config)
}

fn print_fleet(report: &FleetReport, out: &mut dyn Write) -> io::Result<()> {
    let rows = [
        ("devices", report.devices.to_string()),
        ("packages", format!("{} resolved and verified", report.packages)),
        ("failures", report.failures.to_string()),
        ("blobs", report.blobs.to_string()),
        ("content", format!("{} verified", bytes(report.content_bytes))),
        ("received", bytes(report.received_bytes)),
        ("requests", format!("{} h3, {} h2, {} h1", report.h3_requests, report.h2_requests, report.h1_requests)),
        (
            "latency",
            format!(
                "p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, worst {:.0} ms",
                report.p50_ms, report.p90_ms, report.p99_ms, report.max_ms
            ),
        ),
        ("time", format!("{:.1} s", report.duration_s)),
        ("seed", report.seed.to_string()),
    ];
    rows.into_iter().try_for_each(|(name, value)| writeln!(out, "{name:<10} {value}"))
}
