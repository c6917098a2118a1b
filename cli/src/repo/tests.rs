//! Tests of `repo` on folders.

mod gc;
mod keys;
mod merge;
mod sources;
mod transfer;
mod verify;

use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::*;
use crate::files::tests::{Fixture, printed};
use crate::package;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn repo(arguments: &[&str]) -> (Result<ExitCode, RepoError>, String) {
    let line = Line::try_parse_from(["repo"].iter().chain(arguments)).unwrap_or_else(|error| panic!("{error}"));
    printed(|out| run(&line.args, out))
}

/// Runs the verb, which must end well.
fn done(arguments: &[&str]) -> String {
    let (outcome, text) = repo(arguments);
    assert_eq!(outcome.unwrap(), ExitCode::SUCCESS, "{text}");
    text
}

fn done_json(arguments: &[&str]) -> Value {
    let text = done(arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a repository in `repo` and packages to be published.
struct Desk {
    dir: Fixture,
    repository: String,
}

impl Desk {
    fn new() -> Self {
        Self::with_profile("compat")
    }

    fn with_profile(profile: &str) -> Self {
        let dir = Fixture::new(&[]);
        let repository = dir.path("repo").display().to_string();
        let created = done_json(&["create", "--dev", "--profile", profile, "--json", &repository]);
        assert_eq!(created["profile"], profile);
        Self { dir, repository }
    }

    /// Builds a package and gives the path of its manifest.
    fn package(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        files.iter().for_each(|(path, content)| self.dir.write(&format!("in/{name}/{path}"), content));
        let output = self.dir.path(&format!("out/{name}"));
        let from_dir = Some(self.dir.path(&format!("in/{name}")));
        let build = package::Build { from_dir, name: Some(name.to_owned()), output, ..package::Build::default() };
        package::build(&build).unwrap().package_manifest.display().to_string()
    }

    fn publish(&self, arguments: &[&str]) -> Value {
        done_json(&[&["publish", "--level", "1", "--json", &self.repository], arguments].concat())
    }

    fn packages(&self, arguments: &[&str]) -> String {
        done(&[&["package", "list", "--repo-path", &self.repository], arguments].concat())
    }

    fn names(&self) -> Vec<String> {
        let list: Value = serde_json::from_str(&self.packages(&["--json"])).unwrap();
        list.as_array().unwrap().iter().map(|package| package["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn create_prints_the_root_keys_and_refuses_to_do_it_twice() {
    let dir = Fixture::new(&[]);
    let path = dir.path("repo");
    let created = done_json(&["create", "--dev", "--json", text(&path)]);
    let ids = created["root_keys"].as_array().unwrap();
    assert_eq!(ids.len(), 1);
    let known = colibri_repository::Repository::open(&path).unwrap().root_key_ids().unwrap();
    assert_eq!(ids[0].as_str(), Some(known[0].as_str()));
    assert_eq!(created["versions"]["root"], 1);
    let again = repo(&["create", text(&path)]).0.unwrap_err();
    assert!(again.to_string().contains(text(&path)), "{again}");
    // The same keys make another repository with the same root key.
    let (keys, other) = (path.join("keys"), dir.path("other"));
    let printed = done(&["create", "--time-versioning", "--keys", text(&keys), text(&other)]);
    assert!(printed.contains(&format!("root key {}\n", known[0].as_str())), "{printed}");
    assert!(!printed.contains("timestamp 1\n"), "versions are seconds: {printed}");
}

#[test]
fn a_scale_repository_is_used_like_any_other() {
    let desk = Desk::with_profile("scale");
    let manifest = desk.package("apple", &[("bin/a", b"content")]);
    let published = desk.publish(&["--package", &manifest]);
    assert_eq!((&published["versions"]["targets"], &published["near_cap"]), (&1.into(), &Value::Null));
    assert_eq!(desk.names(), ["apple/0"]);
    assert!(done(&["list", &desk.repository]).contains("1 package\n"));
    assert_eq!(done_json(&["verify", "--json", &desk.repository])["packages"], 1);
    // It goes out and comes in with its bins.
    let (out, copy) = (desk.dir.path("out"), desk.dir.path("copy"));
    done(&["export", &desk.repository, text(&out)]);
    done(&["import", text(&out), text(&copy)]);
    assert!(done(&["package", "list", "--repo-path", text(&copy)]).contains("apple"));
    let line = Line::try_parse_from(["repo", "create", "--profile", "huge", "x"]);
    assert!(line.unwrap_err().to_string().contains("compat"));
}

#[test]
fn what_is_published_is_listed() {
    let desk = Desk::new();
    let b = desk.package("b", &[("bin/b", &[7; 20_000]), ("bin/copy", &[7; 20_000]), ("meta/b.cm", b"cm")]);
    let a = desk.package("a", &[("lib/x.cm", b"x"), ("bin/b", &[7; 20_000])]);
    let report = desk.publish(&["--package", &b, "--package", &a]);
    assert_eq!((report["packages"].as_u64(), report["versions"]["timestamp"].as_u64()), (Some(2), Some(2)), "{report}");
    assert_eq!((report["blobs"].as_u64(), report["blobs_new"].as_u64()), (Some(4), Some(4)), "{report}");

    let table = desk.packages(&["--include-size", "--include-components"]);
    let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "HASH", "MODIFIED", "SIZE", "COMPONENTS"]);
    assert_eq!((lines[1][0], lines[2][0]), ("a/0", "b/0"), "{table}");
    assert_eq!((lines[1][1].len(), *lines[1].last().unwrap()), (11, "lib/x.cm"), "{table}");
    assert_eq!(*lines[2].last().unwrap(), "meta/b.cm");
    assert!(lines[1][2].ends_with(',') && lines[1].contains(&"+0000"), "RFC 2822: {table}");
    assert!(!desk.packages(&[]).contains("SIZE"));

    let list: Value = serde_json::from_str(&desk.packages(&["--json", "--include-size"])).unwrap();
    let (hash, size) = (list[1]["hash"].as_str().unwrap(), list[1]["size"].as_u64().unwrap());
    assert!(hash.starts_with(lines[2][1]) && hash.len() == 64);
    assert!(desk.packages(&["--full-hash"]).contains(hash));
    let meta_far = std::fs::metadata(desk.dir.path("out/b/meta.far")).unwrap().len();
    assert_eq!(size, 20_000 + meta_far, "equal blobs count once");
    let with = |name: &str| -> Value { serde_json::from_str(&desk.packages(&["--json", name])).unwrap() };
    let entry = &with("--include-components")[1]["entries"][0];
    assert_eq!((&entry["name"], &entry["hash"], &entry["size"]), (&"meta/b.cm".into(), &Value::Null, &2.into()));
    assert!(list[1]["components"].is_null() && list[1]["modified"].as_u64().unwrap() > 0);
}

#[test]
fn publishing_adds_unless_it_is_clean() {
    let desk = Desk::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| desk.package(name, &[("file", name.as_bytes())]));
    desk.publish(&["--package", &a]);
    let list = format!(
        r#"{{"version":"1","content":{{"paths_relative":"file","manifests":["{}"]}}}}"#,
        "b/package_manifest.json"
    );
    desk.dir.write("out/list.json", list.as_bytes());
    let report = desk.publish(&["--package-list", text(&desk.dir.path("out/list.json"))]);
    assert_eq!(report["versions"]["root"], 1);
    assert_eq!(desk.names(), ["a/0", "b/0"]);
    let report = desk.publish(&["--clean", "--refresh-root", "--package", &c]);
    assert_eq!(report["versions"]["root"], 2);
    assert_eq!(desk.names(), ["c/0"]);
    let seconds = ["--metadata-current-time", "2026-01-31T01:00:00+01:00", "--time-versioning", "--package", &b];
    assert_eq!(desk.publish(&seconds)["versions"]["targets"], 1_769_817_600);
    // Type 2 lies beside type 1.
    let report = desk.publish(&["--delivery-blob-type", "2", "--time-versioning", "--package", &a]);
    let stored = std::fs::read_dir(desk.dir.path("repo/repository/blobs/2")).unwrap().count();
    assert_eq!((report["blobs"].as_u64(), stored), (Some(2), 2), "{report}");
}

#[test]
fn keys_may_be_elsewhere() {
    let desk = Desk::new();
    let keys = desk.dir.path("safe");
    std::fs::rename(desk.dir.path("repo/keys"), &keys).unwrap();
    let a = desk.package("a", &[("file", b"a")]);
    let error = repo(&["publish", &desk.repository, "--package", &a]).0.unwrap_err();
    assert!(error.to_string().contains("private keys"), "{error}");
    desk.publish(&["--signing-keys", text(&keys), "--package", &a]);
    desk.publish(&["--trusted-keys", text(&keys), "--package", &a]);
    desk.publish(&["--trusted-keys", "nowhere", "--signing-keys", text(&keys), "--package", &a]);
    assert_eq!(desk.names(), ["a/0"]);
}

#[test]
fn list_shows_versions_and_what_has_expired() {
    let desk = Desk::new();
    let fresh = done(&["list", &desk.repository]);
    assert!(fresh.starts_with(&format!("{}: 0 packages\n", desk.repository)) && !fresh.contains("expired"), "{fresh}");
    let a = desk.package("a", &[("file", b"a")]);
    desk.publish(&["--metadata-current-time", "2001-01-01T00:00:00Z", "--package", &a]);
    let old = done(&["list", &desk.repository]);
    let timestamp = old.lines().find(|line| line.starts_with("  timestamp")).unwrap();
    let cells: Vec<_> = timestamp.split_whitespace().collect();
    assert_eq!(cells, ["timestamp", "2", "2001-01-02T00:00:00Z", "(expired)"]);
    assert_eq!(old.matches("expired").count(), 3, "the root has a year: {old}");

    let list = done_json(&["list", "--json", &desk.repository]);
    assert_eq!((&list[0]["packages"], &list[0]["roles"]["targets"]["expired"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(list[0]["roles"]["root"]["expired"], false);
    // One folder at fault does not hide the other, but the command fails.
    let missing = desk.dir.path("missing");
    let (outcome, text) = repo(&["list", text(&missing), &desk.repository]);
    assert!(outcome.unwrap() == ExitCode::FAILURE && text.contains("1 package\n"), "{text}");
    let error = repo(&["list", "--json", &desk.repository, missing.to_str().unwrap()]).0.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn bad_arguments_are_named() {
    let desk = Desk::new();
    for (arguments, named) in [
        (&["publish", "r", "--metadata-current-time", "yesterday"][..], "yesterday"),
        (&["publish", "r", "--metadata-current-time", "1969-12-31T23:59:59Z"], "1970"),
        (&["publish", "r", "--delivery-blob-type", "3"], "LZ4"),
        (&["publish", "r", "--level", "23"], "23"),
        (&["list"], "DIR"),
    ] {
        let error = Line::try_parse_from(["repo"].iter().chain(arguments)).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
    }
    desk.dir.write("list.json", b"{}");
    let list = desk.dir.path("list.json");
    for (option, file) in [("--package", "no.json"), ("--package-archive", "no.far"), ("--package-list", text(&list))] {
        let error = repo(&["publish", &desk.repository, option, file]).0.unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
    }
    let missing = desk.dir.path("missing");
    let error = repo(&["publish", text(&missing)]).0.unwrap_err();
    assert!(error.to_string().contains("missing") && !missing.exists(), "{error}");
}

#[test]
fn a_package_is_shown_and_taken_out_as_an_archive() {
    let desk = Desk::new();
    let child = desk.package("child", &[("lib/x", b"x"), ("data/same", b"same")]);
    let list = serde_json::json!([{ "package_manifest_file": child }]);
    desk.dir.write("subpackages.json", list.to_string().as_bytes());
    desk.dir.write("in/parent/data/same", b"same");
    let build = package::Build {
        from_dir: Some(desk.dir.path("in/parent")),
        name: Some("parent".to_owned()),
        output: desk.dir.path("out/parent"),
        subpackages_build_manifest_path: Some(desk.dir.path("subpackages.json")),
        ..package::Build::default()
    };
    let parent = package::build(&build).unwrap().package_manifest.display().to_string();
    desk.publish(&["--package", &parent]);
    let show =
        |extra: &[&str]| done(&[&["package", "show", "--repo-path", &desk.repository, "parent"], extra].concat());
    let rows =
        |text: &str| text.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>();
    let inside = ["meta.far", "meta/contents", "meta/fuchsia.abi/abi-revision"];
    let own = rows(&show(&[]));
    assert_eq!((own[1].as_str(), &own[2..5]), ("data/same", &inside.map(str::to_owned)[..]), "{own:?}");
    let all = show(&["--include-subpackages"]);
    let of_child: Vec<&str> = all.lines().filter(|line| line.contains("  child  ")).collect();
    assert!(of_child[0].starts_with("data/same ") && of_child[1].starts_with("lib/x "), "{all}");
    assert_eq!(all.lines().filter(|line| line.contains("  <root>  ")).count(), own.len() - 1, "{all}");
    let contents = all.lines().find(|line| line.starts_with("meta/contents")).unwrap();
    assert!(contents.contains("<unknown>"), "it is no blob: {all}");
    let json: Value = serde_json::from_str(&show(&["--json"])).unwrap();
    let same = colibri_common::merkle::build(b"same").id.to_string();
    assert_eq!((&json[0]["hash"], &json[0]["size"]), (&same.as_str().into(), &4.into()));
    assert!(show(&["--full-hash"]).contains(&same));

    let far = desk.dir.path("parent.far");
    done(&["package", "extract-archive", "--repo-path", &desk.repository, "-o", text(&far), "parent"]);
    // Another repository takes it as a package archive: nothing is missing in it.
    let other = Desk::new();
    let report = other.publish(&["--package-archive", text(&far)]);
    assert_eq!((&report["packages"], &report["blobs"]), (&1.into(), &4.into()), "{report}");
    assert_eq!(other.names(), ["parent/0"]);
    let error = repo(&["package", "show", "--repo-path", &desk.repository, "nobody"]).0.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
}
