//! Tests of `release` on folders.

use std::path::Path;

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::files::tests::{Fixture, printed};
use crate::{package, repo};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[derive(Debug, Parser)]
struct RepoLine {
    #[command(flatten)]
    args: repo::Args,
}

fn release(arguments: &[&str]) -> (Result<ExitCode, ReleaseVerbError>, String) {
    let line = Line::try_parse_from(["release"].iter().chain(arguments)).unwrap_or_else(|error| panic!("{error}"));
    printed(|out| run(&line.args, out))
}

fn done(arguments: &[&str]) -> String {
    let (outcome, text) = release(arguments);
    assert_eq!(outcome.unwrap(), ExitCode::SUCCESS, "{text}");
    text
}

fn json_of(arguments: &[&str]) -> Value {
    let text = done(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn refused(arguments: &[&str]) -> String {
    release(arguments).0.expect_err("refused").to_string()
}

fn in_repo(arguments: &[&str]) -> String {
    let line = RepoLine::try_parse_from(["repo"].iter().chain(arguments)).unwrap();
    let (outcome, text) = printed(|out| repo::run(&line.args, out));
    assert_eq!(outcome.unwrap(), ExitCode::SUCCESS, "{text}");
    text
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A folder with a repository in `repo`, known as a.com.
struct Desk(Fixture);

const KIOSK: &str = r#"
product = "kiosk"
version = "1.4"
discoverable = ["a.com"]

[[package]]
url = "fuchsia-pkg://a.com/shell"
availability = "permanent"
versioning = "anchored"

[[package]]
url = "fuchsia-pkg://a.com/clock/0"
availability = "automatic"
versioning = "upgradable"
minimum_version = "2.1"
fallback = true

[[package]]
url = "fuchsia-pkg://a.com/later"
availability = "on_demand"
versioning = "upgradable"
"#;

impl Desk {
    fn new() -> Self {
        let desk = Self(Fixture::new(&[("kiosk.toml", KIOSK.as_bytes())]));
        in_repo(&["create", "--dev", &desk.path("repo")]);
        desk.publish("shell", b"one");
        desk.publish("clock", b"tick");
        desk
    }

    fn path(&self, name: &str) -> String {
        text(&self.0.path(name))
    }

    /// Builds and publishes a package with one file.
    fn publish(&self, name: &str, content: &[u8]) {
        self.0.write(&format!("in/{name}/data/file"), content);
        let from_dir = Some(self.0.path(&format!("in/{name}")));
        let output = self.0.path(&format!("out/{name}"));
        let build = package::Build { from_dir, name: Some(name.to_owned()), output, ..package::Build::default() };
        self.publish_manifest(&package::build(&build).unwrap().package_manifest);
    }

    fn publish_manifest(&self, manifest: &Path) {
        in_repo(&["publish", "--level", "1", &self.path("repo"), "--package", &text(manifest)]);
    }

    fn repo(&self) -> String {
        format!("a.com={}", self.path("repo"))
    }

    fn create(&self, output: &str) -> String {
        let path = self.path(output);
        done(&["create", &self.path("kiosk.toml"), "--repo", &self.repo(), "-o", &path]);
        path
    }
}

#[test]
fn a_description_becomes_a_release_at_the_versions_offered() {
    let desk = Desk::new();
    let release = desk.create("release.json");
    let shown = json_of(&["show", &release, "--json"]);
    assert_eq!((&shown["product"], &shown["version"]), (&json!("kiosk"), &json!("1.4.0.0")));
    assert_eq!(shown["repositories"], json!([{ "url": "fuchsia-pkg://a.com", "root_version": 1 }]));
    assert_eq!(shown["discoverable"], json!(["fuchsia-pkg://a.com"]));
    let listed: Value =
        serde_json::from_str(&in_repo(&["package", "list", "--json", "--repo-path", &desk.path("repo")])).unwrap();
    let hash = |name: &str| listed.as_array().unwrap().iter().find(|p| p["name"] == name).unwrap()["hash"].clone();
    let packages = shown["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 3);
    assert_eq!((&packages[0]["hash"], &packages[0]["minimum_version"]), (&hash("clock/0"), &json!("2.1.0.0")));
    assert_eq!((&packages[1]["hash"], &packages[1]["availability"]), (&Value::Null, &json!("on_demand")));
    assert_eq!((&packages[2]["hash"], &packages[2]["blobs"]), (&hash("shell/0"), &json!(2)));
    assert_eq!(shown["blobs"], json!(4));
    let table = done(&["show", &release]);
    for part in ["kiosk 1.4.0.0", "trusts fuchsia-pkg://a.com from root 1 on", "permanent & anchored", "(>= 2.1.0.0)"] {
        assert!(table.contains(part), "{table}");
    }
    // The same inputs, the same release.
    assert_eq!(files::read(Path::new(&desk.create("again.json"))).unwrap(), files::read(Path::new(&release)).unwrap());
}

#[test]
fn a_diff_says_what_a_device_fetches() {
    let desk = Desk::new();
    let old = desk.create("old.json");
    desk.publish("shell", b"two");
    let new = desk.create("new.json");
    let diff = json_of(&["diff", &old, &new, "--json"]);
    assert_eq!(diff["packages"]["changed"].as_array().unwrap().len(), 1);
    let fetched = &diff["fetched"];
    assert_eq!(fetched, &diff["blobs"]["added"]);
    assert_eq!(fetched["hashes"].as_array().unwrap().len(), 2, "meta.far and the file");
    let blobs = desk.0.path("repo/repository/blobs/1");
    let lengths = fetched["hashes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hash| std::fs::metadata(blobs.join(hash.as_str().unwrap())).unwrap().len());
    assert_eq!(fetched["fetched_bytes"], json!(lengths.sum::<u64>()));
    let shown = done(&["diff", &old, &new]);
    assert!(shown.contains("~  fuchsia-pkg://a.com/shell") && shown.contains("a device fetches 2 blobs"), "{shown}");
    assert!(done(&["diff", &old, &old]).contains("the packages are the same"));
}

#[test]
fn a_release_travels_in_a_package_that_repositories_publish() {
    let desk = Desk::new();
    let (out, file) = (desk.path("carrier"), desk.path("release.json"));
    let arguments =
        ["create", &desk.path("kiosk.toml"), "--repo", &desk.repo(), "-o", &file, "--package", &out, "--json"];
    let created = json_of(&arguments);
    assert_eq!(created["package"]["name"], "kiosk-release");
    desk.publish_manifest(Path::new(created["package"]["manifest"].as_str().unwrap()));
    let repository = colibri_repository::Repository::open(&desk.0.path("repo")).unwrap();
    let blobs = repository.package_blobs("kiosk-release").unwrap();
    assert_eq!(json!(blobs[0].hash), created["package"]["hash"]);
    let document = blobs.iter().find(|blob| blob.path == Release::PATH).unwrap();
    assert_eq!(repository.blob_content(document.hash).unwrap(), files::read(Path::new(&file)).unwrap());
}

#[test]
fn what_cannot_be_released_is_named() {
    let desk = Desk::new();
    let create = |description: &str| {
        desk.0.write("d.toml", description.as_bytes());
        refused(&["create", &desk.path("d.toml"), "--repo", &desk.repo(), "-o", &desk.path("no.json")])
    };
    let edited = |from: &str, to: &str| {
        assert!(KIOSK.contains(from));
        create(&KIOSK.replacen(from, to, 1))
    };
    for (said, word) in [
        (edited("a.com/shell", "a.com/nobody"), "has no package nobody/0: publish it first"),
        (edited("a.com/shell", "b.com/shell"), "give its repository, as --repo b.com=DIR"),
        (edited("[\"a.com\"]", "[\"b.com\"]"), "fuchsia-pkg://b.com is not of a repository that this release trusts"),
        (edited("\"anchored\"", "\"discoverable\""), "no permanent & discoverable"),
        (edited("\"upgradable\"", "\"anchored\""), "no fallback"),
        (edited("product =", "colour = 1\nproduct ="), "unknown field `colour`"),
        (edited("version = \"1.4\"", "version = \"one\""), "\"one\" is not a version"),
        (edited("fuchsia-pkg://a.com/shell", "shell"), "package \"shell\""),
    ] {
        assert!(said.contains(word), "{said}");
    }
    assert!(!desk.0.path("no.json").exists());
    let named = refused(&["create", &desk.path("kiosk"), "--repo", &desk.repo()]);
    assert!(named.contains("kiosk"), "{named}");
    assert!(refused(&["show", &desk.path("kiosk.toml")]).contains("kiosk.toml: product release: "));
}

#[test]
fn a_blob_that_is_gone_is_missed_by_name() {
    let desk = Desk::new();
    let repository = colibri_repository::Repository::open(&desk.0.path("repo")).unwrap();
    let blob = repository.package_blobs("shell").unwrap().pop().unwrap();
    std::fs::remove_file(desk.0.path(&format!("repo/repository/blobs/1/{}", blob.hash))).unwrap();
    let said = refused(&["create", &desk.path("kiosk.toml"), "--repo", &desk.repo(), "-o", &desk.path("no.json")]);
    assert!(said.starts_with(&format!("blob {} is in none of the repositories", blob.hash)), "{said}");
}

#[test]
fn a_bundle_appears_whole_or_not_at_all() {
    let desk = Desk::new();
    let (out, file, bundle) = (desk.path("carrier"), desk.path("release.json"), desk.path("kiosk.bundle"));
    let arguments =
        ["create", &desk.path("kiosk.toml"), "--repo", &desk.repo(), "-o", &file, "--package", &out, "--json"];
    let created = json_of(&arguments);
    let bundle_it = ["bundle", "kiosk-release", "--repo-path", &desk.path("repo"), "-o", &bundle];
    assert!(refused(&bundle_it).contains("no package kiosk-release"));
    desk.publish_manifest(Path::new(created["package"]["manifest"].as_str().unwrap()));
    let bundled = json_of(&[&bundle_it[..], &["--json"]].concat());
    assert_eq!((&bundled["hash"], &bundled["blobs"]), (&created["package"]["hash"], &json!(6)));

    let repository = colibri_repository::Repository::open(&desk.0.path("repo")).unwrap();
    let root = colibri_metadata::TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap());
    let now = colibri_common::Clock::now(&colibri_common::SystemClock);
    let mut opened = colibri_release::Bundle::open(std::fs::File::open(&bundle).unwrap()).unwrap();
    let checked = opened.check(colibri_metadata::Start::FromAnchor(root), now).unwrap();
    assert_eq!(checked.release, read(Path::new(&file)).unwrap());

    // A blob goes: the old file stays, and nothing is left beside it.
    let before = files::read(Path::new(&bundle)).unwrap();
    let blob = repository.package_blobs("clock").unwrap().pop().unwrap().hash;
    std::fs::remove_file(desk.0.path(&format!("repo/repository/blobs/1/{blob}"))).unwrap();
    let said = refused(&bundle_it);
    assert_eq!(said, format!("bundle: 1 blobs of the release are missing, the first is {blob}"));
    assert_eq!(files::read(Path::new(&bundle)).unwrap(), before);
    let names = std::fs::read_dir(desk.0.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with(".colibri-")));
}

#[test]
fn an_audit_lists_anchored_packages_and_fails_on_a_difference() {
    let desk = Desk::new();
    let (release, golden) = (desk.create("release.json"), desk.path("golden.txt"));
    assert_eq!(
        done(&["audit", &release]),
        "permanent & anchored fuchsia-pkg://a.com/shell\n",
        "what is upgradable has no version of the release"
    );
    done(&["audit", &release, "--golden", &golden, "--update"]);
    let same = done(&["audit", &release, "--golden", &golden]);
    assert_eq!(same, format!("kiosk 1.4.0.0: 1 lines, as in {golden}\n"));
    std::fs::write(&golden, "# reviewed\n\npermanent & anchored fuchsia-pkg://a.com/gone\n").unwrap();
    let (outcome, text) = self::release(&["audit", &release, "--golden", &golden]);
    assert_eq!(outcome.unwrap(), ExitCode::FAILURE);
    let expected =
        "- permanent & anchored fuchsia-pkg://a.com/gone\n+ permanent & anchored fuchsia-pkg://a.com/shell\n";
    assert!(text.starts_with(expected) && text.contains("1 added, 1 removed"), "{text}");
    let (outcome, text) = self::release(&["audit", &release, "--golden", &golden, "--json"]);
    assert_eq!(outcome.unwrap(), ExitCode::FAILURE);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["differences"]["removed"], json!(["permanent & anchored fuchsia-pkg://a.com/gone"]));
    assert!(refused(&["audit", &release, "--golden", &desk.path("nowhere.txt")]).contains("nowhere.txt"));
}
