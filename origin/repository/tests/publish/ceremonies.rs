//! Root and targets signed by several people on machines of their own, and what an origin without their keys cannot do.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use colibri_metadata::{Role, Start, TrustAnchor};
use colibri_repository::{
    Ceremony, CreateOptions, KeyChange, KeyCount, KeyForm, KeyRole, KeySources, Profile, Repository, RepositoryError,
    generate_key_file,
};

use serde_json::Value;

use crate::fixture::{Desk, NOW, client, publish_of, refresh, tree};

/// An origin with only snapshot and timestamp keys; two root and two targets keys, both needed, each with a person.
struct Offline {
    desk: Desk,
    origin: Repository,
}

impl Offline {
    fn new() -> Self {
        Self::with(Profile::Compat)
    }

    fn with(profile: Profile) -> Self {
        let desk = Desk::new();
        let counts = [KeyRole::Root, KeyRole::Targets].map(|role| (role, KeyCount { keys: 2, threshold: 2 })).to_vec();
        let origin =
            Repository::create(&desk.path("repo"), CreateOptions { counts, profile, ..CreateOptions::new(NOW) })
                .unwrap();
        for (person, ending) in [("alice", "pem"), ("bob", "2.pem")] {
            fs::create_dir(desk.path(person)).unwrap();
            for role in ["root", "targets"] {
                let name = format!("{role}.{ending}");
                fs::rename(desk.path("repo/keys").join(&name), desk.path(person).join(&name)).unwrap();
            }
        }
        Self { desk, origin }
    }

    fn keys(&self, person: &str) -> PathBuf {
        self.desk.path(person)
    }

    /// Carries a file to a person and back.
    fn signed_by(&self, ceremony: &Ceremony, person: &str) -> Ceremony {
        let mut there = Ceremony::parse(&ceremony.to_bytes().unwrap()).unwrap();
        assert_eq!(&there, ceremony);
        there.sign(&self.keys(person), KeySources::default()).unwrap();
        Ceremony::parse(&there.to_bytes().unwrap()).unwrap()
    }
}

fn is_ceremony(outcome: Result<impl Sized, RepositoryError>, words: &str) {
    match outcome.map(drop).unwrap_err() {
        RepositoryError::Ceremony(said) => assert!(said.contains(words), "{said}"),
        other => panic!("{other}"),
    }
}

#[test]
fn targets_are_signed_elsewhere_and_taken_over() {
    Profile::ALL.into_iter().for_each(targets_signed_elsewhere);
}

fn targets_signed_elsewhere(profile: Profile) {
    let offline = Offline::with(profile);
    let (desk, origin) = (&offline.desk, &offline.origin);
    let package = desk.build("hello", &[("bin/hello", b"hi")], &[]);
    let before = tree(&desk.path("repo/repository")).into_iter().filter(|(path, _)| path.ends_with("timestamp.json"));
    let before: Vec<_> = before.collect();
    let (report, unsigned) = origin.prepare(&publish_of(&[&package])).unwrap();
    assert_eq!(report.packages, 1);
    assert!(origin.packages().unwrap().is_empty(), "nothing is visible yet");
    // Nobody, one of two, one twice: not enough.
    for file in [unsigned.clone(), offline.signed_by(&unsigned, "alice")] {
        let error = origin.import_targets(&file, NOW).unwrap_err();
        assert!(matches!(error, RepositoryError::Metadata { .. }), "{error}");
    }
    let alice = offline.signed_by(&unsigned, "alice");
    let both = offline.signed_by(&alice, "bob");
    let state = &both.state().unwrap()[0];
    assert!(state.is_met() && !alice.state().unwrap()[0].is_met(), "{state:?}");
    // Signed apart and put together is the same.
    let mut merged = alice.clone();
    merged.merge(&offline.signed_by(&unsigned, "bob")).unwrap();
    assert_eq!(merged, both);
    let after = tree(&desk.path("repo/repository")).into_iter().filter(|(path, _)| path.ends_with("timestamp.json"));
    assert_eq!(after.collect::<Vec<_>>(), before);
    origin.import_targets(&both, NOW).unwrap();
    assert_eq!(origin.packages().unwrap()[0].name, "hello");
    let anchor = TrustAnchor::RootFile(origin.trusted_root_bytes().unwrap());
    // With hash bins it is the package's bin that changes, and it alone is in the file.
    let set = client(origin.dir(), anchor, NOW).unwrap();
    assert_eq!((unsigned.files().len(), unsigned.files()[0].version()), (1, 2));
    assert_eq!(set.snapshot().unwrap().meta()[unsigned.files()[0].name()].version, 2);
    assert_eq!(set.version(Role::Targets), Some(if profile == Profile::Scale { 1 } else { 2 }));
    // The same again, or what was made before somebody else's change, does not follow.
    is_ceremony(origin.import_targets(&both, NOW), "export again");
    assert!(origin.audit_verify().unwrap().is_good(), "{:?}", origin.audit_verify());
    assert!(origin.audit_lines().unwrap().iter().any(|line| line["act"] == "adopt" && line["role"] == "targets"));
}

