//! `cargo xtask crash publish`: the real program, killed at random moments of publishes and collections.
//!
//! After each kill the repository must open, offer what the last acknowledged publish offered or what the killed one would
//! have, and be whole to the last byte. Power loss is another matter: the tests of `origin/repository` lose it in memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::run::{Failure, cargo, root, run};

const RUNS: u64 = 200;
/// Packages, and releases of each: enough for blobs to be shared, to come and to go.
const PACKAGES: u64 = 3;
const RELEASES: u64 = 4;

/// Random numbers that a seed repeats (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Runs the check.
pub fn publish(arguments: &[&str]) -> Result<(), Failure> {
    let (seed, runs) = options(arguments)?;
    println!("crash publish: --seed {seed} --runs {runs}");
    run(cargo("build --locked -p colibri --bin colibri"))?;
    let dir = std::env::temp_dir().join(format!("colibri-crash-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let outcome = Scene::new(&dir, seed).and_then(|mut scene| scene.play(runs));
    match outcome {
        Ok(()) => {
            fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            Ok(())
        }
        Err(failure) => Err(format!("seed {seed}: {failure}\nwhat is left lies in {}", dir.display())),
    }
}

fn options(arguments: &[&str]) -> Result<(u64, u64), Failure> {
    // Another one each time; it is printed.
    let (mut seed, mut runs) = (u64::from(std::process::id()), RUNS);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let number = words.next().and_then(|text| text.parse().ok()).ok_or_else(|| format!("{word} needs a number"))?;
        match *word {
            "--seed" => seed = number,
            "--runs" => runs = number,
            _ => return Err(format!("unknown option {word}: --seed S and --runs N are known")),
        }
    }
    Ok((seed, runs))
}

/// What a repository offers: package hash by name.
type Offered = BTreeMap<String, String>;

struct Scene {
    random: Random,
    binary: PathBuf,
    repository: PathBuf,
    /// Manifest, name and hash of every release of every package.
    releases: Vec<(PathBuf, String, String)>,
    /// What the last acknowledged publish offered.
    offered: Offered,
    /// How long a publish takes when nobody kills it.
    whole: Duration,
    killed: u64,
    survived: u64,
}

impl Scene {
    fn new(dir: &Path, seed: u64) -> Result<Self, Failure> {
        let mut scene = Self {
            random: Random(seed),
            binary: root().join(format!("target/debug/colibri{}", std::env::consts::EXE_SUFFIX)),
            repository: dir.join("repo"),
            releases: Vec::new(),
            offered: Offered::new(),
            whole: Duration::ZERO,
            killed: 0,
            survived: 0,
        };
        let mut shared = vec![0; 60_000];
        shared.iter_mut().for_each(|byte| *byte = b'a' + (scene.random.below(20) as u8));
        for package in 0..PACKAGES {
            for release in 0..RELEASES {
                scene.build(dir, package, release, &shared)?;
            }
        }
        scene.tell(&["repo", "create", "--dev", &scene.path()])?;
        let began = Instant::now();
        let (manifest, name, hash) = scene.releases[0].clone();
        scene.tell(&[
            "repo",
            "publish",
            "--level",
            "1",
            "--package",
            &manifest.display().to_string(),
            &scene.path(),
        ])?;
        scene.whole = began.elapsed();
        scene.offered.insert(name, hash);
        Ok(scene)
    }

    fn path(&self) -> String {
        self.repository.display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs the program, which must end well, and gives what it prints.
    fn tell(&self, words: &[&str]) -> Result<String, Failure> {
        let output = self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`colibri {}` ended with {}:\n{text}{said}", words.join(" "), output.status))
    }

    fn json(&self, words: &[&str]) -> Result<Value, Failure> {
        let text = self.tell(words)?;
        serde_json::from_str(&text).map_err(|error| format!("`colibri {}`: {error}\n{text}", words.join(" ")))
    }

    fn build(&mut self, dir: &Path, package: u64, release: u64, shared: &[u8]) -> Result<(), Failure> {
        let name = format!("p{package}");
        let (input, output) =
            (dir.join(format!("in-{package}-{release}")), dir.join(format!("out-{package}-{release}")));
        let write = |file: &str, bytes: &[u8]| {
            fs::write(input.join(file), bytes).map_err(|error| format!("{}: {error}", input.display()))
        };
        fs::create_dir_all(&input).map_err(|error| format!("{}: {error}", input.display()))?;
        write("shared", shared)?;
        for file in 0..6 {
            let length = 1 + self.random.below(40_000);
            let bytes: Vec<u8> = (0..length).map(|_| b'a' + (self.random.below(20) as u8)).collect();
            write(&format!("file{file}"), &bytes)?;
        }
        let [input, output_text] = [&input, &output].map(|path| path.display().to_string());
        self.tell(&["package", "build", "--from-dir", &input, "--name", &name, "-o", &output_text])?;
        let manifest = output.join("package_manifest.json");
        let text = fs::read_to_string(&manifest).map_err(|error| format!("{}: {error}", manifest.display()))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", manifest.display()))?;
        let blobs = json["blobs"].as_array().ok_or("a manifest has no blobs")?;
        let meta = blobs.iter().find(|blob| blob["path"] == "meta/").and_then(|blob| blob["merkle"].as_str());
        let hash = meta.ok_or("a manifest has no meta/")?.to_owned();
        self.releases.push((manifest, format!("{name}/0"), hash));
        Ok(())
    }

    fn play(&mut self, runs: u64) -> Result<(), Failure> {
        for at in 0..runs {
            self.one(at).map_err(|failure| format!("run {at}: {failure}"))?;
            if (at + 1) % 20 == 0 {
                println!("{} of {runs} runs: {} killed, {} ended before", at + 1, self.killed, self.survived);
            }
        }
        println!("{runs} runs: {} killed, {} ended before; nothing was lost", self.killed, self.survived);
        Ok(())
    }

    /// One publish or collection, killed or not, and what must hold after it.
    fn one(&mut self, at: u64) -> Result<(), Failure> {
        let path = self.path();
        let choice = usize::try_from(self.random.below(self.releases.len() as u64)).unwrap_or(0);
        let (manifest, name, hash) = self.releases[choice].clone();
        let manifest = manifest.display().to_string();
        let clean = self.random.below(4) == 0;
        let mut after = if clean { Offered::new() } else { self.offered.clone() };
        after.insert(name, hash);
        let mut words = vec!["repo", "publish", "--level", "1", "--package", &manifest];
        words.extend(clean.then_some("--clean"));
        if self.random.below(3) == 0 {
            words = vec!["repo", "gc", "--keep-sets", "1", "--grace-hours", "0"];
            after = self.offered.clone();
        }
        words.push(&path);
        let shown = words.join(" ");
        let acknowledged = self.killed_within(&words).map_err(|failure| format!("`colibri {shown}`: {failure}"))?;
        let found = self.check().map_err(|failure| {
            format!(
                "after `colibri {shown}`, {acknowledged}: {failure}",
                acknowledged = if acknowledged { "acknowledged" } else { "killed" }
            )
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

    /// Runs the program and kills it at a random moment; true if it had ended well before.
    fn killed_within(&mut self, words: &[&str]) -> Result<bool, Failure> {
        let mut child = self.command(words).spawn().map_err(|error| error.to_string())?;
        let micros = u64::try_from(self.whole.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(self.random.below(micros - micros / 3)));
        // What has ended cannot be killed any more, which is no failure.
        let _ = child.kill();
        let status = child.wait().map_err(|error| error.to_string())?;
        match status.code() {
            Some(0) => {
                self.survived += 1;
                Ok(true)
            }
            None => {
                self.killed += 1;
                Ok(false)
            }
            Some(code) => Err(format!("it ended with {code}: it could not go on from what was left")),
        }
    }

    /// The repository opens, and is whole; what it offers.
    fn check(&self) -> Result<Offered, Failure> {
        let path = self.path();
        self.json(&["repo", "list", "--json", &path])?;
        self.tell(&["repo", "verify", "--json", &path])?;
        let listed = self.json(&["repo", "package", "list", "--json", "--repo-path", &path])?;
        let entries = listed.as_array().ok_or("the list of packages is no list")?;
        let entry = |entry: &Value| {
            let name = entry["name"].as_str()?;
            let name = if name.contains('/') { name.to_owned() } else { format!("{name}/0") };
            Some((name, entry["hash"].as_str()?.to_owned()))
        };
        entries.iter().map(|listed| entry(listed).ok_or_else(|| format!("{listed} has no name and hash"))).collect()
    }
}
