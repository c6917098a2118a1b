//! The parts of the page below its timelines: bars and tables.

use std::fmt::Write;

use super::{WIDTH, escape};
use crate::outcome::{Report, Row};
use crate::record::{Outcome, Record, Step};

/// Width that bars may have, in the units of a chart.
const BAR_WIDTH: f64 = 600.0;

/// Where bars begin: what is before is their name.
const BAR_LEFT: f64 = 150.0;

/// Bars of amounts, the longest being the largest; nothing if there are none.
fn amounts(page: &mut String, title: &str, bars: &[(&str, f64, String)]) {
    let most = bars.iter().map(|(_, amount, _)| *amount).fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let _ = write!(page, "<h2>{title}</h2>");
    open(page, bars.len(), title);
    for (index, (name, amount, shown)) in bars.iter().enumerate() {
        bar(page, index, name, 0.0, amount / most, shown);
    }
    page.push_str("</svg>");
}

fn open(page: &mut String, bars: usize, what: &str) {
    let high = 26.0 * bars as f64 + 8.0;
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {high}\" role=\"img\" aria-label=\"{what}\">");
}

/// One bar, from and to shares of the longest.
fn bar(page: &mut String, index: usize, name: &str, from: f64, to: f64, shown: &str) {
    let y = 26.0 * index as f64 + 4.0;
    let _ = write!(
        page,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"bar\" x=\"{:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"16\" rx=\"2\"/><text x=\"{:.1}\" y=\"{}\">{shown}</text>",
        BAR_LEFT - 8.0,
        y + 12.0,
        escape(name),
        BAR_LEFT + from * BAR_WIDTH,
        ((to - from) * BAR_WIDTH).max(2.0),
        BAR_LEFT + 8.0 + to * BAR_WIDTH,
        y + 12.0
    );
}

