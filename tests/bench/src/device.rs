//! A device that downloads one large blob: what that costs its processors, beside receiving, hashing and writing the same bytes,
//! each alone; what a second edge adds when each is a bottleneck; and how much memory a blob of a gibibyte takes.

pub(crate) mod edge;
pub(crate) mod world;

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use colibri_common::merkle::Builder;
use colibri_device::{DeviceConfig, Preference};
use colibri_metadata::RepoConfig;
use colibri_package::delivery::DeliveryType;
use colibri_transport::{Body, Client, ClientConfig};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use edge::Edge;
pub use edge::{NAME as EDGE, run as edge};
use world::{World, resolve};

/// The hidden name of the program that resolves once and says how much memory it took.
pub const RESOLVER: &str = "device-resolve";

/// What a download may cost, in bases (issue 5).
const RATIO_MAX: f64 = 1.2;
/// What two edges give at least, in what one gives.
const SPEED_UP_MIN: f64 = 1.8;
/// What resolving a blob of a gibibyte may take, KiB.
const PEAK_KIB_MAX: u64 = 64 << 10;
/// Bytes per second of an edge that is a bottleneck.
const SLOW_BYTES_PER_S: u64 = 20_000_000;
/// What is written and hashed at a time in the base.
const PIECE_BYTES: usize = 64 << 10;

struct Options {
    mb: u64,
    runs: usize,
    seed: u64,
    large_mib: u64,
    dir: PathBuf,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, Box<dyn Error>> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let mut options = Self { mb: 100, runs: 7, seed: 1, large_mib: 1024, dir: target };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
            match name.as_str() {
                "--mb" => options.mb = value.parse()?,
                "--runs" => options.runs = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--large-mib" => options.large_mib = value.parse()?,
                "--dir" => options.dir = value.into(),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        if options.mb == 0 || options.runs == 0 {
            return Err("--mb and --runs are at least 1".into());
        }
        Ok(options)
    }
}

