//! `repo publish` from product bundles, how blobs come in, and from which root on a repository is believed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::*;

/// A desk with a repository `pb/repository` beside `pb/blobs`, as product bundles have it, and in it a package of one file.
fn with_bundle(content: &[u8]) -> (Desk, String) {
    let desk = Desk::new();
    let package = desk.package("bundled", &[("bin/b", content)]);
    desk.publish(&["--package", &package]);
    let (bundle, repository) = (desk.dir.path("pb"), desk.dir.path("repo/repository"));
    fs::create_dir(&bundle).unwrap();
    fs::rename(repository.join("blobs"), bundle.join("blobs")).unwrap();
    fs::rename(repository, bundle.join("repository")).unwrap();
    fs::remove_dir_all(bundle.join("blobs/leaves")).unwrap();
    let entry = serde_json::json!({ "name": "a.com", "metadata_path": "repository", "blobs_path": "blobs" });
    let file = serde_json::json!({ "version": "2", "repositories": [entry] }).to_string();
    desk.dir.write("pb/product_bundle.json", file.as_bytes());
    (desk, bundle.display().to_string())
}

/// The delivery blob of this content in a folder of blobs.
fn blob(blobs: &Path, content: &[u8]) -> PathBuf {
    blobs.join("1").join(colibri_common::merkle::build(content).id.to_string())
}

#[test]
fn packages_of_a_product_bundle_are_published_as_they_are_compressed() {
    let content = b"bundled ".repeat(5000);
    let (from, bundle) = with_bundle(&content);
    let compressed = fs::read(blob(&from.dir.path("pb/blobs"), &content)).unwrap();
    let desk = Desk::new();
    let mine = desk.package("mine", &[("file", b"mine")]);
    desk.publish(&["--package", &mine]);
    // Another level here must not change the bytes.
    let depfile = desk.dir.path("d");
    let report = done_json(&[
        "publish",
        "--json",
        "--level",
        "19",
        "--depfile",
        text(&depfile),
        "--product-bundle",
        &bundle,
        &desk.repository,
    ]);
    assert_eq!((&report["packages"], &report["blobs_new"]), (&1.into(), &2.into()), "{report}");
    assert_eq!(desk.names(), ["bundled/0", "mine/0"]);
    assert_eq!(fs::read(blob(&desk.dir.path("repo/repository/blobs"), &content)).unwrap(), compressed);
    done(&["verify", &desk.repository]);
    assert!(fs::read_to_string(depfile).unwrap().contains("product_bundle.json"));
    // The bundle itself is only read, and can be looked at.
    assert!(!from.dir.path("pb/blobs/leaves").exists());
    assert!(done(&["package", "list", "--repo-path", &bundle]).contains("bundled/0"));
    // It is not published into, also by whoever has its keys.
    fs::rename(from.dir.path("repo/keys"), from.dir.path("pb/keys")).unwrap();
    let refused = repo(&["publish", "--package", &mine, &bundle]).0.unwrap_err().to_string();
    assert!(refused.contains(&bundle) && refused.contains("--product-bundle"), "{refused}");
    assert!(!done(&["package", "list", "--repo-path", &bundle]).contains("mine"));
    // A blob that is not what it is called, or is gone.
    let damaged = blob(&from.dir.path("pb/blobs"), &content);
    fs::write(&damaged, b"damaged").unwrap();
    let other = Desk::new();
    let publish = || repo(&["publish", "--product-bundle", &bundle, &other.repository]).0.unwrap_err().to_string();
    assert!(publish().contains(text(&damaged)), "{}", publish());
    fs::remove_file(&damaged).unwrap();
    assert!(publish().contains("bin/b") && publish().contains("bundled/0"), "{}", publish());
    assert_eq!(other.names(), [""; 0]);
}

#[test]
fn blobs_come_in_as_links_or_over_what_is_there() {
    // Something that levels of compression make different things of.
    let content: String = (0..8000_u32).map(|number| format!("{} ", number * number % 7919)).collect();
    let content = content.into_bytes();
    let (from, bundle) = with_bundle(&content);
    let there = blob(&from.dir.path("pb/blobs"), &content);
    let desk = Desk::new();
    let here = blob(&desk.dir.path("repo/repository/blobs"), &content);
    desk.publish(&["--copy-mode", "hard-link", "--product-bundle", &bundle]);
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&here), inode(&there));
    done(&["verify", &desk.repository]);

    // What is there stays, whatever the level; unless it is to be written over. The other name keeps its bytes.
    let before = fs::read(&there).unwrap();
    let package = from.dir.path("out/bundled/package_manifest.json");
    let publish = |extra: &[&str]| {
        let line = ["publish", "--json", "--level", "22", "--package", text(&package), &desk.repository];
        done_json(&[&line[..], extra].concat())
    };
    assert_eq!(publish(&[])["blobs_new"], 0);
    assert_eq!(inode(&here), inode(&there));
    assert_eq!(publish(&["--copy-mode", "copy-overwrite"])["blobs_new"], 2);
    assert!(inode(&here) != inode(&there) && fs::read(&here).unwrap() != before);
    assert_eq!(fs::read(&there).unwrap(), before);
    done(&["verify", &desk.repository]);
}

