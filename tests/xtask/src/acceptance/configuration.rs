//! The sample configurations of `deploy/config`: valid, and complete: every key the program knows stands in them.

use std::path::Path;

use super::binary::Binary;
use super::sample::{self, REPOSITORY};
use super::work::{empty_dir, ensure, read};
use crate::run::{Failure, output, root};

/// Holds both files against the program.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let dir = empty_dir("configuration")?;
    let package = sample::package(binary, &dir, 1)?;
    let repository = sample::repository(binary, &dir, &package)?;
    for role in ["origin", "edge"] {
        let file = root().join("deploy/config").join(format!("{role}.toml"));
        let effective = effective(binary, role, &file, &repository)?;
        let text = read(&file)?;
        for key in keys(&effective) {
            let name = key.rsplit('.').next().unwrap_or(key);
            // Written, offered in a comment, or a table.
            let stands = text.lines().map(|line| line.trim_start_matches(['#', ' '])).any(|line| {
                line.starts_with(&format!("{name} = ")) || line == format!("[{key}]") || line == format!("[[{key}]]")
            });
            ensure(stands, || format!("{} does not tell of the key {key}", file.display()))?;
        }
    }
    Ok(())
}

/// What `serve --check-config` prints for this file; an error if the file is not valid.
///
/// The repository the origin looks for is replaced, because the file names one of another machine.
pub fn effective(binary: &Binary, role: &str, file: &Path, repository: &Path) -> Result<String, Failure> {
    effective_in(binary, role, file, repository, &[])
}

/// [`effective`] with these variables in the environment.
pub fn effective_in(
    binary: &Binary,
    role: &str,
    file: &Path,
    repository: &Path,
    environment: &[(String, String)],
) -> Result<String, Failure> {
    let mut check = binary.command([role, "serve", "--check-config", "--config"]);
    check.arg(file).envs(environment.iter().map(|(name, value)| (name, value)));
    if role == "origin" {
        check.arg("--repo").arg(format!("{REPOSITORY}={}", repository.display()));
    }
    output(check)
}

/// The value of a key in what [`effective`] printed.
pub fn value<'a>(effective: &'a str, key: &str) -> Result<&'a str, Failure> {
    let line = effective.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    let value = line.and_then(|line| line.split("  # ").next());
    value.ok_or_else(|| format!("the effective configuration has no {key}:\n{effective}"))
}

fn keys(effective: &str) -> impl Iterator<Item = &str> {
    effective.lines().filter_map(|line| line.split([' ', '=']).next()).filter(|key| !key.is_empty())
}
