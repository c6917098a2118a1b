//! Tests of `package build` on files.

use std::fs;

use colibri_package::manifest::PathsRelative;
use colibri_package::{MetaFar, PackageManifest};

use super::*;
use crate::files::tests::{Fixture, printed, vector};

fn build(args: Build) -> (Result<ExitCode, FilesError>, String) {
    printed(|out| run(&Args { verb: Verb::Build(args) }, out))
}

/// The files of the vectors' recipe for one package, and a build manifest for them.
fn recipe(name: &str) -> Fixture {
    let dir = Fixture::new(&[]);
    dir.write("bin", format!("binary {name}").as_bytes());
    dir.write("lib", format!("lib {name}").as_bytes());
    dir.write("cm", format!("cm {name}").as_bytes());
    dir.write("cmx", format!("cmx {name}").as_bytes());
    dir.write("package", format!(r#"{{"name":"{name}","version":"0"}}"#).as_bytes());
    let host = |file: &str| dir.path(file).display().to_string();
    let lines = format!(
        "bin/{name}={}\nlib/{name}={}\nmeta/{name}.cm={}\nmeta/{name}.cmx={}\nmeta/package={}\n",
        host("bin"),
        host("lib"),
        host("cm"),
        host("cmx"),
        host("package")
    );
    dir.write("build.manifest", lines.as_bytes());
    dir
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
