//! `bench scale`: publishing one target into a repository of the profile `scale` with many, and what a device fetches then.

use std::error::Error;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, Search, Start, Step, TrustAnchor, TrustedSet, Update, Want};
use colibri_repository::{CreateOptions, ExtraTarget, Profile, Publish, Repository};
use rustix::time::{ClockId, clock_gettime};

const NOW: UnixSeconds = UnixSeconds(1_768_435_200);

/// Publishing one target may take at most this, of all processors together.
const PUBLISH_CPU_MS_MAX: f64 = 10.0;

/// A warm refresh after it may take at most this, coded.
const REFRESH_BYTES_MAX: usize = 15_000;

/// Runs it with `--targets N`, `--runs N` and `--dir DIR`; true if both bounds are kept.
///
/// # Errors
/// A wrong option, or the repository refuses.
pub fn run(options: &[String]) -> Result<bool, Box<dyn Error>> {
    let (mut targets, mut runs, mut dir) = (100_000, 15, std::env::temp_dir());
    for pair in options.chunks(2) {
        match pair {
            [name, value] if name == "--targets" => targets = value.parse()?,
            [name, value] if name == "--runs" => runs = value.parse()?,
            [name, value] if name == "--dir" => dir = value.into(),
            _ => return Err(format!("{}: no such option, or it needs a value", pair[0]).into()),
        }
    }
    let dir = tempfile::tempdir_in(dir)?;
    let place = dir.path().join("repository");
    let repository = Repository::create(&place, CreateOptions { profile: Profile::Scale, ..CreateOptions::new(NOW) })?;
    for from in (0..targets).step_by(10_000) {
        repository.publish(&offering(from..targets.min(from + 10_000)))?;
    }
    let served = repository.served_dir();
    let anchor = Start::FromAnchor(TrustAnchor::RootFile(repository.trusted_root_bytes()?));
    let mut cold = Fetched::default();
    let mut set = device(&served, anchor, 0, &mut cold)?;
    println!("{targets} targets in the profile scale\n");
    println!(
        "| run | publish CPU ms | open CPU ms | requests | coded bytes | uncoded bytes |\n|---|---:|---:|---:|---:|---:|"
    );
    let (mut cpu, mut opened, mut coded) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        let number = targets + run;
        let before = cpu_ms();
        let repository = Repository::open(&place)?;
        let open = cpu_ms();
        repository.publish(&offering(number..number + 1))?;
        let publish = cpu_ms() - open;
        let mut warm = Fetched::default();
        set = device(&served, Start::FromSet(set), number, &mut warm)?;
        let Fetched { requests, coded_bytes, bytes } = warm;
        println!("| {} | {publish:.2} | {:.2} | {requests} | {coded_bytes} | {bytes} |", run + 1, open - before);
        cpu.push(publish);
        opened.push(open - before);
        coded.push(coded_bytes);
    }
    let mut unchanged = Fetched::default();
    device(&served, Start::FromSet(set), targets, &mut unchanged)?;
    let (cpu, opened) = (median(&mut cpu), median(&mut opened));
    let most = coded.iter().copied().max().unwrap_or(0);
    println!("\nmedian: publish {cpu:.2} ms (at most {PUBLISH_CPU_MS_MAX}), open {opened:.2} ms of CPU");
    println!("the largest warm refresh: {most} bytes coded (at most {REFRESH_BYTES_MAX})");
    println!("from nothing: {} requests, {} bytes coded, {} uncoded", cold.requests, cold.coded_bytes, cold.bytes);
    println!("nothing changed: {} requests", unchanged.requests);
    Ok(cpu <= PUBLISH_CPU_MS_MAX && most <= REFRESH_BYTES_MAX && unchanged.requests == 2)
}

fn offering(numbers: std::ops::Range<usize>) -> Publish<'static> {
    let target = |number| ExtraTarget {
        name: name(number),
        content: Bytes::from(format!("content of target {number}")),
        custom: Some(serde_json::json!({
            // As long as a package hash, which would have to be here with all it names.
            "digest": colibri_common::hex(&colibri_common::sha256(&number.to_le_bytes())),
            "size": 24_576,
        })),
    };
    Publish { extra_targets: numbers.map(target).collect(), ..Publish::new(NOW) }
}

fn name(number: usize) -> String {
    format!("package-{number:08}/0")
}

/// What a device asked for and got: bodies, without headers.
#[derive(Default)]
struct Fetched {
    requests: usize,
    coded_bytes: usize,
    bytes: usize,
}

impl Fetched {
    /// Answers as an origin over the folder does.
    fn answer(&mut self, served: &Path, want: &Want) -> Result<Answer, Box<dyn Error>> {
        self.requests += 1;
        let Ok(bytes) = fs::read(served.join(&want.name)) else { return Ok(Answer::NotFound) };
        // The level that `colibri-transport` takes for documents of this size.
        self.coded_bytes += zstd::bulk::compress(&bytes, 19)?.len();
        self.bytes += bytes.len();
        Ok(Answer::Found(bytes.into()))
    }
}

/// A refresh, and a search for one target.
fn device(served: &Path, start: Start, number: usize, fetched: &mut Fetched) -> Result<TrustedSet, Box<dyn Error>> {
    let mut update = Update::start(start, NOW);
    while let Step::Want(want) = update.next() {
        update.supply(fetched.answer(served, &want)?)?;
    }
    let mut search = Search::start(update.finish()?, name(number).parse()?, NOW);
    while let Step::Want(want) = search.next() {
        search.supply(fetched.answer(served, &want)?)?;
    }
    let (set, found) = search.finish()?;
    found.map(|_| set).ok_or_else(|| format!("{} is not found", name(number)).into())
}

/// Time of all processors that this process has used, in milliseconds.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}
