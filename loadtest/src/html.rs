//! A report as one HTML page: inline SVG, no script, nothing fetched, readable in light and dark.
//!
//! Every text that comes from a scenario or from servers is escaped.

mod parts;

use std::fmt::Write;

use crate::outcome::{Kind, Report, Standing};
use crate::record::{Record, Second};

/// Points of a timeline at most: seconds are summed up beyond.
const POINTS_MAX: usize = 600;

/// Width and height of a chart, in its own units.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 200.0;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#d5dae1;--soft:#5b6470;--a:#1667c4;--b:#c4541a;--good:#1a7f37;--bad:#c62828}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ed;--paper:#14171b;--faint:#363c45;--soft:#9aa4b1;--a:#6cb2ff;--b:#ff9d5c;--good:#57c878;--bad:#ff7b72}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:960px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}.soft{color:var(--soft)}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid var(--faint)}\
td:first-child,th:first-child,td.text,th.text{text-align:left}th{font-weight:600;color:var(--soft)}\
.good{color:var(--good)}.bad{color:var(--bad)}.verdict{font-weight:700}\
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}\
.axis{stroke:var(--faint);fill:none}.a{stroke:var(--a);fill:none;stroke-width:1.6}.b{stroke:var(--b);fill:none;stroke-width:1.6}\
.mark{stroke:var(--soft);stroke-dasharray:3 3}.bar{fill:var(--a)}.over{overflow-x:auto}\
.key-a{color:var(--a)}.key-b{color:var(--b)}";

/// The page.
pub fn page(report: &Report, record: &Record) -> String {
    let mut page = String::new();
    let title = format!("{} — Colibri load test", escape(&report.scenario));
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title><style>{STYLE}</style></head><body><main>"
    );
    head(&mut page, report);
    verdicts(&mut page, report);
    beside(&mut page, report);
    timelines(&mut page, report, record);
    parts::hops(&mut page, report);
    parts::ratios(&mut page, report);
    parts::protocols(&mut page, report);
    parts::percentiles(&mut page, report);
    parts::slowest(&mut page, report, record);
    parts::steps(&mut page, report);
    parts::counters(&mut page, report);
    parts::environment(&mut page, report);
    page.push_str("</main></body></html>\n");
    page
}

/// A text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

fn head(page: &mut String, report: &Report) {
    let (word, class) = match report.standing() {
        Standing::Passed => ("passed", "good"),
        Standing::Failed => ("failed", "bad"),
        Standing::Invalid => ("invalid", "bad"),
    };
    let kind = if report.kind == Kind::Run { "measured" } else { "simulated" };
    let _ = write!(
        page,
        "<h1>{} <span class=\"verdict {class}\">{word}</span></h1><p>{}</p><p class=\"soft\">{kind}, {} devices, {:.1} s, seed {}</p>",
        escape(&report.scenario),
        escape(&report.about),
        report.devices,
        report.duration_s,
        report.seed
    );
    for because in &report.invalid_because {
        let _ = write!(page, "<p class=\"bad\">This run says nothing about the system: {}</p>", escape(because));
    }
}

fn verdicts(page: &mut String, report: &Report) {
    page.push_str("<h2>Rules and invariants</h2><div class=\"over\"><table><tr><th>what must hold</th><th class=\"text\">found</th><th class=\"text\"></th></tr>");
    let rules = report.verdicts.iter().map(|verdict| (verdict.rule.as_str(), verdict.shown.as_str(), verdict.kept));
    let invariants = report.invariants.iter().map(|one| (one.name.as_str(), one.detail.as_str(), Some(one.held)));
    for (what, found, kept) in invariants.chain(rules) {
        let (word, class) = match kept {
            Some(true) => ("kept", "good"),
            Some(false) => ("missed", "bad"),
            None => ("not judged", "soft"),
        };
        let (what, found) = (escape(what), escape(found));
        let _ = write!(
            page,
            "<tr><td>{what}</td><td class=\"text\">{found}</td><td class=\"text {class}\">{word}</td></tr>"
        );
    }
    for (source, count) in &report.blames {
        let source = escape(source);
        let _ = write!(
            page,
            "<tr><td>bad bytes from</td><td class=\"text\">{source}</td><td class=\"text bad\">{count} times</td></tr>"
        );
    }
    page.push_str("</table></div>");
    for text in &report.record.failure_texts {
        let _ = write!(page, "<p class=\"soft\">failure: {}</p>", escape(text));
    }
}

