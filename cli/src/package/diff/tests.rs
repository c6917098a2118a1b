//! Tests of `package diff`, by command line.

use serde_json::Value;

use super::super::tests::{package_with_child, verb};
use crate::files::tests::Fixture;

fn show(dir: &Fixture, name: &str) -> String {
    dir.path(name).display().to_string()
}

/// The package with a child at `old`, and as `out` a later build: lib changed, bin gone, data new.
fn two_builds() -> Fixture {
    let dir = package_with_child();
    let build = |out: &str, extra: &str| {
        let subpackages = show(&dir, "subpackages.json");
        let line = format!(
            "build --api-level 7 --blobs -o {} --subpackages-build-manifest-path {subpackages} {}{extra}",
            show(&dir, out),
            show(&dir, "build.manifest")
        );
        verb(&line).0.unwrap();
    };
    build("old", "");
    dir.write("lib", b"a longer lib");
    dir.write("data", &[b'd'; 100_000]);
    let lines = format!(
        "lib/named_subpackage={}\ndata/new={}\nmeta/named_subpackage.cm={}\nmeta/package={}\n",
        show(&dir, "lib"),
        show(&dir, "data"),
        show(&dir, "cm"),
        show(&dir, "package")
    );
    dir.write("build.manifest", lines.as_bytes());
    build("new", "");
    dir
}

fn json(line: &str) -> Value {
    serde_json::from_str(&verb(line).1).unwrap()
}

#[test]
fn manifests_archives_and_meta_fars_give_the_same_difference() {
    let dir = two_builds();
    let (old, new) = (show(&dir, "old"), show(&dir, "new"));
    let (code, text) = verb(&format!("diff {old} {new}/package_manifest.json"));
    code.unwrap();
    let signs: Vec<_> = text.lines().filter(|line| line.starts_with(['+', '-', '~'])).collect();
    for row in ["+  data/new", "-  bin/named_subpackage", "~  lib/named_subpackage", "-  meta/named_subpackage.cmx"] {
        assert!(signs.iter().any(|line| line.starts_with(row)), "{row} in\n{text}");
    }
    // The changed lib, the new data and the meta.far; the child is in both.
    assert!(text.contains("blobs: 3 to fetch, 3 no longer needed, 3 in both"), "{text}");
    let bytes = 12 + 100_000 + std::fs::metadata(dir.path("new/meta.far")).unwrap().len();
    assert!(text.contains(&format!("fetch: {bytes} bytes (0 of 3 blobs counted as delivery blobs)")), "{text}");
    let reference = json(&format!("diff --json {old} {new}"));
    assert_eq!((reference["fetch_bytes"].as_u64(), reference["blobs_kept"].as_u64()), (Some(bytes), Some(3)));
    for name in ["old", "new"] {
        let out = show(&dir, &format!("{name}.far"));
        verb(&format!("archive create -o {out} {}", show(&dir, &format!("{name}/package_manifest.json")))).0.unwrap();
    }
    assert_eq!(json(&format!("diff --json {old}.far {new}.far")), reference);
    // Of a bare meta.far the folders know the rest.
    let child = show(&dir, "child/out");
    std::fs::rename(
        dir.path("child/out/meta.far"),
        dir.path("child/out/1d20cc5163f35cd977cf414d54f8d5b53bcb33944cff0b9560b0627a6bba7441"),
    )
    .unwrap();
    let far = format!("{old}/meta.far {new}/meta.far --blobs {child} --blobs {new}/blobs");
    let of_far = json(&format!("diff --json {far}"));
    assert_eq!(
        (&of_far["fetch_bytes"], &of_far["blobs_added"]),
        (&reference["fetch_bytes"], &reference["blobs_added"])
    );
}

#[test]
fn delivery_blobs_count_where_they_are_known() {
    let dir = two_builds();
    let (old, new) = (show(&dir, "old"), show(&dir, "new"));
    std::fs::create_dir(dir.path("d")).unwrap();
    let blobs: Vec<_> = crate::files::walk(&dir.path("new/blobs"))
        .unwrap()
        .files
        .into_values()
        .map(|p| p.display().to_string())
        .collect();
    let args = crate::blob::Compress {
        output: dir.path("d/1"),
        delivery_type: 1,
        level: None,
        hash_as_name: true,
        paths: blobs.into_iter().map(Into::into).collect(),
    };
    crate::blob::run(&crate::blob::Args { verb: crate::blob::Verb::Compress(args) }, &mut Vec::new()).unwrap();
    let diff = json(&format!("diff --json {old} {new} --blobs {}", show(&dir, "d")));
    assert_eq!((&diff["fetch_blobs_as_delivery"], &diff["fetch_blobs_of_unknown_length"]), (&2.into(), &0.into()));
    let raw = json(&format!("diff --json {old} {new}"))["fetch_bytes"].as_u64().unwrap();
    assert!(diff["fetch_bytes"].as_u64().unwrap() + 90_000 < raw, "100,000 equal bytes compress well");
}

#[test]
fn nothing_differs_and_what_cannot_be_read_is_named() {
    let dir = two_builds();
    let old = show(&dir, "old");
    let (_, text) = verb(&format!("diff {old} {old}"));
    assert!(text.contains("blobs: 0 to fetch, 0 no longer needed, 6 in both\nfetch: 0 bytes\n"), "{text}");
    let error = |line: &str| verb(line).0.unwrap_err().to_string();
    assert!(error(&format!("diff {old} {old}/nothing")).contains("old/nothing"));
    assert!(error(&format!("diff {old}/meta.far {old}")).contains("--blobs"));
    dir.write("junk", b"junk");
    assert!(error(&format!("diff {} {old}", show(&dir, "junk"))).contains("junk: package manifest"));
}
