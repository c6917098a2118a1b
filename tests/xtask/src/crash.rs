//! `cargo xtask crash`: the real program, killed at random moments, and what must hold after each kill.
//!
//! Here is what the checks share: numbers that a seed repeats, and a program that is killed. What is done and what must hold is
//! said by each check. Power loss is another matter: tests lose it in memory, at every operation of a disk.

mod daemon;
mod device;
mod publish;
mod refetch;
mod relay;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

pub use device::device;
pub use publish::publish;

use crate::run::{Failure, cargo, root, run};

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

/// Seed and number of runs; without a seed another one each time, which is printed.
fn options(arguments: &[&str], runs: u64) -> Result<(u64, u64), Failure> {
    let (mut seed, mut runs) = (u64::from(std::process::id()), runs);
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

/// Builds the program, runs `check` in a new folder, and leaves the folder only after a failure, to be looked at.
fn in_folder(seed: u64, check: impl FnOnce(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    run(cargo("build --locked -p colibri --bin colibri"))?;
    let dir = std::env::temp_dir().join(format!("colibri-crash-{}", std::process::id()));
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    fs::create_dir_all(&dir).map_err(failed)?;
    match check(&dir) {
        Ok(()) => fs::remove_dir_all(&dir).map_err(failed),
        Err(failure) => Err(format!("seed {seed}: {failure}\nwhat is left lies in {}", dir.display())),
    }
}

/// The real program in a folder, and how often it was killed.
struct Program {
    binary: PathBuf,
    dir: PathBuf,
    killed: u64,
    survived: u64,
}

impl Program {
    fn in_dir(dir: &Path) -> Self {
        let binary = root().join(format!("target/debug/colibri{}", std::env::consts::EXE_SUFFIX));
        Self { binary, dir: dir.to_owned(), killed: 0, survived: 0 }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).current_dir(&self.dir).env("COLIBRI_SERVERS_DIR", self.dir.join("servers"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs it; it must end well. What it prints.
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

    /// Runs it and kills it at a random moment `within` this time; true if it had ended well before.
    fn killed_within(&mut self, words: &[&str], random: &mut Random, within: Duration) -> Result<bool, Failure> {
        let mut child = self.command(words).spawn().map_err(|error| error.to_string())?;
        let micros = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        std::thread::sleep(Duration::from_micros(random.below(micros)));
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

    /// Builds a package of these files in its own folder: its manifest, relative to this program's, and its package hash.
    fn build(&self, folder: &str, name: &str, files: &[(&str, Vec<u8>)]) -> Result<(String, String), Failure> {
        let input = self.dir.join("files").join(folder);
        fs::create_dir_all(&input).map_err(|error| format!("{}: {error}", input.display()))?;
        for (file, content) in files {
            fs::write(input.join(file), content).map_err(|error| format!("{}: {error}", input.display()))?;
        }
        let (from, output) = (format!("files/{folder}"), format!("built/{folder}"));
        self.tell(&["package", "build", "--from-dir", &from, "--name", name, "-o", &output])?;
        let manifest = format!("{output}/package_manifest.json");
        let text = fs::read_to_string(self.dir.join(&manifest)).map_err(|error| format!("{manifest}: {error}"))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| format!("{manifest}: {error}"))?;
        let blobs = json["blobs"].as_array().ok_or("a manifest has no blobs")?;
        let meta = blobs.iter().find(|blob| blob["path"] == "meta/").and_then(|blob| blob["merkle"].as_str());
        Ok((manifest, meta.ok_or("a manifest has no meta/")?.to_owned()))
    }
}

/// Letters, so many.
fn letters(random: &mut Random, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|_| b'a' + (random.below(20) as u8)).collect()
}