/// What was predicted, if something was.
fn beside(page: &mut String, report: &Report) {
    if report.beside.is_empty() {
        return;
    }
    page.push_str("<h2>Predicted beside measured</h2><div class=\"over\"><table><tr><th>what</th><th>predicted</th><th>measured</th><th>off</th></tr>");
    for one in &report.beside {
        let shown = |value: f64| match one.unit.as_str() {
            "B" => format!("{:.3} MB", value / 1e6),
            unit => format!("{value:.2} {}", escape(unit)),
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.1} %</td></tr>",
            escape(&one.what),
            shown(one.predicted),
            shown(one.measured),
            one.off().min(99.99) * 100.0
        );
    }
    page.push_str("</table></div>");
}

/// The timeline in at most [`POINTS_MAX`] equal parts: seconds of each, and the parts.
fn parts(timeline: &[Second]) -> (usize, Vec<Second>) {
    let width = timeline.len().div_ceil(POINTS_MAX).max(1);
    let sum = |part: &[Second]| {
        part.iter().fold(Second::default(), |sum, second| Second {
            due: sum.due + second.due,
            ok: sum.ok + second.ok,
            failed: sum.failed + second.failed,
            updated: sum.updated + second.updated,
            device_bytes: sum.device_bytes + second.device_bytes,
        })
    };
    (width, timeline.chunks(width).map(sum).collect())
}

fn timelines(page: &mut String, report: &Report, record: &Record) {
    let (width, parts) = parts(&record.timeline);
    if parts.is_empty() {
        return;
    }
    let span_s = width as f64;
    let per_s = |count: u64| count as f64 / span_s;
    let ok: Vec<_> = parts.iter().map(|part| per_s(part.ok)).collect();
    let failed: Vec<_> = parts.iter().map(|part| per_s(part.failed)).collect();
    page.push_str(
        "<h2>Sessions per second: <span class=\"key-a\">ended well</span>, <span class=\"key-b\">failed</span></h2>",
    );
    chart(page, report, span_s, &[("a", &ok), ("b", &failed)], "sessions ended well and failed, per second");
    let mut sum = 0;
    let counted = parts.iter().map(|part| {
        sum += part.updated;
        sum as f64
    });
    // What a second brought is there at its end.
    let updated: Vec<_> = std::iter::once(0.0).chain(counted).collect();
    if sum > 0 {
        page.push_str("<h2>Devices with the newest release</h2>");
        chart(page, report, span_s, &[("a", &updated)], "devices with the newest release");
    }
    let megabits: Vec<_> = parts.iter().map(|part| per_s(part.device_bytes) * 8.0 / 1e6).collect();
    page.push_str("<h2>What devices received, Mb/s</h2>");
    chart(page, report, span_s, &[("a", &megabits)], "megabits per second that devices received");
}

/// Lines over time, with the marks of the run.
fn chart(page: &mut String, report: &Report, span_s: f64, lines: &[(&str, &[f64])], what: &str) {
    let count = lines.iter().map(|(_, values)| values.len()).max().unwrap_or(0).max(2);
    let top = lines.iter().flat_map(|(_, values)| values.iter().copied()).fold(0.0_f64, f64::max).max(1e-9);
    let (left, bottom, wide, high) = (60.0, HEIGHT - 24.0, WIDTH - 70.0, HEIGHT - 40.0);
    let x = |index: f64| left + index / (count - 1) as f64 * wide;
    let y = |value: f64| bottom - value / top * high;
    let _ = write!(page, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{what}\">");
    for share in [0.0, 0.5, 1.0] {
        let at = y(top * share);
        let label = number(top * share);
        let _ = write!(
            page,
            "<path class=\"axis\" d=\"M{left} {at:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left + wide,
            left - 6.0,
            at + 4.0
        );
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let index = (count - 1) as f64 * share;
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{}\">{} s</text>",
            x(index),
            HEIGHT - 6.0,
            if share == 1.0 { "end" } else { "middle" },
            number(index * span_s)
        );
    }
    for mark in &report.marks {
        let at = x((mark.at_s / span_s).min((count - 1) as f64));
        let text = escape(&mark.what);
        let _ = write!(page, "<path class=\"mark\" d=\"M{at:.1} 16V{bottom}\"><title>{text}</title></path>");
        if report.marks.len() <= 6 {
            let anchor = if at > WIDTH * 0.75 { "end" } else { "start" };
            let _ = write!(page, "<text x=\"{at:.1}\" y=\"12\" text-anchor=\"{anchor}\">{text}</text>");
        }
    }
    for (class, values) in lines {
        let points: Vec<_> = values
            .iter()
            .enumerate()
            .map(|(index, value)| format!("{:.1},{:.1}", x(index as f64), y(*value)))
            .collect();
        let _ = write!(page, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
    }
    page.push_str("</svg>");
}

