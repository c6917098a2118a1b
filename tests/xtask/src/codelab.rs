//! `cargo xtask codelab`: the exercise "Packages" of Fuchsia's codelab, walked with our tools: what a person types, and what is
//! printed, step by step. What the codelab shows must be there, else it fails.
//!
//! A desk's server and a device that is a folder take the place of the emulator. Everything is made below `target`.

use std::cell::RefCell;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::acceptance::binary::Binary;
use crate::acceptance::work::{empty_dir, ensure, json, write};
use crate::run::{Failure, run};

/// What the codelab calls its repository on the device.
const REPOSITORY: &str = "default";

const PACKAGE: &str = "spinning-square-rs";

const PACKAGE_URL: &str = "fuchsia-pkg://fuchsia.com/spinning-square-rs";

/// What the URL stands for.
const MEANT: &str = "fuchsia-pkg://default/spinning-square-rs";

/// Before each line of the resolver's log that a command prints.
const LOG: &str = "[pkg-resolver] INFO: ";

/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files that the codelab lists; `meta/contents`, `meta/package` and the ABI revision are made by the build.
const FILES: [&str; 6] = [
    "bin/spinning_square",
    "data/fonts/RobotoSlab-Regular.ttf",
    "data/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
    "lib/ld.so.1",
    "lib/libfdio.so",
    "meta/spinning-square-rs.cm",
];

/// Walks it twice: on a device that each command opens, and on one whose daemon they ask. What they print must be the same.
pub fn codelab() -> Result<(), Failure> {
    let lab = Lab::new()?;
    println!(
        "\n# A product bundle brings a repository; here it is made, and served as the codelab's package server is."
    );
    lab.prepare()?;
    let alone = walk(&lab, &lab.device("device", None)?)?;

    println!("\n\n# The same on another device, whose daemon runs.");
    let daemon = Daemon::start(&lab, "device-2")?;
    let asked = walk(&lab, &lab.device("device-2", Some(daemon))?)?;
    ensure(alone == asked, || {
        let differ = alone.iter().zip(&asked).find(|(alone, asked)| alone != asked);
        format!("without a daemon and with one other things are printed: {differ:?}")
    })?;
    println!("\nthe codelab was walked to its end, with a daemon and without: {} commands print the same", alone.len());
    Ok(())
}

/// What each command printed, without the log of the resolver.
fn walk(lab: &Lab, device: &Device) -> Result<Vec<(String, String)>, Failure> {
    let mut all = Vec::new();
    let mut shown = |program: &str, words: &[&str], status: i32| {
        let printed = device.shown(lab, program, words, status)?;
        all.push((words.join(" "), printed.clone()));
        Ok::<_, Failure>(printed)
    };
    println!("\n# List the package repositories that are served.");
    let listed = shown("colibri", &["repo", "server", "list"], 0)?;
    ensure(listed.lines().any(|line| line.starts_with("default ")), || format!("no server `default`:\n{listed}"))?;

    println!("\n# Explore the packages in the repository.");
    let listed = shown("colibri", &["repo", "package", "list", "-r", REPOSITORY, "--include-components"], 0)?;
    ensure(listed.contains(&format!("{PACKAGE}/0")) && listed.contains("meta/spinning-square-rs.cm"), || {
        format!("the package or its component is not listed:\n{listed}")
    })?;

    println!("\n# Is the package on the device?");
    let status = shown("pkgctl", &["pkg-status", PACKAGE_URL], 2)?;
    let hash = status.lines().next().and_then(|line| line.strip_prefix("Package in registered TUF repo: yes (merkle="));
    let hash = hash.and_then(|rest| rest.strip_suffix(')')).ok_or_else(|| format!("no hash:\n{status}"))?.to_owned();
    let in_repository = format!("Package in registered TUF repo: yes (merkle={hash})\n");
    is(&status, &format!("{in_repository}Package on disk: no\n"))?;

    println!("\n# Resolve it, with the log of the resolver.");
    let before = device.log()?;
    shown("pkgctl", &["--log", "resolve", PACKAGE_URL], 0)?;
    device.told(
        &before,
        &[
            &format!("attempting to resolve {PACKAGE_URL} as {MEANT} with TUF"),
            &format!("resolved {PACKAGE_URL} as {MEANT} to {hash} with TUF"),
        ],
    )?;

    println!("\n# Is it on the device now?");
    is(&shown("pkgctl", &["pkg-status", PACKAGE_URL], 0)?, &format!("{in_repository}Package on disk: yes\n"))?;

    println!("\n# The package by its content address.");
    is(&shown("pkgctl", &["get-hash", PACKAGE_URL], 0)?, &format!("{hash}\n"))?;
    let opened = shown("pkgctl", &["open", &hash], 0)?;
    let mut contents: Vec<String> = FILES.map(|file| format!("/{file}")).to_vec();
    contents.extend(["contents", "fuchsia.abi/abi-revision", "package"].map(|file| format!("/meta/{file}")));
    contents.sort();
    is(&opened, &format!("opening {hash}\npackage contents:\n{}\n", contents.join("\n")))?;
    Ok(all)
}

/// What is printed must be this.
fn is(printed: &str, expected: &str) -> Result<(), Failure> {
    ensure(printed == expected, || format!("printed was\n{printed}\nexpected was\n{expected}"))
}

/// The folder in which it is walked; its server ends with it.
struct Lab {
    dir: PathBuf,
    binary: Binary,
}

impl Lab {
    fn new() -> Result<Self, Failure> {
        let binary = Binary::for_development()?;
        let dir = empty_dir("codelab")?;
        let link = dir.join("pkgctl");
        std::os::unix::fs::symlink(binary.path(), &link).map_err(|error| format!("{}: {error}", link.display()))?;
        Ok(Self { dir, binary })
    }

