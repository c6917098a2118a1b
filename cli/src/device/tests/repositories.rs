//! `device repo`: adding from files and servers, comparing keys, listing, removing.

use colibri_metadata::{KeyId, PublicKey};
use serde_json::{Value, json};

use super::site::Site;
use super::*;

const DEVHOST: &str = "fuchsia-pkg://devhost";

fn root_key(site: &Site) -> String {
    site.repository.root_key_ids().unwrap()[0].to_string()
}

#[test]
fn from_a_file_listed_shown_and_removed() {
    let site = Site::start(2);
    let file = site.file_of(&site.config());
    let added = site.device(&["repo", "add", "file", &file]);
    assert_eq!(added.err, "", "a person handed over the file: nothing to warn of");
    let mirrors: Vec<_> = site.cluster.edges.iter().map(|edge| format!("{}/devhost", edge.node.url())).collect();
    let described =
        format!("  mirror    {}\n  mirror    {}\n  root key  {}\n", mirrors[0], mirrors[1], root_key(&site));
    assert_eq!(added.ok(), format!("added {DEVHOST}\n{described}"));
    assert_eq!(site.device(&["repo"]).ok(), format!("{DEVHOST}\n"));
    assert_eq!(site.device(&["repo", "list"]).ok(), format!("{DEVHOST}\n{described}"));
    let verbose = site.device(&["repo", "-v"]);
    let shown = site.device(&["repo", "show", DEVHOST]);
    assert!(verbose.out.lines().count() > 5, "for people, over several lines");
    assert_eq!(verbose.json()[0], json!(site.config()));
    assert_eq!(shown.json(), json!(site.config()));

    site.device(&["get-hash", HELLO]).ok();
    let listed = site.device(&["repo", "list"]).ok();
    assert!(listed.contains("  metadata  root 1, targets 3, snapshot 3, timestamp 3, until "), "{listed}");
    // The same keys again: what is trusted stays, and the mirrors are new.
    let named = site.device(&["repo", "add", "file", &file, "--mirror", &mirrors[1], "-p"]).ok();
    assert!(named.starts_with(&format!("replaced {DEVHOST}\n  mirror    {}\n  root key", mirrors[1])), "{named}");
    assert!(named.contains("timestamp 3"), "{named}");
    assert_eq!(site.device(&["repo", "show", DEVHOST]).json()["repo_storage_type"], json!("persistent"));

    assert_eq!(site.device(&["repo", "rm", DEVHOST]).ok(), format!("removed {DEVHOST}\n"));
    assert_eq!(site.device(&["repo"]).ok(), "");
    for verb in ["rm", "show"] {
        let error = site.device(&["repo", verb, DEVHOST]).failed(1);
        assert!(error.starts_with(&format!("no repository {DEVHOST} is configured")), "{error}");
    }
}

#[test]
fn from_a_server_with_and_without_known_keys() {
    let site = Site::start(2);
    let (url, key) = (site.config_url(0), root_key(&site));
    let added = site.device(&["repo", "add", "url", &url]);
    assert!(added.err.starts_with("warning: this configuration is only as trusted as the connection"), "{added:?}");
    let added = added.ok();
    let mirror = format!("{}/devhost", site.cluster.edges[0].node.url());
    assert_eq!(added, format!("added {DEVHOST}\n  mirror    {mirror}\n  root key  {key}\n"));
    site.device(&["resolve", HELLO]).ok();

    let known = site.device(&["repo", "add", "url", &url, "-n", "mine", "--root-keys", &key]);
    assert_eq!(known.err, "");
    assert!(known.ok().starts_with("added fuchsia-pkg://mine\n"));
    assert_eq!(site.device(&["repo"]).ok(), format!("{DEVHOST}\nfuchsia-pkg://mine\n"));
    site.device(&["resolve", "fuchsia-pkg://mine/other"]).ok();
}

#[test]
fn unexpected_keys_are_refused_with_both_named() {
    let site = Site::start(1);
    let (url, key) = (site.config_url(0), root_key(&site));
    let (wrong, more) = ("0".repeat(64), format!("{key},{}", "0".repeat(64)));
    for expected in [&wrong, &more] {
        let error = site.device(&["repo", "add", "url", &url, "--root-keys", expected]).failed(1);
        assert!(error.contains(&format!("names root keys {key} where ")), "{error}");
        assert!(error.contains(&wrong) && error.contains("not added"), "{error}");
    }
    assert!(!site.path("device").exists(), "nothing was added, so nothing was made");
    // Other names of the same key, as other tools would write them.
    let public: PublicKey = site.repository.root_keys().unwrap()[0].clone();
    let ids: Vec<KeyId> = public.ids();
    let file = site.file_of(&site.config());
    site.device(&["repo", "add", "file", &file, "--root-keys", ids[1].as_str()]).ok();
}

#[test]
fn another_root_under_the_same_name_is_told() {
    let (site, impostor) = (Site::start(1).ready(), Site::start(1));
    site.device(&["get-hash", HELLO]).ok();
    let file = impostor.file_of(&impostor.config());
    let replaced = site.device(&["repo", "add", "file", &file]);
    let key = root_key(&site);
    assert!(replaced.err.contains("had other root keys until now") && replaced.err.contains(&key), "{replaced:?}");
    assert!(!replaced.ok().contains("metadata"), "what the other root vouched for is forgotten");
    site.device(&["resolve", HELLO]).ok();
}

