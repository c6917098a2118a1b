//! `cargo xtask fuzz [--seconds N] [TARGET]`: libFuzzer on every target of `tests/fuzz`, or on one.
//!
//! The stable compiler is enough: coverage instrumentation is a pass of LLVM that plain code generation options switch on,
//! and libFuzzer itself is C++ that the crate `libfuzzer-sys` compiles. Sanitizers are left out: the product has no unsafe
//! code of its own, and the targets assert what is right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Failure, cargo, output, root, run};

/// How long each target runs, seconds.
const SECONDS: u64 = 300;
/// Seconds after which one input counts as hanging.
const TIMEOUT_S: u64 = 10;
/// Memory of one fuzzer, MiB.
const MEMORY_MIB: u64 = 2048;

/// What libFuzzer needs to see in the code.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                               -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                               -Cllvm-args=-sanitizer-coverage-pc-table \
                               -Cllvm-args=-sanitizer-coverage-trace-compares";

/// What to run.
struct Plan {
    seconds: u64,
    only: Option<String>,
}

impl Plan {
    fn of(arguments: &[&str]) -> Result<Self, Failure> {
        let mut plan = Self { seconds: SECONDS, only: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--seconds" => {
                    let number = rest.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
                    plan.seconds = number.ok_or("--seconds wants a number of seconds, such as 300")?;
                }
                option if option.starts_with('-') => return Err(format!("fuzz has no option {option}")),
                target if plan.only.is_none() => plan.only = Some(target.to_owned()),
                more => return Err(format!("one target at a time: {more} is too many")),
            }
        }
        Ok(plan)
    }
}

/// Builds the targets, writes their seeds and runs them one after another, also behind one that failed.
pub fn fuzz(arguments: &[&str]) -> Result<(), Failure> {
    let plan = Plan::of(arguments)?;
    if Command::new("c++").arg("--version").stdout(Stdio::null()).status().is_err() {
        return Err("fuzzing needs a C++ compiler, `c++`, to build libFuzzer: apt-get install g++".into());
    }
    let known = targets()?;
    let chosen: Vec<_> = known.iter().filter(|(name, _)| plan.only.as_ref().is_none_or(|only| only == name)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("there is no target {}; there are {}", plan.only.unwrap_or_default(), names.join(", ")));
    }
    let program = build()?;
    // All seeds first: what is being edited meanwhile does not matter then.
    for (name, _) in &chosen {
        write_seeds(name)?;
    }
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for (name, input_bytes_max) in chosen {
        let (ended_well, line) = one(&program, name, input_bytes_max, plan.seconds)?;
        lines.push(format!("{name}: {line}"));
        if !ended_well {
            failures.push(format!(
                "{name}: see {}; try again with COLIBRI_FUZZ_TARGET={name} {} FILE, and keep the file in \
                 tests/fuzz/regressions/{name}/",
                folder("artifacts", name).display(),
                program.display()
            ));
        }
    }
    println!("\n{}", lines.join("\n"));
    if failures.is_empty() { Ok(()) } else { Err(format!("fuzzing found something:\n{}", failures.join("\n"))) }
}

fn crate_dir() -> PathBuf {
    root().join("tests/fuzz")
}

fn folder(kind: &str, target: &str) -> PathBuf {
    crate_dir().join(kind).join(target)
}

/// Cargo in the crate, uninstrumented, sharing the workspace's target folder.
fn plain_cargo(words: &str) -> Command {
    let mut command = cargo(words);
    command.current_dir(crate_dir()).env("CARGO_TARGET_DIR", root().join("target"));
    command
}

/// Name and longest input of each target.
fn targets() -> Result<Vec<(String, String)>, Failure> {
    let listed = output(plain_cargo("run --quiet --locked --bin seeds list"))?;
    let pair = |line: &str| line.split_once(' ').map(|(name, bytes)| (name.to_owned(), bytes.to_owned()));
    Ok(listed.lines().filter_map(pair).collect())
}

/// The instrumented program. Its own target folder, because everything below it is built differently.
fn build() -> Result<PathBuf, Failure> {
    let about = output(crate::run::command("rustc", ["-vV"]))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV names no host")?;
    // Naming the target keeps the flags away from build scripts and macros, which could not link with them.
    let mut build = cargo(&format!("build --release --locked --features libfuzzer --bin fuzz --target {host}"));
    build.current_dir(crate_dir()).env("RUSTFLAGS", INSTRUMENTATION).env_remove("CARGO_TARGET_DIR");
    run(build)?;
    Ok(crate_dir().join("target").join(host).join("release/fuzz"))
}

/// Makes the folders of a target and puts its seeds into its corpus.
fn write_seeds(name: &str) -> Result<(), Failure> {
    let (corpus, artifacts) = (folder("corpus", name), folder("artifacts", name));
    for dir in [&corpus, &artifacts] {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    run(plain_cargo(&format!("run --quiet --locked --bin seeds write {name} {}", corpus.display())))
}

/// Runs one target; whether it ended well, and the fuzzer's own figures.
fn one(program: &Path, name: &str, input_bytes_max: &str, seconds: u64) -> Result<(bool, String), Failure> {
    let (corpus, artifacts) = (folder("corpus", name), folder("artifacts", name));
    let log = crate_dir().join(format!("artifacts/{name}.log"));
    let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut fuzzer = Command::new(program);
    fuzzer
        .arg(&corpus)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={input_bytes_max}"))
        .arg(format!("-timeout={TIMEOUT_S}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .env("COLIBRI_FUZZ_TARGET", name)
        .stdin(Stdio::null())
        .stderr(file);
    println!("\n{name}: {seconds} s, log in {}", log.display());
    let status = fuzzer.status().map_err(|error| format!("{}: {error}", program.display()))?;
    let said = fs::read(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    let figure =
        |key: &str| said.lines().rev().find_map(|line| line.strip_prefix(key)).unwrap_or("?").trim().to_owned();
    let runs = figure("stat::number_of_executed_units:");
    let per_second = figure("stat::average_exec_per_sec:");
    if status.success() {
        return Ok((true, format!("{runs} runs, {per_second} per second, nothing found")));
    }
    let reason = said.lines().find(|line| line.contains("panicked") || line.contains("ERROR:")).unwrap_or("no reason");
    Ok((false, format!("{runs} runs, then {status}: {reason}")))
}
