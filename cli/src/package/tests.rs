//! Tests of `package build` on files.

use std::fs;

use colibri_package::manifest::PathsRelative;
use colibri_package::{MetaFar, PackageManifest};

use super::*;
use crate::files::tests::{Fixture, printed, vector};

fn build(args: Build) -> (Result<ExitCode, FilesError>, String) {
    printed(|out| run(&Args { verb: Verb::Build(args) }, out))
}

/// `colibri package` as from the command line.
#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Runs a command line without its first two words, `colibri package`.
pub(super) fn verb(line: &str) -> (Result<ExitCode, FilesError>, String) {
    let words = std::iter::once("package").chain(line.split_whitespace());
    let line = <Line as clap::Parser>::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    printed(|out| run(&line.args, out))
}

#[test]
fn command_lines_that_make_no_sense_are_usage_errors() {
    let parses = |line: &str| {
        let words = std::iter::once("package").chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(words).is_ok()
    };
    assert!(!parses("build") && !parses("build m --from-dir d") && parses("build m"));
    assert!(!parses("archive edit -o x a.far") && parses("archive edit --package-name n -o x a.far"));
    assert!(!parses("archive edit --package-name Bad -o x a.far"));
    assert!(!parses("archive create m") && !parses("archive add a.far") && !parses("diff a"));
    <Line as clap::CommandFactory>::command().debug_assert();
}

