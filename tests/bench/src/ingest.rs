//! Publishing a generated tree into a fresh repository, against a program that only compresses and hashes the same files.
//!
//! Both start from the same package manifests with the files in the page cache, take turns, and use all cores. Publishing
//! does more: it checks claims, writes durably, drops what it wrote from the page cache, reads it again and proves it, and signs.

mod base;
mod tree;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{CreateOptions, Publish, Repository};

use crate::cost::{self, Cost};
use tree::Tree;

/// What publishing may cost, in bases (issue 3).
const RATIO_MAX: f64 = 1.3;

/// What to measure.
struct Options {
    mib: u64,
    runs: usize,
    seed: u64,
    dir: PathBuf,
}

impl Options {
    fn parse(words: &[String]) -> Result<Self, Box<dyn Error>> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let mut options = Self { mib: 1024, runs: 3, seed: 1, dir: target };
        for pair in words.chunks(2) {
            let [name, value] = pair else { return Err(format!("{} needs a value", pair[0]).into()) };
            match name.as_str() {
                "--mib" => options.mib = value.parse()?,
                "--runs" => options.runs = value.parse()?,
                "--seed" => options.seed = value.parse()?,
                "--dir" => options.dir = value.into(),
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        if options.mib == 0 || options.runs == 0 {
            return Err("--mib and --runs are at least 1".into());
        }
        Ok(options)
    }
}

/// What the parts of one run cost.
struct Run {
    base: Cost,
    publish: Cost,
    again: Cost,
}

impl Run {
    fn wall_ratio(&self) -> f64 {
        self.publish.wall_s / self.base.wall_s
    }

    fn cpu_ratio(&self) -> f64 {
        self.publish.cpu_s / self.base.cpu_s
    }
}

/// Measures and prints; whether the ratio holds.
pub fn run(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let options = Options::parse(words)?;
    let dir = tempfile::Builder::new().prefix("bench-ingest-").tempdir_in(&options.dir)?;
    let tree = Tree::generate(&dir.path().join("tree"), options.mib << 20, options.seed)?;
    let cores = std::thread::available_parallelism()?;
    println!("seed {}, {cores} cores, zstd level {}", options.seed, base::LEVEL);
    println!("{} files, {} bytes, {} packages\n", tree.files.len(), tree.bytes, tree.manifests.len());
    println!("| run | base wall s | publish wall s | ratio | base CPU s | publish CPU s | ratio | again wall s |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    let mut runs = Vec::new();
    for number in 0..options.runs {
        let run = measure(&tree, &dir.path().join(format!("repository-{number}")), number % 2 == 1)?;
        row(&(number + 1).to_string(), std::slice::from_ref(&run));
        runs.push(run);
    }
    row("median", &runs);
    let (wall, cpu) = (median(&runs, Run::wall_ratio), median(&runs, Run::cpu_ratio));
    let holds = wall.max(cpu) <= RATIO_MAX;
    let verdict = if holds { "holds" } else { "MISSED" };
    println!("\nmedian ratios: wall {wall:.3}, CPU {cpu:.3}; at most {RATIO_MAX} wanted: {verdict}");
    Ok(holds)
}

fn row(name: &str, runs: &[Run]) {
    let wall =
        [median(runs, |run| run.base.wall_s), median(runs, |run| run.publish.wall_s), median(runs, Run::wall_ratio)];
    let cpu = [median(runs, |run| run.base.cpu_s), median(runs, |run| run.publish.cpu_s), median(runs, Run::cpu_ratio)];
    let ([a, b, c], [d, e, f]) = (wall, cpu);
    let again = median(runs, |run| run.again.wall_s);
    println!("| {name} | {a:.2} | {b:.2} | {c:.3} | {d:.2} | {e:.2} | {f:.3} | {again:.2} |");
}

/// One base and one publish, the publish first if `swapped`. The repository stays until all is measured: ext4 searches long
/// for inodes after many were freed.
fn measure(tree: &Tree, dir: &Path, swapped: bool) -> Result<Run, Box<dyn Error>> {
    let base = if swapped { None } else { Some(base_of(tree)?) };
    settle()?;
    let repository = Repository::create(dir, CreateOptions::new(SystemClock.now()))?;
    let what = Publish { manifests: tree.manifests.clone(), ..Publish::new(SystemClock.now()) };
    let (report, publish) = cost::of(|| Ok(repository.publish(&what)?))?;
    if report.blobs_new != report.blobs {
        return Err("the repository was not fresh".into());
    }
    let (report, again) = cost::of(|| Ok(repository.publish(&what)?))?;
    if report.blobs_new != 0 {
        return Err("a blob was stored twice".into());
    }
    Ok(Run { base: base.map_or_else(|| base_of(tree), Ok)?, publish, again })
}

fn base_of(tree: &Tree) -> Result<Cost, Box<dyn Error>> {
    settle()?;
    let (done, cost) = cost::of(|| Ok(base::compress_and_hash(&tree.files)?))?;
    if done.bytes != tree.bytes || done.ids != tree.ids || done.compressed_bytes == 0 {
        return Err("the base did not do the same work".into());
    }
    Ok(cost)
}

/// What earlier runs left for the disk to do is not charged to the next.
fn settle() -> Result<(), Box<dyn Error>> {
    let status = Command::new("sync").status()?;
    if status.success() { Ok(()) } else { Err("`sync` failed".into()) }
}

fn median(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<_> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
