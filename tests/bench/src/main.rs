//! Benchmarks against stated bases, each a ratio of two things measured side by side; `docs/benchmarks.md` has the method and
//! the last table. They print and judge; they are no tests and run in no check.

mod cache;
mod cost;
mod device;
mod fleet;
mod ingest;
mod scale;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask bench NAME [OPTIONS]

  metadata reading and signing a flat repository of many targets, against one parse or write and one signature
           [--targets N] [--runs N]
  scale    publishing one target into a repository with hash bins, and what a device fetches then
           [--targets N] [--runs N] [--dir DIR]
  cache    hits of the edge's memory tier, beside policies alone [--requests N] [--seed N]
  ingest   publishing a tree of files, against compressing and hashing the same bytes
           [--mib N] [--runs N] [--seed N] [--dir DIR]
  device   downloading a blob, against receiving, hashing and writing it; two edges against one; memory of a large blob
           [--mb N] [--runs N] [--large-mib N] [--seed N] [--dir DIR]
  fleet    memory and processor time of a load test's generator: idle HTTP/3 connections, scheduled devices
           [--devices N] [--connected N] [--edges N] [--connect-s N] [--idle-s N] [--dir DIR]
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first().map(|(name, options)| (name.as_str(), options)) {
        Some(("metadata", options)) => colibri_bench::metadata::run(options).map_err(Into::into),
        Some(("scale", options)) => scale::run(options),
        Some(("cache", options)) => cache::run(options),
        Some(("ingest", options)) => ingest::run(options),
        Some(("device", options)) => device::run(options),
        Some(("fleet", options)) => fleet::run(options),
        Some((device::EDGE, options)) => device::edge(options),
        Some((device::RESOLVER, options)) => device::resolver(options),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
