//! `cargo xtask bench NAME`: what measures, built as shipped binaries are. Never part of a check: times depend on the machine.

use crate::run::{Failure, cargo, root, run};

/// Runs a benchmark of `tests/bench` with these words.
pub fn bench(words: &[&str]) -> Result<(), Failure> {
    // All programs of it: one may start another.
    let mut build = cargo("build --quiet --profile dist");
    build.current_dir(root().join("tests/bench")).env("CARGO_TARGET_DIR", root().join("target"));
    run(build)?;
    let mut command = cargo("run --quiet --profile dist --");
    command.args(words).current_dir(root().join("tests/bench")).env("CARGO_TARGET_DIR", root().join("target"));
    run(command)
}

/// Runs the program that fills a disk tier, kills edges on it and starts them again. In the dev profile: what it measures is
/// files and starts, not code.
pub fn edge_start(words: &[&str]) -> Result<(), Failure> {
    let mut command = cargo("run --quiet -p colibri-edge --example start --");
    command.args(words).current_dir(root());
    run(command)
}
