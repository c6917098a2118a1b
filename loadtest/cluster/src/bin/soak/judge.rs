//! The verdicts, and the table of figures.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::faults::Happened;
use crate::load::Load;
use crate::nodes::{DISK_BYTES, MEMORY_BYTES};
use crate::scrape::{Sample, Samples};
use crate::site::Site;

/// Budgets hold within 1 %.
const BUDGET_SLACK: f64 = 1.01;

/// Resident memory may grow by this part from the second quarter to the last, and by this many bytes besides: allocators keep
/// what they once had.
const GROWTH: f64 = 1.10;
const GROWTH_BYTES: f64 = 8e6;

/// Edges that live through the whole run.
const NEVER_ENDED: [&str; 2] = ["shield-1", "edge-1"];

/// Prints all, and says whether all verdicts are good.
pub fn judge(length: Duration, load: &Load, samples: &Samples, happened: &Happened, site: &Site) -> bool {
    println!("\nfaults:");
    for (name, count) in &happened.faults {
        println!("  {count:4} × {name}");
    }
    println!("  {:4} bodies with a flipped bit sent by the upstream", happened.lies);
    let unique = site.unique_bytes();
    println!("\nload: {}; {} herds", load.line(), get(&load.counts.herds));
    println!(
        "origin: {:.1} MB sent, {:.1} MB unique asked for: {:.2}",
        mb(samples.origin_bytes),
        mb(unique),
        samples.origin_bytes as f64 / unique.max(1) as f64
    );
    println!("\n           resident MB: 2nd quarter, last quarter, most; most in memory tier, on disk, in blocks; MB");
    for (name, all) in &samples.of {
        let (early, late) = (middle(all, length, 0.25..0.5), middle(all, length, 0.75..1.01));
        let most = |what: fn(&Sample) -> u64| mb(all.iter().map(what).max().unwrap_or(0));
        println!(
            "  {name:9} {early:8.1} {late:8.1} {:8.1} {:8.1} {:8.1} {:8.1}",
            most(|sample| sample.rss_bytes),
            most(|sample| sample.memory_bytes),
            most(|sample| sample.disk_bytes),
            most(|sample| sample.blocks_bytes),
        );
    }
    let causes = load.causes.lock().unwrap_or_else(PoisonError::into_inner);
    if !causes.is_empty() {
        println!("\nwhat failed (before the calm a fault is the cause):");
        for (cause, count) in causes.iter() {
            println!("  {count:4} × {cause}");
        }
    }
    println!();
    let good = verdicts(length, load, samples, happened);
    for (good, what) in &good {
        println!("{} {what}", if *good { "ok    " } else { "FAILED" });
    }
    good.iter().all(|(good, _)| *good)
}

fn verdicts(length: Duration, load: &Load, samples: &Samples, happened: &Happened) -> Vec<(bool, String)> {
    let counts = &load.counts;
    let zero = |count: &AtomicU64, what: &str| (get(count) == 0, format!("{what}: {}", get(count)));
    let [h3, h2, h1] = &counts.by_protocol;
    let mut verdicts = vec![
        zero(&counts.wrong, "bodies with unverified bytes"),
        zero(&counts.short, "short bodies that ended cleanly"),
        zero(&counts.failed_in_calm, "failed requests after the faults were over"),
        (happened.mishaps.is_empty(), format!("processes that ended badly: {:?}", happened.mishaps)),
        ([h3, h2, h1].iter().all(|count| get(count) > 0), "every protocol was used".to_owned()),
        (happened.lies > 0, "the upstream did flip bits".to_owned()),
    ];
    for (name, all) in &samples.of {
        for (what, budget, found) in [
            ("memory", MEMORY_BYTES, all.iter().map(|sample| sample.memory_bytes).max()),
            ("disk", DISK_BYTES, all.iter().map(|sample| sample.disk_bytes).max()),
            ("blocks of the disk", DISK_BYTES, all.iter().map(|sample| sample.blocks_bytes).max()),
        ] {
            let found = found.unwrap_or(u64::MAX);
            let holds = found as f64 <= budget as f64 * BUDGET_SLACK;
            verdicts.push((holds, format!("{name}: {what} at most {:.2} of {:.2} MB", mb(found), mb(budget))));
        }
    }
    for name in NEVER_ENDED {
        let all = samples.of.get(name).map_or(&[][..], Vec::as_slice);
        let (early, late) = (middle(all, length, 0.25..0.5), middle(all, length, 0.75..1.01));
        let bound = early * GROWTH + GROWTH_BYTES / 1e6;
        let flat = early > 0.0 && late <= bound;
        verdicts.push((flat, format!("{name}: resident {early:.1} MB, then {late:.1} MB (at most {bound:.1})")));
    }
    verdicts
}

/// Median of resident memory in this part of the run, MB.
fn middle(samples: &[Sample], length: Duration, part: std::ops::Range<f64>) -> f64 {
    let within = |sample: &&Sample| part.contains(&(sample.at.as_secs_f64() / length.as_secs_f64()));
    let mut all: Vec<u64> = samples.iter().filter(within).map(|sample| sample.rss_bytes).collect();
    all.sort_unstable();
    all.get(all.len() / 2).map_or(0.0, |bytes| mb(*bytes))
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}
