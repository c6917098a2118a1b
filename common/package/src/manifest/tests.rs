//! Tests of manifests.

use super::*;

const HASH: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

fn manifest() -> PackageManifest {
    let blob = |path: &str| ManifestBlob {
        source_path: format!("../blobs/{path}"),
        path: path.to_owned(),
        merkle: HASH.parse().unwrap(),
        size: 7,
    };
    PackageManifest {
        repository: Some("fuchsia.com".to_owned()),
        package: MetaPackage { name: "n".parse().unwrap(), variant: "0".parse().unwrap() },
        blobs: vec![blob("meta/"), blob("lib/x"), blob("bin/y")],
        blob_sources_relative: PathsRelative::File,
        subpackages: vec![ManifestSubpackage {
            manifest_path: "sub.json".to_owned(),
            name: "sub".parse().unwrap(),
            merkle: HASH.parse().unwrap(),
        }],
        delivery_blob_type: Some(DeliveryType::Type1),
        abi_revision: Some(AbiRevision(12)),
    }
}

#[test]
fn manifests_survive_writing_and_reading() {
    let written = manifest().to_bytes().unwrap();
    let read = PackageManifest::parse(&written).unwrap();
    let paths: Vec<_> = read.blobs.iter().map(|blob| blob.path.as_str()).collect();
    assert_eq!(paths, ["meta/", "bin/y", "lib/x"], "meta.far first, the rest by path");
    assert_eq!(read.to_bytes().unwrap(), written);
    let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!((json["version"].as_str(), json["delivery_blob_type"].as_str()), (Some("1"), Some("Type1")));
    assert_eq!(json["blob_sources_relative"], "file");
    assert_eq!(json["abi_revision"], "0x000000000000000C");
    assert_eq!((read.meta_far().unwrap().path.as_str(), read.contents().len()), ("meta/", 2));
    assert_eq!(read.path().to_string(), "n/0");
}

#[test]
fn defaults_are_left_out() {
    let mut plain = manifest();
    plain.repository = None;
    plain.blob_sources_relative = PathsRelative::WorkingDir;
    plain.subpackages.clear();
    plain.delivery_blob_type = None;
    plain.abi_revision = None;
    plain.blobs.truncate(1);
    let written = plain.to_bytes().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["blobs", "package", "version"]);
    assert_eq!(PackageManifest::parse(&written).unwrap(), plain);
}

#[test]
fn delivery_types_are_read_in_both_spellings() {
    let with = |value: &str| {
        let text = String::from_utf8(manifest().to_bytes().unwrap()).unwrap();
        PackageManifest::parse(text.replace("\"Type1\"", value).as_bytes()).map(|manifest| manifest.delivery_blob_type)
    };
    assert_eq!(with("2"), Ok(Some(DeliveryType::Type2)));
    assert_eq!(with("\"Type2\""), Ok(Some(DeliveryType::Type2)));
    assert!(with("3").unwrap_err().to_string().contains("Type3 (LZ4)"));
    assert!(with("\"Type3\"").unwrap_err().to_string().contains("Type3 (LZ4)"));
    assert!(with("\"zstd\"").is_err() && with("0").is_err());
}

#[test]
fn unsound_manifests_are_refused() {
    let with = |change: &dyn Fn(&mut PackageManifest)| {
        let mut changed = manifest();
        change(&mut changed);
        changed.to_bytes().unwrap_err()
    };
    assert_eq!(with(&|m| m.blobs.clear()), PackageError::ManifestWithoutMetaFar);
    assert_eq!(with(&|m| m.blobs.rotate_left(1)), PackageError::ManifestWithoutMetaFar);
    assert_eq!(with(&|m| m.blobs[2].path = "lib/x".into()), PackageError::DuplicatePath("lib/x".into()));
    assert_eq!(with(&|m| m.blobs[1].path = "meta/x".into()), PackageError::PathInMeta("meta/x".into()));
    assert!(matches!(with(&|m| m.blobs[1].path = "../x".into()), PackageError::Path { .. }));
    let text = String::from_utf8(manifest().to_bytes().unwrap()).unwrap();
    let old = text.replace("\"version\": \"1\"", "\"version\": \"2\"");
    assert!(matches!(PackageManifest::parse(old.as_bytes()), Err(PackageError::Version { .. })));
    assert!(matches!(PackageManifest::parse(&text.as_bytes()[..50]), Err(PackageError::Json { .. })));
}

