//! Rewrite rules, what a device was shipped with, and the end of packages that nobody needs.

use super::*;

const MEANT: &str = "fuchsia-pkg://fuchsia.com/hello";
const NO_RULES: &str = r#"{"version":"1","content":[]}"#;

fn rules(pairs: &[(&str, &str)]) -> String {
    let rule = |(host, replacement): &(&str, &str)| json!({ "host_match": host, "host_replacement": replacement, "path_prefix_match": "/", "path_prefix_replacement": "/" });
    json!({ "version": "1", "content": pairs.iter().map(rule).collect::<Vec<_>>() }).to_string()
}

#[test]
fn a_url_that_stands_for_another() {
    let site = Site::start(1).ready();
    let hash = site.device(&["get-hash", HELLO]).ok();
    let error = site.device(&["resolve", MEANT]).failed(1);
    assert!(error.starts_with("no repository `fuchsia.com` is configured"), "{error}");

    let list = rules(&[("fuchsia.com", "devhost"), ("fuchsia.com", "nowhere")]);
    assert_eq!(site.device(&["rule", "replace", "json", &list]).ok(), "");
    assert_eq!(site.device(&["get-hash", MEANT]).ok(), hash);
    let status = site.device(&["pkg-status", MEANT]);
    answers(&status, 2);
    let resolved = site.device(&["resolve", MEANT]).ok();
    let expected = format!("resolving {MEANT}\nresolved {MEANT} as {HELLO} to {} with TUF\n", hash.trim_end());
    assert!(resolved.starts_with(&expected), "{resolved}");
    answers(&site.device(&["pkg-status", MEANT]), 0);
    assert_eq!(site.device(&["resolve", "--json", MEANT]).json()["resolved_url"], HELLO);
    assert_eq!(site.device(&["--json", "pkg-status", MEANT]).json()["url"], MEANT);

    // As pkgctl prints them, and as it takes them again.
    let listed = site.device(&["rule", "list"]).ok();
    assert_eq!(listed.lines().count(), 12);
    assert!(
        listed.starts_with("Rule {\n    host_match: \"fuchsia.com\",\n    host_replacement: \"devhost\",\n"),
        "{listed}"
    );
    let dump = site.device(&["rule", "dump-dynamic"]).ok();
    assert!(dump.lines().count() > 10, "for people, over several lines");
    let file = site.path("rules.json");
    fs::write(&file, &dump).unwrap();
    site.device(&["rule", "clear"]).ok();
    assert_eq!(site.device(&["rule", "list"]).ok(), "");
    assert_eq!(
        site.device(&["rule", "dump-dynamic", "--json"]).ok(),
        format!("{}\n", json!({ "version": "1", "content": [] }))
    );
    site.device(&["get-hash", MEANT]).failed(1);
    site.device(&["rule", "replace", "file", file.to_str().unwrap()]).ok();
    assert_eq!(site.device(&["rule", "dump-dynamic"]).ok(), dump);
    assert_eq!(site.device(&["rule", "list", "--json"]).json()[0]["host_replacement"], "devhost");
}

