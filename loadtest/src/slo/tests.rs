//! Rules: what they mean, and where their mistakes are.

use super::*;

fn record() -> Record {
    let mut record = Record::default();
    for ms in 1..=100 {
        record.took((Step::Timestamp, Outcome::Ok, (ms % 2) as u8), ms * 1_000);
        let outcome = if ms == 100 { Outcome::Failed } else { Outcome::Ok };
        record.took((Step::Session, outcome, 0), ms * 10_000);
    }
    record.add("origin_bytes", 2_000_000);
    record.add("edge_bytes", 100_000_000);
    record.second(12_000_000).updated += 99;
    record
}

fn judge(text: &str) -> Option<bool> {
    let record = record();
    let links = ["fibre".to_owned(), "dsl".to_owned()];
    let judged = Judged { record: &record, links: &links, released_at_s: 10.0, devices: 100 };
    Rule::parse(text).unwrap_or_else(|error| panic!("{error}")).judge(&judged, true).kept
}

#[test]
fn rules_hold_and_break_at_their_limits() {
    for (text, kept) in [
        ("p99(step=timestamp) < 100ms", true),
        ("p99(step=timestamp) < 98ms", false),
        ("p50(step=timestamp, link=dsl) <= 0.0512 s", true),
        ("p50(step=timestamp, link=nowhere) <= 1h", false),
        ("max(step=timestamp) < 102ms", true),
        ("mean(step=timestamp) > 50ms", true),
        ("p99(step=fetch) < 1h", false),
        ("ratio(failed) < 1%", false),
        ("ratio(failed) <= 1 %", true),
        ("ratio(ok) >= 0.99", true),
        ("origin_bytes/edge_bytes <= 2%", true),
        ("origin_bytes / edge_bytes < 1.9%", false),
        ("origin_bytes < 3MB", true),
        ("blobs > 0", false),
        ("time_to(99% updated) < 4s", true),
        ("time_to(99% updated) < 2s", false),
        ("time_to(100% updated) < 30m", false),
    ] {
        assert_eq!(judge(text), Some(kept), "{text}");
    }
}

#[test]
fn times_can_be_shown_without_being_judged() {
    let record = record();
    let judged = Judged { record: &record, links: &[], released_at_s: 0.0, devices: 1 };
    let verdict = Rule::parse("p50(step=timestamp) < 1us").unwrap().judge(&judged, false);
    assert_eq!((verdict.kept, verdict.shown.as_str()), (None, "50.0 ms"));
    assert_eq!(Rule::parse("ratio(failed) = 0").unwrap().judge(&judged, false).kept, Some(false));
}

#[test]
fn mistakes_have_a_place() {
    for (text, position, what) in [
        ("p99(step=timestanp) < 200ms", 10, "a step is expected: boot, timestamp"),
        ("p99(stop=timestamp) < 200ms", 5, "`step=`, `outcome=` or `link=`"),
        ("p99(link=dsl) < 200ms", 14, "`step=` is needed"),
        ("p99(step=fetch) 200ms", 17, "`<`, `<=`"),
        ("p99(step=fetch) < ms", 19, "a number"),
        ("p99(step=fetch) < 200", 22, "a unit is expected here: us, ms"),
        ("p99(step=fetch) < 200MB", 22, "a unit"),
        ("ratio(failed) < 3s", 18, "a unit"),
        ("ratio(broken) < 3%", 7, "`ok` or `failed`"),
        ("speed < 3", 1, "or a counter is expected"),
        ("origin_bytes/speed < 3", 14, "or a counter is expected"),
        ("time_to(101% updated) < 3s", 12, "at most 100%"),
        ("time_to(99% gone) < 3s", 13, "`updated`"),
        ("p101(step=fetch) < 1s", 1, "one of p50"),
        ("blobs > 1 2", 11, "nothing more"),
        ("", 1, "one of p50"),
    ] {
        let error = Rule::parse(text).unwrap_err();
        assert!(error.position == position && error.what.contains(what), "{text}: {error}");
    }
}