/// A number as short as it can be read.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e4 => format!("{:.0}k", value / 1e3),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::Beside;
    use crate::record::{Outcome, Slow, Step};
    use crate::runner::Mark;
    use crate::scenario::Scenario;

    fn report() -> (Report, Record) {
        let text = "name = 'a<b>&\"'\nabout = '<script>alert(1)</script>'\ndevices = 3\nduration_s = 9\nslo = ['ratio(failed) = 0', 'p99(step=fetch) < 1s']\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n[[link]]\nclass = 'dsl'\nshare = 1\n[[link]]\nclass = 'lte'\nshare = 1\n";
        let mut record = Record::default();
        (0..2_000).for_each(|second| record.second(second * 1_000_000).ok += second);
        record.second(5_000_000).updated += 3;
        record.took((Step::Session, Outcome::Ok, 0), 5_000);
        record.took((Step::Session, Outcome::Ok, 1), 9_000);
        record.failed("<img src=x>");
        record.slow(Slow { device: 77, took_us: 9_000, at_us: 1_000_000, link: 1, ok: true });
        for (name, count) in
            [("edge_hits", 99), ("edge_requests", 100), ("origin_bytes", 5), ("edge_bytes", 500), ("units_memory", 99)]
        {
            record.add(name, count);
        }
        let mut report = Report::judged(Kind::Run, &Scenario::parse(text).unwrap(), &record, 0.0, 3, true);
        report.marks.push(Mark { at_s: 3.0, what: "edge-1 <kill>".to_owned() });
        report.beside.push(Beside { what: "bytes".to_owned(), unit: "B".to_owned(), predicted: 1e6, measured: 2e6 });
        (report, record)
    }

    #[test]
    fn a_page_is_whole_and_what_strangers_wrote_is_escaped() {
        let (report, record) = report();
        let page = page(&report, &record);
        for foreign in ["<script", "<img", "<kill>", "a<b>"] {
            assert!(!page.contains(foreign), "{foreign} is in the page");
        }
        for here in [
            "a&lt;b&gt;&amp;&quot;",
            "&lt;script&gt;",
            "<polyline",
            "prefers-color-scheme:dark",
            "Devices with the newest release",
            "missed",
            "Bytes by hop",
            "the origin sent",
            "Where blobs came from",
            "Hit ratio and amplification",
            "99.000 %",
            "Slowest sessions",
            "<td>77</td>",
            "Environment",
            "Median to 99th percentile by link",
            "Predicted beside measured",
            "<td>50.0 %</td>",
        ] {
            assert!(page.contains(here), "{here} is not in the page");
        }
        assert!(
            !page.contains("http") && !page.contains("NaN") && !page.contains("inf"),
            "nothing is fetched, every number is one"
        );
        let open = |tag: &str| page.matches(&format!("<{tag}")).count() == page.matches(&format!("</{tag}>")).count();
        assert!(
            ["svg", "table", "tr", "td", "div", "main", "h2", "span", "text"].into_iter().all(open),
            "every tag is closed"
        );
        assert!(page.len() < 100_000, "long timelines are summed up: {} bytes", page.len());
    }

    #[test]
    fn a_report_of_nothing_is_a_page_too() {
        let (mut report, _) = report();
        report.rows.clear();
        assert!(page(&report, &Record::default()).ends_with("</html>\n"));
    }
}
