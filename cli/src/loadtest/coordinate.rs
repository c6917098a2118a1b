//! `loadtest coordinate`: hands slices of one plan to workers, has them begin together, and judges what they measured as one run. A
//! worker that is lost makes the run invalid, and is named. `loadtest merge` does the last part with stored reports.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use colibri_fetch::SourceUrl;
use colibri_loadtest::limits::WORKERS_MAX;
use colibri_loadtest::merge::merge;
use colibri_loadtest::outcome::Report;
use colibri_loadtest::slice::Slice;
use colibri_package::url::AbsolutePackageUrl;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::crew::{FromWorker, Line, SILENCE_MAX, Task, ToWorker};
use super::scenario::{Changes, Output, exit_code, read, read_text, tell};
use super::{LoadtestError, compare};

/// Time between the word to begin and the beginning: enough for every worker to prepare.
const BEGIN_IN: Duration = Duration::from_secs(5);

/// Arguments of `loadtest coordinate`.
#[derive(Debug, clap::Args)]
pub struct CoordinateArgs {
    /// A scenario that comes with the program, or a file
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Where workers connect to; whoever can reach it can take part, so keep it inside
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    pub listen: SocketAddr,
    /// How many workers share the plan
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=WORKERS_MAX as i64))]
    pub workers: u32,
    /// How long to wait for all of them, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub wait_s: u64,
    /// Repositories on servers that run, as https://HOST/REPOSITORY; each one is a mirror (repeatable)
    #[arg(long, value_name = "URL", num_args = 1.., required = true)]
    pub target: Vec<SourceUrl>,
    /// Packages, fuchsia-pkg://HOST/NAME, the release first (repeatable)
    #[arg(long = "package", value_name = "URL", num_args = 1.., required = true)]
    pub packages: Vec<AbsolutePackageUrl>,
    /// Changes to the scenario
    #[command(flatten)]
    pub changes: Changes,
    /// Show rules about times without judging them
    #[arg(long)]
    pub no_times: bool,
    /// Where the report goes besides
    #[command(flatten)]
    pub output: Output,
    /// Print one JSON object on standard output instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `loadtest merge`.
