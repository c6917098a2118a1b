//! `repo import` and `repo export`: what the real tools made comes in unchanged and goes out for any web server.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use colibri_common::merkle;
use colibri_package::MetaFar;
use colibri_package::delivery::{DeliveryType, encode};

use super::*;
use crate::files::tests::vector;
use crate::files::walk;

/// The sample repository of the real tools with its blobs, below `metadata` and `blobs` of a folder.
struct Sample {
    dir: Fixture,
}

impl Sample {
    fn new(metadata: &str, blobs: &str) -> Self {
        let dir = Fixture::new(&[]);
        for (name, path) in walk(&vector("tuf-repo")).unwrap().files {
            dir.write(&format!("{metadata}/{name}"), &fs::read(path).unwrap());
        }
        let sample = Self { dir };
        for name in ["package1", "superpackage", "named_subpackage", "anonymous_subpackage"] {
            let meta = fs::read(vector(&format!("{name}.meta.far"))).unwrap();
            sample.put(blobs, &meta);
            for path in MetaFar::parse(meta.into()).unwrap().contents().keys() {
                let (folder, of) = path.as_str().split_once('/').unwrap();
                let kind = if folder == "bin" { "binary" } else { folder };
                sample.put(blobs, format!("{kind} {of}").as_bytes());
            }
        }
        sample
    }

    fn put(&self, blobs: &str, content: &[u8]) {
        let id = merkle::build(content).id;
        let blob = encode(content, DeliveryType::Type1, Some(1)).unwrap();
        self.dir.write(&format!("{blobs}/1/{id}"), &blob);
    }

