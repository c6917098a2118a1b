//! `device update`: from one system to the next, and what each verb says.

use colibri_common::{BlobId, hex, sha256};
use serde_json::json;

use super::site::{Ran, Site};

const UPDATE: &str = "fuchsia-pkg://devhost/update";

/// Publishes a system with one package and one image.
fn release(site: &Site, version: &str) -> BlobId {
    let image = version.repeat(1000);
    let system = site.publish("system", &[("version", version.as_bytes())]);
    let images = site.publish("images", &[("zbi", image.as_bytes())]);
    let packages = [format!("fuchsia-pkg://devhost/system?hash={system}")];
    let packages = json!({ "version": "1", "content": packages }).to_string();
    let zbi = json!({
        "slot": "fuchsia", "type": "zbi", "size": image.len(), "hash": hex(&sha256(image.as_bytes())),
        "url": format!("fuchsia-pkg://devhost/images?hash={images}#zbi"),
    });
    let images = json!({ "version": "1", "contents": { "partitions": [zbi], "firmware": [] } }).to_string();
    let files: [(&str, &[u8]); 4] = [
        ("packages.json", packages.as_bytes()),
        ("images.json", images.as_bytes()),
        ("version", version.as_bytes()),
        ("board", b"toucan"),
    ];
    site.publish("update", &files)
}

/// A verb in the `boot`-th life of the machine.
fn update(site: &Site, boot: &str, line: &[&str]) -> Ran {
    site.device(&[&["update", "--board", "toucan", "--boot-id", boot], line].concat())
}

#[test]
fn a_system_is_checked_for_installed_and_committed() {
    let site = Site::start(1).ready();
    let hash = release(&site, "1.0");
    let offered = update(&site, "0", &["check", UPDATE]).ok();
    let next = format!("next: colibri device update install {UPDATE}\n");
    assert_eq!(offered, format!("update available: {hash}, version 1.0 (the running system is unknown)\n{next}"));

    for verb in ["check", "install"] {
        let other = site.device(&["update", "--board", "heron", "--boot-id", "0", verb, UPDATE]).failed(1);
        assert_eq!(other, r#"the update is for board "toucan"; this is "heron""#);
    }
    let installed = update(&site, "0", &["install", UPDATE]).ok();
    assert!(installed.starts_with("installed version 1.0 in slot b: it starts next\n"), "{installed}");
    assert_eq!(std::fs::read(site.path("device/slots/b.zbi")).unwrap(), "1.0".repeat(1000).as_bytes());
    let waits = update(&site, "0", &["history"]).ok();
    let lines: Vec<_> = waits.lines().collect();
    assert!(
        lines[0].ends_with(r#"failed in phase prepare: the update is for board "toucan"; this is "heron""#),
        "{waits}"
    );
    assert_eq!(lines[1], format!("{UPDATE} (1.0) into slot b: installed, waits for a start of the machine"));
    assert_eq!(lines[2], "running: a, committed; next: b");

    let ill = update(&site, "1", &["commit", "--", "false"]).failed(1);
    assert!(ill.starts_with("the new system is not healthy: false: "), "{ill}");
    let history = update(&site, "1", &["--json", "history"]).json();
    assert_eq!((&history["running"], &history["committed"]), (&json!("b"), &json!(false)));
    let gc = site.device(&["gc"]).failed(1);
    assert!(gc.starts_with("the running release is not committed yet"), "{gc}");
    let committed = update(&site, "1", &["commit", "--", "true"]).ok();
    assert_eq!(committed, "committed: the system 1.0 starts from now on\n");
    assert_eq!(update(&site, "1", &["check", UPDATE]).ok(), format!("up to date: {hash}\n"));
    site.device(&["gc"]).ok();
    let status = site.device(&["pkg-status", "fuchsia-pkg://devhost/system"]);
    assert!(status.out.contains("Package on disk: yes"), "a package of the running system stays: {status:?}");
}

#[test]
fn wrong_arguments_are_told() {
    let site = Site::start(1).ready();
    let not_a_url = update(&site, "0", &["install", "update"]).failed(2);
    assert!(not_a_url.contains("neither a URL"), "{not_a_url}");
    for (bad, said) in
        [("fuchsia-pkg://", "not a package URL"), ("https://a.com", "not a manifest"), ("ftp://x/y", "HOST")]
    {
        let refused = update(&site, "0", &["install", bad]).failed(2);
        assert!(refused.starts_with(&format!("`{bad}`: ")) && refused.contains(said), "{refused}");
    }
    let hello = update(&site, "0", &["install", "fuchsia-pkg://devhost/hello"]).failed(1);
    assert_eq!(hello, "fuchsia-pkg://devhost/hello calls itself `hello`, not `update`: it is no update package");
}

#[test]
fn a_signed_manifest_counts_only_by_a_key_of_the_configuration() {
    let site = Site::start(1).ready();
    let file = site.path("system.manifest");
    std::fs::write(&file, b"no manifest").unwrap();
    let file = file.display().to_string();
    let nobody = update(&site, "0", &["check", &file]).failed(1);
    assert!(nobody.starts_with("this device has no keys for signed manifests"), "{nobody}");
    let key = "11".repeat(32);
    let given = update(&site, "0", &["--manifest-key", &key, "check", &file]).failed(1);
    let not_one = format!("{file}: signed manifest of the update: it does not begin like one");
    assert_eq!(given, not_one);
    std::fs::create_dir_all(site.path("device/config")).unwrap();
    let keys = site.path("device/config/update-keys.json");
    std::fs::write(&keys, json!({ "format": 1, "ed25519": [key] }).to_string()).unwrap();
    assert_eq!(update(&site, "0", &["check", &file]).failed(1), not_one);
    std::fs::write(&keys, "{}").unwrap();
    let damaged = update(&site, "0", &["check", &file]).failed(1);
    assert!(damaged.starts_with("keys for signed manifests of updates, "), "{damaged}");
}
