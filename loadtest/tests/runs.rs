//! Whole runs on a system of their own: what a scenario says happens, what must hold holds, and a run that was spoilt says so.

use std::sync::Arc;

use colibri_common::SystemClock;
use colibri_device::DeviceConfig;
use colibri_loadtest::Scenario;
use colibri_loadtest::outcome::{Report, Standing};
use colibri_loadtest::plan::Plan;
use colibri_loadtest::record::{Outcome, Step};
use colibri_loadtest::runner::{self, RunConfig, RunError};
use colibri_loadtest::slo::Judged;
use colibri_loadtest::spawned::Spawned;

fn scenario(text: &str) -> Scenario {
    Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a scenario; its report and the address of its first edge.
async fn run(text: &str) -> (Report, String) {
    let scenario = scenario(text);
    let work = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let system = Arc::new(Spawned::start(&scenario, work.path(), clock.clone()).await.unwrap());
    let edge = system.edge_url(1).unwrap();
    let target = system.target().unwrap();
    let config = RunConfig { scenario: scenario.clone(), target, device: DeviceConfig::default(), clock };
    let plan = Plan::of(&scenario).map(Ok);
    let measured = runner::run(config, plan, Some(system.clone()), Arc::default()).await.unwrap();
    Arc::into_inner(system).unwrap().stop().await;
    // Times are those of a machine that does other things, too.
    (Report::of_run(&scenario, &measured, false), edge)
}

/// A generator that a loaded machine does not spoil.
const PATIENT: &str = "[generator]\nlag_p99_ms_max = 60000\n";
const SMALL: &str = "[system]\nedges = 2\npackages = 3\nrelease_files = 4\nrelease_file_bytes = 20000\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_release_reaches_every_device() {
    let text = "name = 'wave'\ndevices = 20\nduration_s = 6\nslo = ['ratio(failed) = 0', 'time_to(100% updated) < 1h']\n\
        [arrivals]\nkind = 'poll'\ninterval_s = 2\n[popularity]\non_demand = 1\n[[release]]\nat_s = 1\n\
        [[link]]\nclass = 'fibre'\nshare = 1\n[[link]]\nclass = 'dsl'\nshare = 1\n";
    let (report, _) = run(&[text, SMALL, PATIENT].concat()).await;
    assert_eq!(report.standing(), Standing::Passed, "{report:#?}");
    let count = |name: &str| report.counters[name];
    assert_eq!((count("devices"), count("devices_updated"), count("not_converged")), (20, 20, 0));
    assert!(count("sessions") >= 40 && count("origin_bytes") > 0 && count("content_bytes") > 20 * 20_000);
    assert_eq!(report.marks.len(), 1, "{:?}", report.marks);
    let record = report.load_record().unwrap();
    for step in [
        Step::Boot,
        Step::Timestamp,
        Step::Refresh,
        Step::Resolve,
        Step::Fetch,
        Step::Verify,
        Step::Install,
        Step::Session,
    ] {
        assert!(record.of(step, Some(Outcome::Ok), None).is_some_and(|of| of.len() >= 20), "{step:?}");
    }
    assert!(report.csv().lines().any(|line| line.starts_with("fetch,ok,\"dsl\",")), "{}", report.csv());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_shows_in_full() {
    let text = "name = 'stall'\ndevices = 200\nduration_s = 4\ninstalled = true\n\
        [arrivals]\nkind = 'flash'\nwithin_s = 4\n[[fault]]\nkind = 'stall'\nnode = 'edge-1'\nat_s = 1\nfor_s = 2\n\
        [system]\nedges = 1\npackages = 0\nrelease_files = 1\n";
    let (report, _) = run(&[text, PATIENT].concat()).await;
    let timestamps = report.load_record().unwrap().of(Step::Timestamp, None, None).unwrap();
    // A hundred devices meant to wake in these two seconds; all of them waited to the end, each for its own part of it.
    let beyond = |ms: u64| timestamps.len() - timestamps.count_between(0, ms * 1_000);
    assert!(timestamps.max() >= 1_800_000, "{} us", timestamps.max());
    assert!(beyond(500) >= 60, "{} of {} waited for more than half a second", beyond(500), timestamps.len());
    assert!(beyond(1_000) >= 35, "{} of {} waited for more than a second", beyond(1_000), timestamps.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_generator_is_told() {
    let text = "name = 'overload'\ndevices = 30\nduration_s = 2\n[arrivals]\nkind = 'flash'\nwithin_s = 0.5\n\
        [[fault]]\nkind = 'stall'\nnode = 'edge-1'\nat_s = 0\nfor_s = 2\n\
        [system]\nedges = 1\npackages = 0\nrelease_files = 1\n\
        [generator]\nsessions_at_once = 3\nlag_p99_ms_max = 0\n";
    let (report, _) = run(text).await;
    assert_eq!(report.standing(), Standing::Invalid);
    let because = report.invalid_because.join("; ");
    assert!(because.contains("lagged") && because.contains("were not started"), "{because}");
    assert!(report.counters["dropped_starts"] >= 20, "{:?}", report.counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_edge_is_named_and_nobody_believes_it() {
    let text = "name = 'rotten'\ndevices = 32\nduration_s = 4\ninstalled = false\nslo = ['blames > 0']\n\
        [arrivals]\nkind = 'flash'\nwithin_s = 3\n\
        [[fault]]\nkind = 'corrupt'\nnode = 'edge-1'\nat_s = 0\nfor_s = 1.5\n\
        [[fault]]\nkind = 'truncate'\nnode = 'edge-1'\nat_s = 1.5\n";
    let (report, edge) = run(&[text, SMALL, PATIENT].concat()).await;
    assert_eq!(report.standing(), Standing::Passed, "{report:#?}");
    assert!(report.blames.keys().all(|source| source.starts_with(&edge)), "{:?}", report.blames);
    assert!(report.counters["audited_bytes"] >= 2 * 80_000, "{:?}", report.counters);
    assert_eq!((report.counters["unverified_bytes"], report.counters["devices_updated"]), (0, 32));
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_frozen_edge_devices_are_late_and_never_go_back() {
    let text = "name = 'freeze'\ndevices = 16\nduration_s = 5\n[arrivals]\nkind = 'poll'\ninterval_s = 1\n\
        [[release]]\nat_s = 1\n[[fault]]\nkind = 'freeze'\nnode = 'edge-1'\nat_s = 0.5\n";
    let (report, _) = run(&[text, SMALL, PATIENT].concat()).await;
    assert!(report.invariants.iter().all(|invariant| invariant.held), "{:#?}", report.invariants);
    assert_eq!(report.counters["devices_updated"], 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_edge_is_gone_around_and_a_killed_origin_comes_back() {
    let text = "name = 'kill'\ndevices = 16\nduration_s = 6\n[arrivals]\nkind = 'poll'\ninterval_s = 2\n\
        [[release]]\nat_s = 4\n[[fault]]\nkind = 'kill'\nnode = 'edge-2'\nat_s = 1\n\
        [[fault]]\nkind = 'kill'\nnode = 'origin'\nat_s = 1\nfor_s = 1.5\n";
    let (report, _) = run(&[text, SMALL, PATIENT].concat()).await;
    assert!(report.invariants.iter().all(|invariant| invariant.held), "{report:#?}");
    assert_eq!(report.counters["devices_updated"], 16);
    let what: Vec<_> = report.marks.iter().map(|mark| mark.what.as_str()).collect();
    assert!(what.contains(&"origin kill ends") && what.contains(&"edge-2 kill begins"), "{what:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_there() {
    let scenario = scenario("name = 'x'\ndevices = 1\nduration_s = 1\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n");
    let work = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let system = Spawned::start(&scenario, work.path(), clock.clone()).await.unwrap();
    let target = system.target().unwrap();
    system.stop().await;
    let config = RunConfig { scenario: scenario.clone(), target, device: DeviceConfig::default(), clock };
    let error = runner::run(config, Plan::of(&scenario).map(Ok), None, Arc::default()).await.unwrap_err();
    assert!(matches!(error, RunError::Unreachable(_)), "{error}");
}

/// Invariants hold, everybody has the newest release at the end, and what was said to happen happened.
fn converged(report: &Report, devices: u64, marks: &[&str]) {
    assert!(report.invariants.iter().all(|invariant| invariant.held), "{report:#?}");
    assert_eq!(report.counters["devices_updated"], devices, "{:?}", report.counters);
    for mark in marks {
        assert!(report.marks.iter().any(|found| found.what == *mark), "{mark} is not in {:?}", report.marks);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_that_are_cut_off_or_drain_are_gone_around() {
    let text = "name = 'split'\ndevices = 18\nduration_s = 9\n[arrivals]\nkind = 'poll'\ninterval_s = 3\n\
        [[release]]\nat_s = 2\n[[fault]]\nkind = 'partition'\nnode = 'edge-1'\nat_s = 1\nfor_s = 4\n\
        [[fault]]\nkind = 'cut'\nnode = 'edge-2'\nat_s = 1\nfor_s = 4\n\
        [[fault]]\nkind = 'drain'\nnode = 'edge-3'\nat_s = 6\nfor_s = 2\n\
        [system]\nedges = 3\npackages = 0\nrelease_files = 4\nrelease_file_bytes = 20000\n";
    let (report, _) = run(&[text, PATIENT].concat()).await;
    converged(&report, 18, &["edge-1 partition begins", "edge-2 cut ends", "edge-3 drain begins", "edge-3 drain ends"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_with_a_wrong_clock_or_a_full_disk_wait_until_that_is_over() {
    let text = "name = 'ill'\ndevices = 12\nduration_s = 8\n[arrivals]\nkind = 'poll'\ninterval_s = 1\n\
        [[fault]]\nkind = 'clock-skew'\nnode = 'devices'\nat_s = 0\nfor_s = 2\nby_s = 1e9\n\
        [[release]]\nat_s = 2.5\n[[fault]]\nkind = 'disk-full'\nnode = 'devices'\nat_s = 2.2\nfor_s = 4\n";
    let (report, _) = run(&[text, SMALL, PATIENT].concat()).await;
    converged(&report, 12, &["devices clock-skew begins", "devices disk-full ends"]);
    let texts = report.load_record().unwrap().failure_texts.join("; ");
    assert!(texts.contains("expired") && texts.contains("devices are full"), "{texts}");
    assert_eq!(report.counters["unverified_bytes"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_a_megabit_carries_no_more_and_loss_costs_no_byte() {
    let text = "name = 'slow'\ndevices = 6\nduration_s = 4\nshaped = true\ninstalled = false\n\
        slo = ['p50(step=fetch, link=narrow) > 900ms']\n\
        [arrivals]\nkind = 'flash'\nwithin_s = 1\n\
        [[link]]\nclass = 'narrow'\nshare = 1\ndown_mbit_per_s = 1\nround_trip_ms = 20\nloss_percent = 1\n\
        [system]\nedges = 1\npackages = 0\nrelease_files = 2\nrelease_file_bytes = 62500\n";
    let scenario = scenario(&[text, PATIENT].concat());
    let (report, _) = run(&[text, PATIENT].concat()).await;
    converged(&report, 6, &[]);
    // What a megabit takes does not hang on this machine: it is the link's own time, and the machine's comes on top.
    let record = report.load_record().unwrap();
    assert!(
        scenario.slo.iter().all(|rule| {
            let judged = Judged { record: &record, links: &report.links, released_at_s: 0.0, devices: 6 };
            rule.judge(&judged, true).kept == Some(true)
        }),
        "{:#?}",
        report.verdicts
    );
    assert!(report.counters["device_bytes"] >= 6 * 125_000, "{:?}", report.counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_keep_their_connections_use_them_again() {
    let text = "name = 'hold'\ndevices = 10\nduration_s = 6\nhold_connections = true\n\
        [arrivals]\nkind = 'poll'\ninterval_s = 2\n";
    let (report, _) = run(&[text, SMALL, PATIENT].concat()).await;
    let count = |name: &str| report.counters[name];
    assert!(count("sessions") >= 25 && count("sessions_failed") == 0, "{:?}", report.counters);
    assert!(count("connections") < count("sessions"), "{:?}", report.counters);
    // All requests but the first ones of new connections found one that had carried others.
    assert_eq!(count("requests"), count("reused_requests") + count("connections"), "{:?}", report.counters);
    let (anew, _) = run(&[&text.replace("hold_connections = true\n", ""), SMALL, PATIENT].concat()).await;
    assert!(anew.counters["connections"] >= anew.counters["sessions"], "{:?}", anew.counters);
}