#[test]
fn an_origin_without_the_targets_key_cannot_add_or_change_a_target() {
    Profile::ALL.into_iter().for_each(no_targets_without_their_key);
}

fn no_targets_without_their_key(profile: Profile) {
    let offline = Offline::with(profile);
    let (desk, origin) = (&offline.desk, &offline.origin);
    let package = desk.build("hello", &[("bin/hello", b"hi")], &[]);
    let no_key = |outcome: Result<(), RepositoryError>| {
        let error = outcome.unwrap_err();
        assert!(matches!(error, RepositoryError::NoKey { role: KeyRole::Targets | KeyRole::Root, .. }), "{error}");
    };
    no_key(origin.publish(&publish_of(&[&package])).map(drop));
    let mut clean = publish_of(&[]);
    clean.clean = true;
    no_key(origin.publish(&clean).map(drop));
    clean.refresh_root = true;
    no_key(origin.publish(&clean).map(drop));
    // By changing the keys of targets to one of its own.
    let mine = generate_key_file(&desk.path("repo/keys/targets.mine.pem"), KeyForm::Plain, None).unwrap();
    let change = KeyChange {
        add: vec![(KeyRole::Targets, mine)],
        thresholds: vec![(KeyRole::Targets, 1)],
        ..KeyChange::default()
    };
    no_key(origin.change_keys(&change, NOW).map(drop));
    let root = origin.export_root(&change, NOW).unwrap();
    assert!(origin.import_root(&root, None, NOW).is_err());
    // By importing targets that say something else than what was signed, or with a signature of its own key.
    let (_, unsigned) = origin.prepare(&publish_of(&[&package])).unwrap();
    let signed = offline.signed_by(&offline.signed_by(&unsigned, "alice"), "bob");
    let text = String::from_utf8(signed.to_bytes().unwrap()).unwrap();
    let changed = Ceremony::parse(text.replace("hello/0", "hullo/0").as_bytes()).unwrap();
    assert!(matches!(origin.import_targets(&changed, NOW).unwrap_err(), RepositoryError::Metadata { .. }));
    let mut own = unsigned.clone();
    is_ceremony(own.sign(&desk.path("repo/keys"), KeySources::default()), "holds no key");
    // Time alone changes nothing either: what is due and cannot be signed here stays as it is.
    let versions = origin.refresh(NOW.plus(89 * 86_400)).unwrap();
    assert_eq!((versions.root, versions.targets), (1, 1));
    assert!(origin.packages().unwrap().is_empty());
    // And what the two signed goes through untouched.
    origin.import_targets(&signed, NOW).unwrap();
    assert_eq!(origin.packages().unwrap().len(), 1);
}

