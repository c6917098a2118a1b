//! `cargo xtask soak DURATION [--seed N]`: builds `colibri` and the program that soaks it (`loadtest/cluster`), and runs it in
//! an empty folder below `target`.

use crate::acceptance::binary::Binary;
use crate::acceptance::work::empty_dir;
use crate::run::{Failure, cargo, run};

/// Runs it for as long as `words` say.
pub fn soak(words: &[&str]) -> Result<(), Failure> {
    let (length, seed) = match words {
        [length] => (length, None),
        [length, "--seed", seed] => (length, Some(seed)),
        _ => return Err("soak wants a duration, such as 90s, 10m or 1h, and takes --seed N behind it".to_owned()),
    };
    let seconds = seconds(length).ok_or_else(|| format!("`{length}` is no duration such as 90s, 10m or 1h"))?;
    let binary = Binary::for_development()?;
    let dir = empty_dir("soak")?;
    // What is built meanwhile must not take its place when a process is started again.
    let colibri = dir.join("colibri");
    std::fs::copy(binary.path(), &colibri).map_err(|error| format!("{}: {error}", colibri.display()))?;
    let mut soak = cargo("run --quiet --locked --package colibri-cluster --bin soak --");
    soak.arg("--colibri").arg(&colibri).arg("--dir").arg(&dir).args(["--seconds", &seconds.to_string()]);
    soak.args(seed.map(|seed| ["--seed", *seed]).into_iter().flatten());
    run(soak)
}

fn seconds(length: &str) -> Option<u64> {
    let unit = match length.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return None,
    };
    length[..length.len() - 1].parse::<u64>().ok().filter(|number| *number > 0)?.checked_mul(unit)
}