#[test]
fn a_repository_that_is_not_chained_to_the_trusted_root_is_not_published_into() {
    let desk = Desk::new();
    let other = Desk::new();
    let package = desk.package("a", &[("file", b"a")]);
    let root = |desk: &Desk| desk.dir.path("repo/repository/1.root.json").display().to_string();
    let versions = || done_json(&["list", "--json", &desk.repository]);
    let before = versions();
    let refused = repo(&["publish", "--trusted-root", &root(&other), "--package", &package, &desk.repository]).0;
    assert!(refused.unwrap_err().to_string().contains(&desk.repository));
    assert_eq!(versions(), before);
    desk.publish(&["--trusted-root", &root(&desk), "--refresh-root", "--package", &package]);
    // The chain leads from the old root to the new one.
    desk.publish(&["--trusted-root", &root(&desk), "--package", &package]);
}

#[test]
fn the_blob_manifest_names_every_blob_once_and_where_it_was() {
    let desk = Desk::new();
    let (one, two) = (desk.package("a", &[("x", b"same"), ("y", b"other")]), desk.package("b", &[("z", b"same")]));
    let list = desk.dir.path("blobs.json");
    let report = desk.publish(&["--package", &one, "--package", &two, "--blob-manifest", text(&list)]);
    let blobs: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    let blobs = blobs.as_array().unwrap();
    // Two contents and two meta.fars.
    assert_eq!((blobs.len(), &report["blobs"]), (4, &4.into()));
    for blob in blobs {
        let path = blob["source_path"].as_str().unwrap();
        let content = fs::read(path).unwrap();
        assert_eq!(blob["merkle"], colibri_common::merkle::build(&content).id.to_string(), "{blob}");
        assert_eq!(blob["size"], content.len(), "{blob}");
    }
    let paths: Vec<&str> = blobs.iter().map(|blob| blob["source_path"].as_str().unwrap()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    assert_eq!(blobs.iter().filter(|blob| blob["path"] == "meta/").count(), 2);
}

#[test]
fn blobs_of_several_repositories_lie_in_one_folder() {
    let (desk, other) = (Desk::new(), Desk::new());
    let blobs = desk.dir.path("blobs");
    let package = desk.package("a", &[("file", b"shared")]);
    let publish = |to: &Desk| to.publish(&["--blob-repo-dir", text(&blobs), "--package", &package]);
    assert_eq!(publish(&desk)["blobs_new"], 2);
    assert!(blob(&blobs, b"shared").is_file());
    // What is there already is taken as it is, and the folder stays where they lie without another word.
    assert_eq!(publish(&other)["blobs_new"], 0);
    let more = desk.package("b", &[("file", b"more")]);
    other.publish(&["--package", &more]);
    assert!(blob(&blobs, b"more").is_file());
    for each in [&desk, &other] {
        assert!(each.dir.path("repo/repository/blobs").is_symlink());
        done(&["verify", &each.repository]);
        let refused = repo(&["gc", &each.repository]).0.unwrap_err().to_string();
        assert!(refused.contains(text(&blobs)), "{refused}");
    }
    assert_eq!(other.names(), ["a/0", "b/0"]);
    // Neither away from there, nor away from what lies below the repository.
    let elsewhere = desk.dir.path("elsewhere");
    let refused = repo(&["publish", "--blob-repo-dir", text(&elsewhere), &desk.repository]).0.unwrap_err().to_string();
    assert!(refused.contains("already") && refused.contains(text(&blobs)), "{refused}");
    let full = Desk::new();
    full.publish(&["--package", &package]);
    let refused = repo(&["publish", "--blob-repo-dir", text(&blobs), &full.repository]).0.unwrap_err().to_string();
    assert!(refused.contains("move them there"), "{refused}");
    done(&["verify", &full.repository]);
}

#[test]
fn packages_of_a_repository_that_has_expired_are_not_shown() {
    let desk = Desk::new();
    let package = desk.package("a", &[("file", b"a")]);
    desk.publish(&["--metadata-current-time", "2020-01-31T00:00:00Z", "--package", &package]);
    let archive = desk.dir.path("a.far").display().to_string();
    let at = ["--repo-path", &desk.repository];
    for line in [&["list"][..], &["list", "--json"], &["show", "a"], &["extract-archive", "-o", &archive, "a"]] {
        let (outcome, printed) = repo(&[&["package"], line, &at[..]].concat());
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("expired at 2020-") && error.contains("`repo publish"), "{line:?}: {error}");
        assert_eq!(printed, "", "{line:?}");
    }
    assert!(!Path::new(&archive).exists());
    // As the message says.
    done(&["publish", &desk.repository]);
    assert_eq!(desk.names(), ["a/0"]);
}
