//! The unit for systemd that is shipped: the daemon takes its command line and environment, tells what the unit has the manager wait
//! for, and ends within the time that the unit gives it. The manager itself is this test.

use std::fs;
use std::path::Path;

use super::{Daemon, colibri};

/// The settings of the section `[Service]`, in order.
fn settings() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/colibri-device.service");
    let text = fs::read_to_string(path).unwrap();
    let service = text.lines().skip_while(|line| *line != "[Service]").skip(1);
    let service = service.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    service.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn setting(key: &str) -> String {
    let of_key: Vec<_> = settings().into_iter().filter(|(name, _)| name == key).map(|(_, value)| value).collect();
    assert_eq!(of_key.len(), 1, "{key}: {of_key:?}");
    of_key[0].clone()
}

/// Its command line and environment, with folders of the machine in `dir`.
fn command(dir: &Path) -> std::process::Command {
    let moved = |word: &str| {
        let places = [("/var/lib/colibri-device", "device"), ("/etc/colibri", "etc")];
        let place = places.iter().find(|(prefix, _)| word.starts_with(prefix));
        place.map_or_else(
            || word.to_owned(),
            |(prefix, name)| format!("{}{}", dir.join(name).display(), &word[prefix.len()..]),
        )
    };
    let line = setting("ExecStart");
    let mut words = line.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/colibri"));
    let mut command = colibri(dir);
    command.args(words.map(moved));
    for (_, value) in settings().iter().filter(|(key, _)| key == "Environment") {
        let (name, value) = value.split_once('=').unwrap();
        command.env(name, moved(value));
    }
    command
}

#[test]
fn the_shipped_unit_starts_it_hears_of_it_and_ends_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fs::create_dir(dir.join("etc")).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/device.toml");
    fs::copy(sample, dir.join("etc/device.toml")).unwrap();
    let checked = command(dir).arg("--check-config").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let printed = String::from_utf8(checked.stdout).unwrap();
    let drain_s = printed.lines().find_map(|line| line.strip_prefix("drain_s = ")).unwrap();
    let drain_s: u64 = drain_s.split_whitespace().next().unwrap().parse().unwrap();
    let stop_s: u64 = setting("TimeoutStopSec").parse().unwrap();
    assert!(stop_s > drain_s + 5, "the manager kills after {stop_s} s what may take {drain_s} s, and a little more");

    // `Type=notify`: it is up when it says so, and hears nothing else.
    assert_eq!(setting("Type"), "notify");
    let watchdog_s: u64 = setting("WatchdogSec").parse().unwrap();
    assert!(watchdog_s >= 10, "a machine under load must not look dead");
    let mut managed = command(dir);
    // The manager asks for a sign of life by this variable; here more often than the unit does.
    managed.env("WATCHDOG_USEC", "200000");
    let mut daemon = Daemon::managed(dir, managed);
    assert!(dir.join("device/daemon.sock").exists(), "the folder is the one that the unit says");
    for _ in 0..3 {
        assert_eq!(daemon.heard(), "WATCHDOG=1\n");
    }
    daemon.signal("-TERM");
    while daemon.heard() != "STOPPING=1\n" {}
    assert_eq!(daemon.ended().code(), Some(0));
    let log = fs::read_to_string(dir.join("log")).unwrap();
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{log}"
    );
}

#[test]
fn who_is_not_asked_for_signs_of_life_gives_none() {
    let temp = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(temp.path());
    daemon.signal("-TERM");
    assert_eq!(daemon.heard(), "STOPPING=1\n");
    assert_eq!(daemon.ended().code(), Some(0));
    // Of another process of the same service.
    let mut other = colibri(temp.path());
    other.args(["device", "--dir", "device", "daemon"]).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let mut daemon = Daemon::managed(temp.path(), other);
    daemon.signal("-TERM");
    assert_eq!(daemon.heard(), "STOPPING=1\n");
    assert_eq!(daemon.ended().code(), Some(0));
}
