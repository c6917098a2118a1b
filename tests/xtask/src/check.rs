//! `cargo xtask check`: all that CI runs. Assertions are counts and invariants, never times.

use crate::demo;
use crate::run::{Failure, cargo, root, run};

/// Runs every check; the first failure ends it.
pub fn check() -> Result<(), Failure> {
    run(cargo("fmt --all --check"))?;
    run(cargo("clippy --workspace --all-targets --locked -- -D warnings"))?;
    for role in ["edge", "origin", "repo", "device"] {
        run(cargo(&format!("clippy -p colibri --no-default-features --features {role} --locked -- -D warnings")))?;
    }
    run(cargo("test --workspace --locked"))?;
    let mut doc = cargo("doc --workspace --no-deps --locked");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc)?;
    apart("tests/interop")?;
    apart("tests/fuzz")?;
    run(cargo("build --release --locked"))?;
    demo::check("run --release --locked --quiet -- demo --json", demo::Transport::Http3)?;
    demo::check("run --release --locked --quiet -- demo --block-udp --json", demo::Transport::Tcp)?;
    // The same program as the demo's: invariants, ratios and convergence are judged, never times.
    run(cargo("run --release --locked --quiet -- loadtest run smoke --spawn --no-times"))?;
    println!("\nall checks passed");
    Ok(())
}

/// The tests of a crate outside the workspace; the target folder is shared. Interop: other people's programs, which bring what
/// we keep out, read what we write. Fuzz: every property on its seeds.
fn apart(folder: &str) -> Result<(), Failure> {
    let mut test = cargo("test --locked");
    test.current_dir(root().join(folder)).env("CARGO_TARGET_DIR", root().join("target"));
    run(test)
}
