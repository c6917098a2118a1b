//! The two forms of metadata: what a client finds in each, what a publish writes, and where `compat` ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colibri_metadata::{Answer, Role, Search, Start, Step, TargetDescription, TrustAnchor, TrustedSet};
use colibri_repository::{CreateOptions, ExtraTarget, KeyForm, KeyRole, Profile, Publish, Repository, RepositoryError};
use serde_json::{Value, json};

use crate::fixture::{Desk, NOW, client, content, publish_of, refresh, tree};

fn scale(desk: &Desk) -> Repository {
    let options = CreateOptions { profile: Profile::Scale, ..CreateOptions::new(NOW) };
    Repository::create(&desk.path("repo"), options).unwrap()
}

fn extra(names: impl IntoIterator<Item = String>) -> Publish<'static> {
    let target = |name: String| ExtraTarget { content: Bytes::from(format!("content of {name}")), name, custom: None };
    Publish { extra_targets: names.into_iter().map(target).collect(), ..Publish::new(NOW) }
}

/// What a device finds under a name, fetching the roles on the way from the folder.
fn find(dir: &Path, set: TrustedSet, name: &str) -> (TrustedSet, Option<TargetDescription>) {
    let mut search = Search::start(set, name.parse().unwrap(), NOW);
    while let Step::Want(want) = search.next() {
        let answer = fs::read(dir.join("repository").join(&want.name));
        search.supply(answer.map_or(Answer::NotFound, |bytes| Answer::Found(bytes.into()))).unwrap();
    }
    let (set, found) = search.finish().unwrap();
    (set, found.map(|found| found.target))
}

fn trusted(repository: &Repository) -> TrustedSet {
    let anchor = TrustAnchor::RootFile(repository.trusted_root_bytes().unwrap());
    client(repository.dir(), anchor, NOW).unwrap()
}

