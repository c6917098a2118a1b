//! `cargo xtask predict`: the simulation is calibrated on one scenario and judged on another that it has not seen: predicted beside
//! measured, and a failure if any of it is further off than the bound.
//!
//! Everything runs on this machine in the release build: other work on it is measured, too. The reports stay in
//! `target/acceptance/predict`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::acceptance::work::{empty_dir, ensure, write};
use crate::run::{Failure, cargo, command, root, run};

/// Calibrated by.
const CALIBRATED_BY: &str = "steady";

/// Judged on.
const JUDGED_ON: &str = "release-wave";

/// Seeds that no calibration has seen: the scenarios' own is 1.
const SEEDS: [u64; 3] = [11, 23, 47];

/// How far off a prediction may be, per cent.
const BOUND_PERCENT: f64 = 15.0;

/// Devices if nobody says how many.
const DEVICES: u32 = 2_000;

/// Calibrates, predicts, measures, compares. `words` are empty or `--devices N`.
pub fn predict(words: &[&str]) -> Result<(), Failure> {
    let devices = match words {
        [] => DEVICES,
        ["--devices", number] => number.parse().map_err(|_| format!("`{number}` is no number of devices"))?,
        _ => return Err("predict takes --devices N and nothing else".to_owned()),
    };
    run(cargo("build --release --locked -p colibri"))?;
    let trial = Trial { dir: empty_dir("predict")?, devices: devices.to_string() };
    trial.calibrate()?;
    let mut rows = Vec::new();
    for seed in SEEDS {
        rows.extend(trial.judge(seed)?);
    }
    let table = table(devices, &rows);
    println!("\n{table}");
    write(&trial.dir.join("predict.md"), &table)?;
    println!("written to {}", trial.dir.display());
    let off: Vec<_> = rows.iter().filter(|row| row.off_percent() > BOUND_PERCENT).map(Row::line).collect();
    ensure(off.is_empty(), || format!("predictions are off by more than {BOUND_PERCENT} %:\n{}", off.join("\n")))
}

struct Trial {
    dir: PathBuf,
    devices: String,
}

/// One quantity of one seed.
struct Row {
    seed: u64,
    what: String,
    unit: String,
    predicted: f64,
    measured: f64,
}

impl Row {
    fn off_percent(&self) -> f64 {
        (self.predicted - self.measured).abs() / self.measured.abs().max(1e-9) * 100.0
    }

    fn line(&self) -> String {
        let Self { seed, what, unit, predicted, measured } = self;
        let shown = |value: &f64| match unit.as_str() {
            "B" => format!("{:.3} MB", value / 1e6),
            unit => format!("{value:.2} {unit}"),
        };
        format!("| {seed} | {what} | {} | {} | {:.1} % |", shown(predicted), shown(measured), self.off_percent())
    }
}

impl Trial {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn calibrate(&self) -> Result<(), Failure> {
        let (report, machine) = (self.path("steady.json"), self.path("machine.toml"));
        let mut measured = loadtest(["run", CALIBRATED_BY, "--spawn", "--no-times", "--html"]);
        measured.arg(self.path("steady.html")).arg("--save").arg(&report);
        judged(measured)?;
        let mut calibrate = loadtest(["calibrate", CALIBRATED_BY]);
        calibrate.arg(&report).arg("--output").arg(&machine);
        run(calibrate)
    }

    /// The prediction is made before the run that it is of.
    fn judge(&self, seed: u64) -> Result<Vec<Row>, Failure> {
        let [predicted, measured, page] =
            [format!("predicted-{seed}.json"), format!("measured-{seed}.json"), format!("release-wave-{seed}.html")]
                .map(|name| self.path(&name));
        let scenario = |verb: &str| {
            let mut command = loadtest([verb, JUDGED_ON]);
            command.args(["--seed", &seed.to_string(), "--devices", &self.devices]);
            command
        };
        let mut simulate = scenario("simulate");
        simulate.arg("--calibration").arg(self.path("machine.toml")).arg("--save").arg(&predicted);
        judged(simulate)?;
        let mut measure = scenario("run");
        measure.args(["--spawn", "--no-times"]).arg("--save").arg(&measured);
        judged(measure)?;
        let mut beside = loadtest(["predict"]);
        beside.arg(&predicted).arg(&measured).arg("--html").arg(&page).arg("--json");
        // Off by too much is told with the whole table, at the end.
        let output = beside.output().map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = || format!("`loadtest predict` said: {text}{}", String::from_utf8_lossy(&output.stderr));
        let all: Vec<Value> = serde_json::from_str(text.trim()).map_err(|_| said())?;
        all.iter().map(|one| row(seed, one).ok_or_else(said)).collect()
    }
}

fn row(seed: u64, one: &Value) -> Option<Row> {
    let text = |key: &str| Some(one[key].as_str()?.to_owned());
    let (predicted, measured) = (one["predicted"].as_f64()?, one["measured"].as_f64()?);
    Some(Row { seed, what: text("what")?, unit: text("unit")?, predicted, measured })
}

fn loadtest<const N: usize>(words: [&str; N]) -> Command {
    let mut command = command(&binary(&root()), ["loadtest"]);
    command.args(words);
    command
}

fn binary(root: &Path) -> String {
    root.join("target/release/colibri").display().to_string()
}

/// Runs it. A rule of the scenario that was missed is not what is judged here; a run that says nothing is.
fn judged(mut command: Command) -> Result<(), Failure> {
    println!("\n$ {command:?}");
    let status = command.status().map_err(|error| error.to_string())?;
    ensure(matches!(status.code(), Some(0 | 1)), || format!("{command:?} ended with {status}"))
}

fn table(devices: u32, rows: &[Row]) -> String {
    let mut text = format!(
        "Calibrated on `{CALIBRATED_BY}`, judged on `{JUDGED_ON}` with {devices} devices; the bound is {BOUND_PERCENT} %.\n\n\
         | seed | what | predicted | measured | off |\n|---|---|---:|---:|---:|\n"
    );
    for row in rows {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{}", row.line());
    }
    text
}
