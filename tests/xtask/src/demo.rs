//! The demo's JSON, held against what it must show.

use serde_json::Value;

use crate::run::{Failure, cargo, output};

/// What the demo may travel over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Everything open: HTTP/3 must have been used.
    Http3,
    /// UDP is swallowed: HTTP/3 must not have been used, and all else must be the same.
    Tcp,
}

/// Runs the demo and checks every verdict.
pub fn check(words: &str, transport: Transport) -> Result<(), Failure> {
    let text = output(cargo(words))?;
    let report: Value =
        serde_json::from_str(text.trim()).map_err(|error| format!("the demo's JSON: {error}\n{text}"))?;
    println!("{text}");
    let number = |key: &str| report[key].as_f64().ok_or_else(|| format!("the demo's JSON has no number `{key}`"));
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            wrong.push(what.to_owned());
        }
    };
    must(number("packages")? >= 2.0, "at least two packages");
    must(number("packages")? == number("packages_verified")?, "all packages resolved and verified");
    must(number("blobs")? > 0.0 && number("bytes_published")? > 0.0, "blobs and bytes were published");
    must(number("bytes_deduplicated")? >= 0.0, "deduplicated bytes are counted");
    must(number("release1_bytes_fetched")? > 0.0, "release 1 was fetched");
    must(number("release2_bytes_fetched")? > 0.0, "release 2 was fetched");
    must(
        number("release2_bytes_fetched")? < number("release1_bytes_fetched")?,
        "release 2 fetched less than release 1",
    );
    must(report["corrupt_edge_named"].is_string(), "the corrupt edge is named");
    must(report["corrupt_edge_named"] == report["lying_edge"], "the named edge is the one that lied");
    must(number("unverified_bytes_accepted")? == 0.0, "no unverified byte was accepted");
    must(number("max_origin_fetches_per_unit_and_edge")? == 1.0, "no unit was fetched twice by an edge");
    must((0.0..=1.0).contains(&number("edge_hit_ratio")?), "the hit ratio is a ratio");
    must(number("fleet_devices")? > 0.0 && number("fleet_failures")? == 0.0, "the fleet had no failures");
    must(number("fleet_p99_ms")? > 0.0 && number("duration_s")? > 0.0, "times were measured");
    match transport {
        Transport::Http3 => must(number("h3_requests")? > 0.0, "HTTP/3 was used"),
        Transport::Tcp => {
            must(number("h3_requests")? == 0.0, "HTTP/3 was not used");
            must(number("h2_requests")? > 0.0, "HTTP/2 was used");
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("the demo did not show: {}", wrong.join("; "))) }
}
