//! Rules about the source that nobody should have to remember in a review: who may depend on whom, where heavy crates are
//! named, how files open and how long they get, and that the limits page is what the code says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::Table;

/// Longest file outside tests, lines.
const FILE_LINES_MAX: usize = 600;

/// Folder of each package and what its normal and build dependencies may name of ours (docs/ARCHITECTURE.md).
const ALLOWED: &[(&str, &[&str])] = &[
    ("common", &[]),
    ("common/api", &["common"]),
    ("common/package", &["common"]),
    ("common/metadata", &["common"]),
    ("common/release", &["common", "package", "metadata"]),
    ("common/store", &["common", "package"]),
    ("common/transport", &["common"]),
    ("common/fetch", &["common", "api", "metadata", "package", "store", "transport"]),
    ("common/service", &["common", "transport"]),
    ("device", &["common", "api", "package", "metadata", "release", "store", "transport", "fetch"]),
    ("origin/repository", COMMON),
    ("origin/authority", &with_repository()),
    ("origin", &with_origin()),
    ("edge", COMMON),
    ("loadtest/cluster", &with_system()),
    ("loadtest", &with_device_and_cluster()),
    ("cli", EVERYTHING),
    ("tests", EVERYTHING),
    ("tests/xtask", &[]),
];

const COMMON: &[&str] = &["common", "api", "package", "metadata", "release", "store", "transport", "fetch", "service"];

const EVERYTHING: &[&str] = &[
    "common",
    "api",
    "package",
    "metadata",
    "release",
    "store",
    "transport",
    "fetch",
    "service",
    "device",
    "repository",
    "authority",
    "origin",
    "edge",
    "cluster",
    "loadtest",
];

