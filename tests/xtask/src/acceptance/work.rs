//! A folder for what acceptance makes, below `target`, and a look at what programs say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::run::{Failure, command, output, root};

/// An empty folder of this name; what an earlier run left is removed.
pub fn empty_dir(name: &str) -> Result<PathBuf, Failure> {
    let dir = root().join("target/acceptance").join(name);
    let failed = |error| format!("{}: {error}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(failed)?;
    }
    fs::create_dir_all(&dir).map_err(failed)?;
    Ok(dir)
}

/// Writes a file.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Failure> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

/// Reads a text file.
pub fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs it, and gives back how it ended and all it said, whether it ended well or not.
pub fn outcome(mut command: Command) -> Result<(bool, String), Failure> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("{} could not start: {error}", command.get_program().display()))?;
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((status.success(), said))
}

/// The documents of a YAML file.
pub fn yaml(path: &Path) -> Result<Vec<Value>, Failure> {
    let text = output(command("yq", ["-c".as_ref(), "-s".as_ref(), ".".as_ref(), path.as_os_str()]))?;
    let documents: Vec<Value> =
        serde_json::from_str(&text).map_err(|error| format!("what yq made of {}: {error}", path.display()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The JSON object a program printed.
pub fn json(command: Command) -> Result<Value, Failure> {
    let text = output(command)?;
    serde_json::from_str(text.trim()).map_err(|error| format!("no JSON ({error}): {text}"))
}

/// What must hold, and what to say if it does not.
pub fn ensure(holds: bool, otherwise: impl FnOnce() -> Failure) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
