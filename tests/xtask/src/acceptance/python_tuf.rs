//! python-tuf, the reference client, reads repositories that Colibri published. It comes from the network, in pinned versions,
//! into a virtual environment below `target`: that is why this is not part of `cargo xtask check`.

use crate::run::{Failure, cargo, command, root, run};

use super::work;

/// Makes the environment and runs the tests of `tests/interop` that want it.
pub fn check() -> Result<(), Failure> {
    let environment = work::empty_dir("python-tuf")?;
    run(command("python3", ["-m".as_ref(), "venv".as_ref(), environment.as_os_str()]))?;
    let python = environment.join("bin/python");
    let requirements = root().join("tests/interop/python/requirements.txt");
    let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"];
    let mut install = command(&python.display().to_string(), words);
    install.arg(requirements);
    run(install)?;
    let mut test = cargo("test --locked --features python --test python_client");
    test.current_dir(root().join("tests/interop")).env("CARGO_TARGET_DIR", root().join("target"));
    test.env("COLIBRI_PYTHON", python);
    run(test)
}