/// Names of new files, and of files that changed.
fn written(dir: &Path, before: &std::collections::BTreeMap<PathBuf, Vec<u8>>) -> BTreeSet<String> {
    let after = tree(&dir.join("repository"));
    let changed = after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes));
    changed.map(|(path, _)| path.to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_scale_repository_has_bins_and_a_snapshot_of_versions() {
    let desk = Desk::new();
    let repository = scale(&desk);
    assert_eq!(repository.profile().unwrap(), Profile::Scale);
    let set = trusted(&repository);
    let delegations = set.targets().unwrap().delegations().unwrap();
    assert!((1024..=2048).contains(&delegations.roles().len()));
    let snapshot = set.snapshot().unwrap();
    assert_eq!(snapshot.meta().len(), delegations.roles().len() + 1);
    assert!(snapshot.meta().values().all(|meta| meta.length.is_none() && meta.hashes.is_none() && meta.version == 1));
    assert!(set.timestamp().unwrap().snapshot().hashes.is_some());
    assert_eq!(find(repository.dir(), set, "nothing/0").1, None);
    assert_eq!(repository.packages().unwrap(), []);
}

#[test]
fn a_publish_into_scale_signs_the_bins_that_change_and_no_other() {
    let desk = Desk::new();
    let repository = scale(&desk);
    let names: Vec<String> = (0..300).map(|n| format!("tools/{n}/file.bin")).collect();
    repository.publish(&extra(names.clone())).unwrap();
    let before = tree(&desk.path("repo/repository"));
    let report = repository.publish(&extra(["one more".to_owned()])).unwrap();
    assert_eq!((report.versions.targets, report.versions.snapshot, report.packages), (1, 3, 0));
    let written = written(repository.dir(), &before);
    let bins: Vec<_> = written.iter().filter(|name| name.contains("bin-")).collect();
    let mut expected = BTreeSet::from(["3.snapshot.json", "snapshot.json", "timestamp.json"].map(str::to_owned));
    expected.extend(written.iter().filter(|name| name.starts_with("targets/")).cloned());
    expected.extend(bins.iter().map(|name| (*name).clone()));
    assert_eq!((bins.len(), &written), (1, &expected));
    let mut set = trusted(&repository);
    for name in names.iter().map(String::as_str).chain(["one more"]) {
        let (next, found) = find(repository.dir(), set, name);
        set = next;
        let found = found.unwrap_or_else(|| panic!("{name}"));
        assert_eq!(found.length, format!("content of {name}").len() as u64);
        let hash = colibri_common::hex(found.hashes.sha512.as_ref().unwrap());
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let stored = fs::read(repository.served_dir().join("targets").join(folder).join(format!("{hash}.{file}")));
        assert_eq!(stored.unwrap(), format!("content of {name}").into_bytes());
    }
    // The same again changes no bin.
    let before = tree(&desk.path("repo/repository"));
    repository.publish(&extra(["one more".to_owned()])).unwrap();
    let again = self::written(repository.dir(), &before);
    assert!(again.iter().all(|name| !name.contains("bin-")), "{again:?}");
}

#[test]
fn packages_are_listed_from_both_profiles() {
    for profile in Profile::ALL {
        let desk = Desk::new();
        let options = CreateOptions { profile, ..CreateOptions::new(NOW) };
        let repository = Repository::create(&desk.path("repo"), options).unwrap();
        let built: Vec<_> = ["zebra", "apple", "mango"]
            .iter()
            .map(|name| desk.build(name, &[("bin/a", &content(name.len() as u64, 100))], &[]))
            .collect();
        repository.publish(&publish_of(&built.iter().collect::<Vec<_>>())).unwrap();
        repository.publish(&extra(["no-package".to_owned()])).unwrap();
        let listed: Vec<_> = repository.packages().unwrap().into_iter().map(|entry| (entry.name, entry.hash)).collect();
        let expected = [1, 2, 0].map(|at| (built[at].name.clone(), built[at].hash));
        assert_eq!(listed, expected, "{profile}");
        assert_eq!(repository.package("mango").unwrap().hash, built[2].hash);
        assert_eq!(repository.package_blobs("mango").unwrap().len(), 2);
        assert_eq!(find(repository.dir(), trusted(&repository), "mango/0").1.unwrap().merkle(), Some(built[2].hash));
        // Only this from now on.
        let publish = Publish { clean: true, ..publish_of(&[&built[1]]) };
        repository.publish(&publish).unwrap();
        assert_eq!(repository.packages().unwrap().len(), 1, "{profile}");
        assert_eq!(find(repository.dir(), trusted(&repository), "mango/0").1, None);
        assert_eq!(find(repository.dir(), trusted(&repository), "no-package").1, None);
        assert_eq!(Repository::open(repository.dir()).unwrap().profile().unwrap(), profile);
    }
}

#[test]
fn bins_are_signed_again_with_targets() {
    let desk = Desk::new();
    let repository = scale(&desk);
    repository.publish(&extra(["a/b".to_owned()])).unwrap();
    let before = trusted(&repository);
    let late = colibri_common::UnixSeconds(NOW.0 + 80 * 86_400);
    let versions = repository.refresh(late).unwrap();
    assert_eq!(versions.targets, 2);
    let set = refresh(repository.dir(), Start::FromSet(before), late).unwrap();
    let metas = set.snapshot().unwrap().meta();
    assert!(metas.values().all(|meta| meta.version >= 2));
    assert!(find(repository.dir(), set, "a/b").1.is_some());
}

/// Signed with the keys of targets: what a publish must sign, and no more.
fn signed_with_targets_keys(written: &BTreeSet<String>) -> Vec<&str> {
    let file = |name: &'_ String| name.contains(".bin-") || name.ends_with(".targets.json");
    written.iter().filter(|name| file(name)).map(String::as_str).collect()
}

#[test]
fn what_does_not_change_is_not_signed_again() {
    let desk = Desk::new();
    let repository = scale(&desk);
    repository.publish(&extra((0..3).map(|n| format!("file-{n}")))).unwrap();
    let step = |act: &mut dyn FnMut()| {
        let before = tree(&desk.path("repo/repository"));
        act();
        self::written(repository.dir(), &before)
    };
    // A key of rollout is named at the top.
    let written = step(&mut || _ = repository.enable_rollout(KeyForm::Plain, NOW).unwrap());
    assert_eq!(signed_with_targets_keys(&written), ["2.targets.json"]);
    assert!(find(repository.dir(), trusted(&repository), "file-1").1.is_some());
    // Only this from now on: one bin stays as it is, two are emptied, one is new.
    let only = Publish { clean: true, ..extra(["file-1".to_owned(), "new".to_owned()]) };
    let written = step(&mut || _ = repository.publish(&only).unwrap());
    let bins = signed_with_targets_keys(&written);
    assert_eq!(bins.len(), 3, "{bins:?}");
    let found = |name| find(repository.dir(), trusted(&repository), name).1.is_some();
    assert_eq!(["file-0", "file-1", "file-2", "new"].map(found), [false, true, false, true]);
    // Nothing new: no bin.
    let written = step(&mut || _ = repository.publish(&only).unwrap());
    assert!(signed_with_targets_keys(&written).is_empty(), "{written:?}");
}

#[test]
fn bins_with_half_of_their_life_left_are_not_renewed() {
    let desk = Desk::new();
    let repository = scale(&desk);
    let day = |days: u64| NOW.plus(days * 86_400);
    let publish = |name: &str, days| {
        repository.publish(&Publish { now: day(days), ..extra([name.to_owned()]) }).unwrap();
    };
    publish("young", 50);
    let due = |repository: &Repository| {
        repository.refresh_due().unwrap().into_iter().find(|due| due.role == KeyRole::Targets).unwrap()
    };
    assert_eq!((due(&repository).at, due(&repository).expires), (day(60), day(90)));
    let before = tree(&desk.path("repo/repository"));
    assert!(repository.refresh_what_is_due(day(60)).unwrap().contains(&KeyRole::Targets));
    // Every bin but one, and the role at the top.
    let written = written(repository.dir(), &before);
    assert_eq!(signed_with_targets_keys(&written).len(), 2048);
    // Now the one that was left is the first to expire, for whoever reads it from the disk too.
    let opened = Repository::open(repository.dir()).unwrap();
    for repository in [&repository, &opened] {
        assert_eq!((due(repository).at, due(repository).expires), (day(110), day(140)));
        let status = repository.status().unwrap();
        let targets = status.iter().find(|role| role.role == KeyRole::Targets).unwrap();
        assert_eq!((targets.due, targets.expires), (day(110), day(140)));
    }
    assert!(!repository.refresh_what_is_due(day(109)).unwrap().contains(&KeyRole::Targets));
    let before = tree(&desk.path("repo/repository"));
    assert!(opened.refresh_what_is_due(day(110)).unwrap().contains(&KeyRole::Targets));
    let written = self::written(repository.dir(), &before);
    assert_eq!(signed_with_targets_keys(&written).len(), 2049, "their life is half over");
    // A change of keys signs all of them.
    let before = tree(&desk.path("repo/repository"));
    opened.rotate_keys(KeyRole::Targets, KeyForm::Plain, day(110)).unwrap();
    assert_eq!(signed_with_targets_keys(&self::written(repository.dir(), &before)).len(), 2049);
}

#[test]
fn a_bin_that_is_damaged_is_not_carried_on() {
    let desk = Desk::new();
    let repository = scale(&desk);
    repository.publish(&extra(["a".to_owned()])).unwrap();
    let bin = fs::read_dir(repository.served_dir()).unwrap().map(|entry| entry.unwrap().path());
    let bin = bin.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("2.bin-")).unwrap();
    let whole = fs::read_to_string(&bin).unwrap();
    fs::write(&bin, whole.replace("\"length\":12", "\"length\":13")).unwrap();
    let publish = Publish {
        extra_targets: vec![ExtraTarget { name: "a".into(), content: "other".into(), custom: None }],
        ..Publish::new(NOW)
    };
    // What this program had proven itself is not read again.
    let repository = Repository::open(repository.dir()).unwrap();
    let error = repository.publish(&publish).unwrap_err().to_string();
    assert!(error.contains(bin.file_name().unwrap().to_str().unwrap().strip_prefix("2.").unwrap()), "{error}");
    assert!(repository.packages().is_err());
    fs::write(&bin, whole).unwrap();
    repository.publish(&publish).unwrap();
}

