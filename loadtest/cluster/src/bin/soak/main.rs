//! `cargo xtask soak DURATION`: an origin and two tiers of edges, as processes, under mixed load and faults on a seeded schedule.
//! At the end it judges: no wrong byte, no short body, budgets held, memory flat, well again when the faults are over.
//!
//! Readers and the faulty upstream live in this process; the faults happen to real processes. It measures no speed.

mod faults;
mod judge;
mod load;
mod nodes;
mod scrape;
mod site;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::faults::Faults;
use crate::load::Load;
use crate::nodes::System;
use crate::scrape::Samples;
use crate::site::Site;

/// What went wrong, for people.
type Failure = String;

const USAGE: &str = "soak --colibri BINARY --dir EMPTY_DIR --seconds N [--seed N]";

/// How often a line says how it goes.
const PROGRESS: Duration = Duration::from_secs(10);

/// What was asked for.
struct Wish {
    colibri: PathBuf,
    dir: PathBuf,
    length: Duration,
    seed: u64,
}

impl Wish {
    fn read(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut colibri, mut dir, mut seconds, mut seed) = (None, None, None, fastrand::u64(..));
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word.as_str() {
                "--colibri" => colibri = Some(value.into()),
                "--dir" => dir = Some(value.into()),
                "--seconds" => seconds = Some(value.parse().ok()?),
                "--seed" => seed = value.parse().ok()?,
                _ => return None,
            }
        }
        Some(Self { colibri: colibri?, dir: dir?, length: Duration::from_secs(seconds?), seed })
    }
}

fn main() -> ExitCode {
    let Some(wish) = Wish::read(std::env::args().skip(1)) else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(soak(&wish)),
        Err(error) => Err(format!("no runtime: {error}")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("soak: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all verdicts are good.
async fn soak(wish: &Wish) -> Result<bool, Failure> {
    println!("soak: seed {} for {} s in {}", wish.seed, wish.length.as_secs(), wish.dir.display());
    let site = Arc::new(Site::make(&wish.colibri, &wish.dir, wish.seed)?);
    let (upstream, system) = System::start(&wish.colibri, &wish.dir, &site).await?;
    let system = Arc::new(system);
    let load = Arc::new(Load::new(site.clone(), system.readers_see()?));
    let start = Instant::now();
    // The calm at the end: what fails in it is nobody's fault but the edges'.
    let calm_at = start + wish.length.mul_f64(0.85);
    let mut samples = Samples::default();
    let readers = load.start(wish.seed, start + wish.length);
    let faults = tokio::spawn(Faults::new(wish.seed, system.clone(), upstream, load.clone()).until(calm_at));
    let mut next_line = start + PROGRESS;
    while start.elapsed() < wish.length {
        samples.take(&system, start.elapsed()).await;
        if Instant::now() >= next_line {
            next_line += PROGRESS;
            println!("{:5} s: {}", start.elapsed().as_secs(), load.line());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let happened = faults.await.map_err(|error| format!("the schedule of faults: {error}"))?;
    for reader in readers {
        reader.await.map_err(|error| format!("a reader: {error}"))?;
    }
    samples.take(&system, start.elapsed()).await;
    let good = judge::judge(wish.length, &load, &samples, &happened, &site);
    println!("soak: seed {}: {}", wish.seed, if good { "passed" } else { "FAILED" });
    Ok(good)
}
