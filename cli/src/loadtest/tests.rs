//! The load test against servers on loopback: its report, its exit codes, its mistakes.

use clap::Parser;
use serde_json::Value;

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
