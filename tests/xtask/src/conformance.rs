//! `cargo xtask conformance DIR`: the public TUF conformance suite against `colibri tuf-client`, twice.
//!
//! DIR is a checkout of github.com/theupdateframework/tuf-conformance outside this project. It is read, not written: what the
//! suite needs is installed into a virtual environment below `target`, and the run with ed25519 keys changes the suite's default
//! by a plugin in a temporary folder, because the suite has no switch for it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Failure, cargo, command, output, root, run};

/// The suite asks for a signer without saying of what kind nearly everywhere: this changes what it then gets.
const PLUGIN: &str = "\
from tuf_conformance._internal.repository_simulator import RepositorySimulator

usual = (\"ecdsa\", \"ecdsa-sha2-nistp256\")
if RepositorySimulator.new_signer.__defaults__ != usual:
    raise RuntimeError(\"the suite no longer signs with ecdsa by default: this plugin must change with it\")
RepositorySimulator.new_signer.__defaults__ = (\"ed25519\", \"ed25519\")
";

/// What pytest calls the plugin.
const PLUGIN_NAME: &str = "colibri_ed25519_keys";

/// Words of a summary that is not "all passed".
const NOT_PASSED: [&str; 6] = ["failed", "error", "skipped", "xfailed", "xpassed", "deselected"];

/// Runs the suite with its own keys and with ed25519 keys.
pub fn conformance(checkout: &str) -> Result<(), Failure> {
    let checkout = fs::canonicalize(checkout).map_err(|error| format!("{checkout}: {error}"))?;
    if !checkout.join("tuf_conformance/conftest.py").is_file() {
        return Err(format!(
            "{} is no checkout of the suite: git clone https://github.com/theupdateframework/tuf-conformance",
            checkout.display()
        ));
    }
    run(command("faketime", ["--version"])).map_err(|error| format!("{error}: apt-get install faketime"))?;
    let python = environment(&checkout)?;
    run(cargo("build --locked --package colibri"))?;
    let usual = pytest(&python, &checkout, None)?;
    let plugins = root().join("target/conformance/plugins");
    fs::create_dir_all(&plugins)
        .and_then(|()| fs::write(plugins.join(format!("{PLUGIN_NAME}.py")), PLUGIN))
        .map_err(|error| format!("{}: {error}", plugins.display()))?;
    let ed25519 = pytest(&python, &checkout, Some(&plugins))?;
    println!("\nconformance, keys as the suite has them (ECDSA): {usual}\nconformance, ed25519 keys: {ed25519}");
    Ok(())
}

/// A virtual environment with what the suite needs; gives its Python.
fn environment(checkout: &Path) -> Result<PathBuf, Failure> {
    let folder = root().join("target/conformance/venv");
    let python = folder.join("bin/python");
    if !python.is_file() {
        let mut make = command("python3", ["-m", "venv"]);
        make.arg(&folder);
        run(make).map_err(|error| format!("{error}: apt-get install python3-venv"))?;
    }
    let mut install = command(&python.to_string_lossy(), ["-m", "pip", "install", "--quiet"]);
    install.arg(checkout);
    run(install)?;
    Ok(python)
}

/// One run; gives the summary line.
fn pytest(python: &Path, checkout: &Path, plugins: Option<&Path>) -> Result<String, Failure> {
    let client = root().join("target/debug/colibri");
    let client = client.to_string_lossy();
    if client.contains(' ') {
        return Err(format!("the suite cannot start a client whose path holds a space: {client}"));
    }
    let mut test = command(&python.to_string_lossy(), ["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    // A relative path, so that the suite's own configuration counts and this project's does not.
    test.current_dir(checkout).env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(plugins) = plugins {
        test.args(["-p", PLUGIN_NAME]).env("PYTHONPATH", plugins);
    }
    test.args(["tuf_conformance", "--entrypoint", &format!("{client} tuf-client")]);
    let said = output(test)?;
    let summary = said.lines().next_back().unwrap_or_default().trim().to_owned();
    println!("{summary}");
    if !summary.contains(" passed") || NOT_PASSED.iter().any(|word| summary.contains(word)) {
        return Err(format!("not every test passed: {summary}\n{said}"));
    }
    Ok(summary)
}
