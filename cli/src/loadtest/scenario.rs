//! `loadtest run SCENARIO` and `loadtest plan`: arguments, progress and exit codes of runs by scenario.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use colibri_loadtest::limits::{SCENARIO_BYTES_MAX, SCENARIO_DEVICES_MAX};
use colibri_loadtest::outcome::{Report, Standing};
use colibri_loadtest::plan::file::write_wakes;
use colibri_loadtest::scenario::shipped;
use colibri_loadtest::{Scenario, html};

use super::{LoadtestError, Run, measure, print};
use crate::files;

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
    /// Make a plan of this access log of an edge; replay it with as many `--devices` as it turns out to have
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Where to write the plan; standard output without it
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Changes to the scenario
    #[command(flatten)]
    pub changes: Changes,
}

/// The text of a scenario, by name or from a file.
pub(super) fn read_text(name: &str) -> Result<String, LoadtestError> {
    let path = Path::new(name);
    if let Some(text) = shipped::text(name).filter(|_| !path.exists()) {
        return Ok(text.to_owned());
    }
    let names: Vec<_> = shipped::ALL.iter().map(|(name, _)| *name).collect();
    let unreadable = |error: io::Error| LoadtestError::Scenario {
        name: name.to_owned(),
        reason: format!("{error}; scenarios that come with the program: {}", names.join(", ")),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(SCENARIO_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Reads a scenario by name or from a file.
pub(super) fn read(name: &str, changes: &Changes) -> Result<Scenario, LoadtestError> {
    let text = read_text(name)?;
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
    let mut scenario = read(&args.scenario, &args.changes)?;
    let wakes = measure::plan_of(None, args.access_log.as_deref(), &mut scenario)?.flatten();
    match &args.output {
        Some(path) => {
            let file = File::create(path).map_err(files::FilesError::io("creating", path))?;
            let mut file = BufWriter::new(file);
            let wakes = write_wakes(&scenario, wakes, &mut file).map_err(LoadtestError::Plan)?;
            file.flush()?;
            writeln!(out, "{}: {wakes} wakes of {} devices, seed {}", path.display(), scenario.devices, scenario.seed)?;
        }
        None => {
            write_wakes(&scenario, wakes, &mut BufWriter::new(out)).map_err(LoadtestError::Plan)?;
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
    let scenario = read(name, &args.changes)?;
    let report = measure::perform(args, scenario, stop, Arc::default()).await?;
    tell(&report, args.json, &args.output, out)?;
    Ok(exit_code(&report))
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