#[test]
fn compat_warns_near_what_the_stock_client_reads_and_refuses_beyond() {
    let desk = Desk::new();
    let repository = desk.repository();
    assert_eq!(repository.profile().unwrap(), Profile::Compat);
    let fill = |bytes: usize| ExtraTarget {
        name: "big".into(),
        content: "x".into(),
        custom: Some(Value::String("x".repeat(bytes))),
    };
    let publish = |bytes| Publish { extra_targets: vec![fill(bytes)], ..Publish::new(NOW) };
    assert_eq!(repository.publish(&publish(3_990_000)).unwrap().near_cap, None);
    let near = repository.publish(&publish(4_001_000)).unwrap().near_cap.unwrap();
    assert_eq!((near.role, near.bytes_max), (Role::Targets, 5_000_000));
    let before = repository.versions().unwrap();
    let error = repository.publish(&publish(5_000_000)).unwrap_err();
    assert!(matches!(error, RepositoryError::OverCap { role: Role::Targets, .. }), "{error}");
    assert!(error.to_string().contains("scale"), "{error}");
    assert_eq!(repository.versions().unwrap(), before);
}

/// One such name, and devices with the stock client refuse every target: `tests/interop` compares with that client.
#[test]
fn names_that_the_stock_client_refuses_are_for_scale_only() {
    let desk = Desk::new();
    let compat = desk.repository();
    compat.publish(&extra(["ünï/\u{1F426}".to_owned()])).unwrap();
    let before = (compat.versions().unwrap(), tree(compat.dir()));
    for character in [':', '\\', '<', '>', '"', '|', '?'] {
        let name = format!("odd/a{character}b");
        for error in [
            compat.publish(&extra([name.clone()])).unwrap_err(),
            compat.prepare(&extra([name.clone()])).map(drop).unwrap_err(),
        ] {
            let text = error.to_string();
            let is_it =
                matches!(&error, RepositoryError::NameNotCompat { character: found, .. } if *found == character);
            assert!(is_it && text.contains(&name) && text.contains("scale"), "{text}");
        }
    }
    assert_eq!((compat.versions().unwrap(), tree(compat.dir())), before, "nothing is left of it");
    let other = Desk::new();
    let scale = scale(&other);
    let name = "both/\\\"<odd>?|:";
    scale.publish(&extra([name.to_owned()])).unwrap();
    assert!(find(scale.dir(), trusted(&scale), name).1.is_some());
}

