//! A repository with one package in it, for what is served.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::binary::Binary;
use super::work::{self, json};
use crate::run::{Failure, output, run};

/// Name of the repository, as in `deploy/config/origin.toml`.
pub const REPOSITORY: &str = "fleet.example";

/// The package, as devices ask for it.
pub const PACKAGE_URL: &str = "fuchsia-pkg://fleet.example/hello";

/// A built package.
#[derive(Debug)]
pub struct Package {
    /// Its folder: `files/` and `out/package_manifest.json`.
    pub dir: PathBuf,
    /// Merkle root of its one large file.
    pub blob: String,
    /// Length of that file.
    pub blob_bytes: usize,
}

/// Builds a package with one file of `blob_bytes` below `dir`.
pub fn package(binary: &Binary, dir: &Path, blob_bytes: usize) -> Result<Package, Failure> {
    let dir = dir.join("package");
    let data = dir.join("files/data");
    fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let file = data.join("large");
    work::write(&file, noise(blob_bytes))?;
    let build = ["package", "build", "--name", "hello"].map(std::ffi::OsStr::new);
    let mut build = binary.command(build);
    build.arg("--from-dir").arg(dir.join("files")).arg("--output").arg(dir.join("out"));
    run(build)?;
    let mut hash = binary.command(["file-hash"]);
    hash.arg(&file);
    let line = output(hash)?;
    let blob = line.split_whitespace().next().ok_or("file-hash printed nothing")?.to_owned();
    Ok(Package { dir, blob, blob_bytes })
}

/// Makes a repository in `dir` and publishes the package into it.
pub fn repository(binary: &Binary, dir: &Path, package: &Package) -> Result<PathBuf, Failure> {
    let repository = dir.join("repository");
    let mut create = binary.command(["repo", "create", "--dev", "--json"]);
    create.arg(&repository);
    let created: Value = json(create)?;
    work::ensure(created["root_keys"].as_array().is_some_and(|keys| !keys.is_empty()), || {
        format!("repo create names no root key: {created}")
    })?;
    let mut publish = binary.command(["repo", "publish", "--level", "1", "--package"]);
    publish.arg(package.dir.join("out/package_manifest.json")).arg(&repository);
    run(publish)?;
    Ok(repository)
}

/// Bytes that do not compress, the same in every run: a xorshift generator.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state)
    };
    let mut noise: Vec<u8> = std::iter::from_fn(next).take(bytes.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    noise.truncate(bytes);
    noise
}
