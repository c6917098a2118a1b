//! `loadtest simulate`: what a scenario would come to.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_loadtest::limits::FLUID_DEVICES_MAX;
use colibri_loadtest::outcome::Report;
use colibri_loadtest::scenario::Scenario;
use colibri_loadtest::simulate::analysis::{FluidWave, fluid_wave};
use colibri_loadtest::simulate::operator::{Answers, Prices, answers};
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
    #[arg(long, value_name = "DEVICES", conflicts_with_all = ["save", "csv", "html"], value_parser = clap::value_parser!(u64).range(1..=FLUID_DEVICES_MAX))]
    pub fluid: Option<u64>,
    /// What work costs on a machine, as `calibrate` wrote it; without it machines have no bound
    #[arg(long, value_name = "FILE", conflicts_with = "fluid")]
    pub calibration: Option<PathBuf>,
    /// Answer what an operator asks before a release: edges and shields needed, what leaves the origin, time, cost, and what breaks
    /// first when a region dies
    #[arg(long)]
    pub operator: bool,
    /// What things cost, for --operator
    #[command(flatten)]
    pub prices: PriceArgs,
    /// Where the report goes besides
    #[command(flatten)]
    pub output: Output,
    /// Print one JSON object on standard output instead of lines
    #[arg(long)]
    pub json: bool,
}

/// Prices, in whatever money.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct PriceArgs {
    /// Price of a terabyte that edges send
    #[arg(long, value_name = "X", default_value_t = 5.0, value_parser = parse_price, requires = "operator")]
    pub price_edge_tb: f64,
    /// Price of a terabyte that leaves the origin
    #[arg(long, value_name = "X", default_value_t = 50.0, value_parser = parse_price, requires = "operator")]
    pub price_origin_tb: f64,
    /// Price of an edge for a month
    #[arg(long, value_name = "X", default_value_t = 100.0, value_parser = parse_price, requires = "operator")]
    pub price_edge_month: f64,
    /// Regions among which edges and devices are spread evenly
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=1000), requires = "operator")]
    pub regions: u32,
}

fn parse_price(text: &str) -> Result<f64, String> {
    let price: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if price.is_finite() && price >= 0.0 { Ok(price) } else { Err("it must be 0 or more".to_owned()) }
}

/// Runs the verb.
pub(super) fn run(args: &SimulateArgs, out: &mut dyn Write) -> Result<ExitCode, LoadtestError> {
    let scenario = read(&args.scenario, &args.changes)?;
    // A scenario may be one of more devices than are simulated one by one, unless somebody wants fewer.
    if let Some(devices) = args.fluid.or(scenario.fluid_devices.filter(|_| args.changes.devices.is_none())) {
        return fluid(args, &scenario, devices, out);
    }
    let step =
        step(&format!("{}: simulating {} devices for {} s", scenario.name, scenario.devices, scenario.duration_s));
    let total = scenario.duration_s as u64;
    let calibration =
        args.calibration.as_deref().map_or_else(|| Ok(Calibration::default()), predict::read_calibration)?;
    let simulation = Simulation { scenario: &scenario, calibration };
    let report = simulation.run(&mut |at_s| step.progress(at_s as u64, total)).map_err(LoadtestError::Simulate)?;
    drop(step);
    if args.operator {
        let wave = wave_of(&scenario, u64::from(scenario.devices))?;
        operator(args, &scenario, &wave, Some(&report), out)?;
        super::scenario::keep(&report, &args.output)?;
    } else {
        tell(&report, args.json, &args.output, out)?;
    }
    Ok(exit_code(&report))
}

fn wave_of(scenario: &Scenario, devices: u64) -> Result<FluidWave, LoadtestError> {
    fluid_wave(scenario, devices).ok_or_else(|| LoadtestError::NoFluid(scenario.name.clone()))
}

fn fluid(
    args: &SimulateArgs,
    scenario: &Scenario,
    devices: u64,
    out: &mut dyn Write,
) -> Result<ExitCode, LoadtestError> {
    let wave = wave_of(scenario, devices)?;
    let verdicts = wave.verdicts(scenario);
    if args.operator {
        operator(args, scenario, &wave, None, out)?;
    } else if args.json {
        writeln!(out, "{}", serde_json::to_string(&wave).map_err(io::Error::from)?)?;
    } else {
        print(&wave, out)?;
        for verdict in &verdicts {
            let word = verdict.kept.map_or("not judged", |kept| if kept { "kept" } else { "MISSED" });
            writeln!(out, "{word:<26} {}: {}", verdict.rule, verdict.shown)?;
        }
    }
    let missed = verdicts.iter().any(|verdict| verdict.kept == Some(false));
    Ok(if missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn operator(
    args: &SimulateArgs,
    scenario: &Scenario,
    wave: &FluidWave,
    simulated: Option<&Report>,
    out: &mut dyn Write,
) -> Result<(), LoadtestError> {
    let PriceArgs { price_edge_tb, price_origin_tb, price_edge_month, regions } = args.prices;
    let prices = Prices { edge_tb: price_edge_tb, origin_tb: price_origin_tb, edge_month: price_edge_month, regions };
    let found = answers(scenario, wave, simulated, &prices);
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&found).map_err(io::Error::from)?)?;
    } else {
        print_answers(&found, out)?;
    }
    Ok(())
}

fn print_answers(found: &Answers, out: &mut dyn Write) -> io::Result<()> {
    let gigabits = |bits_per_s: f64| format!("{:.1} Gb/s", bits_per_s / 1e9);
    let rows = [
        ("devices", format!("{}, {}", found.devices, if found.simulated { "simulated" } else { "as a fluid" })),
        ("edges needed", format!("{} (the scenario has {})", found.edges_needed, found.edges)),
        ("shields needed", found.shields_needed.to_string()),
        ("the origin sends", bytes(found.origin_bytes as u64)),
        ("of that at once, at most", gigabits(found.origin_peak_bits_per_s)),
        ("devices draw at the peak", gigabits(found.peak_bits_per_s)),
        ("99 % of the devices", format!("after {}", seconds(found.most_s))),
        ("cost of the release", format!("{:.2}", found.release_cost)),
        ("cost per TB delivered", format!("{:.2}", found.cost_per_tb)),
    ];
    rows.into_iter().try_for_each(|(name, value)| writeln!(out, "{name:<26} {value}"))?;
    writeln!(out, "\nwithout one of {} regions", found.regions)?;
    for (index, load) in found.without_a_region.iter().enumerate() {
        let (wanted, can) = (gigabits(load.wanted_bits_per_s), gigabits(load.can_bits_per_s));
        let word = match (index, load.share() > 1.0) {
            (0, true) => "  breaks first",
            (0, false) => "  nearest to its bound",
            (_, true) => "  breaks, too",
            _ => "",
        };
        writeln!(out, "{:<26} {:>5.0} % ({wanted} of {can}){word}", load.part, load.share() * 100.0)?;
    }
    writeln!(out, "{:<26} after {}", "99 % of the devices", seconds(found.most_without_a_region_s))
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
