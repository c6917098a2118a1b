//! Tests of `package archive`, by command line.

use std::fs;
use std::process::ExitCode;

use colibri_package::manifest::PathsRelative;
use colibri_package::{MetaFar, PackageManifest, far};
use serde_json::{Value, json};

use super::super::tests::{package_with_child, recipe, verb};
use super::*;
use crate::files::tests::Fixture;

/// `archive.far` of a package with a subpackage.
fn packed() -> Fixture {
    let dir = package_with_child();
    let line = format!("archive create -o {} {}", show(&dir, "archive.far"), show(&dir, "out/package_manifest.json"));
    verb(&line).0.unwrap();
    dir
}

fn show(dir: &Fixture, name: &str) -> String {
    dir.path(name).display().to_string()
}

fn fails(line: &str) -> String {
    verb(line).0.unwrap_err().to_string()
}

const ROOT: &str = "1e67965c0601afbe00e43eb5c50509813400f1ae0ec838b44dfa018a8afcdeac";
const CHILD: &str = "1d20cc5163f35cd977cf414d54f8d5b53bcb33944cff0b9560b0627a6bba7441";

#[test]
fn an_archive_has_the_package_its_subpackages_and_all_blobs_once() {
    let dir = packed();
    let archive = fs::read(dir.path("archive.far")).unwrap();
    let entries = far::FarBytes::parse(archive.clone().into()).unwrap();
    let names: Vec<_> = entries.entries().iter().map(|entry| entry.text().unwrap()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    assert!(names.contains(&"meta.far") && names.contains(&CHILD) && !names.contains(&ROOT));
    let line = format!(
        "archive create -o {} --depfile {} {}",
        show(&dir, "again.far"),
        show(&dir, "again.far.d"),
        show(&dir, "out/package_manifest.json")
    );
    let (code, text) = verb(&line);
    assert_eq!(code.unwrap(), ExitCode::SUCCESS);
    assert_eq!(text, format!("{ROOT}  named_subpackage/0\n"));
    assert_eq!(fs::read(dir.path("again.far")).unwrap(), archive, "byte-reproducible");
    let depfile = fs::read_to_string(dir.path("again.far.d")).unwrap();
    for input in ["out/package_manifest.json", "child/out/package_manifest.json", "child/out/../lib", "out/meta.far"] {
        assert!(depfile.contains(input), "{input} in {depfile}");
    }
}

#[test]
fn extraction_gives_blobs_and_manifests_that_make_the_same_archive() {
    let dir = packed();
    let line = format!(
        "archive extract -o {} --repository example.org --blobs-json {}",
        show(&dir, "x"),
        show(&dir, "archive.far")
    );
    assert_eq!(verb(&line).1, format!("{ROOT}  named_subpackage/0\n"));
    let manifest = PackageManifest::parse(&fs::read(dir.path("x/package_manifest.json")).unwrap()).unwrap();
    assert_eq!(
        (manifest.repository.as_deref(), manifest.blob_sources_relative),
        (Some("example.org"), PathsRelative::File)
    );
    assert_eq!(manifest.subpackages[0].manifest_path, format!("manifests/{CHILD}_package_manifest.json"));
    let blobs: Value = serde_json::from_slice(&fs::read(dir.path("x/blobs.json")).unwrap()).unwrap();
    assert_eq!((blobs.as_array().unwrap().len(), &blobs[0]["merkle"]), (3, &json!(ROOT)));
    for (name, path) in files::walk(&dir.path("x/blobs")).unwrap().files {
        assert_eq!(files::tree_of(&path).unwrap().id.to_string(), name);
    }
    // It stands for itself wherever it is moved.
    fs::rename(dir.path("x"), dir.path("moved")).unwrap();
    let back = format!("archive create -o {} {}", show(&dir, "back.far"), show(&dir, "moved/package_manifest.json"));
    verb(&back).0.unwrap();
    assert_eq!(fs::read(dir.path("back.far")).unwrap(), fs::read(dir.path("archive.far")).unwrap());
}

#[test]
fn delivery_blobs_are_decoded_into_archives_and_root_dir_leads_to_them() {
    let dir = recipe("package1");
    verb(&format!("build --api-level 7 -o {} {}", show(&dir, "out"), show(&dir, "build.manifest"))).0.unwrap();
    let mut manifest = PackageManifest::parse(&fs::read(dir.path("out/package_manifest.json")).unwrap()).unwrap();
    for blob in &mut manifest.blobs {
        let content = fs::read(dir.path("out").join(&blob.source_path)).unwrap();
        let encoded =
            colibri_package::delivery::encode(&content, colibri_package::delivery::DeliveryType::Type1, None).unwrap();
        blob.source_path = format!("1/{}", blob.merkle);
        dir.write(&format!("root/{}", blob.source_path), &encoded);
    }
    manifest.delivery_blob_type = Some(colibri_package::delivery::DeliveryType::Type1);
    manifest.blob_sources_relative = PathsRelative::WorkingDir;
    dir.write("m.json", &manifest.to_bytes().unwrap());
    let create = |manifest: &str, root: &str| {
        verb(&format!("archive create -o {} -r {} {}", show(&dir, "a.far"), show(&dir, root), show(&dir, manifest))).0
    };
    create("m.json", "root").unwrap();
    let decoded = fs::read(dir.path("a.far")).unwrap();
    create("out/package_manifest.json", "nowhere").unwrap();
    assert_eq!(fs::read(dir.path("a.far")).unwrap(), decoded);
    assert!(create("m.json", "nowhere").unwrap_err().to_string().contains("nowhere/1/"));
}

#[test]
fn listing_and_printing_go_by_the_packages_own_paths() {
    let dir = packed();
    let far = show(&dir, "archive.far");
    let (_, text) = verb(&format!("archive list {far}"));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.is_sorted() && lines.contains(&"bin/named_subpackage") && lines.contains(&"meta/contents"), "{text}");
    assert!(lines.contains(&CHILD) && lines.contains(&"meta.far"));
    let (_, long) = verb(&format!("archive list -l {far}"));
    assert_eq!(long.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["NAME", "PATH", "LENGTH"]);
    let rows: Value = serde_json::from_str(&verb(&format!("archive list --json {far}")).1).unwrap();
    let row = |name: &str| rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!(row("bin/named_subpackage")["length"], 23);
    assert_eq!(row("meta/package")["path"], "meta/package");
    let cat = |path: &str| verb(&format!("archive cat {far} {path}")).1;
    assert_eq!(cat("bin/named_subpackage"), "binary named_subpackage");
    assert_eq!(cat("meta/package"), r#"{"name":"named_subpackage","version":"0"}"#);
    let blob = row("bin/named_subpackage")["path"].as_str().unwrap().to_owned();
    assert_eq!(cat(&blob), "binary named_subpackage");
    assert!(fails(&format!("archive cat {far} bin/none")).contains("no file 'bin/none'"));
}

#[test]
fn adding_and_removing_make_the_package_anew() {
    let dir = packed();
    dir.write("new", b"new content");
    let (far, new) = (show(&dir, "archive.far"), show(&dir, "new"));
    let out = show(&dir, "changed.far");
    let (code, text) = verb(&format!("archive add -f {new} -p data/new -o {out} {far}"));
    code.unwrap();
    assert!(text.ends_with("  named_subpackage/0\n") && !text.starts_with(ROOT), "{text}");
    assert_eq!(verb(&format!("archive cat {out} data/new")).1, "new content");
    assert!(fails(&format!("archive add -w false -f {new} -p data/new -o {out} {out}")).contains("--overwrite"));
    dir.write("new", b"newer");
    // In place, and over what is there; the archive as the real tools want it.
    verb(&format!("archive add -a {out} -f {new} -p data/new -o {out}")).0.unwrap();
    verb(&format!("archive add -f {new} -p meta/new -o {out} {out}")).0.unwrap();
    assert_eq!(verb(&format!("archive cat {out} data/new")).1, "newer");
    assert_eq!(verb(&format!("archive cat {out} meta/new")).1, "newer");
    for path in ["data/new", "meta/new"] {
        verb(&format!("archive remove -f {path} -o {out} {out}")).0.unwrap();
    }
    assert_eq!(fs::read(&out).unwrap(), fs::read(&far).unwrap(), "back where it began, without the blob");
    assert!(fails(&format!("archive remove -f data/new -o {out} {far}")).contains("no file 'data/new'"));
    assert!(fails(&format!("archive remove -f meta/contents -o {out} {far}")).contains("written by the build"));
    assert!(fails(&format!("archive add -f {new} -p ../x -o {out} {far}")).contains("'../x'"));
    assert!(fails(&format!("archive add -f {new}x -p x -o {out} {far}")).contains("newx"));
}

#[test]
fn a_namespace_has_the_files_as_components_see_them() {
    let dir = packed();
    let (far, out) = (show(&dir, "archive.far"), show(&dir, "x"));
    verb(&format!("archive extract -o {out} {far}")).0.unwrap();
    assert!(!dir.path("x/pkg").exists(), "only when asked for");
    for _ in 0..2 {
        // Again over what is there, also where a file was changed.
        verb(&format!("archive extract --namespace -o {out} {far}")).0.unwrap();
        let mut found: Vec<String> = files::walk(&dir.path("x/pkg")).unwrap().files.into_keys().collect();
        found.retain(|path| !path.starts_with("meta/") || path == "meta/package");
        assert_eq!(found, ["bin/named_subpackage", "lib/named_subpackage", "meta/package"]);
        assert_eq!(fs::read(dir.path("x/pkg/bin/named_subpackage")).unwrap(), b"binary named_subpackage");
        fs::remove_file(dir.path("x/pkg/bin/named_subpackage")).unwrap();
        dir.write("x/pkg/bin/named_subpackage", b"changed");
    }
    verb(&format!("archive create -o {} {out}/package_manifest.json", show(&dir, "new/folder/again.far"))).0.unwrap();
    assert_eq!(fs::read(dir.path("new/folder/again.far")).unwrap(), fs::read(far).unwrap());
}

#[test]
fn editing_changes_name_and_abi_revision() {
    let dir = packed();
    let (far, out) = (show(&dir, "archive.far"), show(&dir, "edited.far"));
    verb(&format!("archive edit --package-name other --unsafe-override-abi-revision 0x1 -o {out} {far}")).0.unwrap();
    verb(&format!("archive extract -o {} {out}", show(&dir, "x"))).0.unwrap();
    let manifest = PackageManifest::parse(&fs::read(dir.path("x/package_manifest.json")).unwrap()).unwrap();
    let meta_far = fs::read(dir.path("x").join(&manifest.blobs[0].source_path)).unwrap();
    let meta_far = MetaFar::parse(meta_far.into()).unwrap();
    assert_eq!((meta_far.name().as_str(), meta_far.abi_revision().unwrap().0), ("other", 1));
}

#[test]
fn incomplete_and_lying_inputs_are_named_and_nothing_is_left() {
    let dir = packed();
    let (manifest, out) = (show(&dir, "out/package_manifest.json"), show(&dir, "no.far"));
    let create = || fails(&format!("archive create -o {out} {manifest}"));
    dir.write("lib", b"lib named_subpackagX");
    assert!(create().contains("/lib: what is called blob"), "{}", create());
    dir.write("lib", b"longer than before, surely");
    assert!(create().contains("/lib: it has 26 bytes, the manifest says 20"), "{}", create());
    fs::remove_file(dir.path("lib")).unwrap();
    assert!(create().contains("/lib: No such file"), "{}", create());
    fs::rename(dir.path("child/out/package_manifest.json"), dir.path("child/kept")).unwrap();
    assert!(create().contains("child/out/package_manifest.json"));
    dir.write("child/out/package_manifest.json", &fs::read(dir.path("out/package_manifest.json")).unwrap());
    assert!(create().contains(CHILD), "{}", create());
    assert!(!dir.path("no.far").exists());
}

#[test]
fn hostile_archives_are_refused_before_their_lies_get_a_name() {
    let dir = packed();
    let good = far::FarBytes::parse(fs::read(dir.path("archive.far")).unwrap().into()).unwrap();
    let files: BTreeMap<String, Bytes> = good
        .entries()
        .iter()
        .map(|entry| (entry.text().unwrap().to_owned(), good.get(entry.name()).unwrap()))
        .collect();
    let attempt = |change: &dyn Fn(&mut BTreeMap<String, Bytes>)| {
        let mut files = files.clone();
        change(&mut files);
        dir.write("bad.far", &far::to_bytes(&files).unwrap());
        let out = dir.path("bad");
        let result = verb(&format!("archive extract -o {} {}", out.display(), show(&dir, "bad.far"))).0;
        let manifest = out.join("package_manifest.json").exists();
        drop(fs::remove_dir_all(out));
        (result.map_err(|error| error.to_string()), manifest)
    };
    let blob = files.keys().find(|name| ![CHILD, "meta.far"].contains(&name.as_str())).unwrap();
    let (lie, written) = attempt(&|files| drop(files.insert(blob.clone(), "lie".into())));
    assert!(lie.unwrap_err().contains("damaged or forged") && !written);
    let (gone, written) = attempt(&|files| drop(files.remove(blob)));
    assert!(gone.unwrap_err().contains(&**blob) && !written);
    let (child, _) = attempt(&|files| drop(files.remove(CHILD)));
    assert!(child.unwrap_err().contains("meta.far of a subpackage"));
    let (forged, _) = attempt(&|files| drop(files.insert(CHILD.to_owned(), files["meta.far"].clone())));
    assert!(forged.unwrap_err().contains("damaged or forged"));
    let (none, _) = attempt(&|files| drop(files.remove("meta.far")));
    assert!(none.unwrap_err().contains("not a package archive"));
    // What belongs to no package is left alone, and says so.
    let (extra, written) = attempt(&|files| drop(files.insert("evil/name".to_owned(), "x".into())));
    assert!(extra.is_ok() && written);
    // A folder that leads elsewhere is not followed.
    fs::create_dir_all(dir.path("trap")).unwrap();
    fs::create_dir_all(dir.path("outside")).unwrap();
    std::os::unix::fs::symlink(dir.path("outside"), dir.path("trap/blobs")).unwrap();
    let error = fails(&format!("archive extract -o {} {}", show(&dir, "trap"), show(&dir, "archive.far")));
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(fs::read_dir(dir.path("outside")).unwrap().count(), 0);
}