#[test]
fn names_and_custom_that_clients_disagree_on_are_refused() {
    let desk = Desk::new();
    let repository = desk.repository();
    let publish = |name: &str, custom: Option<Value>| {
        let target = ExtraTarget { name: name.to_owned(), content: "x".into(), custom };
        repository.publish(&Publish { extra_targets: vec![target], ..Publish::new(NOW) })
    };
    for name in ["", "/a", "a/../b", "a//b", "a\nb", "a\u{7f}", "\u{85}", "a\0"] {
        let error = publish(name, None).unwrap_err().to_string();
        assert!(error.contains("target"), "{name:?}: {error}");
    }
    for custom in [json!({"a": 0.5}), json!({"a": "b\u{1}"}), json!({"\t": 1}), json!([1e300])] {
        assert!(publish("a", Some(custom.clone())).is_err(), "{custom}");
    }
    assert_eq!(repository.versions().unwrap().targets, 1);
    let custom = json!({"a": [1, "ü \" \u{1F426}"], "b": {"c": null}});
    publish("ünï quoted/\u{1F426}", Some(custom.clone())).unwrap();
    let found = find(repository.dir(), trusted(&repository), "ünï quoted/\u{1F426}").1.unwrap();
    assert_eq!(found.custom, custom);
    let twice = vec![ExtraTarget { name: "a".into(), content: "x".into(), custom: None }; 2];
    let error = repository.publish(&Publish { extra_targets: twice, ..Publish::new(NOW) }).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}
