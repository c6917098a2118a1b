//! `cargo xtask codelab`: the exercise "Packages" of Fuchsia's codelab, walked with our tools: what a person types, and what is
//! printed, step by step. What the codelab shows must be there, else it fails.
//!
//! A desk's server and a device that is a folder take the place of the emulator. Everything is made below `target`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The files that the codelab lists; `meta/contents`, `meta/package` and the ABI revision are made by the build.
const FILES: [&str; 6] = [
    "bin/spinning_square",
    "data/fonts/RobotoSlab-Regular.ttf",
    "data/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
    "lib/ld.so.1",
    "lib/libfdio.so",
    "meta/spinning-square-rs.cm",
];

/// Walks it.
pub fn codelab() -> Result<(), Failure> {
    let lab = Lab::new()?;
    println!(
        "\n# A product bundle brings a repository; here it is made, and served as the codelab's package server is."
    );
    lab.prepare()?;

    println!("\n# List the package repositories that are served.");
    let listed = lab.shown("colibri", &["repo", "server", "list"], 0)?;
    ensure(listed.lines().any(|line| line.starts_with("default ")), || format!("no server `default`:\n{listed}"))?;

    println!("\n# Explore the packages in the repository.");
    let listed = lab.shown("colibri", &["repo", "package", "list", "-r", REPOSITORY, "--include-components"], 0)?;
    ensure(listed.contains(&format!("{PACKAGE}/0")) && listed.contains("meta/spinning-square-rs.cm"), || {
        format!("the package or its component is not listed:\n{listed}")
    })?;

    println!("\n# Is the package on the device?");
    let status = lab.shown("pkgctl", &["pkg-status", PACKAGE_URL], 2)?;
    let hash = status.lines().next().and_then(|line| line.strip_prefix("Package in registered TUF repo: yes (merkle="));
    let hash = hash.and_then(|rest| rest.strip_suffix(')')).ok_or_else(|| format!("no hash:\n{status}"))?.to_owned();
    let in_repository = format!("Package in registered TUF repo: yes (merkle={hash})\n");
    is(&status, &format!("{in_repository}Package on disk: no\n"))?;

    println!("\n# Resolve it, with the log of the resolver.");
    let resolved = lab.shown("pkgctl", &["--log", "resolve", PACKAGE_URL], 0)?;
    for line in [
        format!("[pkg-resolver] INFO: attempting to resolve {PACKAGE_URL} as {MEANT} with TUF"),
        format!("[pkg-resolver] INFO: resolved {PACKAGE_URL} as {MEANT} to {hash} with TUF"),
    ] {
        ensure(resolved.lines().any(|found| found == line), || format!("the log has no line\n{line}\n{resolved}"))?;
    }

    println!("\n# Is it on the device now?");
    is(&lab.shown("pkgctl", &["pkg-status", PACKAGE_URL], 0)?, &format!("{in_repository}Package on disk: yes\n"))?;

    println!("\n# The package by its content address.");
    is(&lab.shown("pkgctl", &["get-hash", PACKAGE_URL], 0)?, &format!("{hash}\n"))?;
    let opened = lab.shown("pkgctl", &["open", &hash], 0)?;
    let mut contents: Vec<String> = FILES.map(|file| format!("/{file}")).to_vec();
    contents.extend(["contents", "fuchsia.abi/abi-revision", "package"].map(|file| format!("/meta/{file}")));
    contents.sort();
    is(&opened, &format!("opening {hash}\npackage contents:\n{}\n", contents.join("\n")))?;
    println!("\nthe codelab was walked to its end");
    Ok(())
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
        ensure(started["pid"].is_u64(), || format!("the server says {started}"))?;
        run(self.command("colibri", &["repo", "target", "register", "-r", REPOSITORY]))
    }

    /// Runs it with everything it prints shown, as in a terminal; what it printed. It must end with this status.
    fn shown(&self, program: &str, words: &[&str], status: i32) -> Result<String, Failure> {
        println!("\n$ {program} {}", words.join(" "));
        let output = self.command(program, words).output().map_err(|error| format!("{program}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Progress on what is no terminal is one line per step, which the codelab does not show.
        let log: String = text(&output.stderr)
            .lines()
            .filter(|line| !line.starts_with('…'))
            .map(|line| format!("{line}\n"))
            .collect();
        let printed = log + &text(&output.stdout);
        print!("{printed}");
        if status != 0 {
            println!("(exit status {status})");
        }
        ensure(output.status.code() == Some(status), || {
            format!("`{program} {}` ended with {}, not with {status}:\n{printed}", words.join(" "), output.status)
        })?;
        Ok(printed)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = self.binary.command(words);
        if program == "pkgctl" {
            let mut other = Command::new(self.dir.join("pkgctl"));
            other.args(words);
            command = other;
        }
        command.current_dir(&self.dir);
        command.env("COLIBRI_SERVERS_DIR", self.dir.join("servers")).env("COLIBRI_DEVICE_DIR", self.dir.join("device"));
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        _ = self.command("colibri", &["repo", "server", "stop", "--all"]).status();
    }
}
