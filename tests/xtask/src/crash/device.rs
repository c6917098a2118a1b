//! `cargo xtask crash device`: resolves, system updates, commits and collections of a device, killed.
//!
//! After each kill the device must open; what it holds must be whole to the last byte; a system runs that was installed, with
//! its packages; and what was acknowledged is there. For every five runs one more kills the daemon that a client asks, and for every
//! ten a resolve of a large blob, of which is counted what is fetched again.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::daemon::daemons;
use super::refetch::refetch;
use super::{Program, Random, in_folder, letters, options};
use crate::run::Failure;

const RUNS: u64 = 500;
const PACKAGES: u64 = 5;
const SYSTEMS: u64 = 3;
const REPOSITORY: &str = "repo";
const HOST: &str = "devhost";
pub(super) const DEVICE: &str = "device";

/// Content of each package's large file: three units, so that a kill finds some of them here.
const LARGE_BYTES: u64 = 5 << 20;

/// Runs the check.
pub fn device(arguments: &[&str]) -> Result<(), Failure> {
    let (seed, runs) = options(arguments, RUNS)?;
    println!("crash device: --seed {seed} --runs {runs}");
    in_folder(seed, |dir| {
        let mut scene = Scene::new(dir, seed)?;
        scene.serve()?;
        let played = scene.play(runs).and_then(|()| daemons(&mut scene, runs / 5)).and_then(|()| {
            let names = (REPOSITORY, HOST, DEVICE);
            refetch(&mut scene.program, &mut scene.random, names, runs / 10)
        });
        let stopped = scene.program.tell(&["repo", "server", "stop", "--all"]).map(drop);
        played.and(stopped)
    })
}

/// What may be done to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    Resolve,
    Collect,
    Install,
    Commit,
}

pub(super) struct Scene {
    pub random: Random,
    pub program: Program,
    /// Package hash by number of the package.
    packages: Vec<String>,
    /// Update package and system package of each system, by version.
    systems: BTreeMap<String, (String, String)>,
    /// How long each act takes when nobody kills it.
    pub takes: BTreeMap<Act, Duration>,
    /// Starts of the machine so far.
    pub boots: u64,
    /// Packages that were resolved and acknowledged since the last collection.
    pub resolved: Vec<String>,
    /// The version that ran when it was last looked; nothing for the system that the device came with.
    running: Option<String>,
    /// Versions that may run after the next start.
    pub next: Vec<Option<String>>,
}

impl Scene {
    fn new(dir: &Path, seed: u64) -> Result<Self, Failure> {
        let mut scene = Self {
            random: Random(seed),
            program: Program::in_dir(dir),
            packages: Vec::new(),
            systems: BTreeMap::new(),
            takes: BTreeMap::new(),
            boots: 0,
            resolved: Vec::new(),
            running: None,
            next: vec![None],
        };
        scene.program.tell(&["repo", "create", "--dev", REPOSITORY])?;
        let shared = letters(&mut scene.random, 300_000);
        for number in 0..PACKAGES {
            let large = letters(&mut scene.random, LARGE_BYTES);
            let small = letters(&mut scene.random, 10_000);
            let files = [("large", large), ("shared", shared.clone()), ("small", small)];
            let (manifest, hash) = scene.program.build(&format!("p{number}"), &format!("p{number}"), &files)?;
            scene.publish(&[&manifest])?;
            scene.packages.push(hash);
        }
        for number in 1..=SYSTEMS {
            scene.system(&number.to_string(), &shared)?;
        }
        Ok(scene)
    }

    fn publish(&self, manifests: &[&str]) -> Result<(), Failure> {
        let mut words = vec!["repo", "publish", "--level", "1"];
        words.extend(manifests.iter().flat_map(|manifest| ["--package", manifest]));
        self.program.tell(&[&words[..], &[REPOSITORY]].concat()).map(drop)
    }

