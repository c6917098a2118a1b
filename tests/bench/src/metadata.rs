//! `bench metadata`: the verifying core on a flat repository of many targets, against "parse once, check one ed25519
//! signature over the raw slice".

pub mod base;
pub mod heap;
pub mod repository;
pub mod sign;
pub mod verify;

use std::process::Command;
use std::time::{Duration, Instant};

use repository::Generated;

/// Our time may be at most this many times the base's.
const RATIO_MAX: f64 = 1.3;

/// Our heap beyond the document's own bytes may be at most this.
const HEAP_BYTES_MAX: usize = 20_000_000;

/// Runs it with `--targets N` and `--runs N`; true if both bounds are kept.
///
/// # Errors
/// A wrong option, or a program that does not run.
pub fn run(options: &[String]) -> Result<bool, String> {
    let (targets, runs) = options_of(options)?;
    let generated = Generated::new(targets);
    println!("targets.json: {targets} targets, {} bytes, {runs} interleaved runs of each\n", generated.targets.len());
    let times = Times::measure(&generated, runs);
    let heap = heap_figures(targets)?;
    let ratio = times.ours.as_secs_f64() / times.base.as_secs_f64();
    let lean = times.ours.as_secs_f64() / times.lean.as_secs_f64();
    println!("| | median ms | peak heap beyond the document, MB |\n|---|---|---|");
    let row = |name: &str, time: Duration, heap: usize| {
        println!("| {name} | {:.1} | {:.1} |", time.as_secs_f64() * 1e3, heap as f64 / 1e6);
    };
    row("base: parse into owned structs, one signature", times.base, heap.base);
    row("leanest base: parse into borrowed structs, one signature", times.lean, heap.lean);
    row("ours: refresh from a trusted root to a trusted set", times.ours, heap.ours);
    println!("\nratio to the base {ratio:.2} (at most {RATIO_MAX}), to the leanest base {lean:.2}");
    println!("one lookup in the set that came out: {:.1} µs", times.lookup.as_secs_f64() * 1e6);
    let signing = sign_and_serialise(targets, runs);
    Ok(ratio <= RATIO_MAX && heap.ours <= HEAP_BYTES_MAX && signing <= RATIO_MAX)
}

/// Prints the sign half and gives its ratio.
fn sign_and_serialise(targets: usize, runs: usize) -> f64 {
    let document = sign::Document::new(targets);
    assert!(document.base() == document.ours(), "both write the same bytes");
    let (mut base, mut ours, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        base.push(timed(|| document.base()));
        ours.push(timed(|| document.ours()));
        all.push(timed(|| document.ours_from_values()));
    }
    let [base, ours, all] = [base, ours, all].map(|times| median(times).as_secs_f64() * 1e3);
    println!("\nsigning: {targets} targets, {} bytes\n\n| | median ms |\n|---|---|", document.ours().len());
    println!("| base: serialise typed structs, one signature | {base:.1} |\n| ours, entries at hand | {ours:.1} |");
    println!("| ours, from typed values | {all:.1} |");
    println!("\nratios {:.2} and {:.2} (at most {RATIO_MAX})", ours / base, all / base);
    all / base
}

fn options_of(options: &[String]) -> Result<(usize, usize), String> {
    let (mut targets, mut runs) = (100_000, 21);
    for pair in options.chunks(2) {
        let [name, value] = pair else { return Err(format!("{} needs a number", pair[0])) };
        let number = value.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("{value}: not a number"))?;
        match name.as_str() {
            "--targets" => targets = number,
            "--runs" => runs = number,
            _ => return Err(format!("{name}: no such option")),
        }
    }
    Ok((targets, runs))
}

/// Medians.
struct Times {
    base: Duration,
    lean: Duration,
    ours: Duration,
    lookup: Duration,
}

impl Times {
    /// One of each in turn, so that what disturbs the machine disturbs all.
    fn measure(generated: &Generated, runs: usize) -> Self {
        let (mut base, mut lean, mut ours, mut lookup) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            base.push(timed(|| base::parse_and_check(generated)));
            lean.push(timed(|| base::parse_borrowed_and_check(generated)));
            ours.push(timed(|| verify::refresh(generated)));
            let set = verify::refresh(generated);
            lookup.push(timed(|| verify::look_up(&set, generated)));
        }
        let lookups = u32::try_from(verify::LOOKUPS).unwrap_or(u32::MAX);
        Self { base: median(base), lean: median(lean), ours: median(ours), lookup: median(lookup) / lookups }
    }
}

/// The result is dropped within the time: making a tree and taking it down belong together.
fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    drop(std::hint::black_box(work()));
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Asks the program that counts.
fn heap_figures(targets: usize) -> Result<heap::Figures, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("metadata-heap");
    let said = Command::new(&program).arg(targets.to_string()).output();
    let said = said.map_err(|error| format!("{}: {error}", program.display()))?;
    heap::Figures::parse(&String::from_utf8_lossy(&said.stdout))
        .ok_or_else(|| format!("{}: {}", program.display(), String::from_utf8_lossy(&said.stderr)))
}