#[test]
fn a_root_is_signed_by_several_people_and_devices_follow_it() {
    let offline = Offline::new();
    let (desk, origin) = (&offline.desk, &offline.origin);
    let device = client(origin.dir(), TrustAnchor::RootFile(origin.trusted_root_bytes().unwrap()), NOW).unwrap();
    // Bob is replaced by Carol, who made her key on a machine of her own.
    fs::create_dir(desk.path("carol")).unwrap();
    let carol = generate_key_file(&desk.path("carol/root.pem"), KeyForm::Plain, None).unwrap();
    let alice = colibri_repository::ListedKey::read(&desk.path("alice/root.pem")).unwrap();
    let root = origin.metadata().unwrap().root().clone();
    let bob = root.role_keys(Role::Root).key_ids.iter().find(|id| *id != alice.id()).unwrap().clone();
    let change =
        KeyChange { add: vec![(KeyRole::Root, carol)], revoke: vec![(KeyRole::Root, bob)], ..KeyChange::default() };
    let unsigned = origin.export_root(&change, NOW).unwrap();
    let alice = offline.signed_by(&unsigned, "alice");
    // Old keys alone, new keys alone: not enough.
    for file in [offline.signed_by(&alice, "bob"), offline.signed_by(&alice, "carol")] {
        assert!(file.state().unwrap().iter().any(|need| !need.is_met()));
        assert!(origin.import_root(&file, None, NOW).is_err());
    }
    let all = offline.signed_by(&offline.signed_by(&alice, "bob"), "carol");
    assert!(all.state().unwrap().iter().all(colibri_repository::NeedState::is_met));
    assert_eq!(origin.import_root(&all, None, NOW).unwrap().root, 2);
    is_ceremony(origin.import_root(&all, None, NOW), "export again");
    let device = refresh(origin.dir(), Start::FromSet(device), NOW).unwrap();
    assert_eq!(device.version(Role::Root), Some(2));
}

#[test]
fn what_is_no_ceremony_is_refused() {
    let offline = Offline::new();
    let file = offline.origin.export_targets(NOW).unwrap();
    is_ceremony(offline.origin.import_root(&file, None, NOW), "not root");
    let text = String::from_utf8(file.to_bytes().unwrap()).unwrap();
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"role\": \"targets\"", "\"role\": \"root\""),
        ("\"version\": 2", "\"version\": 2.5"),
        ("\"ceremony\"", "\"other\""),
    ] {
        assert!(text.contains(from), "{text}");
        is_ceremony(Ceremony::parse(text.replace(from, to).as_bytes()), "");
    }
    let control = text.replace("\"fuchsia_spec_version\"", "\"a\\u0007\"");
    let error = Ceremony::parse(control.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("U+0007"), "{error}");
    let mut other = Ceremony::parse(text.replace("\"version\": 2", "\"version\": 3").as_bytes()).unwrap();
    is_ceremony(other.merge(&file), "different files");
}

/// With hash bins one file carries all that change, each with its own signatures and the version that it follows.
#[test]
fn many_bins_are_signed_elsewhere_together() {
    let offline = Offline::with(Profile::Scale);
    let (desk, origin) = (&offline.desk, &offline.origin);
    let built: Vec<_> = (0..5).map(|n| desk.build(&format!("tool-{n}"), &[], &[])).collect();
    let (_, unsigned) = origin.prepare(&publish_of(&built.iter().collect::<Vec<_>>())).unwrap();
    let names: BTreeSet<_> = unsigned.files().iter().map(|file| file.name().to_owned()).collect();
    assert!(names.len() == unsigned.files().len() && (2..=5).contains(&names.len()), "{names:?}");
    let both = |file: &Ceremony| offline.signed_by(&offline.signed_by(file, "alice"), "bob");
    let signed = both(&unsigned);
    // One file of them without one of its signatures is not enough, and what is no bin is not taken.
    let mut value: Value = serde_json::from_slice(&signed.to_bytes().unwrap()).unwrap();
    assert_eq!(value["ceremony"]["format"], 2);
    let parse = |value: &Value| Ceremony::parse(&serde_json::to_vec(value).unwrap());
    let whole = value.clone();
    value["files"][1]["signatures"].as_array_mut().unwrap().pop();
    assert!(parse(&value).unwrap().state().unwrap().iter().all(|need| need.signed.len() == 1));
    let error = origin.import_targets(&parse(&value).unwrap(), NOW).unwrap_err();
    assert!(matches!(error, RepositoryError::Metadata { .. }), "{error}");
    for name in ["rollout.json", "bin-001.json", "bin-%30.json", "snapshot.json", "../x.json"] {
        let mut value = whole.clone();
        value["files"][1]["file"] = name.into();
        is_ceremony(origin.import_targets(&parse(&value).unwrap(), NOW), "no file of targets");
    }
    let mut value = whole.clone();
    value["files"][1]["file"] = value["files"][0]["file"].clone();
    is_ceremony(parse(&value), "twice");
    assert!(origin.packages().unwrap().is_empty());
    origin.import_targets(&signed, NOW).unwrap();
    assert_eq!(origin.packages().unwrap().len(), 5);
    // All of them again, with a new life; and then nothing is offered any more.
    let late = NOW.plus(80 * 86_400);
    let renewed = both(&origin.export_targets(late).unwrap());
    assert_eq!(renewed.files().len(), 2049);
    is_ceremony(origin.import_targets(&signed, late), "export again");
    assert_eq!(origin.import_targets(&renewed, late).unwrap().targets, 2);
    let device = client(origin.dir(), TrustAnchor::RootFile(origin.trusted_root_bytes().unwrap()), late).unwrap();
    assert!(device.snapshot().unwrap().meta().values().all(|meta| meta.version >= 2));
    assert_eq!(origin.packages().unwrap().len(), 5);
    let mut clean = publish_of(&[]);
    (clean.clean, clean.now) = (true, late);
    let (_, nothing) = origin.prepare(&clean).unwrap();
    assert_eq!(nothing.files().iter().map(|file| file.name().to_owned()).collect::<BTreeSet<_>>(), names);
    origin.import_targets(&both(&nothing), late).unwrap();
    assert!(origin.packages().unwrap().is_empty());
    is_ceremony(origin.prepare(&clean), "nothing to sign");
    let report = Repository::open(origin.dir()).unwrap().audit_verify().unwrap();
    assert!(report.is_good(), "{report:?}");
}

