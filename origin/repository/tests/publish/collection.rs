//! Collection in both profiles: packages in hash bins, and targets that are no packages, stay as long as they are offered.

use std::fs;

use bytes::Bytes;
use colibri_repository::{Collect, CreateOptions, ExtraTarget, Profile, Publish, Repository, verify};

use crate::fixture::{Desk, NOW, content, publish_of, tree};

const NAMES: [&str; 3] = ["plain", "folder/file", "a/b/c/deep.json"];

fn files(text: &str) -> Publish<'static> {
    let target =
        |name: &str| ExtraTarget { name: name.into(), content: Bytes::from(format!("{text} {name}")), custom: None };
    Publish { extra_targets: NAMES.map(target).into(), ..Publish::new(NOW) }
}

#[test]
fn what_is_offered_stays_in_either_profile() {
    for profile in [Profile::Compat, Profile::Scale] {
        let desk = Desk::new();
        let options = CreateOptions { profile, ..CreateOptions::new(NOW) };
        let repository = Repository::create(&desk.path("repo"), options).unwrap();
        let big = content(1, 50_000);
        let packages =
            ["one", "two", "three"].map(|name| desk.build(name, &[("same", &big), ("own", name.as_bytes())], &[]));
        repository.publish(&publish_of(&packages.iter().collect::<Vec<_>>())).unwrap();
        repository.publish(&files("old")).unwrap();
        repository.publish(&files("new")).unwrap();
        let newer = desk.build("two", &[("same", &big), ("own", b"changed")], &[]);
        repository.publish(&publish_of(&[&newer])).unwrap();
        let stored = |folder: &str| tree(&desk.path("repo/repository").join(folder));
        let texts = || stored("targets").into_values().filter_map(|bytes| String::from_utf8(bytes).ok());
        assert_eq!(texts().filter(|text| text.starts_with("old ")).count(), 3, "{profile:?}");
        // Dates count from now on the file system, so this is long after everything.
        let far = Collect { keep_sets: 1, grace_s: 0, ..Collect::new(NOW.plus(100 * 365 * 86_400)) };
        let report = repository.collect(&far).unwrap();
        // The meta.far and the file of the old `two`.
        assert_eq!(report.blobs_removed, 2, "{profile:?}");
        assert_eq!(repository.collect(&far).unwrap().bytes_removed, 0, "{profile:?}");
        let mut kept: Vec<String> = texts().filter(|text| !text.is_empty() && text.len() < 100).collect();
        kept.sort();
        assert_eq!(kept, ["new a/b/c/deep.json", "new folder/file", "new plain"], "{profile:?}");
        assert_eq!(stored("targets").len(), 6, "{profile:?}");
        let found = verify(&desk.path("repo"), NOW, None).unwrap();
        assert!(found.damage.is_empty() && found.unreferenced.is_empty(), "{profile:?}: {:?}", found.damage);
        let reopened = Repository::open(&desk.path("repo")).unwrap();
        for package in [&packages[0], &newer, &packages[2]] {
            assert_eq!(reopened.package_blobs(&package.name).unwrap().len(), 3, "{profile:?}");
        }
        reopened.refresh(NOW).unwrap();
        assert!(fs::metadata(desk.path("repo/repository/1.root.json")).is_ok());
    }
}
