//! The static binary that goes into the image.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::work::{ensure, outcome};
use crate::run::{Failure, cargo, command, root, run};

/// Where the build leaves it, below the root; `deploy/Dockerfile` has the same.
const BINARY: &str = "target/x86_64-unknown-linux-gnu/dist/colibri";

/// The static binary.
#[derive(Debug)]
pub struct Binary(PathBuf);

/// Builds it, and makes sure that it is static and runs.
pub fn build() -> Result<Binary, Failure> {
    let mut build = cargo("build --profile dist --locked --target x86_64-unknown-linux-gnu");
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    run(build)?;
    let binary = Binary(root().join(BINARY));
    // Both tools speak; `ldd` fails for some kinds of static programs.
    let (_, file) = outcome(command("file", [&binary.0]))?;
    let (_, ldd) = outcome(command("ldd", [&binary.0]))?;
    println!("{}\nldd: {}", file.trim(), ldd.trim());
    ensure(file.contains("static-pie linked") || file.contains("statically linked"), || {
        format!("{BINARY} is not static: {file}")
    })?;
    ensure(ldd.contains("statically linked") || ldd.contains("not a dynamic executable"), || {
        format!("{BINARY} asks for shared libraries: {ldd}")
    })?;
    run(binary.command(["--version"]))?;
    Ok(binary)
}

impl Binary {
    /// One that was built quickly, as the tests have it.
    pub fn for_development() -> Result<Self, Failure> {
        run(cargo("build --locked --package colibri"))?;
        Ok(Self(root().join("target/debug/colibri")))
    }

    /// `colibri` with these arguments.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments).current_dir(root());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("COLIBRI_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}
