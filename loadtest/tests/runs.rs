//! Whole runs on a system of their own: what a scenario says happens, what must hold holds, and a run that was spoilt says so.

use std::sync::Arc;

use colibri_common::SystemClock;
use colibri_device::DeviceConfig;
use colibri_loadtest::Scenario;
use colibri_loadtest::outcome::{Report, Standing};
use colibri_loadtest::plan::Plan;
use colibri_loadtest::record::{Outcome, Step};
use colibri_loadtest::runner::{self, RunConfig, RunError};
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
    for step in [Step::Boot, Step::Timestamp, Step::Refresh, Step::Resolve, Step::Fetch, Step::Install, Step::Session] {
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
