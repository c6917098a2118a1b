//! Verbs print the same, and end with the same status, whether they opened the device or asked its daemon.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use colibri_device::daemon::wire::{self, Event};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::api::{self, Api};
use super::super::tests::site::{Ran, Site, args_of, run_line};
use super::super::{DeviceVerbError, Surroundings};
use super::Running;
use super::config::DaemonConfig;

const HELLO: &str = "fuchsia-pkg://devhost/hello";

/// The daemon of a device, until this is stopped.
struct Served {
    runtime: Runtime,
    dir: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn start(runtime: &Runtime, dir: &Path, config: &DaemonConfig) -> Result<Running, DeviceVerbError> {
    let args = args_of(&["--dir", dir.to_str().unwrap(), "status"]);
    runtime.block_on(Running::start(config, &args, &Surroundings::machine()))
}

impl Served {
    fn start(dir: PathBuf) -> Self {
        let (runtime, stop) = (Runtime::new().unwrap(), CancellationToken::new());
        let running = start(&runtime, &dir, &DaemonConfig::default()).unwrap();
        let task = runtime.spawn(running.serve(stop.clone(), Duration::from_secs(30)));
        Self { runtime, dir, stop, task }
    }

    fn api(&self) -> Api {
        let args = args_of(&["--dir", self.dir.to_str().unwrap(), "status"]);
        Api::Daemon(self.runtime.block_on(api::daemon(&args)).unwrap().expect("the daemon answers"))
    }