#[test]
fn rules_that_are_none_change_nothing() {
    let site = Site::start(1).ready();
    let list = rules(&[("fuchsia.com", "devhost")]);
    site.device(&["rule", "replace", "json", &list]).ok();
    let before = site.device(&["rule", "dump-dynamic"]).ok();
    for (text, named) in
        [("{", "EOF"), (r#"{"version":"2","content":[]}"#, "\"2\""), (&rules(&[("A", "b")]), "InvalidHost")]
    {
        let error = site.device(&["rule", "replace", "json", text]).failed(2);
        assert!(error.contains(named), "{error}");
        let file = site.path("bad.json");
        fs::write(&file, text).unwrap();
        let error = site.device(&["rule", "replace", "file", file.to_str().unwrap()]).failed(1);
        assert!(error.starts_with(file.to_str().unwrap()) && error.contains(named), "{error}");
    }
    let error = site.device(&["rule", "replace", "file", "/nowhere/rules"]).failed(1);
    assert!(error.starts_with("/nowhere/rules"), "{error}");
    assert_eq!(site.device(&["rule", "dump-dynamic"]).ok(), before);
}

#[test]
fn what_a_device_was_shipped_with() {
    let site = Site::start(1);
    let config = site.path("device/config");
    fs::create_dir_all(config.join("repositories")).unwrap();
    let own = site.config();
    fs::write(config.join("repositories/own.json"), json!({ "version": "1", "content": [own] }).to_string()).unwrap();
    let mut other = own.clone();
    other.repo_url = "fuchsia-pkg://other".to_owned();
    fs::write(config.join("repositories/other.json"), json!(other).to_string()).unwrap();
    fs::write(config.join("repositories/broken.json"), "broken").unwrap();
    fs::write(config.join("rewrites.json"), rules(&[("fuchsia.com", "devhost")])).unwrap();
    // Something that may make the device's folder.
    site.device(&["rule", "replace", "json", NO_RULES]).ok();
    assert_eq!(
        site.device(&["repo"]).ok(),
        "fuchsia-pkg://devhost\nfuchsia-pkg://other\n",
        "the broken one is left out"
    );
    let hash = site.device(&["get-hash", MEANT]).ok();

    // Rules that were set go before those that came with the device, and cannot remove them.
    site.device(&["rule", "replace", "json", &rules(&[("fuchsia.com", "other")])]).ok();
    assert_eq!(site.device(&["resolve", "--json", MEANT]).json()["resolved_url"], "fuchsia-pkg://other/hello");
    site.device(&["rule", "clear"]).ok();
    assert_eq!(site.device(&["get-hash", MEANT]).ok(), hash);

    // A repository of the same name goes before it, and the one that came with the device is back when it is removed.
    let mirror = format!("{}/devhost", site.cluster.edges[0].node.url());
    let error = site.device(&["repo", "rm", "fuchsia-pkg://devhost"]).failed(1);
    assert!(error.contains("shipped with"), "{error}");
    site.device(&["repo", "add", "file", &site.file_of(&own), "--mirror", "http://nowhere.invalid/x"]).ok();
    let shown = site.device(&["repo", "show", "fuchsia-pkg://devhost"]).json();
    assert_eq!(shown["mirrors"][0]["mirror_url"], "http://nowhere.invalid/x");
    site.device(&["repo", "rm", "fuchsia-pkg://devhost"]).ok();
    assert_eq!(site.device(&["repo", "show", "fuchsia-pkg://devhost"]).json()["mirrors"][0]["mirror_url"], mirror);
    // What was proven hangs on the same root keys and stays.
    let listed = site.device(&["repo", "list", "--json"]).json();
    assert_eq!(listed[0]["trusted"]["root"], 1, "{listed}");

    // A device that keeps to it.
    fs::write(config.join("config.json"), r#"{"enable_dynamic_configuration":false}"#).unwrap();
    for line in [&["rule", "clear"][..], &["repo", "add", "file", &site.file_of(&own)]] {
        let error = site.device(line).failed(1);
        assert!(error.contains("config/config.json"), "{error}");
    }
    assert_eq!(site.device(&["get-hash", MEANT]).ok(), hash);
}

#[test]
fn collection_removes_what_nothing_keeps() {
    let site = Site::start(1).ready();
    site.device(&["resolve", HELLO]).ok();
    answers(&site.device(&["pkg-status", HELLO]), 0);
    assert_eq!(site.device(&["gc"]).ok(), "", "as the real tool");
    answers(&site.device(&["pkg-status", HELLO]), 2);
    site.device(&["resolve", HELLO]).ok();
    let report = site.device(&["gc", "--json"]).json();
    assert_eq!(report["blobs_removed"].as_array().unwrap().len(), 4, "{report}");
    assert!(report["bytes_removed"].as_u64().unwrap() > 3_000_000, "{report}");
}