#[derive(Debug, clap::Args)]
pub struct MergeArgs {
    /// Reports of all slices (`run --slice I/N --save FILE`)
    #[arg(value_name = "REPORT", required = true)]
    pub reports: Vec<PathBuf>,
    /// Where the report of the whole goes besides
    #[command(flatten)]
    pub output: Output,
    /// Print one JSON object on standard output instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Runs `merge`.
pub(super) fn merge_files(args: &MergeArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let reports = args.reports.iter().map(|path| compare::read(path)).collect::<Result<Vec<_>, _>>()?;
    let whole = merge(&reports, &[])?;
    tell(&whole, args.json, &args.output, out)?;
    Ok(exit_code(&whole))
}

/// Runs `coordinate`, until everybody has reported or was lost.
pub(super) async fn run(
    args: &CoordinateArgs,
    stop: impl Future<Output = ()>,
    out: &mut dyn Write,
) -> Result<ExitCode, LoadtestError> {
    let scenario = read(&args.scenario, &args.changes)?;
    if scenario.acts_on_servers() {
        return Err(LoadtestError::OnlySpawned(scenario.name));
    }
    let listener = TcpListener::bind(args.listen)
        .await
        .map_err(|error| LoadtestError::Crew(format!("listening on {}: {error}", args.listen)))?;
    let address = listener.local_addr()?;
    eprintln!("… waiting for {} workers on {address}: colibri loadtest work --coordinator {address}", args.workers);
    let task = |number| {
        Ok::<_, LoadtestError>(Task {
            slice: Slice::new(number, args.workers).map_err(LoadtestError::Slice)?,
            scenario: read_text(&args.scenario)?,
            seed: scenario.seed,
            devices: scenario.devices,
            targets: args.target.iter().map(|url| url.as_str().to_owned()).collect(),
            packages: args.packages.iter().map(ToString::to_string).collect(),
            no_times: args.no_times,
        })
    };
    let tasks = (1..=args.workers).map(task).collect::<Result<Vec<_>, _>>()?;
    let whole = tokio::select! {
        whole = work_of(listener, tasks, Duration::from_secs(args.wait_s)) => whole?,
        () = stop => return Err(LoadtestError::Crew("interrupted: workers were let go, there is no report".to_owned())),
    };
    tell(&whole, args.json, &args.output, out)?;
    Ok(exit_code(&whole))
}

/// A worker that has its task.
struct Worker {
    name: String,
    line: Line,
}

/// The whole run: what all workers measured, judged as one.
pub(super) async fn work_of(listener: TcpListener, tasks: Vec<Task>, wait: Duration) -> Result<Report, LoadtestError> {
    let count = tasks.len();
    let mut workers = Vec::new();
    let everybody = async {
        for task in tasks {
            workers.push(joined(&listener, task).await?);
        }
        Ok::<_, LoadtestError>(())
    };
    let waited = tokio::time::timeout(wait, everybody).await;
    waited.map_err(|_| {
        LoadtestError::Crew(format!("of {count} workers {} came within {} s", workers.len(), wait.as_secs()))
    })??;
    let mut working = JoinSet::new();
    for Worker { name, mut line } in workers {
        working.spawn(async move {
            let in_ms = BEGIN_IN.as_millis() as u64;
            let mut sessions = 0;
            let lost = |reason: String, sessions: u64| format!("{name} was lost after {sessions} sessions: {reason}");
            if let Err(error) = line.say(&ToWorker::Begin { in_ms }).await {
                return Err(lost(error.to_string(), 0));
            }
            loop {
                match line.hear::<FromWorker>(SILENCE_MAX).await {
                    Ok(FromWorker::Report(report)) => return Ok(report),
                    Ok(FromWorker::Beat { sessions: so_far }) => sessions = so_far,
                    Ok(FromWorker::Failed { reason }) => return Err(lost(reason, sessions)),
                    Ok(FromWorker::Hello { .. } | FromWorker::Ready) => {}
                    Err(error) => return Err(lost(error.to_string(), sessions)),
                }
            }
        });
    }
    let (mut reports, mut lost) = (Vec::new(), Vec::new());
    while let Some(ended) = working.join_next().await {
        match ended {
            Ok(Ok(report)) => reports.push(*report),
            Ok(Err(reason)) => {
                eprintln!("  {reason}");
                lost.push(reason);
            }
            Err(error) => lost.push(error.to_string()),
        }
    }
    reports.sort_by_key(|report| report.slice);
    if reports.is_empty() {
        return Err(LoadtestError::Crew(format!("nobody is left:\n  {}", lost.join("\n  "))));
    }
    Ok(merge(&reports, &lost)?)
}

/// The next worker that comes and takes this task. Who comes and cannot take it goes, and another one may.
async fn joined(listener: &TcpListener, task: Task) -> Result<Worker, LoadtestError> {
    let slice = task.slice;
    let task = ToWorker::Task(Box::new(task));
    loop {
        let (stream, peer) = listener.accept().await?;
        let mut line = Line::new(stream);
        let welcome = async {
            match line.hear(SILENCE_MAX).await? {
                FromWorker::Hello { version } if version == env!("CARGO_PKG_VERSION") => {}
                FromWorker::Hello { version } => {
                    let reason = format!("it is colibri {version}, the coordinator {}", env!("CARGO_PKG_VERSION"));
                    line.say(&ToWorker::Refused { reason: reason.clone() }).await?;
                    return Err(std::io::Error::other(reason));
                }
                _ => return Err(std::io::Error::other("it did not say hello")),
            }
            line.say(&task).await?;
            match line.hear(SILENCE_MAX).await? {
                FromWorker::Ready => Ok(()),
                FromWorker::Failed { reason } => Err(std::io::Error::other(reason)),
                _ => Err(std::io::Error::other("it did not say that it is ready")),
            }
        };
        match welcome.await {
            Ok(()) => {
                eprintln!("  worker {slice} is {peer}");
                return Ok(Worker { name: format!("worker {slice} ({peer})"), line });
            }
            Err(error) => eprintln!("  {peer} does not take part: {error}"),
        }
    }
}