    /// Builds and publishes an update package with an image and a package of its own.
    fn system(&mut self, version: &str, shared: &[u8]) -> Result<(), Failure> {
        let own = letters(&mut self.random, 400_000);
        let zbi = letters(&mut self.random, 2_000_000);
        let bytes = zbi.len();
        let system = [("own", own), ("shared", shared.to_vec())];
        let (system_manifest, system) = self.program.build(&format!("system-{version}"), "system", &system)?;
        let folder = format!("images-{version}");
        let (images_manifest, images) = self.program.build(&folder, "images", &[("zbi", zbi)])?;
        let sha256 = sha256(&self.program.dir.join("files").join(folder).join("zbi"))?;
        let pinned = |name: &str, hash: &str| format!("fuchsia-pkg://{HOST}/{name}?hash={hash}");
        let image = json!({
            "slot": "fuchsia", "type": "zbi", "size": bytes, "hash": sha256,
            "url": format!("{}#zbi", pinned("images", &images)),
        });
        let packages = json!({"version": "1", "content": [pinned("system", &system)]});
        let images = json!({"version": "1", "contents": {"partitions": [image], "firmware": []}});
        let files = [
            ("packages.json", packages.to_string().into_bytes()),
            ("images.json", images.to_string().into_bytes()),
            ("version", version.as_bytes().to_vec()),
        ];
        let (update_manifest, update) = self.program.build(&format!("update-{version}"), "update", &files)?;
        self.publish(&[&system_manifest, &images_manifest, &update_manifest])?;
        self.systems.insert(version.to_owned(), (pinned("update", &update), pinned("system", &system)));
        Ok(())
    }

