//! `loadtest calibrate` and `loadtest predict`: what work costs, and predictions beside what was measured.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_loadtest::limits::SCENARIO_BYTES_MAX;
use colibri_loadtest::predict::{Beside, beside};
use colibri_loadtest::simulate::{Calibration, CalibrationError};

use super::scenario::{Changes, Output};
use super::{LoadtestError, compare, scenario};
use crate::files::{self, FilesError};
use crate::progress::bytes;

/// Arguments of `loadtest calibrate`.
#[derive(Debug, clap::Args)]
pub struct CalibrateArgs {
    /// The scenario that was run
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Report of the run (`run --spawn --save FILE`)
    #[arg(value_name = "REPORT")]
    pub report: PathBuf,
    /// Changes to the scenario, as they were in the run
    #[command(flatten)]
    pub changes: Changes,
    /// Where to write it; standard output without it
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `loadtest predict`.
#[derive(Debug, clap::Args)]
pub struct PredictArgs {
    /// Report of the simulation (`simulate --save FILE`)
    #[arg(value_name = "PREDICTED")]
    pub predicted: PathBuf,
    /// Report of the run (`run --save FILE`), of the same scenario, seed and number of devices
    #[arg(value_name = "MEASURED")]
    pub measured: PathBuf,
    /// By how many percent a prediction may be off
    #[arg(long, value_name = "PERCENT", default_value_t = 15, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub bound: u32,
    /// Where the report of the run goes besides, with the prediction in it
    #[command(flatten)]
    pub output: Output,
    /// Print one JSON list on standard output instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Reads a calibration.
pub(super) fn read_calibration(path: &Path) -> Result<Calibration, LoadtestError> {
    let wrong = |reason| LoadtestError::Calibration { file: path.display().to_string(), reason };
    let mut text = String::new();
    let file = files::open(path).map_err(LoadtestError::Files)?;
    let read = file.take(SCENARIO_BYTES_MAX as u64).read_to_string(&mut text);
    read.map_err(|error| wrong(CalibrationError::Syntax(error.to_string())))?;
    Calibration::parse(&text).map_err(wrong)
}

/// Runs `calibrate`.
pub(super) fn calibrate(args: &CalibrateArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let mut scenario = scenario::read(&args.scenario, &args.changes)?;
    let measured = compare::read(&args.report)?;
    // The report knows its seed; what the run said of it need not be said again.
    scenario.seed = measured.seed;
    let calibration = Calibration::of_run(&scenario, &measured)
        .map_err(|reason| LoadtestError::Calibration { file: args.report.display().to_string(), reason })?;
    match &args.output {
        Some(path) => {
            std::fs::write(path, calibration.text()).map_err(FilesError::io("writing", path))?;
            writeln!(
                out,
                "{}: a check takes {:.2} ms, a request for blobs {:.2} ms, {:.2} of {} cores busy meanwhile",
                path.display(),
                calibration.check_ms,
                calibration.request_ms,
                calibration.busy_cores,
                calibration.cores
            )?;
        }
        None => write!(out, "{}", calibration.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `predict`.
pub(super) fn run(args: &PredictArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let mut measured = compare::read(&args.measured)?;
    let all = beside(&compare::read(&args.predicted)?, &measured)?;
    measured.beside.clone_from(&all);
    scenario::keep(&measured, &args.output)?;
    let bound = f64::from(args.bound) / 100.0;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&all).map_err(io::Error::from)?)?;
    } else {
        table(&measured.scenario, measured.seed, &all, bound, out)?;
    }
    Ok(if all.iter().all(|one| one.off() <= bound) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(scenario: &str, seed: u64, all: &[Beside], bound: f64, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:<34} {:>14} {:>14} {:>8}", format!("{scenario}, seed {seed}"), "predicted", "measured", "off")?;
    for one in all {
        let shown = |value: f64| match one.unit.as_str() {
            "B" => bytes(value as u64),
            unit => format!("{value:.2} {unit}"),
        };
        let word = if one.off() <= bound { "" } else { "  TOO FAR" };
        writeln!(
            out,
            "{:<34} {:>14} {:>14} {:>6.1} %{word}",
            one.what,
            shown(one.predicted),
            shown(one.measured),
            one.off() * 100.0
        )?;
    }
    Ok(())
}
