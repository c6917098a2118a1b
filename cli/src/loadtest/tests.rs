//! The load test against servers on loopback: its report, its exit codes, its mistakes.

use clap::Parser;
use serde_json::Value;

use colibri_loadtest::outcome::{Report, Standing};

use super::*;
use crate::device::tests::site::Site;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Exit code, standard output, standard error with the error line.
fn run_line(line: &[&str], stop: impl Future<Output = ()>) -> (ExitCode, String, String) {
    let parsed = Line::try_parse_from([&["loadtest", "run"], line].concat()).unwrap_or_else(|error| panic!("{error}"));
    let Verb::Run(args) = parsed.args.verb else { panic!("it is `run`") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = run_until(&args, stop, &mut out, &mut err);
    let (out, mut err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    let code = outcome.unwrap_or_else(|error| {
        err.push_str(&error.to_string());
        error.exit_code()
    });
    (code, out, err)
}

fn load(line: &[&str]) -> (ExitCode, String, String) {
    run_line(line, std::future::pending())
}

const PACKAGES: [&str; 3] = ["--package", "fuchsia-pkg://devhost/hello", "fuchsia-pkg://devhost/other"];
const SMALL: [&str; 4] = ["--devices", "6", "--arrivals-per-s", "1000"];

#[test]
fn a_fleet_that_gets_what_it_wants() {
    let site = Site::start(2);
    let file = site.file_of(&site.config());
    let config = ["--repo-config", &file, "--packages-per-device", "2", "--seed", "7"];
    let (code, out, err) = load(&[&config, &PACKAGES[..], &SMALL, &["--json"]].concat());
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((number("devices"), number("packages"), number("failures"), number("seed")), (6, 12, 0, 7));
    assert!(number("content_bytes") > 6 * 3_000_000 && number("h3_requests") > 0, "{report}");
    for key in ["p50_ms", "p90_ms", "p99_ms", "max_ms"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }

    let from_server = ["--repo-url", &site.config_url(1), "--no-http3"];
    let (code, out, _) = load(&[&from_server[..], &PACKAGES, &SMALL].concat());
    assert_eq!(code, ExitCode::SUCCESS, "{out}");
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["devices    6", "packages   6 resolved and verified", "failures   0"]);
    assert!(out.contains("requests   0 h3, ") && out.contains("p99 "), "{out}");
}

#[test]
fn failures_are_counted_and_told() {
    let site = Site::start(1);
    let file = site.file_of(&site.config());
    let nobody = ["--repo-config", &file, "--package", "fuchsia-pkg://devhost/nobody"];
    let (code, out, err) = load(&[&nobody[..], &SMALL].concat());
    assert_eq!(code, ExitCode::FAILURE);
    assert!(out.contains("failures   6\n"), "{out}");
    assert_eq!(err, "failed: repository `devhost` lists no package `nobody/0`\n");
    let config = ["--repo-config", &file, "--no-http3", "--mirror", "https://127.0.0.1:1/devhost"];
    let (code, out, _) = load(&[&config, &PACKAGES[..], &["--devices", "1", "--json"]].concat());
    assert_eq!(code, ExitCode::FAILURE);
    let report: Value = serde_json::from_str(&out).unwrap();
    let text = report["failure_texts"][0].as_str().unwrap();
    assert!(text.contains("127.0.0.1:1") && text.contains("unreachable"), "given mirrors replace the others: {text}");
}

#[test]
fn what_cannot_be_run() {
    let site = Site::start(1);
    let file = site.file_of(&site.config());
    let cases: [(&[&str], &str); 3] = [
        (&["--package", "fuchsia-pkg://other/x"], "--package fuchsia-pkg://other/x: the configuration is that of"),
        (
            &["--package", "fuchsia-pkg://devhost/hello", "--packages-per-device", "2"],
            "--packages-per-device 2: choose",
        ),
        (
            &["--package", "fuchsia-pkg://devhost/hello", "--packages-per-device", "0"],
            "--packages-per-device 0: choose",
        ),
    ];
    for (arguments, message) in cases {
        let (code, _, err) = load(&[&["--repo-config", &file], arguments].concat());
        assert_eq!(code, ExitCode::from(2), "{err}");
        assert!(err.starts_with(message), "{err}");
    }
    let hello = ["--package", "fuchsia-pkg://devhost/hello"];
    for wrong in [
        &["--repo-config", "f", "--devices", "0"][..],
        &["--repo-config", "f", "--arrivals-per-s", "0"],
        &["--repo-config", "f", "--arrivals-per-s", "inf"],
        &["--repo-config", "f", "--repo-url", "https://h/repo.config"],
        &["--repo-url", "ftp://h/repo.config"],
        &[],
    ] {
        let line = [&["loadtest", "run"], &hello, wrong].concat();
        assert_eq!(Line::try_parse_from(line).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
    assert!(Line::try_parse_from(["loadtest", "run", "--repo-config", "f"]).is_err(), "packages are needed");
}

#[test]
fn an_interrupt_says_how_far_it_came() {
    let site = Site::start(1);
    let file = site.file_of(&site.config());
    let line = [&["--repo-config", &file], &PACKAGES[..], &SMALL].concat();
    let (code, out, err) = run_line(&line, std::future::ready(()));
    assert_eq!((code, &*out), (ExitCode::FAILURE, ""));
    assert_eq!(err, "interrupted when 0 of 6 devices had finished: there is no report");
}

/// Any verb: exit code, standard output, error line.
fn verb(line: &[&str]) -> (ExitCode, String, String) {
    let parsed = Line::try_parse_from([&["loadtest"], line].concat()).unwrap_or_else(|error| panic!("{error}"));
    let mut out = Vec::new();
    let outcome = run(&parsed.args, &mut out);
    let (code, err) = outcome.map_or_else(|error| (error.exit_code(), error.to_string()), |code| (code, String::new()));
    (code, String::from_utf8(out).unwrap(), err)
}

/// A scenario that is over in two seconds and does not mind a loaded machine.
const QUICK: &str = "name = 'quick'\ndevices = 12\nduration_s = 2\nslo = ['ratio(failed) = 0', 'p99(step=session) < 1us']\n\
    [arrivals]\nkind = 'flash'\nwithin_s = 1\n[system]\npackages = 1\nrelease_files = 2\n[generator]\nlag_p99_ms_max = 60000\n";

#[test]
fn a_scenario_on_servers_of_its_own_and_its_reports() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (scenario, plan, saved, csv, page) =
        (path("quick.toml"), path("plan"), path("a.json"), path("a.csv"), path("a.html"));
    std::fs::write(&scenario, QUICK).unwrap();
    let (code, out, err) = verb(&["plan", &scenario, "--output", &plan]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""));
    assert!(out.ends_with("12 wakes of 12 devices, seed 1\n"), "{out}");
    let (_, written, _) = verb(&["plan", &scenario]);
    assert_eq!(written, std::fs::read_to_string(&plan).unwrap(), "the same plan byte for byte");

    let spawned = ["run", &scenario, "--spawn", "--plan", &plan];
    let reports = ["--save", &saved, "--csv", &csv, "--html", &page];
    let (code, out, err) = verb(&[&spawned[..], &reports, &["--no-times"]].concat());
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    for here in [
        "12 devices",
        "held       no unverified byte is accepted",
        "kept       ratio(failed) = 0",
        "not judged p99",
        "passed\n",
    ] {
        assert!(out.contains(here), "{here} is not in:\n{out}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(report["counters"]["sessions"].as_u64(), Some(12));
    assert!(std::fs::read_to_string(&csv).unwrap().contains("session,ok,\"all\",12,"));
    assert!(std::fs::read_to_string(&page).unwrap().starts_with("<!doctype html>"));

    let (code, out, _) = verb(&[&spawned[..], &["--json"]].concat());
    assert_eq!(code, ExitCode::FAILURE, "a rule about times was missed");
    assert!(serde_json::from_str::<Value>(&out).unwrap()["verdicts"][1]["kept"] == Value::Bool(false));

    let (code, out, _) = verb(&["compare", &saved, &saved]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.contains("ratio(failed)") && out.contains("same") && !out.contains("WORSE"), "{out}");
    let other = path("other.toml");
    std::fs::write(&other, QUICK.replace("quick", "other")).unwrap();
    let (code, _, err) = verb(&["run", &other, "--spawn", "--plan", &plan]);
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("the plan is of another scenario or seed"), "{err}");
}

#[test]
fn a_scenario_against_servers_that_run() {
    let site = Site::start(2);
    let scenario = site.path("quick.toml").display().to_string();
    std::fs::write(&scenario, QUICK).unwrap();
    let targets: Vec<_> = site.cluster.edges.iter().map(|edge| format!("{}/devhost", edge.node.url())).collect();
    let against = ["run", &scenario, "--no-times", "--target", &targets[0], &targets[1]];
    let (code, out, err) = verb(&[&against[..], &PACKAGES].concat());
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    assert!(out.contains("sessions           12\n"), "{out}");

    let wanting = site.path("wanting.toml").display().to_string();
    std::fs::write(&wanting, format!("{QUICK}[popularity]\non_demand = 1\n")).unwrap();
    let (code, _, err) = verb(&["run", &wanting, "--target", &targets[0], "--package", "fuchsia-pkg://devhost/hello"]);
    assert_eq!(
        (code, &*err),
        (ExitCode::from(2), "the scenario needs 2 packages (--package, the release first), 1 are given")
    );
    let (code, _, err) = verb(&["run", "smoke", "--target", &targets[0], "--package", "fuchsia-pkg://devhost/hello"]);
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("only to servers it started itself"), "{err}");
    let nobody =
        ["run", &scenario, "--target", "https://127.0.0.1:1/devhost", "--package", "fuchsia-pkg://devhost/hello"];
    let (code, _, err) = verb(&nobody);
    assert_eq!(code, ExitCode::from(4), "{err}");
    assert!(err.contains("127.0.0.1:1"), "{err}");
}

#[test]
fn what_a_scenario_would_come_to() {
    let (code, out, err) = verb(&["simulate", "flash-crowd", "--devices", "2000"]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    assert!(out.contains("(simulated, seed 1)") && out.contains("2000 devices"), "{out}");
    let (code, out, _) = verb(&["simulate", "release-wave", "--fluid", "1000000000"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(
        out.contains("devices                    1000000000\n") && out.contains("edges needed for the peak"),
        "{out}"
    );
    let (code, _, err) = verb(&["simulate", "rotten-edge"]);
    assert_eq!((code, err.contains("has faults")), (ExitCode::from(2), true), "{err}");
    let (code, _, err) = verb(&["simulate", "flash-crowd", "--fluid", "1000"]);
    assert_eq!((code, err.contains("do not poll")), (ExitCode::from(2), true), "{err}");
}

#[test]
fn scenarios_that_cannot_be_used() {
    for (line, message) in [
        (&["run", "smoked", "--spawn"][..], "come with the program: smoke, steady"),
        (&["run", "million", "--spawn"], "at most 64 can be started here"),
        (&["run", "smoke"], "against which servers?"),
        (&["compare", "/nonexistent/a", "/nonexistent/b"], "report /nonexistent/a"),
    ] {
        let (code, _, err) = verb(line);
        assert_eq!(code, ExitCode::from(2), "{line:?}");
        assert!(err.contains(message), "{err}");
    }
    for wrong in [
        &["run", "smoke", "--repo-url", "https://h/r/repo.config"][..],
        &["run", "--spawn"],
        &["run", "smoke", "--spawn", "--target", "https://h/r"],
    ] {
        assert_eq!(Line::try_parse_from([&["loadtest"], wrong].concat()).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
}

#[test]
fn slices_are_merged_into_the_whole() {
    let site = Site::start(1);
    let path = |name: &str| site.path(name).display().to_string();
    let scenario = path("quick.toml");
    std::fs::write(&scenario, QUICK).unwrap();
    let target = format!("{}/devhost", site.cluster.edges[0].node.url());
    let run = |more: &[&str]| {
        let line = [&["run", &scenario, "--no-times", "--target", &target][..], &PACKAGES, more].concat();
        let (code, out, err) = verb(&line);
        assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    };
    let (one, two, whole, merged) = (path("1.json"), path("2.json"), path("whole.json"), path("merged.json"));
    run(&["--slice", "1/2", "--save", &one]);
    run(&["--slice", "2/2", "--save", &two]);
    run(&["--save", &whole]);
    let (code, out, err) = verb(&["merge", &two, &one, "--save", &merged]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    let counter = |file: &str, name: &str| {
        let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        report["counters"][name].as_u64().unwrap_or_else(|| panic!("{file} counts no {name}"))
    };
    for name in ["sessions", "devices", "blobs", "content_bytes", "packages", "sessions_failed"] {
        assert_eq!(counter(&merged, name), counter(&whole, name), "{name}");
        assert_eq!(counter(&one, name) + counter(&two, name), counter(&whole, name), "{name}");
    }
    let (code, out, _) = verb(&["merge", &one]);
    assert_eq!(code, ExitCode::from(3), "{out}");
    assert!(out.contains("of 2 slices these are missing: 2"), "{out}");
    let (code, _, err) = verb(&["merge", &whole]);
    assert_eq!((code, err.contains("is not of a slice")), (ExitCode::from(2), true), "{err}");
    let (code, _, err) = verb(&["merge", &one, &one]);
    assert_eq!((code, err.contains("slice 1/2 is there twice")), (ExitCode::from(2), true), "{err}");
}

/// A coordinator's part and its workers, on a port that was free.
fn crew(site: &Site, workers: u32, work: impl AsyncFnOnce(String)) -> Result<Report, LoadtestError> {
    let target = format!("{}/devhost", site.cluster.edges[0].node.url());
    let task = |number| crew::Task {
        slice: Slice::new(number, workers).unwrap(),
        scenario: QUICK.to_owned(),
        seed: 1,
        devices: 12,
        targets: vec![target.clone()],
        packages: PACKAGES[1..].iter().map(|package| (*package).to_owned()).collect(),
        no_times: true,
    };
    let tasks = (1..=workers).map(task).collect();
    runtime().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let whole = coordinate::work_of(listener, tasks, std::time::Duration::from_secs(60));
        tokio::join!(whole, work(address)).0
    })
}

async fn worker(coordinator: String) {
    let connection = Connection { tls: None, no_http3: false };
    work::run(&work::WorkArgs { coordinator, connection }, std::future::pending()).await.unwrap();
}

#[test]
fn workers_do_one_run_together() {
    let site = Site::start(1);
    let whole = crew(&site, 2, async |address: String| {
        tokio::join!(worker(address.clone()), worker(address));
    });
    let whole = whole.unwrap();
    assert_eq!(whole.standing(), Standing::Passed, "{whole:?}");
    assert_eq!((whole.counters["sessions"], whole.devices), (12, 12));
    assert_eq!(whole.environment["workers"], "2");
}

#[test]
fn a_worker_that_is_lost_is_told() {
    let site = Site::start(1);
    let whole = crew(&site, 2, async |address: String| {
        let deserter = async {
            let mut line = crew::Line::new(tokio::net::TcpStream::connect(&address).await.unwrap());
            line.say(&crew::FromWorker::Hello { version: env!("CARGO_PKG_VERSION").to_owned() }).await.unwrap();
            let silence = std::time::Duration::from_secs(60);
            let crew::ToWorker::Task(_) = line.hear(silence).await.unwrap() else { panic!("no task") };
            line.say(&crew::FromWorker::Ready).await.unwrap();
            let crew::ToWorker::Begin { .. } = line.hear(silence).await.unwrap() else { panic!("no word to begin") };
            line.say(&crew::FromWorker::Beat { sessions: 4 }).await.unwrap();
        };
        let stranger = async {
            // Who does not speak as a worker does takes nobody's place.
            let mut line = crew::Line::new(tokio::net::TcpStream::connect(&address).await.unwrap());
            line.say(&"GET / HTTP/1.1").await.unwrap();
        };
        stranger.await;
        tokio::join!(deserter, worker(address.clone()));
    });
    let whole = whole.unwrap();
    assert_eq!(whole.standing(), Standing::Invalid);
    let because = whole.invalid_because.join("; ");
    assert!(because.contains("was lost after 4 sessions: it closed the connection"), "{because}");
    assert!(because.contains("of 2 slices these are missing"), "{because}");
}

#[test]
fn an_access_log_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (scenario, log, plan, saved) = (path("quick.toml"), path("access.log"), path("plan"), path("a.json"));
    std::fs::write(&scenario, QUICK).unwrap();
    let line = |time_s: u64, port: u16, path: &str| {
        format!(
            "{{\"time_s\":{time_s},\"method\":\"GET\",\"path\":\"{path}\",\"status\":200,\"client\":\"10.0.0.{port}:1\"}}\n"
        )
    };
    let blob = format!("/devhost/blobs/1/{}", "ab".repeat(32));
    let lines =
        (0..7).map(|port| line(100 + u64::from(port) / 4, port, "/devhost/timestamp.json") + &line(101, port, &blob));
    std::fs::write(&log, lines.collect::<String>()).unwrap();
    let (code, out, err) = verb(&["run", &scenario, "--spawn", "--no-times", "--access-log", &log, "--save", &saved]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    let report: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(report["counters"]["sessions"].as_u64(), Some(7));
    assert_eq!(report["counters"]["packages"].as_u64(), Some(14), "the release, and what the log wanted");
    let (code, out, err) = verb(&["plan", &scenario, "--access-log", &log, "--output", &plan]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""));
    assert!(out.ends_with("7 wakes of 7 devices, seed 1\n"), "{out}");
    let (code, _, err) = verb(&["run", &scenario, "--devices", "7", "--spawn", "--no-times", "--plan", &plan]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "its plan is one of the scenario with so many devices");
    std::fs::write(&log, "{}\n").unwrap();
    let (code, _, err) = verb(&["plan", &scenario, "--access-log", &log]);
    assert_eq!(code, ExitCode::from(2));
    assert!(err.contains("access.log: line 1: it is no line of an edge's access log"), "{err}");
}

#[test]
fn an_interrupted_scenario_is_reported_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (scenario, saved) = (path("long.toml"), path("a.json"));
    std::fs::write(
        &scenario,
        QUICK.replace("duration_s = 2", "duration_s = 3600").replace("within_s = 1", "within_s = 3600"),
    )
    .unwrap();
    let line = [&scenario, "--spawn", "--no-times", "--save", &saved];
    let (code, out, err) = run_line(&line, std::future::ready(()));
    assert_eq!((code, &*err), (ExitCode::from(3), ""), "{out}");
    assert!(out.contains("INTERRUPTED") && out.contains("it was interrupted after"), "{out}");
    let report: Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(report["interrupted"], Value::Bool(true));
}

#[test]
fn what_an_operator_asks() {
    let (code, out, err) = verb(&["simulate", "billion", "--operator", "--price-edge-tb", "8"]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    for here in ["1000000000, as a fluid", "edges needed", "shields needed", "cost per TB", "without one of 4 regions"]
    {
        assert!(out.contains(here), "{here} is not in:\n{out}");
    }
    let (code, out, _) = verb(&["simulate", "release-wave", "--devices", "300", "--operator", "--json"]);
    assert_eq!(code, ExitCode::SUCCESS, "{out}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((found["devices"].as_u64(), found["simulated"].as_bool()), (Some(300), Some(true)));
    assert!(found["without_a_region"][0]["part"].is_string(), "{out}");
    let (code, out, _) = verb(&["simulate", "billion"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(out.contains("kept") && out.contains("origin_bytes/edge_bytes < 0.1%"), "{out}");
    assert!(
        Line::try_parse_from(["loadtest", "simulate", "billion", "--regions", "3"]).is_err(),
        "only an operator has regions"
    );
}

#[test]
fn a_prediction_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (scenario, run, machine, predicted, page) =
        (path("steady.toml"), path("run.json"), path("machine.toml"), path("predicted.json"), path("page.html"));
    let text =
        QUICK.replace("[system]", "[popularity]\non_demand = 1\n[system]").replace("packages = 1", "packages = 6");
    std::fs::write(&scenario, text.replace("devices = 12", "devices = 60")).unwrap();
    let (code, out, _) = verb(&["run", &scenario, "--spawn", "--no-times", "--save", &run]);
    assert_eq!(code, ExitCode::SUCCESS, "{out}");
    let (code, out, err) = verb(&["calibrate", &scenario, &run, "--output", &machine]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    let simulate = ["simulate", &scenario, "--calibration", &machine, "--save", &predicted];
    assert!(verb(&simulate).2.is_empty(), "rules about times may be missed, nothing else is wrong");
    let (code, out, err) = verb(&["predict", &predicted, &run, "--html", &page]);
    assert_eq!((code, &*err), (ExitCode::SUCCESS, ""), "{out}");
    assert!(out.contains("hit ratio of edges") && out.contains("bytes from the origin"), "{out}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("Predicted beside measured"));
    let mut other: Value = serde_json::from_slice(&std::fs::read(&predicted).unwrap()).unwrap();
    let bytes = other["counters"]["origin_bytes"].as_u64().unwrap();
    other["counters"]["origin_bytes"] = (bytes * 3).into();
    std::fs::write(&predicted, other.to_string()).unwrap();
    let (code, out, _) = verb(&["predict", &predicted, &run]);
    assert_eq!((code, out.contains("TOO FAR")), (ExitCode::FAILURE, true), "{out}");
    let (code, _, err) = verb(&["predict", &run, &predicted]);
    assert_eq!((code, err.contains("the first report must be of a simulation")), (ExitCode::from(2), true), "{err}");
    let (code, _, err) = verb(&["calibrate", &scenario, &predicted]);
    assert_eq!((code, err.contains("a simulation of `quick`")), (ExitCode::from(2), true), "{err}");
}
