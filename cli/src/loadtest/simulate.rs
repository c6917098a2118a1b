//! `loadtest simulate`: what a scenario would come to.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_loadtest::simulate::analysis::{FluidWave, fluid_wave};
use colibri_loadtest::simulate::{Calibration, Simulation};
use colibri_loadtest::slo::seconds;

use super::scenario::{Changes, Output, exit_code, read, tell};
use super::{LoadtestError, predict};
use crate::progress::{bytes, step};

/// Arguments of `loadtest simulate`.
#[derive(Debug, clap::Args)]
pub struct SimulateArgs {
    /// A scenario that comes with the program, or a file
    #[arg(value_name = "SCENARIO")]
    pub scenario: String,
    /// Changes to the scenario
    #[command(flatten)]
    pub changes: Changes,
    /// Compute a release for so many devices as a fluid instead of simulating each of them
    #[arg(long, value_name = "DEVICES", conflicts_with_all = ["save", "csv", "html"], value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub fluid: Option<u64>,
    /// What work costs on a machine, as `calibrate` wrote it; without it machines have no bound
    #[arg(long, value_name = "FILE", conflicts_with = "fluid")]
    pub calibration: Option<PathBuf>,
    /// Where the report goes besides
    #[command(flatten)]
    pub output: Output,
    /// Print one JSON object on standard output instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Runs the verb.
pub(super) fn run(args: &SimulateArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let scenario = read(&args.scenario, &args.changes)?;
    if let Some(devices) = args.fluid {
        let wave = fluid_wave(&scenario, devices).ok_or_else(|| LoadtestError::NoFluid(scenario.name.clone()))?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&wave).map_err(io::Error::from)?)?;
        } else {
            print(&wave, out)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let step =
        step(&format!("{}: simulating {} devices for {} s", scenario.name, scenario.devices, scenario.duration_s));
    let total = scenario.duration_s as u64;
    let calibration =
        args.calibration.as_deref().map_or_else(|| Ok(Calibration::default()), predict::read_calibration)?;
    let simulation = Simulation { scenario: &scenario, calibration };
    let report = simulation.run(&mut |at_s| step.progress(at_s as u64, total)).map_err(LoadtestError::Simulate)?;
    drop(step);
    tell(&report, args.json, &args.output, out)?;
    Ok(exit_code(&report))
}

fn print(wave: &FluidWave, out: &mut dyn Write) -> io::Result<()> {
    let gigabits = |bits_per_s: f64| format!("{:.1} Gb/s", bits_per_s / 1e9);
    let rows = [
        ("devices", wave.devices.to_string()),
        ("edges", wave.edges.to_string()),
        ("update checks", format!("{:.0} per second", wave.checks_per_s)),
        ("of these at the origin", format!("{:.1} per second", wave.origin_checks_per_s)),
        ("each device fetches", bytes(wave.bytes_per_device as u64)),
        ("edges send", bytes(wave.edge_bytes as u64)),
        ("the origin sends", bytes(wave.origin_bytes as u64)),
        ("the origin is spared", format!("{:.4} %", wave.offload * 100.0)),
        ("wanted at the peak", gigabits(wave.wanted_peak_bits_per_s)),
        ("edges can send", gigabits(wave.capacity_bits_per_s)),
        ("edges needed for the peak", wave.edges_needed.to_string()),
        ("half of the devices", format!("after {}", seconds(wave.half_s))),
        ("99 % of the devices", format!("after {}", seconds(wave.most_s))),
    ];
    rows.into_iter().try_for_each(|(name, value)| writeln!(out, "{name:<26} {value}"))
}