/// Bytes from the origin to the devices, and units by the tier that had them.
pub(super) fn hops(page: &mut String, report: &Report) {
    let counted = |names: &[(&'static str, &str)], shown: &dyn Fn(u64) -> String| {
        let known = names.iter().filter_map(|(title, name)| Some((*title, *report.counters.get(*name)?)));
        known.map(|(title, count)| (title, count as f64, shown(count))).collect::<Vec<_>>()
    };
    let hops = [
        ("the origin sent", "origin_bytes"),
        ("shields sent", "shield_bytes"),
        ("edges sent", "edge_bytes"),
        ("devices received", "device_bytes"),
        ("of this content", "content_bytes"),
    ];
    amounts(page, "Bytes by hop", &counted(&hops, &|bytes| format!("{:.2} MB", bytes as f64 / 1e6)));
    let tiers = [
        ("memory", "units_memory"),
        ("disk", "units_disk"),
        ("another\u{2019}s fetch", "units_joined"),
        ("upstream", "units_upstream"),
    ];
    amounts(page, "Where blobs came from, units", &counted(&tiers, &|units| units.to_string()));
}

/// What edges spare the origin.
pub(super) fn ratios(page: &mut String, report: &Report) {
    let quotient = |above: &str, below: &str| {
        Some(*report.counters.get(above)? as f64 / *report.counters.get(below).filter(|count| **count > 0)? as f64)
    };
    let rows = [
        ("units that edges had", quotient("edge_hits", "edge_requests").map(|share| format!("{:.3} %", share * 100.0))),
        (
            "bytes of edges that the origin had to send",
            quotient("origin_bytes", "edge_bytes").map(|share| format!("{:.3} %", share * 100.0)),
        ),
        (
            "bytes that edges sent for each byte of the origin",
            quotient("edge_bytes", "origin_bytes").map(|times| format!("{times:.1}")),
        ),
        (
            "bytes received for each byte of content",
            quotient("device_bytes", "content_bytes").map(|times| format!("{times:.3}")),
        ),
    ];
    if rows.iter().all(|(_, found)| found.is_none()) {
        return;
    }
    page.push_str("<h2>Hit ratio and amplification</h2><div class=\"over\"><table>");
    for (name, found) in rows {
        if let Some(found) = found {
            let _ = write!(page, "<tr><td>{name}</td><td>{found}</td></tr>");
        }
    }
    page.push_str("</table></div>");
}

/// Shares of protocols, and of connections that were used again.
pub(super) fn protocols(page: &mut String, report: &Report) {
    let shares = crate::shares::of(&report.counters);
    if shares.is_empty() {
        return;
    }
    page.push_str("<h2>Protocols</h2><div class=\"over\"><table>");
    for (name, share) in shares {
        let _ = write!(page, "<tr><td>{name}</td><td>{:.2} %</td></tr>", share * 100.0);
    }
    page.push_str("</table></div>");
}

/// Bars from the median to the 99th percentile, by step, and of whole sessions and fetches by link.
pub(super) fn percentiles(page: &mut String, report: &Report) {
    let ok = |row: &&Row| row.outcome == Outcome::Ok;
    let steps = report.rows.iter().filter(ok).filter(|row| row.link.is_none());
    let steps: Vec<_> = steps.map(|row| (row.step.name().to_owned(), row)).collect();
    spans(page, "Median to 99th percentile by step, logarithmic", &steps);
    let of_link = |row: &Row| Some((format!("{} {}", row.link.as_deref()?, row.step.name()), row.step));
    let links = report.rows.iter().filter(ok).filter_map(|row| Some((of_link(row)?, row)));
    let links = links.filter(|((_, step), _)| matches!(step, Step::Timestamp | Step::Fetch | Step::Session));
    let links: Vec<_> = links.map(|((name, _), row)| (name, row)).collect();
    spans(page, "Median to 99th percentile by link, logarithmic", &links);
}

fn spans(page: &mut String, title: &str, rows: &[(String, &Row)]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(page, "<h2>{title}</h2>");
    open(page, rows.len(), title);
    let decades = |ms: f64| (ms.max(0.01) / 0.01).log10();
    let most = decades(rows.iter().map(|(_, row)| row.p99_ms).fold(1.0, f64::max)).max(1.0);
    for (index, (name, row)) in rows.iter().enumerate() {
        let shown = format!("{:.1} to {:.1} ms", row.p50_ms, row.p99_ms);
        bar(page, index, name, decades(row.p50_ms) / most, decades(row.p99_ms) / most, &shown);
    }
    page.push_str("</svg>");
}

/// The sessions that took longest.
pub(super) fn slowest(page: &mut String, report: &Report, record: &Record) {
    if record.slowest.is_empty() {
        return;
    }
    page.push_str("<h2>Slowest sessions</h2><div class=\"over\"><table><tr><th>device</th><th class=\"text\">link</th><th>meant to wake at</th><th>took</th><th class=\"text\">outcome</th></tr>");
    for slow in &record.slowest {
        let link = report.links.get(usize::from(slow.link)).map_or("", String::as_str);
        let outcome = if slow.ok { "ok" } else { "<span class=\"bad\">failed</span>" };
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"text\">{}</td><td>{:.2} s</td><td>{:.1} ms</td><td class=\"text\">{outcome}</td></tr>",
            slow.device,
            escape(link),
            slow.at_us as f64 / 1e6,
            slow.took_us as f64 / 1e3
        );
    }
    page.push_str("</table></div>");
}

pub(super) fn steps(page: &mut String, report: &Report) {
    page.push_str("<h2>Steps, milliseconds</h2><div class=\"over\"><table><tr><th>step</th><th class=\"text\">outcome</th><th class=\"text\">link</th><th>count</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>worst</th></tr>");
    for row in &report.rows {
        let outcome = if row.outcome == Outcome::Ok { "ok" } else { "<span class=\"bad\">failed</span>" };
        let link = escape(row.link.as_deref().unwrap_or("all"));
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"text\">{outcome}</td><td class=\"text\">{link}</td><td>{}</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td><td>{:.1}</td></tr>",
            row.step.name(),
            row.count,
            row.p50_ms,
            row.p90_ms,
            row.p99_ms,
            row.p999_ms,
            row.max_ms
        );
    }
    page.push_str("</table></div>");
}

pub(super) fn counters(page: &mut String, report: &Report) {
    page.push_str("<h2>Counted</h2><div class=\"over\"><table><tr><th>what</th><th>how much</th></tr>");
    for (name, count) in &report.counters {
        let _ = write!(page, "<tr><td>{}</td><td>{count}</td></tr>", escape(name));
    }
    let _ =
        write!(page, "<tr><td>lag of the generator, p99</td><td>{:.1} ms</td></tr></table></div>", report.lag_p99_ms);
}

/// Where it was made.
pub(super) fn environment(page: &mut String, report: &Report) {
    page.push_str("<h2>Environment</h2><div class=\"over\"><table>");
    for (key, value) in &report.environment {
        let _ = write!(page, "<tr><td>{}</td><td class=\"text\">{}</td></tr>", escape(key), escape(value));
    }
    page.push_str("</table></div>");
}
