//! `provision`, `sets`, `plan`, `verify`: a release on a device, and what is at rest.

use std::fs;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use super::site::Site;
use super::{HELLO, answers};
use crate::release;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: release::Args,
}

/// A release of `hello`, permanent, and `other`, automatic, as `release create` writes it.
pub(crate) fn release(site: &Site) -> String {
    let (description, file) = (site.path("lamp.toml"), site.path("release.json"));
    let package = |name, availability| {
        format!(
            "[[package]]\nurl = \"fuchsia-pkg://devhost/{name}\"\navailability = \"{availability}\"\nversioning = \"anchored\"\n"
        )
    };
    let text =
        ["product = \"lamp\"\nversion = \"1.2\"\n", &package("hello", "permanent"), &package("other", "automatic")];
    fs::write(&description, text.concat()).unwrap();
    let repository = format!("devhost={}", site.path("repository").display());
    let (description, file) = (description.display().to_string(), file.display().to_string());
    let line = ["release", "create", &description, "--repo", &repository, "-o", &file];
    let created = release::run(&Line::try_parse_from(line).unwrap().args, &mut Vec::new()).unwrap();
    assert_eq!(created, ExitCode::SUCCESS);
    file
}

#[test]
fn a_release_is_planned_taken_and_shown() {
    let site = Site::start(1).ready();
    let file = release(&site);
    assert!(site.device(&["sets"]).failed(1).contains("follows no product release"));
    let plan = site.device(&["plan", &file, "--json"]).json();
    assert_eq!(
        (&plan["fits"], &plan["before_commit"]["blobs"], &plan["evicted"]),
        (&json!(true), &json!(4), &json!([]))
    );
    let lines = site.device(&["plan", &file]).ok();
    let stored = plan["before_commit"]["stored_bytes"].as_u64().unwrap();
    assert!(lines.contains(&format!("peak before the commit: {stored} stored bytes")), "{lines}");

    let taken = site.device(&["provision", "--release", &file]).ok();
    assert!(taken.starts_with("running lamp 1.2.0.0: 1 permanent packages here, 3.0 MB fetched now\n"), "{taken}");
    assert!(taken.ends_with("automatic packages: 1 here, 0 wait for space, 0 to be tried again\n"), "{taken}");
    let sets = site.device(&["sets", "--json"]).json();
    assert_eq!(sets["sets"].as_array().unwrap().len(), 7);
    let first = &sets["sets"][0];
    assert_eq!(
        (&first["set"], &first["eligible"], &first["delivered"]),
        (&json!("permanent & anchored"), &json!(1), &json!(1))
    );
    assert_eq!((&first["packages"][0]["url"], &first["packages"][0]["delivered"]), (&json!(HELLO), &json!(true)));
    let lines = site.device(&["sets"]).ok();
    assert!(lines.contains("automatic & anchored: 1 of 1 delivered\n  fuchsia-pkg://devhost/other  "), "{lines}");
    // What the release names stays.
    assert_eq!(site.device(&["gc", "--json"]).json()["blobs_removed"], json!([]));
    let stranger = site.device(&["get-hash", "fuchsia-pkg://devhost/stranger"]).failed(1);
    assert!(stranger.contains("names no `fuchsia-pkg://devhost/stranger`"), "{stranger}");
    let none = site.device(&["plan", "/nowhere/release.json"]).failed(1);
    assert!(none.contains("/nowhere/release.json"), "{none}");
    fs::write(&file, b"{}").unwrap();
    assert!(site.device(&["provision", "--release", &file]).failed(1).contains("release.json"));
}

#[test]
fn what_is_at_rest_is_verified_and_repaired() {
    let site = Site::start(1).ready();
    site.device(&["resolve", HELLO]).ok();
    assert!(site.device(&["verify"]).ok().starts_with("4 blobs verified ("));
    let hash = site.device(&["get-hash", HELLO]).ok();
    let blob = site.path("device/store/blobs").join(hash.trim_end());
    let mut content = fs::read(&blob).unwrap();
    content[9000] ^= 1;
    fs::write(&blob, content).unwrap();
    let looked = site.device(&["verify", "--only-look"]);
    answers(&looked, 1);
    assert!(
        looked.out.starts_with(&format!("blob {} is damaged at byte 8192: not repaired: ", hash.trim_end())),
        "{looked:?}"
    );
    let repaired = site.device(&["verify", "--rate", "100000000"]).ok();
    assert!(repaired.contains(" is damaged at byte 8192: repaired\n"), "{repaired}");
    let report = site.device(&["verify", "--json"]).json();
    assert_eq!((&report["blobs"], &report["damaged"]), (&json!(4), &json!([])));
}

