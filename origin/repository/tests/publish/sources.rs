//! What publishers get wrong: each error names the file, and nothing visible changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use colibri_common::merkle;
use colibri_package::delivery::{self, DeliveryType};
use colibri_package::far;
use colibri_repository::{Publish, RepositoryError};
use serde_json::json;

use crate::fixture::{Built, Desk, content, edit_manifest, publish_of, tree};

/// Publishing fails with an error that names `word`, and what is served stays as it was (blobs may be added).
#[track_caller]
fn refused(desk: &Desk, publish: &Publish<'_>, word: &str) -> RepositoryError {
    let repository = desk.repository();
    let metadata = |dir: &Path| -> BTreeMap<_, _> {
        tree(dir).into_iter().filter(|(name, _)| !name.starts_with("blobs") && !name.starts_with("targets")).collect()
    };
    let before = metadata(&repository.served_dir());
    let error = repository.publish(publish).unwrap_err();
    assert!(error.to_string().contains(word), "{word}: {error}");
    assert_eq!(metadata(&repository.served_dir()), before, "a refused publish is not visible");
    error
}

#[test]
fn a_source_that_changed_is_named() {
    let desk = Desk::new();
    let package = desk.build("hello", &[("bin/hello", b"built")], &[]);
    fs::write(desk.path("packages/hello/bin-hello"), b"other").unwrap();
    let error = refused(&desk, &publish_of(&[&package]), "bin-hello");
    assert!(matches!(error, RepositoryError::WrongBlob { .. }));
    // Also when another package has the same blob in a good file, and the blob is stored already.
    let good = desk.build("good", &[("bin/hello", b"built")], &[]);
    desk.repository().publish(&publish_of(&[&good])).unwrap();
    let error = refused(&desk, &publish_of(&[&good, &package]), "bin-hello");
    assert!(matches!(error, RepositoryError::WrongBlob { .. }));
}

#[test]
fn a_wrong_size_a_missing_file_and_a_missing_manifest_are_named() {
    let desk = Desk::new();
    let package = desk.build("hello", &[("bin/hello", b"built")], &[]);
    edit_manifest(&package, |manifest| manifest["blobs"][1]["size"] = json!(7));
    assert!(matches!(refused(&desk, &publish_of(&[&package]), "bin-hello"), RepositoryError::WrongSize { .. }));
    fs::remove_file(desk.path("packages/hello/bin-hello")).unwrap();
    assert!(matches!(refused(&desk, &publish_of(&[&package]), "bin-hello"), RepositoryError::MissingBlob { .. }));
    fs::remove_file(&package.manifest).unwrap();
    assert!(matches!(refused(&desk, &publish_of(&[&package]), "package_manifest.json"), RepositoryError::Read { .. }));
    fs::write(&package.manifest, b"{\"version\":\"1\"").unwrap();
    assert!(matches!(
        refused(&desk, &publish_of(&[&package]), "package_manifest.json"),
        RepositoryError::Manifest { .. }
    ));
}

#[test]
fn two_hashes_for_one_name_are_explained_file_by_file() {
    let desk = Desk::new();
    let first = desk.build("hello", &[("bin/hello", b"1"), ("data/same", b"s"), ("data/gone", b"g")], &[]);
    let moved = desk.path("packages/hello-before");
    fs::rename(desk.path("packages/hello"), &moved).unwrap();
    let first = Built { manifest: moved.join("package_manifest.json"), ..first };
    let second = desk.build("hello", &[("bin/hello", b"2"), ("data/same", b"s")], &[]);
    let error = refused(&desk, &publish_of(&[&first, &second]), "hello/0 appears twice").to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(
        lines[1].starts_with("  bin/hello: ") && lines[2].starts_with("  data/gone: ") && lines[2].ends_with("absent")
    );
    assert!(lines[3].starts_with("  meta/: "), "{error}");
    // The same package twice is no contradiction.
    assert_eq!(desk.repository().publish(&publish_of(&[&second, &second])).unwrap().packages, 1);
}

#[test]
fn subpackages_must_be_the_ones_that_were_built_against() {
    let desk = Desk::new();
    let inner = desk.build("inner", &[("x", b"1")], &[]);
    let outer = desk.build("outer", &[], &[&inner]);
    desk.build("inner", &[("x", b"2")], &[]);
    assert!(matches!(refused(&desk, &publish_of(&[&outer]), "inner"), RepositoryError::WrongSubpackage { .. }));
    fs::remove_file(&inner.manifest).unwrap();
    assert!(matches!(refused(&desk, &publish_of(&[&outer]), "inner"), RepositoryError::Read { .. }));
}

#[test]
fn a_manifest_that_is_its_own_subpackage_is_refused() {
    let desk = Desk::new();
    let inner = desk.build("inner", &[], &[]);
    let outer = desk.build("outer", &[], &[&inner]);
    // `outer` names itself, under another spelling of its path.
    let spelling = desk.path("packages/inner/../outer/package_manifest.json");
    edit_manifest(&outer, |manifest| {
        manifest["subpackages"][0]["manifest_path"] = json!(spelling.to_str().unwrap());
        manifest["subpackages"][0]["merkle"] = json!(outer.hash);
    });
    assert!(matches!(refused(&desk, &publish_of(&[&outer]), "outer"), RepositoryError::SubpackageCycle { .. }));
}