    /// The key of all its roles, as files.
    fn write_keys(&self, folder: &str) {
        let keys: Value = serde_json::from_slice(&fs::read(vector("tuf-keys.json")).unwrap()).unwrap();
        let part = |name: &str| keys["repo_private_key"][name].as_str().unwrap();
        let private = format!("{}{}", part("seed_hex"), part("public_hex"));
        let keyval = serde_json::json!({ "public": part("public_hex"), "private": private });
        let key = serde_json::json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": keyval });
        let file = serde_json::json!({ "encrypted": false, "data": [key] }).to_string();
        for role in ["root", "targets", "snapshot", "timestamp"] {
            self.dir.write(&format!("{folder}/{role}.json"), file.as_bytes());
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path(name).display().to_string()
    }

    fn import(&self, arguments: &[&str]) -> Value {
        done_json(&[&["import", "--json"], arguments, &[&self.path("in"), &self.path("repo")]].concat())
    }
}

/// Name to bytes of the JSON files in a folder.
fn metadata(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    json.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_repository_of_the_real_tools_comes_in_unchanged_from_every_layout() {
    for (metadata_at, blobs_at) in
        [("in", "in/blobs"), ("in/repository", "in/repository/blobs"), ("in/repository", "in/blobs")]
    {
        let sample = Sample::new(metadata_at, blobs_at);
        let report = sample.import(&[]);
        assert_eq!((&report[0]["packages"], &report[0]["blobs_new"]), (&2.into(), &12.into()), "{report}");
        assert_eq!(metadata(&sample.dir.path("repo/repository")), metadata(&vector("tuf-repo")));
        let verified = done_json(&["verify", "--json", &sample.path("repo")]);
        assert_eq!((&verified["packages"], &verified["files"]), (&2.into(), &12.into()), "{verified}");
        assert!(!sample.dir.path("repo/keys").exists(), "no key was asked for");
        // Again, nothing is new.
        assert_eq!(sample.import(&[])[0]["blobs_new"], 0);
    }
}

#[test]
fn what_came_in_is_published_into_with_its_key() {
    let sample = Sample::new("in/repository", "in/blobs");
    sample.write_keys("in/keys");
    sample.import(&["--with-keys", "--copy-mode", "hard-link"]);
    let mode = fs::metadata(sample.dir.path("repo/keys/root.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    let desk = Desk::new();
    let mine = desk.package("mine", &[("file", b"mine")]);
    let report = done_json(&["publish", "--json", &sample.path("repo"), "--package", &mine]);
    assert_eq!((&report["versions"]["targets"], &report["versions"]["root"]), (&2.into(), &1.into()));
    let listed = done(&["package", "list", "--repo-path", &sample.path("repo")]);
    assert!(["mine/0", "package1/0", "superpackage/0"].iter().all(|name| listed.contains(name)), "{listed}");
    done(&["verify", &sample.path("repo")]);
    // The source has not gone on: bringing it again would take devices back.
    let error = repo(&["import", &sample.path("in"), &sample.path("repo")]).0.unwrap_err();
    assert!(error.to_string().contains("timestamp.json"), "{error}");
    assert_eq!(done(&["package", "list", "--repo-path", &sample.path("repo")]), listed);
}

#[test]
fn product_bundles_bring_each_repository_under_its_name() {
    let sample = Sample::new("in/repository", "in/blobs");
    sample.write_keys("in/keys");
    let entry = |name: &str| {
        serde_json::json!({
            "name": name, "metadata_path": "repository", "blobs_path": "blobs", "delivery_blob_type": 1,
            "targets_private_key_path": "keys/targets.json",
        })
    };
    let bundle = |repositories: Vec<Value>| {
        let bundle = serde_json::json!({ "version": "2", "product_name": "p", "repositories": repositories });
        sample.dir.write("in/product_bundle.json", bundle.to_string().as_bytes());
    };
    bundle(vec![entry("fuchsia.com")]);
    sample.import(&["--with-keys"]);
    let keys: Vec<_> = walk(&sample.dir.path("repo/keys")).unwrap().files.into_keys().collect();
    assert_eq!(keys, ["targets.json"]);
    bundle(vec![entry("fuchsia.com"), entry("chromium.org")]);
    let both = sample.path("both");
    let report = done_json(&["import", "--json", &sample.path("in"), &both]);
    assert_eq!(report.as_array().unwrap().len(), 2);
    for name in ["fuchsia.com", "chromium.org"] {
        done(&["verify", text(&sample.dir.path("both").join(name))]);
    }
    let one = sample.path("one");
    done(&["import", "--repository", "chromium.org", &sample.path("in"), &one]);
    done(&["verify", &one]);
    let error = repo(&["import", "--repository", "other", &sample.path("in"), &one]).0.unwrap_err();
    assert!(error.to_string().contains("fuchsia.com, chromium.org"), "{error}");
    // Names and paths that would leave the folder.
    bundle(vec![entry("../x"), entry("y")]);
    assert!(repo(&["import", &sample.path("in"), &both]).0.unwrap_err().to_string().contains("../x"));
    let mut outside = entry("x");
    outside["blobs_path"] = "../blobs".into();
    bundle(vec![outside]);
    assert!(repo(&["import", &sample.path("in"), &both]).0.unwrap_err().to_string().contains("inside the bundle"));
}

#[test]
fn what_is_not_whole_does_not_come_in() {
    let lib = merkle::build(b"lib package1").id.to_string();
    for harm in ["missing", "rotten"] {
        let sample = Sample::new("in", "in/blobs");
        let blob = sample.dir.path(&format!("in/blobs/1/{lib}"));
        if harm == "missing" {
            fs::remove_file(&blob).unwrap();
        } else {
            sample.dir.write(&format!("in/blobs/1/{lib}"), &encode(b"x", DeliveryType::Type1, None).unwrap());
        }
        let error = repo(&["import", &sample.path("in"), &sample.path("repo")]).0.unwrap_err().to_string();
        assert!(error.contains(&lib) && error.contains("lib/package1 of package1/0"), "{harm}: {error}");
        assert!(!sample.dir.path("repo/repository/root.json").exists(), "{harm}: nothing is visible");
        assert!(!sample.dir.path(&format!("repo/repository/blobs/1/{lib}")).exists(), "{harm}");
    }
    let sample = Sample::new("in", "in/blobs");
    let snapshot = fs::read_to_string(sample.dir.path("in/1.snapshot.json")).unwrap();
    sample.dir.write("in/1.snapshot.json", snapshot.replace("2026", "2036").as_bytes());
    let error = repo(&["import", &sample.path("in"), &sample.path("repo")]).0.unwrap_err().to_string();
    assert!(error.contains("snapshot"), "{error}");
}

#[test]
fn raw_blobs_of_old_tools_become_delivery_blobs() {
    let sample = Sample::new("in", "in/blobs");
    let content = b"lib package1";
    let id = merkle::build(content).id;
    fs::remove_file(sample.dir.path(&format!("in/blobs/1/{id}"))).unwrap();
    sample.dir.write(&format!("in/blobs/{id}"), content);
    sample.import(&[]);
    assert!(sample.dir.path(&format!("repo/repository/blobs/1/{id}")).is_file());
    done(&["verify", &sample.path("repo")]);
}

/// Relative path to bytes of everything in the folder.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files: BTreeMap<String, PathBuf> = walk(dir).unwrap().files;
    let visible = files.into_iter().filter(|(name, _)| !name.starts_with('.'));
    visible.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

#[test]
fn an_export_is_all_that_a_device_asks_for() {
    for mode in ["copy", "hard-link"] {
        let desk = Desk::new();
        let big = vec![7; 100_000];
        let a = desk.package("a", &[("big", &big)]);
        desk.publish(&["--package", &a]);
        let out = desk.dir.path("out/www");
        let url = "http://127.0.0.1:1/www";
        let arguments = ["export", "--json", "--copy-mode", mode, "--mirror-url", url, &desk.repository, text(&out)];
        assert_eq!(done_json(&arguments)["blobs_new"], 2);
        let (served, exported) = (tree(&desk.dir.path("repo/repository")), tree(&out));
        let id = merkle::build(&big).id;
        for name in ["1.root.json", "root.json", "2.targets.json", "targets.json", "2.snapshot.json", "timestamp.json"]
        {
            assert_eq!(exported[name], served[name], "{name}");
        }
        assert_eq!(exported[&format!("blobs/1/{id}")], served[&format!("blobs/1/{id}")]);
        assert_eq!(exported[&format!("blobs/leaves/{id}")].len(), 13 * 32);
        assert_eq!(exported.keys().filter(|name| name.starts_with("targets/a/")).count(), 1);
        let config: Value = serde_json::from_slice(&exported["repo.config"]).unwrap();
        assert_eq!(
            (&config["repo_url"], &config["mirrors"][0]["mirror_url"]),
            (&"fuchsia-pkg://devhost".into(), &url.into())
        );
        // It is a repository of the real tools' form itself.
        done(&["verify", text(&out)]);
        // What rotted there is written again, the rest is left.
        let blob = out.join(format!("blobs/1/{id}"));
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, b"rotten").unwrap();
        let b = desk.package("b", &[("small", b"b")]);
        desk.publish(&["--package", &b]);
        assert_eq!(done_json(&arguments)["blobs_new"], 3, "the rotten one and two of package b");
        done(&["verify", text(&out)]);
    }
}

#[test]
fn a_damaged_repository_is_not_exported() {
    let desk = Desk::new();
    let a = desk.package("a", &[("file", b"a")]);
    desk.publish(&["--package", &a]);
    let id = merkle::build(b"a").id;
    desk.dir.write(&format!("repo/repository/blobs/1/{id}"), b"rotten");
    let out = desk.dir.path("www");
    let error = repo(&["export", &desk.repository, text(&out)]).0.unwrap_err().to_string();
    assert!(error.contains("file of a/0") && error.contains(&id.to_string()), "{error}");
    assert!(!out.join("timestamp.json").exists());
}