/// Measures and prints; whether all bounds hold.
pub fn run(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let options = Options::parse(words)?;
    let dir = tempfile::Builder::new().prefix("bench-device-").tempdir_in(&options.dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let world = World::make(&dir.path().join("world"), options.mb * 1_000_000, options.seed)?;
    println!("seed {}, one blob of {} MB that does not compress\n", options.seed, options.mb);
    let mut holds = true;
    for http3 in [true, false] {
        holds &= cost(&runtime, &world, dir.path(), &options, http3)?;
    }
    holds &= speed_up(&runtime, &world, dir.path(), &options)?;
    drop(world);
    fs::remove_dir_all(dir.path().join("world"))?;
    if options.large_mib > 0 {
        holds &= memory(dir.path(), &options)?;
    }
    Ok(holds)
}

/// Processor time in milliseconds of each part of one run.
#[derive(Debug, Clone, Copy)]
struct Run {
    receive: f64,
    hash: f64,
    write: f64,
    raw: f64,
    delivery: f64,
}

impl Run {
    fn base(&self) -> f64 {
        self.receive + self.hash + self.write
    }
}

fn cost(runtime: &Runtime, world: &World, dir: &Path, options: &Options, http3: bool) -> Result<bool, Box<dyn Error>> {
    let edge = Edge::start(&world.dir, 0)?;
    let repository = world.config(&[&edge])?;
    println!("{}, CPU ms of the device's process:\n", if http3 { "HTTP/3" } else { "HTTP/2" });
    println!("| run | receive | hash | write | base | download, raw | ratio | download, delivery blob |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let mut runs = Vec::new();
    // The first warms caches up and is not counted.
    for number in 0..=options.runs {
        let content = fs::read(world.dir.join("blobs").join(world.id.to_string()))?;
        let download = |name: &str, preference| {
            let place = dir.join(format!("{name}-{http3}-{number}"));
            let config = DeviceConfig { http3, preference, ..DeviceConfig::default() };
            let spent = cpu_ms(|| runtime.block_on(resolve(&place, config, repository.clone())))?;
            fs::remove_dir_all(place)?;
            Ok::<_, Box<dyn Error>>(spent)
        };
        let raw_first = number % 2 == 0;
        let early = if raw_first { Some(download("raw", Preference::Raw)?) } else { None };
        let run = Run {
            receive: cpu_ms(|| runtime.block_on(receive(&edge, world, http3)))?,
            hash: cpu_ms(|| hash(&content, world))?,
            write: cpu_ms(|| write(&content, &dir.join("written")))?,
            raw: early.map_or_else(|| download("raw", Preference::Raw), Ok)?,
            delivery: download("delivery", Preference::Delivery(DeliveryType::Type1))?,
        };
        if number > 0 {
            row(&number.to_string(), &[run]);
            runs.push(run);
        }
    }
    row("median", &runs);
    let ratio = median(&runs, |run| run.raw / run.base());
    let holds = ratio <= RATIO_MAX;
    println!("\nmedian ratio {ratio:.3}; at most {RATIO_MAX} wanted: {}\n", verdict(holds));
    Ok(holds)
}

fn row(name: &str, runs: &[Run]) {
    let of = |value: fn(&Run) -> f64| median(runs, value);
    let [a, b, c, d, e] =
        [of(|run| run.receive), of(|run| run.hash), of(|run| run.write), of(Run::base), of(|run| run.raw)];
    let (ratio, delivery) = (of(|run| run.raw / run.base()), of(|run| run.delivery));
    println!("| {name} | {a:.0} | {b:.0} | {c:.0} | {d:.0} | {e:.0} | {ratio:.3} | {delivery:.0} |");
}

/// The blob in one request, each piece dropped as it comes.
async fn receive(edge: &Edge, world: &World, http3: bool) -> Result<(), Box<dyn Error>> {
    let client = Client::new(ClientConfig { http3, ..ClientConfig::default() })?;
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = format!("https://{}/blobs/{}", edge.authority, world.id).parse()?;
    let mut body = client.send(request).await?.into_body();
    while let Some(piece) = body.next().await {
        piece?;
    }
    Ok(())
}

fn hash(content: &[u8], world: &World) -> Result<(), Box<dyn Error>> {
    let mut builder = Builder::new();
    content.chunks(PIECE_BYTES).for_each(|piece| builder.push(piece));
    if builder.finish().id == world.id { Ok(()) } else { Err("another blob".into()) }
}

fn write(content: &[u8], path: &Path) -> Result<(), Box<dyn Error>> {
    let file = File::create(path)?;
    let mut at = 0;
    for piece in content.chunks(PIECE_BYTES) {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    file.sync_all()?;
    Ok(fs::remove_file(path)?)
}

/// One slow edge against two.
fn speed_up(runtime: &Runtime, world: &World, dir: &Path, options: &Options) -> Result<bool, Box<dyn Error>> {
    let edges = [Edge::start(&world.dir, SLOW_BYTES_PER_S)?, Edge::start(&world.dir, SLOW_BYTES_PER_S)?];
    println!("edges that send {} MB/s each, seconds for {} MB:\n", SLOW_BYTES_PER_S / 1_000_000, options.mb);
    println!("| run | one edge | two edges | ratio |");
    println!("|---|---:|---:|---:|");
    let mut pairs = Vec::new();
    for number in 1..=options.runs.min(3) {
        let seconds = |edges: &[&Edge]| {
            let place = dir.join(format!("slow-{number}-{}", edges.len()));
            let config = DeviceConfig { preference: Preference::Raw, ..DeviceConfig::default() };
            let (repository, began) = (world.config(edges)?, Instant::now());
            runtime.block_on(resolve(&place, config, repository))?;
            let spent = began.elapsed().as_secs_f64();
            fs::remove_dir_all(place)?;
            Ok::<_, Box<dyn Error>>(spent)
        };
        let pair = (seconds(&[&edges[0]])?, seconds(&[&edges[0], &edges[1]])?);
        println!("| {number} | {:.2} | {:.2} | {:.2} |", pair.0, pair.1, pair.0 / pair.1);
        pairs.push(pair);
    }
    let ratio = median(&pairs, |(one, two)| one / two);
    let holds = ratio >= SPEED_UP_MIN;
    println!("\nmedian ratio {ratio:.2}; at least {SPEED_UP_MIN} wanted: {}\n", verdict(holds));
    Ok(holds)
}

/// A large blob resolved by a process of its own.
fn memory(dir: &Path, options: &Options) -> Result<bool, Box<dyn Error>> {
    let world = World::make(&dir.join("large"), options.large_mib << 20, options.seed)?;
    let edge = Edge::start(&world.dir, 0)?;
    let config = dir.join("repo.config");
    fs::write(&config, serde_json::to_vec(&world.config(&[&edge])?)?)?;
    println!("one blob of {} MiB, peak resident memory of a process that resolves it (VmHWM):\n", options.large_mib);
    let mut holds = true;
    for form in ["raw", "delivery"] {
        let place = dir.join(format!("device-{form}"));
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.arg(RESOLVER).arg(&place).arg(&config).arg(form).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let peak_kib: u64 = String::from_utf8(output.stdout)?.trim().parse()?;
        let is_small = peak_kib < PEAK_KIB_MAX;
        println!(
            "- {form}: {:.1} MiB; under {} wanted: {}",
            peak_kib as f64 / 1024.0,
            PEAK_KIB_MAX >> 10,
            verdict(is_small)
        );
        fs::remove_dir_all(place)?;
        holds &= is_small;
    }
    Ok(holds)
}

/// The process that resolves once: prints its peak in KiB.
pub fn resolver(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let [place, config, form] = words else { return Err("a folder, a configuration and a form are needed".into()) };
    let repository: RepoConfig = serde_json::from_slice(&fs::read(config)?)?;
    let preference = if form == "raw" { Preference::Raw } else { Preference::Delivery(DeliveryType::Type1) };
    let config = DeviceConfig { preference, ..DeviceConfig::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(resolve(Path::new(place), config, repository))?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(true)
}

const fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
}

/// Time of all processors that this process spends on something, milliseconds.
fn cpu_ms(work: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let before = now();
    work()?;
    Ok(now() - before)
}

fn median<T>(runs: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<_> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