    /// A repository with the package, served; a device that knows it.
    fn prepare(&self) -> Result<(), Failure> {
        for file in FILES {
            let path = self.dir.join("files").join(file);
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            write(&path, format!("content of {file}\n").repeat(1000))?;
        }
        for words in [
            &["package", "build", "--from-dir", "files", "--name", PACKAGE, "-o", "out"][..],
            &["repo", "create", "--dev", "packages"],
            &["repo", "publish", "--package", "out/package_manifest.json", "packages"],
        ] {
            run(self.command("colibri", words))?;
        }
        let start = ["repo", "server", "start", "--repo-path", "packages", "-r", REPOSITORY, "--background"];
        let start = [&start[..], &["--address", "127.0.0.1:0", "--alias", "fuchsia.com", "--json"]].concat();
        let started: Value = json(self.command("colibri", &start))?;
        ensure(started["pid"].is_u64(), || format!("the server says {started}"))
    }

    /// A device that knows the repository.
    fn device(&self, folder: &str, daemon: Option<Daemon>) -> Result<Device, Failure> {
        let device = Device { folder: folder.to_owned(), daemon, said: RefCell::default() };
        run(device.command(self, "colibri", &["repo", "target", "register", "-r", REPOSITORY]))?;
        Ok(device)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = self.binary.command(words);
        if program == "pkgctl" {
            let mut other = Command::new(self.dir.join("pkgctl"));
            other.args(words);
            command = other;
        }
        command.current_dir(&self.dir);
        command.env("COLIBRI_SERVERS_DIR", self.dir.join("servers"));
        command
    }
}

/// A device on which it is walked.
struct Device {
    /// Its folder in the lab's.
    folder: String,
    daemon: Option<Daemon>,
    /// What the last command wrote of the resolver's log.
    said: RefCell<String>,
}

impl Device {
    fn command(&self, lab: &Lab, program: &str, words: &[&str]) -> Command {
        let mut command = lab.command(program, words);
        command.env("COLIBRI_DEVICE_DIR", lab.dir.join(&self.folder));
        command
    }

    /// Runs it with everything it prints shown, as in a terminal; what it printed besides the log. It must end with this status.
    fn shown(&self, lab: &Lab, program: &str, words: &[&str], status: i32) -> Result<String, Failure> {
        println!("\n$ {program} {}", words.join(" "));
        let output = self.command(lab, program, words).output().map_err(|error| format!("{program}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Progress on what is no terminal is one line per step, which the codelab does not show.
        let told = text(&output.stderr);
        let told = told.lines().filter(|line| !line.starts_with('…')).map(|line| format!("{line}\n"));
        let (log, other): (Vec<_>, Vec<_>) = told.partition(|line| line.starts_with(LOG));
        let printed = other.concat() + &text(&output.stdout);
        print!("{}{printed}", log.concat());
        // Where the device is differs.
        let printed = printed.replace(&lab.dir.join(&self.folder).display().to_string(), "DEVICE");
        *self.said.borrow_mut() = log.concat();
        if status != 0 {
            println!("(exit status {status})");
        }
        ensure(output.status.code() == Some(status), || {
            format!("`{program} {}` ended with {}, not with {status}:\n{printed}", words.join(" "), output.status)
        })?;
        Ok(printed)
    }

    /// What the daemon has logged so far, if one runs.
    fn log(&self) -> Result<String, Failure> {
        let Some(daemon) = &self.daemon else { return Ok(String::new()) };
        fs::read_to_string(&daemon.log).map_err(|error| format!("{}: {error}", daemon.log.display()))
    }

    /// The resolver's log since `before` must say this: that of the command, or of the daemon that it asked.
    fn told(&self, before: &str, lines: &[&str]) -> Result<(), Failure> {
        let (log, is_line): (String, fn(&str, &str) -> bool) = match &self.daemon {
            None => (self.said.borrow().clone(), |found, line| found.strip_prefix(LOG) == Some(line)),
            Some(_) => {
                let log = self.log()?.strip_prefix(before).unwrap_or_default().to_owned();
                println!("\nThe daemon's log:\n{log}");
                (log, |found, line| found.contains("INFO") && found.ends_with(line))
            }
        };
        for line in lines {
            let is_there = log.lines().any(|found| is_line(found, line));
            ensure(is_there, || format!("the log has no line\n{line}\n{log}"))?;
        }
        Ok(())
    }
}

/// The daemon of a device; ends with this.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it answers.
    fn start(lab: &Lab, folder: &str) -> Result<Self, Failure> {
        let log = lab.dir.join("daemon.log");
        let failed = |error: std::io::Error| format!("{}: {error}", log.display());
        let output = fs::File::create(&log).map_err(failed)?;
        println!("\n$ pkgctl daemon");
        let mut command = lab.command("pkgctl", &["daemon"]);
        command.env("COLIBRI_DEVICE_DIR", lab.dir.join(folder)).env("NO_COLOR", "1").stderr(output);
        let child = command.spawn().map_err(failed)?;
        let mut daemon = Self { child, log };
        let (socket, began) = (lab.dir.join(folder).join("daemon.sock"), Instant::now());
        while UnixStream::connect(&socket).is_err() {
            let ended = daemon.child.try_wait().map_err(|error| error.to_string())?;
            ensure(ended.is_none() && began.elapsed() < PATIENCE, || "the daemon does not answer".to_owned())?;
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself, which was told already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        _ = self.command("colibri", &["repo", "server", "stop", "--all"]).status();
    }
}
