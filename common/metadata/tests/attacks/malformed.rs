//! What is signed but makes no sense: truncation, duplicate keys, depth, traversal, wrong types; and random damage.

use bytes::Bytes;
use colibri_metadata::{Role, Rule};
use serde_json::{Value, json};

use crate::fixture::{Repo, envelope, fresh};

#[test]
fn truncation_at_every_byte_is_refused() {
    let mut repo = Repo::new();
    repo.hashes = false;
    repo.publish();
    repo.rotate(|_| {});
    for name in ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"] {
        let good = repo.files[name].clone();
        for length in 0..good.len() {
            let mut cut = repo.clone();
            cut.files.insert(name.into(), good.slice(..length));
            let driven = fresh(&cut);
            assert_eq!(driven.error().file(), name);
            assert!(matches!(driven.error().rule(), Rule::Malformed(_)), "{name} cut at {length}");
        }
    }
}

/// `edit` the signed part of `role` before it is signed; what does the client say?
fn said(role: Role, edit: impl Fn(&mut Value)) -> Rule {
    let mut repo = Repo::new();
    if role == Role::Root {
        repo.bump(Role::Root);
        let mut signed = repo.root_signed();
        edit(&mut signed);
        let bytes = envelope(&signed, repo.keys(Role::Root));
        repo.files.insert("2.root.json".into(), bytes);
    } else {
        repo.publish_with(|of, signed| {
            if of == role {
                edit(signed);
            }
        });
    }
    let driven = fresh(&repo);
    assert_eq!(driven.error().role(), role);
    assert!(!driven.error().to_string().contains('\n'));
    driven.error().rule().clone()
}

#[test]
fn a_target_name_with_traversal_is_refused() {
    for name in ["../evil", "/etc/passwd", "a/../../b", "a//b", "a\0b", "", &"x".repeat(1025)] {
        let rule = said(Role::Targets, |signed| {
            let target = signed["targets"]["hello/0"].clone();
            signed["targets"][name] = target;
        });
        assert!(matches!(&rule, Rule::TargetName { name: of, .. } if of == name), "{rule}");
    }
}

#[test]
fn the_header_of_every_role_is_checked() {
    for role in Role::ALL {
        assert_eq!(said(role, |signed| signed["_type"] = json!("mirror")), Rule::WrongType("mirror".into()));
        for spec in ["2.0", "0.9", "1.", "1.a", "", "1.0.0.0", "10.1", "1.+1"] {
            assert_eq!(said(role, |signed| signed["spec_version"] = json!(spec)), Rule::SpecVersion(spec.into()));
        }
        for version in [json!(0), json!(-1), json!(4_294_967_296_u64), json!("1"), json!(null)] {
            let rule = said(role, |signed| signed["version"] = version.clone());
            assert!(matches!(&rule, Rule::Malformed(text) if text.contains("version")), "{rule}");
        }
        for date in [json!("2027"), json!("2027-01-01T00:00:00"), json!(1)] {
            let rule = said(role, |signed| signed["expires"] = date.clone());
            assert!(matches!(&rule, Rule::Malformed(text) if text.contains("expires")), "{rule}");
        }
        for field in ["_type", "spec_version", "version", "expires"] {
            let rule = said(role, |signed| _ = signed.as_object_mut().unwrap().remove(field));
            assert!(matches!(&rule, Rule::Malformed(text) if text.contains(field)), "{rule}");
        }
    }
}

#[test]
fn accepted_spec_versions() {
    for spec in ["1", "1.0", "1.0.31", "1.1"] {
        let mut repo = Repo::new();
        repo.publish_with(|_, signed| signed["spec_version"] = json!(spec));
        assert!(fresh(&repo).result.is_ok(), "{spec}");
    }
}

type Edit = fn(&mut Value);

#[test]
fn roots_that_cannot_work_are_refused() {
    let edits: [(&str, Edit); 7] = [
        ("threshold", |signed| signed["roles"]["snapshot"]["threshold"] = json!(0)),
        ("key id", |signed| signed["roles"]["snapshot"]["keyids"] = json!([""])),
        ("keyids", |signed| signed["roles"]["snapshot"]["keyids"] = json!([1])),
        ("snapshot", |signed| _ = signed["roles"].as_object_mut().unwrap().remove("snapshot")),
        ("keys", |signed| signed["keys"] = json!([])),
        ("consistent_snapshot", |signed| signed["consistent_snapshot"] = json!(1)),
        ("roles", |signed| signed["roles"] = json!(null)),
    ];
    for (word, edit) in edits {
        let rule = said(Role::Root, edit);
        assert!(matches!(&rule, Rule::Malformed(text) if text.contains(word)), "{word}: {rule}");
    }
}

