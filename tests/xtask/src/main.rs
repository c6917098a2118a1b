//! The commands of the house: `cargo xtask check` is all that CI runs, `cargo xtask acceptance` the long list with outside
//! tools, where a missing tool is a loud failure and never a skip.

mod acceptance;
mod bench;
mod check;
mod codelab;
mod conformance;
mod crash;
mod demo;
mod fuzz;
mod interop_h3;
mod predict;
mod report;
mod run;
mod soak;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  check        format, lints, tests, documentation, interop, the demo and its figures, a load test: what CI runs
  acceptance   what needs outside tools or long time: images, compose file, Helm chart, licences; with words the steps
               whose names have one of them: [WORD…]
  interop-h3   aioquic and Chromium over HTTP/3, curl over HTTP/2 and 1.1, from an edge in front of nginx
  soak DURATION
               an origin and two tiers of edges under mixed load and faults, judged at the end: 90s, 10m, 1h [--seed N]
  predict      the simulation of a load test, calibrated on `steady`, beside runs of `release-wave` with three seeds:
               [--devices N], 2000 if not said; fails when it is off by more than 15 %
  report       the page of a load test in Chromium, light and dark
  codelab      the exercise on packages of Fuchsia's codelab, walked with our tools and printed as it shows it
  fuzz         the fuzz targets of tests/fuzz, each for five minutes: [--seconds N] [TARGET]
  bench NAME   measures against a stated base: metadata, ingest, scale, cache, device, fleet
  crash publish
               kills publishes and collections at random moments and checks what is left: [--seed S] [--runs N]
  crash device the same for resolves, updates, commits and collections of a device
  edge-start   how long an edge with a large disk tier takes to its first byte after a kill; five million files of 4 KiB unless
               told otherwise: [--files N] [--dir DIR]
  conformance DIR
               the public TUF conformance suite, from a checkout in DIR, with its own keys and with ed25519 keys
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check::check(),
        ["codelab"] => codelab::codelab(),
        ["soak", ref words @ ..] => soak::soak(words),
        ["predict", ref words @ ..] => predict::predict(words),
        ["report"] => report::report(),
        ["interop-h3"] => interop_h3::interop_h3(),
        ["acceptance", ref words @ ..] => acceptance::acceptance(words),
        ["fuzz", ref arguments @ ..] => fuzz::fuzz(arguments),
        ["bench", ref words @ ..] if !words.is_empty() => bench::bench(words),
        ["crash", "publish", ref arguments @ ..] => crash::publish(arguments),
        ["crash", "device", ref arguments @ ..] => crash::device(arguments),
        ["edge-start", ref words @ ..] => bench::edge_start(words),
        ["conformance", checkout] => conformance::conformance(checkout),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\nxtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