    /// A desk's server, and a device that knows it.
    fn serve(&mut self) -> Result<(), Failure> {
        let start = ["repo", "server", "start", "--repo-path", REPOSITORY, "-r", HOST, "--background"];
        self.program.tell(&[&start[..], &["--address", "127.0.0.1:0"]].concat())?;
        self.program.tell(&["repo", "target", "register", "-r", HOST, "--device-dir", DEVICE])?;
        // Each act once, whole, to know how long it takes. Images that are there already are not written again, so that the
        // system to begin with is not installed again.
        for act in [Act::Resolve, Act::Collect, Act::Install, Act::Commit] {
            let words = self.words(act);
            let began = Instant::now();
            self.program.tell(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
            self.takes.insert(act, began.elapsed());
            self.acknowledged(act, &words);
            if act == Act::Install {
                self.start_machine()?;
            }
        }
        self.resolved.clear();
        Ok(())
    }

    /// The words of an act, chosen at random where there is a choice.
    pub fn words(&mut self, act: Act) -> Vec<String> {
        let boot = format!("boot {}", self.boots);
        let words: Vec<String> = match act {
            Act::Resolve => {
                let package = self.random.below(PACKAGES);
                vec!["resolve".to_owned(), format!("fuchsia-pkg://{HOST}/p{package}")]
            }
            Act::Collect => vec!["gc".to_owned()],
            Act::Install => {
                let version = (1 + self.random.below(SYSTEMS)).to_string();
                let url = self.systems[&version].0.clone();
                vec!["update".to_owned(), "--boot-id".to_owned(), boot, "install".to_owned(), url]
            }
            Act::Commit => ["update", "--boot-id", &boot, "commit"].map(str::to_owned).to_vec(),
        };
        [&["device", "--dir", DEVICE].map(str::to_owned)[..], &words].concat()
    }

    fn play(&mut self, runs: u64) -> Result<(), Failure> {
        for at in 0..runs {
            self.one().map_err(|failure| format!("run {at}: {failure}"))?;
            let Program { killed, survived, .. } = self.program;
            if (at + 1) % 20 == 0 {
                println!("{} of {runs} runs: {killed} killed, {survived} ended before", at + 1);
            }
        }
        let Program { killed, survived, .. } = self.program;
        println!("{runs} runs: {killed} killed, {survived} ended before; nothing was lost or torn");
        Ok(())
    }

    /// One act, killed or not, and what must hold after it.
    fn one(&mut self) -> Result<(), Failure> {
        let act = match self.random.below(10) {
            0..4 => Act::Resolve,
            4..7 => Act::Collect,
            7..9 => Act::Install,
            _ => Act::Commit,
        };
        if matches!(act, Act::Collect | Act::Install) {
            // Killed or not, it may have collected what was resolved on demand.
            self.resolved.clear();
        }
        let words = self.words(act);
        let shown = words.join(" ");
        let line: Vec<_> = words.iter().map(String::as_str).collect();
        let within = self.takes[&act] * 4 / 3;
        let unfinished = if act == Act::Collect { self.unfinished()? } else { 0 };
        let acknowledged = self.program.killed_within(&line, &mut self.random, within);
        let acknowledged = acknowledged.map_err(|failure| format!("`colibri {shown}`: {failure}"))?;
        if acknowledged {
            self.acknowledged(act, &words);
        } else if act == Act::Install {
            let version = self.version_of(&words);
            self.next.push(version);
        }
        let how = if acknowledged { "acknowledged" } else { "killed" };
        let after = |failure| format!("after `colibri {shown}`, {how}: {failure}");
        self.check().map_err(after)?;
        if act == Act::Collect {
            // What was being removed does not come back as something unfinished; what is unfinished goes, unless an update that
            // was cut off has kept it for the next attempt.
            let goes = acknowledged && !self.update_was_cut_off()?;
            let (left, most) = (self.unfinished()?, if goes { 0 } else { unfinished });
            if left > most {
                return Err(after(format!("{left} unfinished blobs are there, {unfinished} were before")));
            }
        }
        if act == Act::Install {
            self.start_machine().map_err(after)?;
            self.check().map_err(after)?;
            // Without a commit the way back stays open, and nothing else can be installed.
            let commit = self.words(Act::Commit);
            self.program.tell(&commit.iter().map(String::as_str).collect::<Vec<_>>()).map_err(after)?;
        }
        Ok(())
    }

    /// Blobs of which a part is there.
    fn unfinished(&self) -> Result<u64, Failure> {
        let status = self.program.json(&["device", "--dir", DEVICE, "--json", "status"])?;
        status["unfinished_blobs"].as_u64().ok_or_else(|| format!("no number of unfinished blobs: {status}"))
    }

    /// Whether the last attempt at an update did not come to its end.
    fn update_was_cut_off(&self) -> Result<bool, Failure> {
        let boot = format!("boot {}", self.boots);
        let history =
            self.program.json(&["device", "--dir", DEVICE, "--json", "update", "--boot-id", &boot, "history"])?;
        let last = history["attempts"].as_array().and_then(|attempts| attempts.last());
        Ok(last.is_some_and(|last| last["state"] != "complete"))
    }

    pub fn version_of(&self, words: &[String]) -> Option<String> {
        let url = words.last()?;
        self.systems.iter().find(|(_, (update, _))| update == url).map(|(version, _)| version.clone())
    }

    pub fn acknowledged(&mut self, act: Act, words: &[String]) {
        match act {
            Act::Resolve => self.resolved.extend(words.last().cloned()),
            Act::Install => self.next = vec![self.version_of(words)],
            Act::Collect | Act::Commit => {}
        }
    }

    /// Another start: one of the systems that may run does.
    pub fn start_machine(&mut self) -> Result<(), Failure> {
        self.boots += 1;
        self.running = self.system_running()?;
        if !self.next.contains(&self.running) {
            return Err(format!("system {:?} runs, it must be one of {:?}", self.running, self.next));
        }
        self.next = vec![self.running.clone()];
        Ok(())
    }

    fn system_running(&self) -> Result<Option<String>, Failure> {
        let boot = format!("boot {}", self.boots);
        let words = ["device", "--dir", DEVICE, "--json", "update", "--boot-id", &boot, "history"];
        let history = self.program.json(&words)?;
        if history["running"] == "recovery" {
            return Err(format!("recovery runs: {history}"));
        }
        Ok(history["version"].as_str().map(str::to_owned))
    }

    /// The device opens; all that it holds is whole; what is needed and what was acknowledged is there.
    pub fn check(&self) -> Result<(), Failure> {
        let running = self.system_running()?;
        if running != self.running {
            return Err(format!(
                "system {running:?} runs, it was {:?} before, and nobody started the machine",
                self.running
            ));
        }
        let verified = self.program.json(&["device", "--dir", DEVICE, "--json", "verify", "--only-look"])?;
        if verified["damaged"].as_array().is_none_or(|damaged| !damaged.is_empty()) {
            return Err(format!("it holds something torn: {verified}"));
        }
        let system = running.and_then(|version| self.systems.get(&version)).map(|(_, system)| system);
        for url in self.resolved.iter().chain(system) {
            let status: Value = self.program.json(&["device", "--dir", DEVICE, "--json", "pkg-status", url])?;
            if status["on_disk"] != true {
                return Err(format!("{url} is not there: {status}"));
            }
        }
        Ok(())
    }
}

fn sha256(path: &Path) -> Result<String, Failure> {
    let output = Command::new("sha256sum").arg(path).output().map_err(|error| format!("sha256sum: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hash = text.split_whitespace().next().filter(|hash| hash.len() == 64);
    hash.map(str::to_owned).ok_or_else(|| format!("sha256sum said {text:?}"))
}