#[test]
fn format_1_of_the_older_server() {
    let site = Site::start(1);
    let public = site.repository.root_keys().unwrap()[0].to_string();
    let mirror = format!("{}/devhost", site.cluster.edges[0].node.url());
    let old = json!({ "ID": "http://10.0.2.2:8083", "RepoURL": mirror, "BlobRepoURL": format!("{mirror}/blobs"),
        "RootKeys": [{ "Type": "ed25519", "Value": public }] });
    let file = site.path("config.json");
    std::fs::write(&file, old.to_string()).unwrap();
    let file = file.to_str().unwrap();
    site.device(&["repo", "add", "file", file, "-f", "1"]).ok();
    site.device(&["repo", "add", "file", file, "-f", "1", "-n", "older"]).ok();
    assert_eq!(site.device(&["repo"]).ok(), "fuchsia-pkg://10.0.2.2-8083\nfuchsia-pkg://older\n");
    site.device(&["resolve", "fuchsia-pkg://older/hello"]).ok();
    let error = site.device(&["repo", "add", "file", file]).failed(1);
    assert!(error.starts_with(&format!("{file}: repository configuration: ")), "{error}");
}

#[test]
fn configurations_that_are_none() {
    let site = Site::start(1);
    let file = site.path("bad");
    let path = file.to_str().unwrap();
    let good: Value = json!(site.config());
    let changed = |key: &str, value: Value| {
        let mut bad = good.clone();
        bad[key] = value;
        bad.to_string()
    };
    let bad = [
        ("{".to_owned(), "not strict JSON"),
        (changed("surprise", json!(1)), "surprise"),
        (changed("repo_url", json!("fuchsia-pkg://UP/x")), "repo_url"),
        (changed("root_threshold", json!(2)), "root_threshold 2"),
        (changed("mirrors", json!([{ "mirror_url": "file:///etc" }])), "file:///etc"),
        (" ".repeat(300_000), "at most 262144 bytes"),
    ];
    for (content, named) in bad {
        std::fs::write(&file, content).unwrap();
        let error = site.device(&["repo", "add", "file", path]).failed(1);
        assert!(error.starts_with(path) && error.contains(named), "{named}: {error}");
    }
    let missing = site.path("missing");
    let error = site.device(&["repo", "add", "file", missing.to_str().unwrap()]).failed(1);
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    let file = site.file_of(&site.config());
    let error = site.device(&["repo", "add", "file", &file, "-n", "UP/x"]).failed(2);
    assert!(error.starts_with("`UP/x` cannot be the name of a repository"), "{error}");

    let edge = site.cluster.edges[0].node.url();
    let error = site.device(&["repo", "add", "url", &edge]).failed(2);
    assert!(error.contains("give the whole address of a configuration"), "{error}");
    let nothing = format!("{edge}/nowhere/repo.config");
    let error = site.device(&["repo", "add", "url", &nothing]).failed(1);
    assert!(error.contains(&nothing) && error.contains("could not be fetched"), "{error}");
    let error = site.device(&["repo", "add", "url", &format!("{edge}/devhost/1.root.json")]).failed(1);
    assert!(error.contains("1.root.json: repository configuration: "), "{error}");
    assert!(!site.path("device").exists());
}

/// A mirror that answered older metadata than what is trusted is told of, by whichever process.
#[test]
fn mirrors_that_lag_behind_are_shown() {
    let site = Site::start(1).ready();
    let config = site.config();
    let mirror = config.mirrors[0].mirror_url.clone();
    site.device(&["resolve", super::HELLO]).ok();
    assert_eq!(site.device(&["status", "--json"]).json().get("lagging"), None);
    let what = "timestamp version 3 would roll back version 7";
    let known = json!({"format": 1, "mirrors": [
        {"repository": "devhost", "mirror": mirror, "since": 1_768_003_200, "last": 1_768_006_800, "what": what}
    ]});
    std::fs::write(site.path("device/state/lagging.json"), known.to_string()).unwrap();
    let status = site.device(&["status", "--json"]).json();
    let lagging = &status["lagging"][0];
    assert_eq!((&lagging["repository"], &lagging["what"]), (&json!("fuchsia-pkg://devhost"), &json!(what)), "{status}");
    let authority = lagging["source"].as_str().unwrap().to_owned();
    assert!(mirror.contains(&authority), "{mirror}");
    let lines = site.device(&["status"]).ok();
    let line = format!("lagging       {authority} of fuchsia-pkg://devhost, since 2026-01-10T00:00:00Z: {what}\n");
    assert!(lines.contains(&line), "{lines}");
    let list = site.device(&["repo", "list"]).ok();
    assert!(list.contains(&format!("  lagging   {authority} since 2026-01-10T00:00:00Z: {what}\n")), "{list}");
    let list = site.device(&["--json", "repo", "list"]).json();
    assert_eq!(list[0]["lagging"][0]["lagging"]["since"], json!(1_768_003_200), "{list}");
    // Asked again, it keeps up.
    site.device(&["--set", "metadata.fresh_s=0", "get-hash", super::HELLO]).ok();
    assert_eq!(site.device(&["status", "--json"]).json().get("lagging"), None);
}
