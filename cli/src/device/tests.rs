//! The verbs on a device, against servers on loopback: every output line and exit code that is documented.

mod faults;
mod overlay;
mod repositories;
mod rules;
// Releases are made by verbs on repositories.
#[cfg(feature = "repo")]
pub(crate) mod sets;
pub(crate) mod site;
mod updates;

use std::fs;

use colibri_device::DeviceConfig;
use serde_json::json;
use site::Site;

use super::*;

const HELLO: &str = "fuchsia-pkg://devhost/hello";

/// Exit code of a verb that gives an answer by it.
fn answers(ran: &site::Ran, code: u8) {
    assert_eq!((ran.code, &*ran.error), (ExitCode::from(code), ""), "{ran:?}");
}

#[test]
fn a_package_from_its_hash_to_its_files() {
    let site = Site::start(2).ready();
    let hash = site.device(&["get-hash", HELLO]).ok();
    let hash = hash.strip_suffix('\n').unwrap();

    let status = site.device(&["pkg-status", HELLO]);
    answers(&status, 2);
    let listed = format!("Package in registered TUF repo: yes (merkle={hash})\n");
    assert_eq!(status.out, format!("{listed}Package on disk: no\n"));

    let not_yet = site.device(&["open", hash]);
    assert_eq!(not_yet.out, format!("opening {hash}\n"));
    assert_eq!(not_yet.failed(1), format!("package {hash} is not on this device: resolve it first"));

    let (out, dir) = (site.path("trees/hello"), site.path("device"));
    let resolved = site.device(&["resolve", HELLO, "--out", out.to_str().unwrap()]);
    assert_eq!(resolved.err, "", "nobody is blamed");
    let resolved = resolved.ok();
    let lines: Vec<_> = resolved.lines().collect();
    assert_eq!(lines[0], format!("resolving {HELLO}"));
    assert_eq!(lines[1], format!("resolved {HELLO} to {hash} with TUF"));
    assert!(lines[2].starts_with(&format!("4 blobs in {}, 4 fetched now (3.0 MB)", dir.display())), "{}", lines[2]);
    assert!(lines[3].ends_with(&format!("in {}", out.display())), "{}", lines[3]);
    assert_eq!(fs::read(out.join("bin/app")).unwrap(), b"#!hello");
    assert_eq!(fs::read(out.join("data/text")).unwrap(), site::text(3_000_000));

    let status = site.device(&["pkg-status", HELLO]);
    answers(&status, 0);
    assert_eq!(status.out, format!("{listed}Package on disk: yes\n"));
    let contents = ["/bin/app", "/data/empty", "/data/text", "/meta/contents", "/meta/fuchsia.abi/abi-revision"];
    let opened = site.device(&["open", hash]).ok();
    let opening = format!("opening {hash}");
    let expected = [&[&*opening, "package contents:"], &contents[..], &["/meta/package"]].concat();
    assert_eq!(opened.lines().collect::<Vec<_>>(), expected);

    let again = site.device(&["resolve", HELLO, "--out", out.to_str().unwrap()]).failed(1);
    assert!(again.contains(&format!("{} exists already", out.display())), "{again}");
    let again = site.device(&["resolve", HELLO]).ok();
    assert!(again.contains("4 blobs in ") && again.contains(" 0 fetched now (0 B)"), "{again}");
    let pinned = format!("{HELLO}?hash={hash}");
    assert_eq!(site.device(&["get-hash", &pinned]).ok().trim_end(), hash);
}

#[test]
fn what_reading_verbs_say_as_json() {
    let site = Site::start(1).ready();
    let ran = site.device(&["--json", "pkg-status", HELLO]);
    answers(&ran, 2);
    let status = ran.json();
    let hash = site.device(&["get-hash", "--json", HELLO]).json()["hash"].clone();
    assert_eq!(status, json!({ "url": HELLO, "in_repository": true, "merkle": hash, "on_disk": false }));
    let out = site.path("out");
    let resolved = site.device(&["resolve", HELLO, "--json", "--out", out.to_str().unwrap()]).json();
    assert_eq!((&resolved["hash"], &resolved["blobs"], &resolved["fetched"]), (&hash, &json!(4), &json!(4)));
    assert_eq!((&resolved["blamed"], &resolved["out"]["dir"]), (&json!([]), &json!(out)));
    let opened = site.device(&["open", hash.as_str().unwrap(), "--json"]).json();
    let app = merkle_of(b"#!hello");
    assert_eq!((&opened["hash"], &opened["contents"][0]), (&hash, &json!({ "path": "bin/app", "blob": app })));
    let ran = site.device(&["--json", "pkg-status", "fuchsia-pkg://devhost/nobody"]);
    answers(&ran, 3);
    assert_eq!((&ran.json()["in_repository"], &json!(false)), (&json!(false), &json!(false)));
    let list = site.device(&["repo", "list", "--json"]).json();
    assert_eq!((&list[0]["repo_url"], &list[0]["trusted"]["root"]), (&json!("fuchsia-pkg://devhost"), &json!(1)));
}