#[test]
fn paths_are_relative_to_the_file_or_to_the_working_directory() {
    let at = Path::new("out/pkg/package_manifest.json");
    assert_eq!(PathsRelative::File.resolve(at, "../blobs/x"), Path::new("out/pkg/../blobs/x"));
    assert_eq!(PathsRelative::WorkingDir.resolve(at, "blobs/x"), Path::new("blobs/x"));
    assert_eq!(PathsRelative::File.resolve(Path::new("m.json"), "x"), Path::new("x"));
}

#[test]
fn lists_of_manifests() {
    let text = br#"{"version":"1","content":{"paths_relative":"file","manifests":["a.json","b.json"]}}"#;
    let list = PackageManifestList::parse(text).unwrap();
    assert_eq!((list.paths_relative, list.manifests.len()), (PathsRelative::File, 2));
    assert_eq!(PackageManifestList::parse(&list.to_bytes().unwrap()).unwrap(), list);
    let empty = PackageManifestList::parse(br#"{"version":"1","content":{}}"#).unwrap();
    assert_eq!(empty, PackageManifestList::default());
    assert!(PackageManifestList::parse(br#"{"version":"2","content":{}}"#).is_err());
}

#[test]
fn build_manifests_as_lines() {
    let text = "meta/package = pkg.json\n# a comment\n\nlib/x.so=host/a=b\nlib/x.so = host/same\nlib/x.so=host/a=b\n";
    let mut asked = Vec::new();
    let mut manifest = BuildManifest::parse(text.as_bytes(), |a, b| {
        asked.push((a.to_owned(), b.to_owned()));
        b == "host/same"
    })
    .unwrap();
    assert_eq!(asked, [("host/a=b".to_owned(), "host/same".to_owned())]);
    assert_eq!(manifest.contents["lib/x.so"], "host/a=b");
    assert_eq!(manifest.take_meta_package().unwrap(), "pkg.json");
    assert_eq!(manifest.take_meta_package(), Err(PackageError::MissingFile("meta/package")));
    let twice = BuildManifest::parse(b"a=1\na=2\n", |_, _| false);
    assert_eq!(twice, Err(PackageError::DuplicatePath("a".into())));
}

#[test]
fn build_manifests_as_json() {
    let parse = |text: &str| BuildManifest::parse(text.as_bytes(), |_, _| false);
    let text = r#" {"version":"1","content":{"/":{"lib/a.so":"host/a.so"},"/meta/":{"x.cm":"host/x.cm"}}}"#;
    let manifest = parse(text).unwrap();
    assert_eq!(manifest.meta["meta/x.cm"], "host/x.cm");
    assert_eq!(manifest.contents["lib/a.so"], "host/a.so");
    assert!(parse(r#"{"version":"1","content":{"/other/":{}}}"#).is_err());
    assert!(parse(r#"{"version":"1","content":{},"x":1}"#).is_err());
    assert!(parse(r#"{"version":"1","content":{"/":{"a":"1","a":"2"}}}"#).is_err());
    assert!(parse(r#"{"version":"2","content":{}}"#).is_err());
}

#[test]
fn subpackages_build_manifests() {
    let text = br#"[{"package_manifest_file":"a.json"},{"package_manifest_file":"b.json","name":"other"},
        {"package_manifest_file":"c.json","meta_package_file":"x"}]"#;
    let entries = SubpackagesBuildManifest::parse(text).unwrap().0;
    let names: Vec<_> = entries.iter().map(|entry| entry.resolve(&manifest()).unwrap().0.to_string()).collect();
    assert_eq!(names, ["n", "other", "n"]);
    assert_eq!(entries[0].resolve(&manifest()).unwrap().1, HASH.parse().unwrap());
    let both = br#"[{"package_manifest_file":"a","name":"n","meta_package_file":"x"}]"#;
    assert!(SubpackagesBuildManifest::parse(both).is_err());
    assert!(SubpackagesBuildManifest::parse(br#"[{"name":"n"}]"#).is_err());
    assert!(SubpackagesBuildManifest::parse(br#"[{"package_manifest_file":"a","x":1}]"#).is_err());
    assert!(SubpackagesBuildManifest::parse(br#"[{"package_manifest_file":"a","name":"N"}]"#).is_err());
}