#[test]
fn a_role_that_nobody_can_sign_is_never_satisfied() {
    let edits: [(u32, Edit); 2] = [
        (2, |signed| signed["roles"]["snapshot"]["threshold"] = json!(2)),
        (1, |signed| signed["roles"]["snapshot"]["keyids"] = json!(["unlisted"])),
    ];
    for (needed, edit) in edits {
        let mut repo = Repo::new();
        repo.bump(Role::Root);
        let mut signed = repo.root_signed();
        edit(&mut signed);
        repo.files.insert("2.root.json".into(), envelope(&signed, repo.keys(Role::Root)));
        let driven = fresh(&repo);
        assert_eq!(driven.error().role(), Role::Snapshot);
        assert!(matches!(driven.error().rule(), Rule::Threshold { threshold, .. } if *threshold == needed));
        assert_eq!(driven.floor.unwrap().version(Role::Root), Some(2), "the root itself is fine");
    }
}

#[test]
fn lower_roles_without_their_content_are_refused() {
    let cases: [(Role, &str, Edit); 8] = [
        (Role::Timestamp, "meta", |signed| signed["meta"] = json!({})),
        (Role::Timestamp, "sha512", |signed| signed["meta"]["snapshot.json"]["hashes"] = json!({"sha512": "AB"})),
        (Role::Timestamp, "neither", |signed| signed["meta"]["snapshot.json"]["hashes"] = json!({"md5": "ab"})),
        (Role::Snapshot, "targets.json", |signed| signed["meta"] = json!({})),
        (Role::Snapshot, "length", |signed| signed["meta"]["targets.json"]["length"] = json!(-1)),
        (Role::Targets, "targets", |signed| signed["targets"] = json!([])),
        (Role::Targets, "hashes", |signed| {
            _ = signed["targets"]["hello/0"].as_object_mut().unwrap().remove("hashes");
        }),
        (Role::Targets, "length", |signed| signed["targets"]["hello/0"]["length"] = json!("100")),
    ];
    for (role, word, edit) in cases {
        let rule = said(role, edit);
        assert!(matches!(&rule, Rule::Malformed(text) if text.contains(word)), "{word}: {rule}");
    }
}

#[test]
fn unknown_fields_are_signed_but_ignored() {
    let mut repo = Repo::new();
    repo.publish_with(|_, signed| {
        signed["custom"] = json!({"fuchsia_spec_version": 1});
        signed["later"] = json!([null, {"x": -3}]);
    });
    assert!(fresh(&repo).result.is_ok());
}

#[test]
fn texts_that_mean_two_things_are_refused() {
    let mut repo = Repo::new();
    repo.hashes = false;
    repo.publish();
    let good = String::from_utf8(repo.files["timestamp.json"].to_vec()).unwrap();
    let deep = format!("\"x\":{}{},\"version\"", "[".repeat(64), "]".repeat(64));
    for bad in [
        good.replacen("\"version\"", "\"version\":1,\"version\"", 1),
        good.replacen("{\"signatures\"", "{\"signed\":{},\"signatures\"", 1),
        good.replacen("\"version\"", "\"x\":1.0,\"version\"", 1),
        good.replacen("\"version\"", &deep, 1),
        format!("{good}{{}}"),
        good.replacen("\"signed\"", "\"unsigned\"", 1),
        good.replacen("\"signatures\"", "\"sigs\"", 1),
        good.replacen("\"sig\"", "\"gis\"", 1),
        "[]".to_owned(),
        String::new(),
    ] {
        repo.files.insert("timestamp.json".into(), Bytes::from(bad.clone()));
        let driven = fresh(&repo);
        assert!(matches!(driven.error().rule(), Rule::Malformed(_)), "{bad}");
    }
}

#[test]
fn too_many_signatures_are_refused() {
    let mut repo = Repo::new();
    let signed = repo.timestamp_signed(&repo.files["1.snapshot.json"]);
    let many: Vec<Value> = (0..300).map(|n| json!({"keyid": format!("{n:04x}"), "sig": ""})).collect();
    let bytes = serde_json::to_vec(&json!({"signatures": many, "signed": signed})).unwrap();
    assert!(bytes.len() < 16 * 1024);
    repo.files.insert("timestamp.json".into(), bytes.into());
    assert_eq!(fresh(&repo).error().rule(), &Rule::Malformed("it has too many signatures".into()));
}

/// Random damage never panics and is never believed.
#[test]
fn random_damage_is_refused() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut repo = Repo::new();
    repo.hashes = false;
    repo.publish();
    repo.rotate(|_| {});
    let names = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"];
    for _ in 0..2000 {
        let name = names[random.usize(..names.len())];
        let good = &repo.files[name];
        let mut bytes = good.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.insert(at, random.u8(..)),
                _ => _ = bytes.remove(at),
            }
        }
        let same = serde_json::from_slice::<Value>(&bytes).ok() == serde_json::from_slice(good).ok();
        let mut damaged = repo.clone();
        damaged.files.insert(name.into(), bytes.into());
        assert!(same || fresh(&damaged).result.is_err(), "seed {seed}");
    }
}
