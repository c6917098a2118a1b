//! `loadtest work`: takes a slice of a plan from a coordinator, does it, and reports it there.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Parser;
use colibri_loadtest::Scenario;
use colibri_loadtest::runner::Progress;
use tokio::net::TcpStream;

use super::crew::{BEAT_EVERY, FromWorker, Line, SILENCE_MAX, Task, ToWorker};
use super::{LoadtestError, Run, measure};
use crate::device::configuration::Connection;

/// How long a worker tries to reach its coordinator, which may start after it.
const REACHED_WITHIN: Duration = Duration::from_secs(300);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a worker waits until all others have come.
const OTHERS_WITHIN: Duration = Duration::from_secs(3_600);

/// Arguments of `loadtest work`.
#[derive(Debug, clap::Args)]
pub struct WorkArgs {
    /// Address of the coordinator, as host:port
    #[arg(long, value_name = "ADDRESS")]
    pub coordinator: String,
    /// How devices connect
    #[command(flatten)]
    pub connection: Connection,
}

/// Runs the verb.
pub(super) async fn run(args: &WorkArgs, stop: impl Future<Output = ()>) -> Result<ExitCode, LoadtestError> {
    let progress = Arc::new(Progress::default());
    tokio::select! {
        done = work(args, progress.clone()) => done.map(|()| ExitCode::SUCCESS),
        () = stop => {
            Err(LoadtestError::Stopped { sessions: progress.sessions.load(Ordering::Relaxed) })
        }
    }
}

async fn work(args: &WorkArgs, progress: Arc<Progress>) -> Result<(), LoadtestError> {
    let coordinator = args.coordinator.trim_start_matches("tcp://");
    let lost = |error: std::io::Error| LoadtestError::Crew(format!("coordinator {coordinator}: {error}"));
    let mut line = Line::new(reach(coordinator).await.map_err(lost)?);
    line.say(&FromWorker::Hello { version: env!("CARGO_PKG_VERSION").to_owned() }).await.map_err(lost)?;
    let task = match line.hear(SILENCE_MAX).await.map_err(lost)? {
        ToWorker::Task(task) => task,
        ToWorker::Refused { reason } => return Err(LoadtestError::Crew(format!("refused: {reason}"))),
        ToWorker::Begin { .. } => return Err(LoadtestError::Crew("told to begin without a task".to_owned())),
    };
    let (scenario, run) = match understood(&task, &args.connection) {
        Ok(understood) => understood,
        Err(error) => {
            line.say(&FromWorker::Failed { reason: error.to_string() }).await.map_err(lost)?;
            return Err(error);
        }
    };
    line.say(&FromWorker::Ready).await.map_err(lost)?;
    eprintln!("  slice {} of {}: waiting for the others", task.slice, scenario.name);
    match line.hear(OTHERS_WITHIN).await.map_err(lost)? {
        ToWorker::Begin { in_ms } => progress.control.begin_at(Instant::now() + Duration::from_millis(in_ms)),
        _ => return Err(LoadtestError::Crew("the coordinator said something else than to begin".to_owned())),
    }
    // On the heap: a whole run is large.
    let mut performing = Box::pin(measure::perform(&run, scenario, std::future::pending(), progress.clone()));
    let mut beat = tokio::time::interval(BEAT_EVERY);
    let report = loop {
        tokio::select! {
            report = &mut performing => break report,
            _ = beat.tick() => {
                let sessions = progress.sessions.load(Ordering::Relaxed);
                line.say(&FromWorker::Beat { sessions }).await.map_err(lost)?;
            }
        }
    };
    match report {
        Ok(report) => {
            line.say(&FromWorker::Report(Box::new(report))).await.map_err(lost)?;
            eprintln!("  slice {} is reported", task.slice);
            Ok(())
        }
        Err(error) => {
            line.say(&FromWorker::Failed { reason: error.to_string() }).await.map_err(lost)?;
            Err(error)
        }
    }
}

async fn reach(coordinator: &str) -> std::io::Result<TcpStream> {
    let end = Instant::now() + REACHED_WITHIN;
    loop {
        match TcpStream::connect(coordinator).await {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// A task as a run of this process: as if it had been typed.
fn understood(task: &Task, connection: &Connection) -> Result<(Scenario, Run), LoadtestError> {
    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        run: Run,
    }
    let wrong = |reason: String| LoadtestError::Scenario { name: "of the coordinator".to_owned(), reason };
    let mut scenario = Scenario::parse(&task.scenario).map_err(|error| wrong(error.to_string()))?;
    (scenario.seed, scenario.devices) = (task.seed, task.devices);
    let slice = task.slice.to_string();
    let mut words = vec!["run", scenario.name.as_str(), "--plain", "--slice", slice.as_str(), "--target"];
    words.extend(task.targets.iter().map(String::as_str));
    words.push("--package");
    words.extend(task.packages.iter().map(String::as_str));
    words.extend(task.no_times.then_some("--no-times"));
    let mut run = Typed::try_parse_from(words).map_err(|error| wrong(error.to_string()))?.run;
    run.connection = connection.clone();
    Ok((scenario, run))
}