    fn stop(self) {
        self.stop.cancel();
        self.runtime.block_on(self.task).unwrap();
    }
}

fn run(dir: &Path, line: &[&str]) -> Ran {
    let dir = dir.to_str().unwrap();
    run_line(&[&["--dir", dir], line].concat(), &Surroundings::machine(), pending())
}

/// What people see of it, wherever the device is.
fn seen(ran: &Ran, dir: &Path) -> [String; 4] {
    let text = |text: &str| text.replace(dir.to_str().unwrap(), "DIR");
    [format!("{:?}", ran.code), text(&ran.out), text(&ran.err), text(&ran.error)]
}

/// What people see of each of these lines, in which DIR stands for the device's folder.
fn all(dir: &Path, lines: &[&[&str]]) -> Vec<[String; 4]> {
    let dir_text = dir.to_str().unwrap().to_owned();
    let ran = |line: &&[&str]| {
        let line: Vec<String> = line.iter().map(|word| word.replace("DIR", &dir_text)).collect();
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        seen(&run(dir, &line), dir)
    };
    lines.iter().map(ran).collect()
}

#[test]
fn verbs_are_the_same_with_a_daemon_and_without() {
    let site = Site::start(1);
    let config = site.file_of(&site.config());
    let hash = site.publish("hello", &[("bin/app", b"#!hello"), ("data/text", &[7; 100_000])]).to_string();
    let pinned = format!("{HELLO}?hash={}", "5".repeat(64));
    let rules = json!({ "version": "1", "content": [{ "host_match": "fuchsia.com", "host_replacement": "devhost",
        "path_prefix_match": "/", "path_prefix_replacement": "/" }] });
    let rules = rules.to_string();
    let [tree, archive, out] = ["DIR/tree", "DIR/hello.far", "DIR/out"];
    let lines: &[&[&str]] = &[
        &["repo", "add", "file", &config],
        &["repo", "add", "file", &config],
        &["repo"],
        &["repo", "-v"],
        &["repo", "show", "fuchsia-pkg://devhost"],
        &["repo", "show", "fuchsia-pkg://elsewhere"],
        &["pkg-status", HELLO],
        &["pkg-status", "--json", HELLO],
        &["get-hash", HELLO],
        &["open", &hash],
        &["open", "abc"],
        &["export", &hash, tree],
        &["resolve", HELLO],
        &["resolve", "--json", HELLO],
        &["resolve", "--out", out, HELLO],
        &["resolve", "--out", out, HELLO],
        &["resolve", &pinned],
        &["resolve", "fuchsia-pkg://devhost/nobody"],
        &["resolve", "fuchsia-pkg://elsewhere/hello"],
        &["resolve", "https://devhost/hello"],
        &["pkg-status", HELLO],
        &["pkg-status", "fuchsia-pkg://devhost/nobody"],
        &["pkg-status", "fuchsia-pkg://elsewhere/hello"],
        &["get-hash", "--json", HELLO],
        &["get-hash", "fuchsia-pkg://devhost/nobody"],
        &["open", &hash],
        &["open", "--json", &hash],
        &["export", &hash, tree],
        &["export", &hash, tree],
        &["export", "--json", &hash, archive],
        &["rule", "list"],
        &["rule", "replace", "json", &rules],
        &["rule", "replace", "json", "{}"],
        &["rule", "list"],
        &["rule", "list", "--json"],
        &["rule", "dump-dynamic"],
        &["resolve", "fuchsia-pkg://fuchsia.com/hello"],
        &["rule", "clear"],
        &["rule", "dump-dynamic", "--json"],
        &["overlay", "add", HELLO],
        &["overlay", "add", "hello"],
        &["overlay", "list"],
        &["overlay", "list", "--json"],
        &["overlay", "clear"],
        &["verify"],
        &["verify", "--json", "--only-look"],
        &["leases"],
        &["leases", "--json"],
        &["sets"],
        &["plan", &config],
        &["update", "history"],
        &["update", "history", "--json"],
        &["update", "check", HELLO],
        &["update", "install", HELLO],
        &["update", "install", "nothing"],
        &["update", "commit"],
        &["repo", "list"],
        &["repo", "list", "--json"],
        &["gc"],
        &["open", &hash],
        &["repo", "rm", "fuchsia-pkg://devhost"],
        &["repo", "rm", "fuchsia-pkg://devhost"],
        &["repo"],
    ];
    let [alone, served] = ["alone", "served"].map(|name| site.path(name));
    let without = all(&alone, lines);
    let daemon = Served::start(served.clone());
    let with = all(&served, lines);
    for ((line, without), with) in lines.iter().zip(&without).zip(&with) {
        assert_eq!(without, with, "{line:?}");
    }
    // What is compared has something to compare.
    let failed = without.iter().filter(|[code, ..]| *code != format!("{:?}", ExitCode::SUCCESS)).count();
    assert!(failed > 10 && failed < lines.len() - 20, "{without:#?}");
    for dir in [&alone, &served] {
        assert_eq!(std::fs::read(dir.join("tree/bin/app")).unwrap(), b"#!hello");
        assert_eq!(std::fs::read(dir.join("out/data/text")).unwrap(), [7; 100_000]);
        let archive = std::fs::File::open(dir.join("hello.far")).unwrap();
        let mut archive = colibri_package::PackageArchive::open(archive).unwrap();
        let closure = archive.closure().unwrap();
        assert_eq!((closure.hash().to_string(), archive.missing(&closure).is_none()), (hash.clone(), true));
    }
    let status = run(&served, &["status", "--json"]).json();
    assert_eq!(status["daemon"]["pid"], json!(std::process::id()));
    daemon.stop();
    let status = run(&served, &["status", "--json"]).json();
    assert_eq!((&status["daemon"], &status["leases"]), (&json!(null), &json!(0)));
}

#[test]
#[cfg(feature = "repo")]
fn a_release_is_taken_alike_with_a_daemon_and_without() {
    let site = Site::start(1);
    let config = site.file_of(&site.config());
    let release = super::super::tests::sets::release(&site);
    let lines: &[&[&str]] = &[
        &["repo", "add", "file", &config],
        &["sets"],
        &["plan", &release],
        &["plan", "--json", &release],
        &["plan", "/nowhere/release.json"],
        &["provision", "--release", &config],
        &["provision", "--release", &release],
        &["provision", "--json", "--release", &release],
        &["sets"],
        &["sets", "--json"],
        &["plan", &release],
        &["get-hash", "fuchsia-pkg://devhost/stranger"],
        &["gc", "--json"],
        &["update", "commit", "--json"],
    ];
    let [alone, served] = ["alone", "served"].map(|name| site.path(name));
    let without = all(&alone, lines);
    let daemon = Served::start(served.clone());
    for ((line, without), with) in lines.iter().zip(&without).zip(&all(&served, lines)) {
        assert_eq!(without, with, "{line:?}");
    }
    assert!(without[6][1].starts_with("running lamp"), "{without:#?}");
    daemon.stop();
}

#[test]
fn a_package_stays_while_the_connection_that_opened_it_does() {
    let site = Site::start(1).ready();
    let dir = site.path("device");
    let daemon = Served::start(dir.clone());
    run(&dir, &["resolve", HELLO]).ok();
    let hash = run(&dir, &["get-hash", HELLO]).ok().trim().to_owned();
    let api = daemon.api();
    let opened = daemon.runtime.block_on(async {
        let wanted = wire::Open { packages: vec![hash.parse().unwrap()], url: None };
        let mut events = api.events("/open", api::json(&wanted).unwrap()).await.unwrap();
        let Event::Opened(opened) = events.next().await.unwrap() else { panic!("not opened") };
        (events, opened)
    });
    let (connection, opened) = opened;
    assert_eq!(std::fs::read(opened.path.join("bin/app")).unwrap(), b"#!hello");
    let leases = run(&dir, &["leases", "--json"]).json();
    assert_eq!((&leases[0]["package"], &leases[0]["pid"]), (&json!(hash), &json!(std::process::id())), "{leases}");
    assert_eq!(leases[0]["uid"], json!(rustix::process::geteuid().as_raw()));
    let line = run(&dir, &["leases"]).ok();
    assert!(line.contains(&hash) && line.contains(&format!("process {}", std::process::id())), "{line}");
    run(&dir, &["gc"]).ok();
    run(&dir, &["open", &hash]).ok();
    drop(connection);
    while run(&dir, &["leases"]).ok() != "" {
        std::thread::sleep(Duration::from_millis(5));
    }
    run(&dir, &["gc"]).ok();
    run(&dir, &["open", &hash]).failed(1);
    assert!(!opened.path.exists(), "its tree has gone with it");
    daemon.stop();
}

#[test]
fn a_device_has_one_daemon() {
    let site = Site::start(0);
    let dir = site.path("device");
    let daemon = Served::start(dir.clone());
    let elsewhere = DaemonConfig { socket: Some(site.path("other.sock")), ..DaemonConfig::default() };
    for config in [DaemonConfig::default(), elsewhere] {
        let refused = start(&daemon.runtime, &dir, &config).map(drop).unwrap_err();
        assert!(matches!(refused, DeviceVerbError::InUse { .. }), "{refused}");
    }
    // Who asks elsewhere is told, and the one that runs goes on.
    let other = site.path("nowhere.sock").display().to_string();
    let error = run(&dir, &["--socket", &other, "status"]).failed(1);
    assert!(error.contains("--socket"), "{error}");
    run(&dir, &["status"]).ok();
    daemon.stop();
    assert!(!dir.join("daemon.sock").exists());
    Served::start(dir).stop();
}

#[test]
fn what_is_open_ends_with_the_daemon_and_is_told() {
    let site = Site::start(1).ready();
    let dir = site.path("device");
    run(&dir, &["resolve", HELLO]).ok();
    let hash = run(&dir, &["get-hash", HELLO]).ok().trim().to_owned();
    let daemon = Served::start(dir);
    let api = daemon.api();
    let stop = daemon.stop.clone();
    let last = daemon.runtime.block_on(async {
        let wanted = wire::Open { packages: vec![hash.parse().unwrap()], url: None };
        let mut events = api.events("/open", api::json(&wanted).unwrap()).await.unwrap();
        assert!(matches!(events.next().await.unwrap(), Event::Opened(_)));
        stop.cancel();
        events.next().await.unwrap()
    });
    assert_eq!(last, Event::Ended);
    daemon.stop();
}

#[test]
fn a_bad_configuration_is_told_by_its_key() {
    let bad = [
        (DaemonConfig { socket_mode: "rw".to_owned(), ..DaemonConfig::default() }, "socket_mode"),
        (DaemonConfig { socket_mode: "1777".to_owned(), ..DaemonConfig::default() }, "socket_mode"),
    ];
    for (config, key) in bad {
        let error = config.check().unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
        assert_eq!(error.exit_code(), ExitCode::from(64));
    }
    DaemonConfig::default().check().unwrap();
}
