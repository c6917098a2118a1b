//! A report of a load test as lines for people.

use std::io::{self, Write};

use colibri_loadtest::outcome::{Kind, Report, Standing};
use colibri_loadtest::record::Outcome;
use colibri_loadtest::shares;

use crate::progress::bytes;

/// Prints a report.
pub(super) fn report(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let what = if report.kind == Kind::Run { "measured" } else { "simulated" };
    writeln!(out, "{} ({what}, seed {}): {}", report.scenario, report.seed, report.about)?;
    writeln!(out, "{} devices, {:.1} s", report.devices, report.duration_s)?;
    if report.interrupted {
        writeln!(out, "INTERRUPTED: what follows is of the part that took place")?;
    }
    writeln!(out)?;
    writeln!(
        out,
        "{:<10} {:<7} {:<10} {:>9} {:>10} {:>10} {:>10} {:>10}",
        "step", "outcome", "link", "count", "p50 ms", "p90 ms", "p99 ms", "max ms"
    )?;
    for row in &report.rows {
        let outcome = if row.outcome == Outcome::Ok { "ok" } else { "failed" };
        let link = row.link.as_deref().unwrap_or("all");
        let step = row.step.name();
        writeln!(
            out,
            "{step:<10} {outcome:<7} {link:<10} {:>9} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
            row.count, row.p50_ms, row.p90_ms, row.p99_ms, row.max_ms
        )?;
    }
    writeln!(out)?;
    for (name, count) in &report.counters {
        let shown = if name.ends_with("_bytes") { bytes(*count) } else { count.to_string() };
        writeln!(out, "{name:<18} {shown}")?;
    }
    for (name, share) in shares::of(&report.counters) {
        writeln!(out, "{name:<30} {:.2} %", share * 100.0)?;
    }
    writeln!(out)?;
    for mark in &report.marks {
        writeln!(out, "at {:>7.1} s  {}", mark.at_s, mark.what)?;
    }
    for (source, count) in &report.blames {
        writeln!(out, "bad bytes      {count} times from {source}")?;
    }
    for text in &report.record.failure_texts {
        writeln!(out, "failure        {text}")?;
    }
    for invariant in &report.invariants {
        let word = if invariant.held { "held" } else { "BROKEN" };
        writeln!(out, "{word:<10} {}: {}", invariant.name, invariant.detail)?;
    }
    for verdict in &report.verdicts {
        let word = verdict.kept.map_or("not judged", |kept| if kept { "kept" } else { "MISSED" });
        writeln!(out, "{word:<10} {}: {}", verdict.rule, verdict.shown)?;
    }
    for because in &report.invalid_because {
        writeln!(out, "INVALID    {because}")?;
    }
    let verdict = match report.standing() {
        Standing::Passed => "passed",
        Standing::Failed => "failed",
        Standing::Invalid => "invalid: the generator spoilt this run, it says nothing about the system",
    };
    writeln!(out, "{verdict}")
}