#[test]
fn a_device_is_flashed_from_a_bundle_without_a_network() {
    let site = Site::start(1);
    let file = release(&site);
    site.publish("carrier", &[("release.json", &fs::read(&file).unwrap())]);
    let (bundle, repository) = (site.path("lamp.bundle"), site.path("repository"));
    let (bundle, repository) = (bundle.display().to_string(), repository.display().to_string());
    let line = ["release", "bundle", "carrier", "--repo-path", &repository, "-o", &bundle];
    release::run(&Line::try_parse_from(line).unwrap().args, &mut Vec::new()).unwrap();
    let taken = site.device(&["provision", "--release", &file, "--bundle", &bundle]).ok();
    assert_eq!(taken, "running lamp 1.2.0.0: 1 permanent packages here, 3.0 MB taken from the bundle\n");
    let sets = site.device(&["sets", "--json"]).json();
    let delivered = |index: usize| sets["sets"][index]["delivered"].clone();
    assert_eq!((delivered(0), delivered(1)), (json!(1), json!(0)), "{sets}");
    assert_eq!(site.device(&["repo", "list"]).ok(), "", "nobody to ask is configured");
    let damaged = site.device(&["provision", "--release", &file, "--bundle", &file]).failed(1);
    assert!(damaged.starts_with(&format!("{file}: bundle: ")), "{damaged}");
}

/// What is beside the grid: created, shown, compared, flashed, and found without a device being opened.
#[test]
fn boot_packages_and_the_cache_set_are_installed_and_shown() {
    let site = Site::start(1);
    let (loader, tool) = (site.publish("loader", &[("bin/loader", b"#!")]), site.publish("tool", &[("bin/t", b"#!t")]));
    let description = site.path("lamp.toml");
    let package =
        |kind: &str, name: &str, more: &str| format!("[[{kind}]]\nurl = \"fuchsia-pkg://devhost/{name}\"\n{more}");
    let permanent = "availability = \"permanent\"\nversioning = \"anchored\"\n";
    let head = "product = \"lamp\"\nversion = \"1.2\"\n".to_owned();
    let of = |beside: &[String]| [&[head.clone(), package("package", "hello", permanent)], beside].concat().concat();
    fs::write(&description, of(&[package("boot", "loader", ""), package("cache", "tool", "")])).unwrap();
    let (file, bare) = (site.path("release.json"), site.path("bare.json"));
    let (file, bare) = (file.display().to_string(), bare.display().to_string());
    let repository = site.path("repository").display().to_string();
    let run = |words: &[&str]| {
        let mut out = Vec::new();
        release::run(&Line::try_parse_from(words).unwrap().args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let named = format!("devhost={repository}");
    let path = description.display().to_string();
    let made = run(&["release", "create", &path, "--repo", &named, "-o", &file]);
    assert!(made.contains("1 boot packages besides\n1 packages in the cache set, which is deprecated"), "{made}");
    fs::write(&description, of(&[])).unwrap();
    run(&["release", "create", &path, "--repo", &named, "-o", &bare]);
    let shown = run(&["release", "show", &file]);
    assert!(shown.contains("fuchsia-boot:///loader") && shown.contains("cache (deprecated)"), "{shown}");
    let changed = run(&["release", "diff", &bare, &file]);
    assert!(
        changed.contains("+  fuchsia-boot:///loader") && changed.contains("+  fuchsia-pkg://devhost/tool/0"),
        "{changed}"
    );
    site.publish("carrier", &[("release.json", &fs::read(&file).unwrap())]);
    let bundle = site.path("lamp.bundle").display().to_string();
    run(&["release", "bundle", "carrier", "--repo-path", &repository, "-o", &bundle]);

    let taken = site.device(&["provision", "--release", &file, "--bundle", &bundle]).ok();
    assert!(taken.ends_with("boot packages: 1 here, from the next start on\n"), "{taken}");
    let sets = site.device(&["sets", "--json"]).json();
    let boot = json!([{ "url": "fuchsia-boot:///loader", "hash": loader, "delivered": true, "eligible": true }]);
    assert_eq!(sets["boot"], boot, "{sets}");
    let cache = &sets["cache"];
    assert_eq!((&cache["deprecated"], &cache["delivered"], &cache["eligible"]), (&json!(true), &json!(1), &json!(1)));
    assert_eq!(cache["packages"][0]["hash"], json!(tool));
    let lines = site.device(&["sets"]).ok();
    assert!(lines.contains("cache (deprecated: use permanent & upgradable): 1 of 1 delivered\n"), "{lines}");
    assert!(lines.contains("boot: 1 here, 1 in the release, read-only\n"), "{lines}");
    // The one without a device, the other without a network.
    assert_eq!(site.device(&["get-hash", "fuchsia-boot:///loader"]).ok(), format!("{loader}\n"));
    assert_eq!(site.device(&["get-hash", "fuchsia-pkg://devhost/tool"]).ok(), format!("{tool}\n"));
    let golden = site.path("golden.txt").display().to_string();
    run(&["release", "audit", &file, "--golden", &golden, "--update"]);
    assert!(fs::read_to_string(&golden).unwrap().contains("boot fuchsia-boot:///loader\n"));
}