fn merkle_of(content: &[u8]) -> String {
    colibri_common::merkle::build(content).id.to_string()
}

#[test]
fn a_package_that_is_not_there() {
    let site = Site::start(1).ready();
    let nobody = "fuchsia-pkg://devhost/nobody";
    let status = site.device(&["pkg-status", nobody]);
    answers(&status, 3);
    let lines: Vec<_> = status.out.lines().collect();
    assert_eq!(lines[0], "Package in registered TUF repo: no");
    assert!(lines[1].starts_with("Package on disk: unknown"), "{status:?}");
    for verb in ["get-hash", "resolve"] {
        let error = site.device(&[verb, nobody]).failed(1);
        assert_eq!(error, "repository `devhost` lists no package `nobody/0`");
    }
    for verb in ["get-hash", "resolve", "pkg-status"] {
        let error = site.device(&[verb, "fuchsia-pkg://elsewhere/hello"]).failed(1);
        assert_eq!(error, "no repository `elsewhere` is configured: add it with `device repo add`");
    }
    // A hash that nobody has: the pin is believed, and not found.
    let pinned = format!("{HELLO}?hash={}", "5".repeat(64));
    let error = site.device(&["resolve", &pinned]).failed(1);
    assert!(error.contains(&"5".repeat(64)) && error.contains("no source has it"), "{error}");
}

#[test]
fn arguments_that_are_not_what_they_should_be() {
    let site = Site::start(1).ready();
    for url in ["hello", "https://devhost/hello", "fuchsia-pkg://devhost", "fuchsia-pkg://devhost/../x/y/z", ""] {
        for (verb, code) in [("get-hash", 2), ("resolve", 2), ("pkg-status", 1)] {
            let error = site.device(&[verb, url]).failed(code);
            assert!(error.starts_with(&format!("`{url}`: not a package URL")), "{verb}: {error}");
        }
    }
    let error = site.device(&["open", "abc"]).failed(2);
    assert!(error.starts_with("`abc`: not a package hash"), "{error}");
    let error = site.device(&["repo", "rm", "devhost"]).failed(2);
    assert!(error.starts_with("`devhost`: not a repository URL"), "{error}");
}

#[test]
fn one_process_at_a_time_and_none_without_a_device() {
    let site = Site::start(1);
    let dir = site.path("device");
    for line in [&["repo"][..], &["get-hash", HELLO], &["resolve", HELLO], &["repo", "list"]] {
        let error = site.device(line).failed(1);
        assert!(error.starts_with(&format!("there is no device in {}", dir.display())), "{error}");
    }
    assert!(!dir.exists(), "a verb that only looks makes nothing");
    let site = site.ready();
    let held = Device::open(&dir, DeviceConfig::default(), Arc::new(SystemClock)).unwrap();
    for line in [&["repo"][..], &["resolve", HELLO], &["open", &"0".repeat(64)]] {
        let error = site.device(line).failed(1);
        assert!(error.starts_with(&format!("the device in {} is in use by another process", dir.display())), "{error}");
    }
    drop(held);
    site.device(&["resolve", HELLO]).ok();
}

#[test]
fn an_interrupt_is_told_and_the_next_attempt_finishes() {
    let site = Site::start(1).ready();
    let dir = site.path("device").display().to_string();
    let line = ["--dir", &dir, "resolve", HELLO];
    let ran = site::run_line(&line, &Surroundings::machine(), std::future::ready(()));
    let error = ran.failed(1);
    assert_eq!(error, "interrupted: what was fetched and verified is kept; the same command goes on from there");
    site.device(&["resolve", HELLO]).ok();
}
