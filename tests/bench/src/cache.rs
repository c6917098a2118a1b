//! `bench cache`: how many requests the edge's memory tier answers, beside replacement policies alone, on the same traces with
//! the same budget in bytes. The edge is a whole one, with an upstream, and is counted by what it says itself: readers that
//! needed no fill. How long anything takes is not measured here.

mod policy;
mod site;
mod trace;

use std::error::Error;

use policy::{Lru, Policy, QuickCache, S3Fifo};
use trace::Trace;

/// Of what all objects have together, the cache has room for this share.
const ROOM_SHARE: f64 = 0.05;

/// The edge may fall behind the crate that it uses by this much, as a share of requests: its units weigh a little more than
/// their bytes.
const BEHIND_MAX: f64 = 0.01;

/// Runs it with `--requests N` and `--seed N`; true if the edge is not behind the policy that it uses, and ahead of LRU.
///
/// # Errors
/// A wrong option, or the edge answers something else than what was asked for.
pub fn run(options: &[String]) -> Result<bool, Box<dyn Error>> {
    let (mut requests, mut seed) = (200_000, 1);
    for pair in options.chunks(2) {
        match pair {
            [name, value] if name == "--requests" => requests = value.parse()?,
            [name, value] if name == "--seed" => seed = value.parse()?,
            _ => return Err(format!("{}: no such option, or it needs a value", pair[0]).into()),
        }
    }
    println!("seed {seed}, room for {} % of the bytes\n", ROOM_SHARE * 100.0);
    println!(
        "| trace | objects | MB | requests | policy | hits | bytes from the cache |\n|---|---:|---:|---:|---|---:|---:|"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut good = true;
    for trace in [trace::zipf(requests, seed), trace::release_wave(requests, seed)] {
        let budget = (trace.unique_bytes() as f64 * ROOM_SHARE) as u64;
        let objects = trace.sizes.len() / 20;
        let lru = alone(&trace, "LRU", &mut Lru::new(budget));
        alone(&trace, "S3-FIFO", &mut S3Fifo::new(budget));
        let quick_cache = alone(&trace, "quick_cache", &mut QuickCache::new(budget, objects));
        let edge = runtime.block_on(edge(&trace, budget))?;
        good &= edge >= quick_cache - BEHIND_MAX && edge > lru;
    }
    Ok(good)
}

/// The share of hits of a policy alone.
fn alone(trace: &Trace, name: &str, policy: &mut dyn Policy) -> f64 {
    let (mut hits, mut bytes) = (0_u64, 0);
    for &key in &trace.requests {
        let size = u64::from(trace.sizes[key as usize]);
        if policy.ask(key, size) {
            hits += 1;
            bytes += size;
        }
    }
    print(trace, name, hits, bytes)
}

/// The share of units that the edge had when they were asked for; each object is one unit.
async fn edge(trace: &Trace, tier_bytes: u64) -> Result<f64, Box<dyn Error>> {
    let site = site::Site::start(trace, tier_bytes)?;
    for &key in &trace.requests {
        site.get(key, trace).await?;
    }
    let (metrics, requests) = (site.metrics(), trace.requests.len() as u64);
    let (hits, asked) = metrics.hits_and_asked();
    if asked != requests || metrics.served_bytes.get() != trace.requested_bytes() {
        let served = metrics.served_bytes.get();
        return Err(format!("{requests} requests, and the edge counted {asked} units, {served} bytes").into());
    }
    let bytes = trace.requested_bytes() - metrics.filled_bytes.get();
    Ok(print(trace, "edge", hits, bytes))
}

fn print(trace: &Trace, policy: &str, hits: u64, bytes: u64) -> f64 {
    let share = hits as f64 / trace.requests.len() as f64;
    let (objects, megabytes) = (trace.sizes.len(), trace.unique_bytes() / 1_000_000);
    let of_bytes = bytes as f64 / trace.requested_bytes() as f64;
    let requests = trace.requests.len();
    println!("| {} | {objects} | {megabytes} | {requests} | {policy} | {share:.3} | {of_bytes:.3} |", trace.name);
    share
}