/// The vectors' package with a subpackage, built to `out`, its child to `child/out`.
pub(super) fn package_with_child() -> Fixture {
    let dir = recipe("named_subpackage");
    recipe_at(&dir, "child/", "anonymous_subpackage");
    let show = |name: &str| dir.path(name).display().to_string();
    verb(&format!("build --api-level 7 -o {} {}", show("child/out"), show("child/build.manifest"))).0.unwrap();
    let child = show("child/out/package_manifest.json");
    let entry = format!(r#"[{{"package_manifest_file":"{child}","name":"anon_subpackage_of_namedsubpkg"}}]"#);
    dir.write("subpackages.json", entry.as_bytes());
    let (subpackages, out, manifest) = (show("subpackages.json"), show("out"), show("build.manifest"));
    let line = format!("build --api-level 7 -o {out} --subpackages-build-manifest-path {subpackages} {manifest}");
    verb(&line).0.unwrap();
    dir
}

/// The files of the vectors' recipe for one package, and a build manifest for them.
pub(super) fn recipe(name: &str) -> Fixture {
    let dir = Fixture::new(&[]);
    recipe_at(&dir, "", name);
    dir
}

fn recipe_at(dir: &Fixture, at: &str, name: &str) {
    let write = |file: &str, content: String| dir.write(&format!("{at}{file}"), content.as_bytes());
    let host = |file: &str| dir.path(&format!("{at}{file}")).display().to_string();
    write("bin", format!("binary {name}"));
    write("lib", format!("lib {name}"));
    write("cm", format!("cm {name}"));
    write("cmx", format!("cmx {name}"));
    write("package", format!(r#"{{"name":"{name}","version":"0"}}"#));
    let lines = format!(
        "bin/{name}={}\nlib/{name}={}\nmeta/{name}.cm={}\nmeta/{name}.cmx={}\nmeta/package={}\n",
        host("bin"),
        host("lib"),
        host("cm"),
        host("cmx"),
        host("package")
    );
    write("build.manifest", lines);
}

fn args(dir: &Fixture) -> Build {
    Build {
        build_manifest: Some(dir.path("build.manifest")),
        output: dir.path("out"),
        api_level: Some(7),
        ..Build::default()
    }
}

fn manifest(dir: &Fixture) -> PackageManifest {
    PackageManifest::parse(&fs::read(dir.path("out/package_manifest.json")).unwrap()).unwrap()
}

#[test]
fn the_vector_is_built_from_files_and_the_manifest_finds_its_sources() {
    let dir = recipe("package1");
    let (code, text) = build(args(&dir));
    assert_eq!(code.unwrap(), ExitCode::SUCCESS);
    assert!(text.starts_with("2881455493b5870aaea36537d70a2adc635f516ac2092598f4b6056dabc6b25d  package1/0\n"));
    assert_eq!(fs::read(dir.path("out/meta.far")).unwrap(), fs::read(vector("package1.meta.far")).unwrap());
    let manifest = manifest(&dir);
    assert_eq!((manifest.blob_sources_relative, manifest.blobs.len()), (PathsRelative::File, 3));
    for blob in &manifest.blobs {
        let source = manifest.blob_sources_relative.resolve(&dir.path("out/package_manifest.json"), &blob.source_path);
        let tree = crate::files::tree_of(&source).unwrap();
        assert_eq!((tree.id, tree.length.bytes()), (blob.merkle, blob.size), "{}", source.display());
    }
}

#[test]
fn subpackages_extras_and_json() {
    let child = recipe("anonymous_subpackage");
    build(args(&child)).0.unwrap();
    let dir = recipe("named_subpackage");
    let child_manifest = child.path("out/package_manifest.json").display().to_string();
    let entry = format!(r#"[{{"package_manifest_file":"{child_manifest}","name":"anon_subpackage_of_namedsubpkg"}}]"#);
    dir.write("subpackages.json", entry.as_bytes());
    let args = Build {
        subpackages_build_manifest_path: Some(dir.path("subpackages.json")),
        published_name: Some("other".into()),
        repository: Some("example.org".into()),
        depfile: true,
        blobs_json: true,
        blobs_manifest: true,
        json: true,
        ..args(&dir)
    };
    let (code, text) = build(args.clone());
    code.unwrap();
    assert_eq!(fs::read(dir.path("out/meta.far")).unwrap(), fs::read(vector("named_subpackage.meta.far")).unwrap());
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["hash"], "1e67965c0601afbe00e43eb5c50509813400f1ae0ec838b44dfa018a8afcdeac");
    assert_eq!(
        (json["name"].as_str(), json["blobs"].as_u64(), json["subpackages"].as_u64()),
        (Some("other"), Some(3), Some(1))
    );
    let manifest = manifest(&dir);
    assert_eq!(
        (manifest.repository.as_deref(), manifest.path().to_string().as_str()),
        (Some("example.org"), "other/0")
    );
    let found = manifest
        .blob_sources_relative
        .resolve(&dir.path("out/package_manifest.json"), &manifest.subpackages[0].manifest_path);
    assert_eq!(fs::canonicalize(found).unwrap(), fs::canonicalize(child.path("out/package_manifest.json")).unwrap());
    let depfile = fs::read_to_string(dir.path("out/meta.far.d")).unwrap();
    for source in ["build.manifest", "package", "bin", "cm", "subpackages.json"] {
        assert!(depfile.contains(&dir.path(source).display().to_string()), "{source}");
    }
    assert!(depfile.contains(&child_manifest));
    let blobs: serde_json::Value = serde_json::from_slice(&fs::read(dir.path("out/blobs.json")).unwrap()).unwrap();
    assert_eq!(blobs.as_array().unwrap().len(), 3);
    assert_eq!(fs::read_to_string(dir.path("out/blobs.manifest")).unwrap().lines().count(), 3);
    let first = fs::read(dir.path("out/package_manifest.json")).unwrap();
    build(args).0.unwrap();
    assert_eq!(fs::read(dir.path("out/package_manifest.json")).unwrap(), first, "byte-reproducible");
}

#[test]
fn a_directory_becomes_a_package() {
    let dir = Fixture::new(&[("in/meta/x.cm", b"cm"), ("in/lib/x.so", b"lib"), ("in/data", b"")]);
    let args = Build {
        from_dir: Some(dir.path("in")),
        name: Some("from-dir".into()),
        output: dir.path("out"),
        ..Build::default()
    };
    build(args.clone()).0.unwrap();
    let package = MetaFar::parse(fs::read(dir.path("out/meta.far")).unwrap().into()).unwrap();
    assert_eq!((package.name().as_str(), package.contents().len()), ("from-dir", 2));
    assert_eq!(package.meta_file("meta/x.cm").unwrap(), "cm");
    assert_eq!(package.abi_revision(), Some(AbiRevision::LATEST));
    let error = |args: Build| build(args).0.unwrap_err().to_string();
    assert!(error(Build { name: None, ..args.clone() }).contains("--name"));
    assert!(error(Build { name: Some("Bad".into()), ..args.clone() }).contains("'Bad'"));
    dir.write("in/meta/package", br#"{"name":"own","version":"0"}"#);
    assert!(error(args.clone()).contains("another name"));
    build(Build { name: None, ..args.clone() }).0.unwrap();
    assert_eq!(manifest(&dir).path().to_string(), "own/0");
    dir.write("in/meta/contents", b"");
    assert!(error(Build { name: None, ..args }).contains("'meta/contents' is written by the build"));
}

#[test]
fn json_build_manifests_work_too() {
    let dir = recipe("package2");
    let host = |file: &str| dir.path(file).display().to_string();
    let json = serde_json::json!({ "version": "1", "content": {
        "/": { "bin/package2": host("bin"), "lib/package2": host("lib") },
        "/meta/": { "package2.cm": host("cm"), "package2.cmx": host("cmx"), "package": host("package") },
    }});
    dir.write("build.manifest", json.to_string().as_bytes());
    build(args(&dir)).0.unwrap();
    assert_eq!(fs::read(dir.path("out/meta.far")).unwrap(), fs::read(vector("package2.meta.far")).unwrap());
}

#[test]
fn bad_inputs_are_named() {
    let dir = recipe("package1");
    let error = |change: &dyn Fn(&mut Build)| {
        let mut args = args(&dir);
        change(&mut args);
        build(args).0.unwrap_err()
    };
    let unknown = error(&|args| args.api_level = Some(1));
    assert!(unknown.to_string().contains("API level 1 is not known"));
    assert_eq!(unknown.exit_code(), ExitCode::from(2));
    assert!(error(&|args| args.abi_revision = Some("x".into())).to_string().contains("'x'"));
    assert!(error(&|args| args.repository = Some("Host".into())).to_string().contains("Host"));
    assert!(error(&|args| args.build_manifest = None).to_string().contains("--from-dir"));
    dir.write("build.manifest", b"lib/x=/no/such/file\n");
    assert!(error(&|_| ()).to_string().contains("meta/package"));
    let package = dir.path("package").display().to_string();
    dir.write("build.manifest", format!("meta/package={package}\nlib/x=/no/such/file\n").as_bytes());
    assert!(error(&|_| ()).to_string().contains("/no/such/file"));
    dir.write("build.manifest", format!("meta/package={package}\n../x={package}\n").as_bytes());
    assert!(error(&|_| ()).to_string().contains("'../x'"));
    dir.write("package", br#"{"name":"n","version":"1"}"#);
    assert!(error(&|_| ()).to_string().contains("must have version"));
}

#[test]
fn the_same_inputs_give_the_same_bytes_wherever_they_lie_and_in_any_order() {
    let names = ["zeta", "a b=c", "lib/x.so", "lib/y/deep", "meta/x.cm", "meta/a", "ünïcode"];
    let mut outcomes = Vec::new();
    for (index, order) in [names.to_vec(), names.iter().rev().copied().collect()].into_iter().enumerate() {
        let dir = Fixture::new(&[]);
        order.iter().for_each(|name| dir.write(&format!("in/{name}"), name.as_bytes()));
        dir.write("package", br#"{"name":"n","version":"0"}"#);
        let show = |name: &str| dir.path(name).display().to_string();
        let mut lines: Vec<_> = order.iter().filter(|name| !name.contains('=')).collect();
        lines.sort_by_key(|name| (name.len() * (index + 1)) % 5);
        let lines: String = lines.iter().map(|name| format!("{name}={}\n", show(&format!("in/{name}")))).collect();
        dir.write("m", format!("{lines}meta/package={}\n", show("package")).as_bytes());
        verb(&format!("build --from-dir {} --name n --blobs -o {}", show("in"), show("out/d"))).0.unwrap();
        verb(&format!("build --blobs --blobs-json -o {} {}", show("out/m"), show("m"))).0.unwrap();
        verb(&format!("build -o {} {}", show("out/plain"), show("m"))).0.unwrap();
        let files = crate::files::walk(&dir.path("out")).unwrap().files;
        outcomes.push(files.into_iter().map(|(name, path)| (name, fs::read(path).unwrap())).collect::<Vec<_>>());
    }
    let names: Vec<_> = outcomes[0].iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"d/meta.far") && names.contains(&"m/blobs.json"), "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("d/blobs/")).count(), 5);
    assert!(outcomes[0] == outcomes[1]);
}

#[test]
fn directories_with_links_and_odd_names_work_or_are_named() {
    let dir = Fixture::new(&[("in/a=b", b"1"), ("in/with space", b"2"), ("elsewhere/x", b"3")]);
    std::os::unix::fs::symlink(dir.path("elsewhere"), dir.path("in/linked")).unwrap();
    let args = |output: &str| Build {
        from_dir: Some(dir.path("in")),
        name: Some("n".into()),
        output: dir.path(output),
        ..Build::default()
    };
    build(args("out")).0.unwrap();
    let package = MetaFar::parse(fs::read(dir.path("out/meta.far")).unwrap().into()).unwrap();
    let paths: Vec<_> = package.contents().keys().map(|path| path.as_str()).collect();
    assert_eq!(paths, ["a=b", "linked/x", "with space"]);
    let error = |output: &str| build(args(output)).0.unwrap_err().to_string();
    assert!(error("in/out").contains("inside --from-dir"), "{}", error("in/out"));
    assert!(error("in").contains("inside --from-dir"));
    dir.write("in/two\nlines", b"4");
    assert!(error("out").contains(r"'two\nlines' in the package: the path has a line feed"), "{}", error("out"));
    fs::remove_file(dir.path("in/two\nlines")).unwrap();
    dir.write("in/meta", b"5");
    assert!(error("out").contains("'meta'"), "{}", error("out"));
    fs::remove_file(dir.path("in/meta")).unwrap();
    std::os::unix::fs::symlink("gone", dir.path("in/dangling")).unwrap();
    assert!(error("out").contains("dangling: a symbolic link"), "{}", error("out"));
    fs::remove_file(dir.path("in/dangling")).unwrap();
    let not_unicode = dir.path("in").join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff"));
    fs::write(&not_unicode, b"6").unwrap();
    assert!(error("out").contains("not Unicode"), "{}", error("out"));
    fs::remove_file(not_unicode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("in/socket")).unwrap();
    assert!(error("out").contains("not a regular file"), "{}", error("out"));
}
