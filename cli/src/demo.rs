//! `colibri demo`: the whole system on loopback, with real files of this machine and nothing installed.
//!
//! The story is in [`play`]; every number it prints was measured in the run. Nothing here is a shortcut: publishing is the
//! library that `repo publish` uses, devices and edges are the ones that `device` and `edge serve` use.

mod inputs;
mod play;
mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

pub use play::DemoError;

/// Publishes real packages, serves them through two edges, updates a device, runs a small fleet, and catches an edge lying.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a package of this folder instead of the default ones (repeatable)
    #[arg(long, value_name = "DIR")]
    pub from: Vec<PathBuf>,
    /// Synthetic devices in the fleet
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub devices: u32,
    /// Seed of the fleet's arrivals
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// zstd level of published blobs: a development level by default
    #[arg(long, value_name = "LEVEL", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// Bind the servers' UDP ports and never answer them: everything must work over HTTP/2 and HTTP/1.1
    #[arg(long)]
    pub block_udp: bool,
    /// Keep the work folder here instead of a temporary one that is deleted
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Print one JSON object on standard output instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Runs the demo.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, DemoError> {
    // Outlives the runtime, whose end waits for writes under way: nothing is left behind, on Ctrl-C neither.
    let temporary = tempfile::Builder::new().prefix("colibri-demo-").tempdir()?;
    let work = args.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&work)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(DemoError::Runtime)?;
    let report = runtime.block_on(play::play(args, &work));
    if matches!(report, Err(DemoError::Interrupted)) {
        eprintln!("stopping");
    }
    drop(runtime);
    let report = report?;
    if args.json {
        let text = serde_json::to_string(&report).map_err(|error| DemoError::Output(error.into()))?;
        writeln!(out, "{text}").map_err(DemoError::Output)?;
    } else {
        report.print(out).map_err(DemoError::Output)?;
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
