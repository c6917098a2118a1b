//! What a person sees when servers, clocks, edges and disks fail.

use colibri_common::{ManualClock, UnixSeconds};
use colibri_store::testing::{CrashDisk, Fault};

use super::site::{Site, run_line, text};
use super::*;

const A_YEAR_S: u64 = 366 * 86_400;

#[test]
fn expired_metadata() {
    let site = Site::start(1).ready();
    let later = UnixSeconds(SystemClock.now().0 + A_YEAR_S);
    let late = Surroundings { disk: Arc::new(OsDisk), clock: Arc::new(ManualClock::new(later)) };
    let edge = site.cluster.edges[0].node.authority();
    for verb in ["get-hash", "resolve", "pkg-status"] {
        let error = site.device_in(&late, &[verb, HELLO]).failed(1);
        assert!(error.contains(&edge) && error.contains("expired at") && error.contains("devhost"), "{error}");
    }
    site.device(&["resolve", HELLO]).ok();
    // What was trusted before is no way around.
    let error = site.device_in(&late, &["get-hash", HELLO]).failed(1);
    assert!(error.contains("expired at"), "{error}");
}

/// It is not frozen for ever, because it goes on from what it knows; and not fooled, because it never goes below that.
#[test]
fn a_device_that_boots_in_1970() {
    let site = Site::start(1).ready();
    site.device(&["resolve", HELLO]).ok();
    let early = Surroundings { disk: Arc::new(OsDisk), clock: Arc::new(ManualClock::new(UnixSeconds(0))) };
    site.publish("more", &[("file", b"more")]);
    site.device_in(&early, &["resolve", "fuchsia-pkg://devhost/more"]).ok();
    let floor = site.path("device/state/clock.json");
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(&floor).unwrap()).unwrap();
    assert!(known["trusted_unix_s"].as_u64().unwrap() > 1_767_225_600, "{known}");
    // It knows that it was a year later: what is served has expired since.
    let later = SystemClock.now().0 + A_YEAR_S;
    std::fs::write(&floor, serde_json::json!({ "version": 1, "trusted_unix_s": later }).to_string()).unwrap();
    for clock in [&early, &Surroundings::machine()] {
        let error = site.device_in(clock, &["get-hash", HELLO]).failed(1);
        assert!(error.contains("expired at"), "{error}");
    }
}

#[test]
fn keys_that_did_not_sign() {
    let (site, other) = (Site::start(1), Site::start(1));
    let mut config = site.config();
    config.root_keys = other.config().root_keys;
    let file = site.file_of(&config);
    site.device(&["repo", "add", "file", &file]).ok();
    let edge = site.cluster.edges[0].node.authority();
    let error = site.device(&["resolve", HELLO]).failed(1);
    assert!(error.contains(&edge) && error.contains("signatures of the configured root keys"), "{error}");
}

#[test]
fn nobody_answers() {
    let site = Site::start(2).ready();
    let file = site.file_of(&site.config());
    let [fresh, used] = ["fresh", "device"].map(|name| site.path(name).display().to_string());
    // Waiting for HTTP/3 answers from nobody takes seconds.
    let device = |dir: &str, line: &[&str]| {
        let line = [&["--no-http3", "--dir", dir], line].concat();
        run_line(&line, &Surroundings::machine(), std::future::pending())
    };
    device(&fresh, &["repo", "add", "file", &file]).ok();
    let hash = site.device(&["--json", "resolve", HELLO]).json()["hash"].as_str().unwrap().to_owned();
    let edges: Vec<_> = site.cluster.edges.iter().map(|edge| edge.node.authority()).collect();
    let url = site.config_url(0);
    let _stopped = site.stop_servers();

    let error = device(&fresh, &["get-hash", HELLO]).failed(1);
    assert!(error.starts_with("metadata of repository `devhost`: "), "{error}");
    assert!(edges.iter().all(|edge| error.contains(edge)) && error.contains("unreachable"), "{error}");
    let error = device(&fresh, &["repo", "add", "url", &url]).failed(1);
    assert!(error.contains(&url) && error.contains("unreachable"), "{error}");
    // What is trusted and here goes on working; what is not here names those who should have it.
    assert_eq!(device(&used, &["get-hash", HELLO]).ok().trim_end(), hash);
    device(&used, &["open", &hash]).ok();
    device(&used, &["resolve", HELLO]).ok();
    let error = device(&used, &["resolve", "fuchsia-pkg://devhost/other"]).failed(1);
    assert!(error.contains("blob ") && edges.iter().all(|edge| error.contains(edge)), "{error}");
}

#[test]
fn a_lying_edge_is_named() {
    let site = Site::start(2).ready();
    let many: Vec<_> = (0..8).map(|number| (format!("data/{number}"), text(30_000 + number))).collect();
    let files: Vec<_> = many.iter().map(|(path, content)| (&**path, &**content)).collect();
    site.publish("many", &files);
    let liar = site.cluster.edges[0].node.authority();
    site.cluster.edges[0].lies.set(true);
    let many = "fuchsia-pkg://devhost/many";
    let resolved = site.device(&["resolve", many]);
    assert!(site.cluster.edges[0].lies.told() > 0, "one of nine blobs is asked of the liar first");
    let warnings: Vec<_> = resolved.err.lines().collect();
    assert_eq!(warnings.len(), 1, "once for each liar: {warnings:?}");
    assert!(warnings[0].starts_with(&format!("warning: {liar} served bad bytes for blob ")), "{warnings:?}");
    assert!(resolved.ok().contains("9 fetched now"));

    site.cluster.edges[1].lies.set(true);
    let ran = site.device(&["--json", "resolve", "fuchsia-pkg://devhost/other"]);
    let other = site.cluster.edges[1].node.authority();
    assert!([&liar, &other].iter().all(|edge| ran.err.contains(*edge)), "{ran:?}");
    let error = ran.failed(1);
    assert!(error.contains(&liar) && error.contains(&other) && error.contains("bad bytes"), "{error}");
    site.cluster.edges[1].lies.set(false);
    let resolved = site.device(&["--json", "resolve", "fuchsia-pkg://devhost/other"]);
    assert!(resolved.error.is_empty(), "{resolved:?}");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let site = Site::start(1);
    let disk = CrashDisk::new();
    let full = Surroundings { disk: Arc::new(disk.clone()), clock: Arc::new(SystemClock) };
    let file = site.file_of(&site.config());
    let device = |line: &[&str]| run_line(&[&["--dir", "/device"], line].concat(), &full, std::future::pending());
    device(&["repo", "add", "file", &file]).ok();
    let mut refused = 0;
    for changes in (0..).step_by(4) {
        disk.fail_after(changes, Fault::NoSpace);
        let ran = device(&["resolve", HELLO]);
        disk.heal();
        if ran.error.is_empty() {
            break;
        }
        let error = ran.failed(1);
        assert!(error.contains("no space left on the disk"), "after {changes} changes: {error}");
        assert_eq!(device(&["repo"]).ok(), "fuchsia-pkg://devhost\n", "after {changes} changes");
        refused += 1;
    }
    assert!(refused > 2, "{refused} refusals");
    let status = device(&["pkg-status", HELLO]);
    assert_eq!(status.code, ExitCode::SUCCESS, "{status:?}");
}