/// What counts is what the meta.far names, whatever the manifest forgets.
#[test]
fn a_package_that_is_not_whole_is_not_published() {
    for forget in ["subpackage inner", "blob data/file"] {
        let desk = Desk::new();
        let inner = desk.build("inner", &[("x", b"1")], &[]);
        let outer = desk.build("outer", &[("data/file", b"file")], &[&inner]);
        edit_manifest(&outer, |manifest| match forget {
            "subpackage inner" => manifest["subpackages"] = json!([]),
            _ => _ = manifest["blobs"].as_array_mut().unwrap().remove(1),
        });
        assert!(matches!(refused(&desk, &publish_of(&[&outer]), forget), RepositoryError::Incomplete { .. }));
        // What the repository has already need not be given again.
        let other = desk.build("other", &[("y", b"file")], &[]);
        desk.repository().publish(&publish_of(&[&other, &inner])).unwrap();
        assert_eq!(desk.repository().publish(&publish_of(&[&outer])).unwrap().packages, 1);
    }
}

#[test]
fn a_meta_far_that_is_none_is_not_published() {
    let desk = Desk::new();
    let package = desk.build("hello", &[], &[]);
    fs::write(desk.path("packages/hello/meta.far"), b"not a far").unwrap();
    edit_manifest(&package, |manifest| {
        manifest["blobs"][0]["merkle"] = json!(merkle::build(b"not a far").id);
        manifest["blobs"][0]["size"] = json!(9);
    });
    refused(&desk, &publish_of(&[&package]), &merkle::build(b"not a far").id.to_string());
}

#[test]
fn sources_may_be_delivery_blobs() {
    let desk = Desk::new();
    let big = content(5, 100_000);
    let package = desk.build("hello", &[("bin/hello", &big)], &[]);
    for (file, ty) in [("bin-hello", DeliveryType::Type1), ("meta.far", DeliveryType::Type2)] {
        let path = desk.path("packages/hello").join(file);
        fs::write(&path, delivery::encode(&fs::read(&path).unwrap(), ty, Some(1)).unwrap()).unwrap();
    }
    edit_manifest(&package, |manifest| manifest["delivery_blob_type"] = json!("Type1"));
    let report = desk.repository().publish(&publish_of(&[&package])).unwrap();
    assert_eq!(desk.repository().blob_content(merkle::build(&big).id).unwrap(), big);
    assert!(report.bytes_raw > 100_000);
    let path = desk.path("packages/hello/bin-hello");
    let mut damaged = fs::read(&path).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&path, damaged).unwrap();
    refused(&desk, &publish_of(&[&package]), "bin-hello");
}

/// A package archive of `package` and its subpackages.
fn archive(desk: &Desk, package: &Built, without: &[&str]) -> std::path::PathBuf {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for folder in fs::read_dir(desk.path("packages")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            files.insert(merkle::build(&bytes).id.to_string(), bytes);
        }
    }
    let meta_far = files.remove(&package.hash.to_string()).unwrap();
    files.insert("meta.far".into(), meta_far);
    for name in without {
        files.remove(*name);
    }
    let path = desk.path("package.far");
    fs::write(&path, far::to_bytes(&files).unwrap()).unwrap();
    path
}

#[test]
fn archives_are_published_with_their_subpackages() {
    let desk = Desk::new();
    let inner = desk.build("inner", &[("x", b"1")], &[]);
    let outer = desk.build("outer", &[("data/file", &content(6, 20_000))], &[&inner]);
    let path = archive(&desk, &outer, &[]);
    let publish = Publish { package_archives: vec![path.clone(), path], ..publish_of(&[]) };
    let report = desk.repository().publish(&publish).unwrap();
    assert_eq!((report.packages, report.blobs, report.blobs_new), (1, 4, 4));
    assert_eq!(desk.repository().package("outer").unwrap().hash, outer.hash);
}

#[test]
fn archives_that_are_not_whole_or_no_archives_are_refused() {
    let file = merkle::build(b"file").id.to_string();
    for without in ["blob data/file", "subpackage inner", "no meta.far", "package.far"] {
        let desk = Desk::new();
        let inner = desk.build("inner", &[("x", b"1")], &[]);
        let outer = desk.build("outer", &[("data/file", b"file")], &[&inner]);
        let entry = match without {
            "blob data/file" => file.clone(),
            "subpackage inner" => inner.hash.to_string(),
            _ => "meta.far".to_owned(),
        };
        let path = archive(&desk, &outer, &[&entry]);
        if without == "package.far" {
            fs::write(&path, b"not a far").unwrap();
        }
        refused(&desk, &Publish { package_archives: vec![path], ..publish_of(&[]) }, without);
    }
}
