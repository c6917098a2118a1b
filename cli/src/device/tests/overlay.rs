//! `overlay`, `config`, and boot packages on the command line.

use std::collections::BTreeMap;
use std::fs;

use colibri_package::far;
use serde_json::json;

use super::HELLO;
use super::site::Site;
use crate::package::{self, Build};

#[test]
fn an_overlay_is_added_listed_and_cleared() {
    let site = Site::start(1).ready();
    let refused = site.device(&["overlay", "add", HELLO]).failed(1);
    assert!(refused.starts_with("developer overlays need engineering mode"), "{refused}");
    assert_eq!(site.device(&["overlay", "list"]).ok(), "there is no overlay\n");
    fs::create_dir_all(site.path("device/config")).unwrap();
    fs::write(site.path("device/config/device.toml"), "engineering = true\n").unwrap();
    let old = site.device(&["get-hash", HELLO]).ok();
    let pinned = format!("{HELLO}?hash={}", old.trim());
    site.publish("hello", &[("bin/app", b"#!newer")]);
    assert_eq!(site.device(&["overlay", "add", &pinned]).ok(), format!("added {pinned}\n"));
    assert_eq!(site.device(&["overlay", "add", "--repo", "devhost"]).ok(), "added fuchsia-pkg://devhost\n");
    let listed = site.device(&["overlay", "list"]).ok();
    assert_eq!(listed, format!("overlay:\n  {pinned}\n  any package of fuchsia-pkg://devhost\n"));
    let resolved = site.device(&["resolve", HELLO]).ok();
    assert!(resolved.contains(&format!("resolved {HELLO} to {} with overlay\n", old.trim())), "{resolved}");
    let listed = site.device(&["--set", "engineering=false", "overlay", "list", "--json"]).json();
    assert_eq!((&listed["packages"], &listed["in_force"]), (&json!([pinned]), &json!(false)));
    assert_eq!(site.device(&["overlay", "clear"]).ok(), "cleared\n");
    assert_ne!(site.device(&["get-hash", HELLO]).ok(), old);
    let usage = site.device(&["overlay", "add", "hello"]).failed(2);
    assert!(usage.starts_with("`hello`: not a package URL"), "{usage}");
    let unknown = site.device(&["overlay", "add", "--repo", "nowhere"]).failed(1);
    assert!(unknown.contains("no repository `nowhere` is configured"), "{unknown}");
}

#[test]
fn the_configuration_is_printed_and_mistakes_are_refused() {
    let site = Site::start(1).ready();
    let all = site.device(&["--no-http3", "--set", "metadata.fresh_s=7", "config"]).ok();
    assert!(all.contains("http3 = false  # command line\n"), "{all}");
    assert!(all.contains("metadata.fresh_s = 7  # command line\n"), "{all}");
    let file = site.path("wrong.toml");
    fs::write(&file, "colour = \"red\"\n").unwrap();
    let file = file.display().to_string();
    for verb in [&["config"][..], &["get-hash", HELLO]] {
        let refused = site.device(&[&["--config", &file], verb].concat());
        assert_eq!(refused.code, std::process::ExitCode::from(64), "{refused:?}");
        assert!(refused.error.contains("colour") && refused.error.contains("unknown key"), "{refused:?}");
    }
    let refused = site.device(&["--set", "fetch.delivery_blob_type=9", "get-hash", HELLO]).failed(64);
    assert_eq!(refused, "fetch.delivery_blob_type: 9 is no delivery type: 1, 2, or 0 for raw blobs");
}

#[test]
fn boot_packages_need_no_device() {
    let site = Site::start(1);
    let from = site.path("driver");
    fs::create_dir_all(from.join("bin")).unwrap();
    fs::write(from.join("bin/driver"), "#!driver").unwrap();
    let built = package::build(&Build {
        from_dir: Some(from),
        name: Some("driver".to_owned()),
        output: site.path("built/driver"),
        ..Build::default()
    });
    let hash = built.unwrap().hash();
    let meta_far = fs::read(site.path("built/driver/meta.far")).unwrap();
    let blob = super::merkle_of(b"#!driver");
    let files: BTreeMap<&str, &[u8]> = [("meta.far", &*meta_far), (&*blob, b"#!driver")].into();
    let archive = site.path("boot.far");
    fs::write(&archive, far::to_bytes(&files).unwrap()).unwrap();
    let archive = archive.display().to_string();
    let url = "fuchsia-boot:///driver";
    // There is no device, and none is made.
    assert_eq!(site.device(&["--boot-packages", &archive, "get-hash", url]).ok(), format!("{hash}\n"));
    let out = site.path("out");
    let resolved = site.device(&["--boot-packages", &archive, "resolve", url, "--out", out.to_str().unwrap()]).ok();
    assert!(
        resolved.starts_with(&format!("resolving {url}\nresolved {url} to {hash} with boot packages\n")),
        "{resolved}"
    );
    assert_eq!(fs::read(out.join("bin/driver")).unwrap(), b"#!driver");
    let opened = site.device(&["--boot-packages", &archive, "open", &hash.to_string()]).ok();
    assert!(opened.contains("package contents:\n/bin/driver\n"), "{opened}");
    let none = site.device(&["get-hash", url]).failed(1);
    assert_eq!(none, "there is no boot package `driver`");
    let pinned = site.device(&["--boot-packages", &archive, "get-hash", &format!("{url}?hash={hash}")]).failed(2);
    assert!(pinned.contains("not the URL of a boot package"), "{pinned}");
    assert!(!site.path("device").exists());
}
