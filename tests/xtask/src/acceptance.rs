//! `cargo xtask acceptance`: what needs outside tools or long time. A tool that is missing is a loud failure that says how
//! to get it, never a skip. Nothing is installed from here.

mod binary;
mod chart;
mod compose;
mod configuration;
mod desk;
mod drain;
mod image;
mod lab;
mod licences;
mod python_tuf;
mod sample;
mod servers;
mod softhsm;
mod static_server;
mod tools;
mod work;

use crate::run::Failure;
use binary::Binary;

/// Steps that need the static binary.
type Step = fn(&Binary) -> Result<(), Failure>;

/// In order; the quick ones first.
const STEPS: [(&str, Step); 8] = [
    ("sample configurations", configuration::check),
    ("keys in a PKCS#11 token", softhsm::check),
    ("desk", desk::check),
    ("static web server", static_server::check),
    ("drain", drain::check),
    ("Helm chart", chart::check),
    ("image", image::check),
    ("compose file", compose::check),
];

/// Runs every step, also behind one that failed, and tells all failures at the end.
pub fn acceptance() -> Result<(), Failure> {
    tools::all_present()?;
    let mut failures = Vec::new();
    let mut note = |name: &str, outcome: Result<(), Failure>| match outcome {
        Ok(()) => println!("\n== {name}: passed"),
        Err(failure) => {
            println!("\n== {name}: FAILED: {failure}");
            failures.push(format!("{name}: {failure}"));
        }
    };
    note("licences, bans, advisories", licences::check());
    note("python-tuf", python_tuf::check());
    // Without the binary there is nothing left to try.
    let binary = binary::build()?;
    for (name, step) in STEPS {
        note(name, step(&binary));
    }
    if failures.is_empty() {
        println!("\nacceptance passed");
        return Ok(());
    }
    Err(format!("{} steps of acceptance failed:\n{}", failures.len(), failures.join("\n")))
}
