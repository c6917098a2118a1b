//! `cargo xtask acceptance`: what needs outside tools or long time. A tool that is missing is a loud failure that says how
//! to get it, never a skip. Nothing is installed from here.

pub mod binary;
mod chart;
mod compose;
mod configuration;
mod desk;
mod drain;
mod image;
mod lab;
mod licences;
mod python_tuf;
pub mod sample;
pub mod servers;
mod softhsm;
pub mod static_server;
pub mod tools;
pub mod work;

use crate::run::Failure;
use binary::Binary;

/// Steps for which nothing has to be built.
type Simple = fn() -> Result<(), Failure>;

const WITHOUT_BINARY: [(&str, Simple); 2] =
    [("licences, bans, advisories", licences::check), ("python-tuf", python_tuf::check)];

/// Steps that need the static binary.
type Step = fn(&Binary) -> Result<(), Failure>;

/// In order; the quick ones first.
const STEPS: [(&str, Step); 11] = [
    ("sample configurations", configuration::check),
    ("keys in a PKCS#11 token", softhsm::check),
    ("desk", desk::check),
    ("static web server", static_server::check),
    ("drain", drain::check),
    ("HTTP/3 with others", crate::interop_h3::check),
    ("report of a load test", load_report),
    ("Helm chart", chart::check),
    ("image", image::check),
    ("compose file", compose::check),
    ("start of an edge with five million files", edge_start),
];

fn load_report(_: &Binary) -> Result<(), Failure> {
    crate::report::report()
}

/// Takes 20 GB of the folder for temporary files, and long to make and remove them.
fn edge_start(_: &Binary) -> Result<(), Failure> {
    crate::bench::edge_start(&["--files", "5000000"])
}

/// Runs every step, also behind one that failed, and tells all failures at the end. With words it runs the steps alone whose
/// names have one of them, in any case.
pub fn acceptance(words: &[&str]) -> Result<(), Failure> {
    let named = |name: &str| {
        let name = name.to_lowercase();
        words.is_empty() || words.iter().any(|word| name.contains(&word.to_lowercase()))
    };
    let all = || WITHOUT_BINARY.iter().map(|(name, _)| *name).chain(STEPS.iter().map(|(name, _)| *name));
    if !all().any(named) {
        return Err(format!(
            "no step of acceptance has such a name; there are: {}",
            all().collect::<Vec<_>>().join("; ")
        ));
    }
    tools::all_present()?;
    let mut failures = Vec::new();
    let mut note = |name: &str, outcome: Result<(), Failure>| match outcome {
        Ok(()) => println!("\n== {name}: passed"),
        Err(failure) => {
            println!("\n== {name}: FAILED: {failure}");
            failures.push(format!("{name}: {failure}"));
        }
    };
    for (name, step) in WITHOUT_BINARY.iter().filter(|(name, _)| named(name)) {
        note(name, step());
    }
    let steps: Vec<_> = STEPS.iter().filter(|(name, _)| named(name)).collect();
    if !steps.is_empty() {
        // Without the binary there is nothing left to try.
        let binary = binary::build()?;
        for (name, step) in steps {
            note(name, step(&binary));
        }
    }
    if failures.is_empty() {
        println!("\nacceptance passed");
        return Ok(());
    }
    Err(format!("{} steps of acceptance failed:\n{}", failures.len(), failures.join("\n")))
}
