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
    interop()?;
    run(cargo("build --release --locked"))?;
    demo::check("run --release --locked --quiet -- demo --json", demo::Transport::Http3)?;
    demo::check("run --release --locked --quiet -- demo --block-udp --json", demo::Transport::Tcp)?;
    println!("\nall checks passed");
    Ok(())
}

/// Other people's programs read what we write. A crate of its own, because they bring what we keep out; the target folder
/// is shared.
fn interop() -> Result<(), Failure> {
    let mut test = cargo("test --locked");
    test.current_dir(root().join("tests/interop")).env("CARGO_TARGET_DIR", root().join("target"));
    run(test)
}