const fn with<const N: usize>(extra: &[&'static str]) -> [&'static str; N] {
    let mut all = [""; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < COMMON.len() { COMMON[at] } else { extra[at - COMMON.len()] };
        at += 1;
    }
    all
}

const fn with_repository() -> [&'static str; 10] {
    with(&["repository"])
}

const fn with_origin() -> [&'static str; 11] {
    with(&["repository", "authority"])
}

const fn with_system() -> [&'static str; 14] {
    with(&["repository", "authority", "origin", "edge", "device"])
}

const fn with_device_and_cluster() -> [&'static str; 11] {
    with(&["device", "cluster"])
}

/// What dev-dependencies may name besides.
const DEV: &[&str] = &["cluster", "repository"];

/// Heavy crates and the only folders whose manifests may name them.
const HEAVY: &[(&str, &[&str])] = &[
    ("sha2", &["common"]),
    ("zstd", &["common/package", "common/transport"]),
    ("redb", &["common/store", "origin/repository", "edge"]),
    ("aws-lc-rs", &["common/metadata", "origin/repository", "origin/authority", "common/transport"]),
    ("tuf", &["origin/repository"]),
    ("quinn", &["common/transport"]),
    ("h3", &["common/transport"]),
    ("hyper", &["common/transport"]),
    ("rustls", &["common/transport"]),
    ("figment", &["common/service"]),
    ("opentelemetry", &["common/service"]),
    ("prometheus", &["common/service"]),
    ("hickory-resolver", &["edge"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(folder: &str) -> Table {
    let path = root().join(folder).join("Cargo.toml");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).parse().unwrap()
}

fn dependencies(manifest: &Table, kinds: &[&str]) -> BTreeSet<String> {
    let tables = kinds.iter().filter_map(|kind| manifest.get(*kind)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// Our packages by the short name used above: the last part of `colibri-NAME`.
fn ours(names: &BTreeSet<String>) -> BTreeSet<String> {
    names.iter().filter_map(|name| name.strip_prefix("colibri-")).map(str::to_owned).collect()
}

#[test]
fn dependencies_run_one_way() {
    let members: BTreeSet<String> = manifest("")["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = ALLOWED.iter().map(|(folder, _)| (*folder).to_owned()).collect();
    assert_eq!(members, known, "every package has a row in the allow-list");
    for (folder, allowed) in ALLOWED {
        let manifest = manifest(folder);
        let normal = ours(&dependencies(&manifest, &["dependencies", "build-dependencies"]));
        let refused: Vec<_> = normal.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(refused.is_empty(), "{folder} may not depend on {refused:?}");
        let dev = ours(&dependencies(&manifest, &["dev-dependencies"]));
        let allowed_in_tests = |name: &&String| allowed.contains(&name.as_str()) || DEV.contains(&name.as_str());
        let refused: Vec<_> = dev.iter().filter(|name| !allowed_in_tests(name)).collect();
        assert!(refused.is_empty(), "tests of {folder} may not depend on {refused:?}");
    }
}

#[test]
fn packages_are_named_after_their_folders() {
    for (folder, _) in ALLOWED {
        let expected = match *folder {
            "cli" => "colibri".to_owned(),
            "tests/xtask" => "xtask".to_owned(),
            folder => format!("colibri-{}", folder.rsplit('/').next().unwrap()),
        };
        assert_eq!(manifest(folder)["package"]["name"].as_str(), Some(expected.as_str()), "{folder}");
    }
}

#[test]
fn heavy_crates_are_named_in_few_packages() {
    for (folder, _) in ALLOWED {
        let named = dependencies(&manifest(folder), &["dependencies", "build-dependencies"]);
        for (heavy, folders) in HEAVY {
            assert!(!named.contains(*heavy) || folders.contains(folder), "{folder} may not name {heavy}");
        }
    }
}

/// Crates that a build on this machine really compiles; the lock file also has those of other systems.
fn built_crates(selection: &str) -> BTreeSet<String> {
    let words = format!("tree {selection} --edges normal,build --prefix none --format {{p}} --locked --offline");
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(words.split(' ')).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn one_tls_stack_and_no_second_client_in_the_tree() {
    let crates = built_crates("--workspace");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls", "tuf", "protobuf"] {
        assert!(!crates.contains(banned), "`{banned}` is built: see deny.toml");
    }
    for needed in ["aws-lc-rs", "rustls", "quinn", "h3", "hyper", "redb", "sha2", "prometheus", "figment", "tokio"] {
        assert!(crates.contains(needed), "`{needed}` is what the project was asked to build on");
    }
}

/// Invariant 2: an edge could not sign if it wanted to, and a device's build holds no signing code either. An origin's does: it
/// signs again what expires and takes publishes, with the keys that its operator gives it.
#[test]
fn images_of_edge_and_device_hold_no_signing_code() {
    for role in ["edge", "device"] {
        let crates = built_crates(&format!("-p colibri --no-default-features --features {role}"));
        assert!(crates.contains(&format!("colibri-{role}")), "the build of {role} has its role");
        for absent in ["colibri-repository", "colibri-authority", "colibri-cluster", "colibri-loadtest"] {
            assert!(!crates.contains(absent), "the build of {role} has {absent}");
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (folder, _) in ALLOWED {
        collect(&root().join(folder).join("src"), &mut found);
    }
    assert!(found.len() > 100, "the sources were found");
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn files_open_with_what_they_are_and_are_read_in_a_sitting() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        assert!(text.starts_with("//!"), "{shown} does not open with what it is");
        let is_test = shown.ends_with("tests.rs") || shown.contains("/tests/");
        let lines = text.lines().count();
        assert!(is_test || lines <= FILE_LINES_MAX, "{shown} has {lines} lines");
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let drawer = ["util", "utils", "misc", "helpers", "helper", "types", "prelude"].contains(&stem);
        assert!(!drawer, "{shown}: name the file after what is in it");
    }
}

#[test]
fn nothing_unfinished_is_left() {
    // Written apart, so that this file does not find itself.
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!("#[", "ignore")];
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        for mark in marks {
            assert!(!text.contains(mark), "{} has {mark}", path.display());
        }
    }
}

/// Name and value of each limit, by package.
fn limits() -> BTreeMap<&'static str, &'static [(&'static str, u64)]> {
    BTreeMap::from([
        ("common", colibri_common::limits::ALL),
        ("common/api", colibri_api::limits::ALL),
        ("common/fetch", colibri_fetch::limits::ALL),
        ("common/metadata", colibri_metadata::limits::ALL),
        ("common/package", colibri_package::limits::ALL),
        ("common/release", colibri_release::limits::ALL),
        ("common/service", colibri_service::limits::ALL),
        ("common/store", colibri_store::limits::ALL),
        ("common/transport", colibri_transport::limits::ALL),
        ("device", colibri_device::limits::ALL),
        ("edge", colibri_edge::limits::ALL),
        ("loadtest", colibri_loadtest::limits::ALL),
        ("loadtest/cluster", colibri_cluster::limits::ALL),
        ("origin", colibri_origin::limits::ALL),
        ("origin/authority", colibri_authority::limits::ALL),
        ("origin/repository", colibri_repository::limits::ALL),
    ])
}

/// Invariant 7: everything is bounded, and the bounds are on one page.
#[test]
fn the_limits_page_is_what_the_code_says() {
    let mut page = String::from(
        "# Limits\n\nEvery bound in the system, collected from each package's `limits.rs` by `tests/tests/house_rules.rs`.\n\
         `UPDATE_DOCS=1 cargo test -p colibri-tests --test house_rules` writes this page anew. Bytes unless the name says\n\
         otherwise; durations in milliseconds.\n",
    );
    for (package, limits) in limits() {
        page.push_str(&format!("\n## {package}\n\n| limit | value |\n|---|---:|\n"));
        for (name, value) in limits {
            page.push_str(&format!("| `{name}` | {value} |\n"));
        }
    }
    let path = root().join("docs/limits.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/limits.md is not what the code says: run with UPDATE_DOCS=1");
}

#[test]
fn the_architecture_page_is_short_and_names_every_package() {
    let page = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    assert!(page.lines().count() < 250, "docs/ARCHITECTURE.md has {} lines", page.lines().count());
    for (folder, _) in ALLOWED {
        assert!(page.contains(&format!("`{folder}`")), "docs/ARCHITECTURE.md does not name `{folder}`");
    }
}
