//! `colibri loadtest run`: a synthetic fleet against servers that run somewhere else.
//!
//! What the devices do is in `colibri-loadtest`; here are its arguments, progress and report.

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use colibri_common::{Clock, SystemClock};
use colibri_device::DeviceConfig;
use colibri_fetch::SourceUrl;
use colibri_loadtest::limits::DEVICES_MAX;
use colibri_loadtest::{FleetConfig, FleetReport};
use colibri_metadata::RepoConfig;
use colibri_package::url::AbsolutePackageUrl;

use crate::device::configuration::{self, ConfigurationError, Connection, Format, replace_mirrors};
use crate::device::interrupt;
use crate::progress::{bytes, step};

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
    /// Lets devices wake at random times and resolve packages, each with connections and a store of its own
    ///
    /// Exit status: 0 every resolve succeeded, 1 some failed.
    Run(Run),
}

/// Arguments of `loadtest run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Configuration of the repository (repo.config)
    #[arg(long, value_name = "FILE", required_unless_present = "repo_url", conflicts_with = "repo_url")]
    pub repo_config: Option<PathBuf>,
    /// The same, fetched from its whole address, as https://HOST/REPOSITORY/repo.config
    #[arg(long, value_name = "URL")]
    pub repo_url: Option<SourceUrl>,
    /// Mirrors to use in place of those that the configuration names (repeatable)
    #[arg(long = "mirror", value_name = "URL", num_args = 1..)]
    pub mirrors: Vec<SourceUrl>,
    /// Packages that devices choose from, fuchsia-pkg://HOST/NAME (repeatable)
    #[arg(long = "package", value_name = "URL", num_args = 1.., required = true)]
    pub packages: Vec<AbsolutePackageUrl>,
    /// Number of devices
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(DEVICES_MAX)))]
    pub devices: u32,
    /// Devices that wake per second, on average
    #[arg(long, value_name = "X", default_value_t = 10.0, value_parser = parse_rate)]
    pub arrivals_per_s: f64,
    /// Packages that each device resolves
    #[arg(long, value_name = "K", default_value_t = 1)]
    pub packages_per_device: usize,
    /// Seed of who wakes when and wants what
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
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
    /// 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> ExitCode {
        let is_usage = match self {
            Self::NoRepository | Self::OtherRepository { .. } | Self::PackagesPerDevice { .. } => true,
            Self::Configuration(error) => error.is_usage(),
            _ => false,
        };
        if is_usage { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("it must be greater than 0".to_owned()) }
}

/// Runs the verb.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let Verb::Run(args) = &args.verb;
    run_until(args, interrupt(), out, &mut io::stderr())
}

fn run_until(
    args: &Run,
    stop: impl Future<Output = ()>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<ExitCode, LoadtestError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(LoadtestError::Runtime)?;
    let done = Arc::new(AtomicU64::new(0));
    let report = runtime.block_on(async {
        tokio::select! {
            report = fleet(args, done.clone()) => report,
            () = stop => {
                Err(LoadtestError::Interrupted { done: done.load(Ordering::Relaxed), devices: args.devices })
            }
        }
    })?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::from)?)?;
    } else {
        for text in &report.failure_texts {
            writeln!(err, "failed: {text}")?;
        }
        print(&report, out)?;
    }
    Ok(if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fleet(args: &Run, done: Arc<AtomicU64>) -> Result<FleetReport, LoadtestError> {
    let repository = repository(args).await?;
    if let Some(package) = args.packages.iter().find(|package| package.repository().host() != repository.host()) {
        let (package, repository) = (package.to_string(), repository.repo_url);
        return Err(LoadtestError::OtherRepository { package, repository });
    }
    let (wanted, packages) = (args.packages_per_device, args.packages.len());
    if wanted == 0 || wanted > packages {
        return Err(LoadtestError::PackagesPerDevice { wanted, packages });
    }
    let (tls, http3) = (args.connection.tls.clone(), args.connection.http3());
    let config = FleetConfig {
        repository,
        packages: args.packages.clone(),
        device: DeviceConfig { tls, http3, ..DeviceConfig::default() },
        devices: args.devices,
        arrivals_per_s: args.arrivals_per_s,
        packages_per_device: wanted,
        seed: args.seed,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let step = step(&format!("{} devices, {} per second", args.devices, args.arrivals_per_s));
    let run = colibri_loadtest::run(config, clock, done.clone());
    Ok(step.watch(run, || (done.load(Ordering::Relaxed), u64::from(args.devices))).await)
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

fn print(report: &FleetReport, out: &mut dyn Write) -> io::Result<()> {
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
