//! The outside programs acceptance needs, and how to get each on Debian 12. It looks and tells; it installs nothing.

use std::path::Path;

use crate::run::Failure;

/// Program and the line that installs it.
const TOOLS: [(&str, &str); 1] = [("cargo-deny", "cargo install cargo-deny --locked")];

/// Fails with every missing tool at once.
pub fn all_present() -> Result<(), Failure> {
    let missing: Vec<String> = TOOLS
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(program, how)| format!("  {program}: {how}"))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(format!("acceptance needs programs that are not here:\n{}", missing.join("\n")))
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file()))
}
