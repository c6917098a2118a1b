//! `repo verify`: every kind of damage is found, named, and laid at the right package's door.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A desk with packages `a` (one large file, shared with `b`) and `b` (a small file besides).
fn two_packages() -> Desk {
    let desk = Desk::new();
    let shared = content(30_000);
    let a = desk.package("a", &[("lib/shared", &shared)]);
    let b = desk.package("b", &[("lib/shared", &shared), ("data/own", b"own")]);
    desk.publish(&["--package", &a, "--package", &b]);
    desk
}

/// Bytes that hardly compress.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn blob_of(content: &[u8]) -> String {
    colibri_common::merkle::build(content).id.to_string()
}

impl Desk {
    fn served(&self, name: &str) -> PathBuf {
        self.dir.path("repo/repository").join(name)
    }

    /// Verifies and gives whether it ended well, and what it said.
    fn verify(&self) -> (bool, Value) {
        let (outcome, text) = repo(&["verify", "--json", &self.repository]);
        (outcome.unwrap() == ExitCode::SUCCESS, serde_json::from_str(&text).unwrap())
    }

    fn people_read(&self) -> String {
        repo(&["verify", &self.repository]).1
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_repository_is_whole() {
    let desk = two_packages();
    let (well, report) = desk.verify();
    assert!(well && report["whole"] == true, "{report}");
    assert_eq!((&report["packages"], &report["blobs"], &report["files"]), (&2.into(), &4.into(), &4.into()));
    assert_eq!(report["versions"]["targets"], 2);
    assert_eq!((&report["unreferenced"], &report["expired"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    let text = desk.people_read();
    assert!(text.starts_with("whole: 2 packages, 4 blobs; root 1, targets 2"), "{text}");
}

#[test]
fn a_rotten_blob_is_named_with_every_package_that_uses_it() {
    let desk = two_packages();
    let id = blob_of(&content(30_000));
    flip(&desk.served("blobs/1").join(&id));
    let (well, report) = desk.verify();
    assert!(!well, "{report}");
    let [damage] = &report["damage"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!(
        (damage["blob"].as_str().unwrap(), damage["file"].as_str().unwrap()),
        (id.as_str(), format!("repository/blobs/1/{id}").as_str())
    );
    let users = serde_json::json!([
        {"package": "a/0", "path": "lib/shared"}, {"package": "b/0", "path": "lib/shared"},
    ]);
    assert_eq!(damage["users"], users);
    let text = desk.people_read();
    assert!(text.contains(&format!("BAD repository/blobs/1/{id}: ")), "{text}");
    assert!(text.contains("  is lib/shared of a/0\n") && text.contains("DAMAGED in 1 places"), "{text}");
}

#[test]
fn each_kind_of_damage_is_found() {
    let shared = blob_of(&content(30_000));
    let own = blob_of(b"own");
    type Harm<'a> = &'a dyn Fn(&Desk);
    let kinds: [(&str, Harm<'_>, &str); 7] = [
        ("missing", &|desk| fs::remove_file(desk.served("blobs/1").join(&own)).unwrap(), &own),
        ("leaves", &|desk| flip(&desk.served("blobs/leaves").join(&shared)), &shared),
        ("raw copy", &|desk| desk.dir.write(&format!("repo/repository/blobs/{own}"), b"OWN"), &own),
        (
            "other type",
            &|desk| {
                fs::create_dir(desk.served("blobs/2")).unwrap();
                fs::copy(desk.served("blobs/1").join(&own), desk.served("blobs/2").join(&own)).unwrap();
            },
            &own,
        ),
        ("snapshot", &|desk| flip(&desk.served("2.snapshot.json")), "2.snapshot.json"),
        ("unnumbered", &|desk| fs::write(desk.served("targets.json"), "{}").map_or((), drop), "targets.json"),
        ("first root", &|desk| flip(&desk.served("1.root.json")), "root.json"),
    ];
    for (name, harm, named) in kinds {
        let desk = two_packages();
        harm(&desk);
        let (well, report) = desk.verify();
        let damage = report["damage"].as_array().unwrap();
        let file = damage.first().map(|damage| damage["file"].as_str().unwrap()).unwrap_or_default();
        assert!(!well && damage.len() == 1 && file.contains(named), "{name}: {report}");
    }
}

#[test]
fn a_missing_target_and_a_bad_meta_far_are_told() {
    let desk = two_packages();
    let targets = desk.served("targets/a");
    fs::remove_dir_all(targets).unwrap();
    let list: Value = serde_json::from_str(&desk.packages(&["--json"])).unwrap();
    let meta = list[1]["hash"].as_str().unwrap().to_owned();
    fs::write(desk.served("blobs/1").join(&meta), b"nothing").unwrap();
    let (_, report) = desk.verify();
    let damage = report["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 2, "{report}");
    assert_eq!(damage[0]["users"], serde_json::json!([{"package": "b/0", "path": "meta/"}]));
    assert!(damage[1]["file"].as_str().unwrap().starts_with("repository/targets/a/"), "{report}");
    // What only the unreadable package named belongs to nobody as far as anyone can tell.
    assert_eq!(report["unreferenced"][0]["blob"], blob_of(b"own").as_str());
}

#[test]
fn what_no_package_names_is_told_and_is_no_damage() {
    let desk = two_packages();
    let a = desk.package("a", &[("lib/other", b"other")]);
    desk.publish(&["--clean", "--package", &a]);
    let (well, report) = desk.verify();
    assert!(well, "{report}");
    assert_eq!(report["unreferenced"].as_array().unwrap().len(), 3, "{report}");
    let text = desk.people_read();
    assert!(text.contains("note: 3 blobs (") && text.contains(&blob_of(b"own")), "{text}");
    // But an unreferenced blob that has rotted would be offered by a later publish.
    flip(&desk.served("blobs/1").join(blob_of(b"own")));
    let (well, report) = desk.verify();
    assert!(!well && report["damage"][0]["users"] == Value::Array(vec![]), "{report}");
    assert!(desk.people_read().contains("no package offered names it"));
}

#[test]
fn age_is_told_and_is_no_damage() {
    let desk = Desk::new();
    let a = desk.package("a", &[("file", b"a")]);
    desk.publish(&["--metadata-current-time", "2001-01-01T00:00:00Z", "--package", &a]);
    let (well, report) = desk.verify();
    assert!(well && report["expired"] == serde_json::json!(["timestamp", "snapshot", "targets"]), "{report}");
}

#[test]
fn a_folder_without_a_repository_is_named() {
    let dir = Fixture::new(&[("x", b"")]);
    let error = repo(&["verify", text(&dir.path(""))]).0.unwrap_err();
    assert!(error.to_string().contains("holds no repository"), "{error}");
}

#[cfg(not(feature = "stock-client"))]
#[test]
fn without_the_stock_client_its_flag_says_how_to_get_it() {
    let desk = two_packages();
    let error = repo(&["verify", "--stock-client", &desk.repository]).0.unwrap_err();
    assert!(error.to_string().contains("--features stock-client"), "{error}");
}
