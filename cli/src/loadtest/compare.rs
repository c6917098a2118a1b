//! `loadtest compare`: two stored reports side by side.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_loadtest::compare::{Change, compare};
use colibri_loadtest::limits::REPORT_BYTES_MAX;
use colibri_loadtest::outcome::Report;

use super::LoadtestError;

/// Arguments of `loadtest compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    /// Report of the run before
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,
    /// Report of the run after
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,
    /// Changes up to so many percent are none
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub tolerance: u32,
    /// Print one JSON list on standard output instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Reads a stored report.
pub(super) fn read(path: &Path) -> Result<Report, LoadtestError> {
    let wrong = |reason: String| LoadtestError::Report { file: path.display().to_string(), reason };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let file = BufReader::new(file.take(REPORT_BYTES_MAX));
    serde_json::from_reader(file).map_err(|error| wrong(error.to_string()))
}

/// Runs the verb.
pub(super) fn run(args: &CompareArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let all = compare(&read(&args.before)?, &read(&args.after)?, f64::from(args.tolerance) / 100.0)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&all).map_err(io::Error::from)?)?;
    } else {
        writeln!(out, "{:<22} {:>12} {:>12} {:>17}  change", "quantity", "before", "after", "ratio, 95 %")?;
        for one in &all {
            let ratio = format!("{:.2} to {:.2}", one.ratio_low, one.ratio_high);
            let change = match one.change {
                Change::Better => "better",
                Change::Same => "same",
                Change::Worse => "WORSE",
            };
            writeln!(out, "{:<22} {:>12.4} {:>12.4} {ratio:>17}  {change}", one.what, one.before, one.after)?;
        }
    }
    let worse = all.iter().any(|one| one.change == Change::Worse);
    Ok(if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