/// What expired on its way is not taken over.
#[test]
fn a_bin_that_has_expired_is_not_taken_over() {
    let offline = Offline::with(Profile::Scale);
    let (desk, origin) = (&offline.desk, &offline.origin);
    let (_, unsigned) = origin.prepare(&publish_of(&[&desk.build("hello", &[], &[])])).unwrap();
    let signed = offline.signed_by(&offline.signed_by(&unsigned, "alice"), "bob");
    let renewed = offline.signed_by(&offline.signed_by(&origin.export_targets(NOW).unwrap(), "alice"), "bob");
    let late = NOW.plus(91 * 86_400);
    for file in [&signed, &renewed] {
        let error = origin.import_targets(file, late).unwrap_err();
        assert!(matches!(error, RepositoryError::Metadata { .. }), "{error}");
    }
}

/// New keys of targets, all of them elsewhere: root and targets are signed one after the other and imported together.
#[test]
fn offline_targets_keys_are_replaced() {
    for profile in Profile::ALL {
        let offline = Offline::with(profile);
        let (desk, origin) = (&offline.desk, &offline.origin);
        let both = |file: &Ceremony| offline.signed_by(&offline.signed_by(file, "alice"), "bob");
        let (_, unsigned) = origin.prepare(&publish_of(&[&desk.build("hello", &[], &[])])).unwrap();
        origin.import_targets(&both(&unsigned), NOW).unwrap();
        fs::create_dir(desk.path("carol")).unwrap();
        let carol = generate_key_file(&desk.path("carol/targets.pem"), KeyForm::Plain, None).unwrap();
        let old = origin.metadata().unwrap().root().role_keys(Role::Targets).key_ids.clone();
        let change = KeyChange {
            add: vec![(KeyRole::Targets, carol)],
            revoke: old.into_iter().map(|id| (KeyRole::Targets, id)).collect(),
            thresholds: vec![(KeyRole::Targets, 1)],
        };
        let unsigned = origin.export_root(&change, NOW).unwrap();
        is_ceremony(origin.export_targets_under(&unsigned, NOW), "not signed");
        let root = both(&unsigned);
        is_ceremony(origin.import_root(&root, None, NOW), "--root");
        // Under the root of now the new key is none.
        let unsigned = origin.export_targets(NOW).unwrap();
        is_ceremony(unsigned.clone().sign(&desk.path("carol"), KeySources::default()), "holds no key");
        let error = origin.import_root(&root, Some(&both(&unsigned)), NOW).unwrap_err();
        assert!(matches!(error, RepositoryError::Metadata { .. }), "{error}");
        let targets = offline.signed_by(&origin.export_targets_under(&root, NOW).unwrap(), "carol");
        let versions = origin.import_root(&root, Some(&targets), NOW).unwrap();
        assert_eq!(versions.root, 2, "{profile}");
        assert_eq!(origin.packages().unwrap().len(), 1, "{profile}");
        let (_, next) = origin.prepare(&publish_of(&[&desk.build("more", &[], &[])])).unwrap();
        origin.import_targets(&offline.signed_by(&next, "carol"), NOW).unwrap();
        assert_eq!(origin.packages().unwrap().len(), 2, "{profile}");
    }
}
