//! `cargo xtask crash publish`: publishes and collections, killed.
//!
//! After each kill the repository must open, offer what the last acknowledged publish offered or what the killed one would
//! have, and be whole to the last byte.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Program, Random, in_folder, letters, options};
use crate::run::Failure;

const RUNS: u64 = 200;
/// Packages, and releases of each: enough for blobs to be shared, to come and to go.
const PACKAGES: u64 = 3;
const RELEASES: u64 = 4;

const REPOSITORY: &str = "repo";

/// Runs the check.
pub fn publish(arguments: &[&str]) -> Result<(), Failure> {
    let (seed, runs) = options(arguments, RUNS)?;
    println!("crash publish: --seed {seed} --runs {runs}");
    in_folder(seed, |dir| Scene::new(dir, seed).and_then(|mut scene| scene.play(runs)))
}

/// What a repository offers: package hash by name.
type Offered = BTreeMap<String, String>;

struct Scene {
    random: Random,
    program: Program,
    /// Manifest, name and hash of every release of every package.
    releases: Vec<(String, String, String)>,
    /// What the last acknowledged publish offered.
    offered: Offered,
    /// How long a publish takes when nobody kills it.
    whole: Duration,
}

impl Scene {
    fn new(dir: &Path, seed: u64) -> Result<Self, Failure> {
        let program = Program::in_dir(dir);
        let (random, whole) = (Random(seed), Duration::ZERO);
        let mut scene = Self { random, program, releases: Vec::new(), offered: Offered::new(), whole };
        let shared = letters(&mut scene.random, 60_000);
        for package in 0..PACKAGES {
            for release in 0..RELEASES {
                scene.build(package, release, &shared)?;
            }
        }
        scene.program.tell(&["repo", "create", "--dev", REPOSITORY])?;
        let began = Instant::now();
        let (manifest, name, hash) = scene.releases[0].clone();
        scene.program.tell(&["repo", "publish", "--level", "1", "--package", &manifest, REPOSITORY])?;
        scene.whole = began.elapsed();
        scene.offered.insert(name, hash);
        Ok(scene)
    }

    fn build(&mut self, package: u64, release: u64, shared: &[u8]) -> Result<(), Failure> {
        let name = format!("p{package}");
        let mut files = vec![("shared", shared.to_vec())];
        for file in ["0", "1", "2", "3", "4", "5"] {
            let bytes = 1 + self.random.below(40_000);
            files.push((file, letters(&mut self.random, bytes)));
        }
        let (manifest, hash) = self.program.build(&format!("{package}-{release}"), &name, &files)?;
        self.releases.push((manifest, format!("{name}/0"), hash));
        Ok(())
    }

    fn play(&mut self, runs: u64) -> Result<(), Failure> {
        for at in 0..runs {
            self.one(at).map_err(|failure| format!("run {at}: {failure}"))?;
            let Program { killed, survived, .. } = self.program;
            if (at + 1) % 20 == 0 {
                println!("{} of {runs} runs: {killed} killed, {survived} ended before", at + 1);
            }
        }
        let Program { killed, survived, .. } = self.program;
        println!("{runs} runs: {killed} killed, {survived} ended before; nothing was lost");
        Ok(())
    }

    /// One publish or collection, killed or not, and what must hold after it.
    fn one(&mut self, at: u64) -> Result<(), Failure> {
        let choice = usize::try_from(self.random.below(self.releases.len() as u64)).unwrap_or(0);
        let (manifest, name, hash) = self.releases[choice].clone();
        let clean = self.random.below(4) == 0;
        let mut after = if clean { Offered::new() } else { self.offered.clone() };
        after.insert(name, hash);
        let mut words = vec!["repo", "publish", "--level", "1", "--package", &manifest];
        words.extend(clean.then_some("--clean"));
        if self.random.below(3) == 0 {
            words = vec!["repo", "gc", "--keep-sets", "1", "--grace-hours", "0"];
            after = self.offered.clone();
        }
        words.push(REPOSITORY);
        let shown = words.join(" ");
        // Later ones have less to do than the first.
        let acknowledged = self.program.killed_within(&words, &mut self.random, self.whole * 2 / 3);
        let acknowledged = acknowledged.map_err(|failure| format!("`colibri {shown}`: {failure}"))?;
        let found = self.check().map_err(|failure| {
            let how = if acknowledged { "acknowledged" } else { "killed" };
            format!("after `colibri {shown}`, {how}: {failure}")
        })?;
        let fits = found == after || (!acknowledged && found == self.offered);
        if !fits {
            let before = &self.offered;
            return Err(format!(
                "run {at}, `colibri {shown}`, acknowledged: {acknowledged}: {found:?} is offered, after {before:?} it must be {after:?}"
            ));
        }
        self.offered = found;
        Ok(())
    }

    /// The repository opens, and is whole; what it offers.
    fn check(&self) -> Result<Offered, Failure> {
        self.program.json(&["repo", "list", "--json", REPOSITORY])?;
        self.program.tell(&["repo", "verify", "--json", REPOSITORY])?;
        let listed = self.program.json(&["repo", "package", "list", "--json", "--repo-path", REPOSITORY])?;
        let entries = listed.as_array().ok_or("the list of packages is no list")?;
        let entry = |entry: &serde_json::Value| {
            let name = entry["name"].as_str()?;
            let name = if name.contains('/') { name.to_owned() } else { format!("{name}/0") };
            Some((name, entry["hash"].as_str()?.to_owned()))
        };
        entries.iter().map(|listed| entry(listed).ok_or_else(|| format!("{listed} has no name and hash"))).collect()
    }
}
