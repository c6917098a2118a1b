//! Delegated roles that say more than they may, are not signed by whom they should, go in circles, or lead too far.

use colibri_metadata::{Role, RoleName, Rule, TrustedSet, limits};
use serde_json::{Value, json};

use crate::delegated::{Site, delegate, delegations, entry, everything, key_of, only, refused, search, search_at, to};
use crate::fixture::{DAY, Key, NOW, again, envelope};

/// The order in which roles are visited when nobody has the target.
fn order(site: &Site) -> Vec<String> {
    let searched = search(site, "nowhere");
    assert_eq!(searched.role(), None);
    let name = |file: &String| file.trim_start_matches("1.").trim_end_matches(".json").to_owned();
    searched.asked.iter().map(name).collect()
}

#[test]
fn roles_are_visited_depth_first_once_and_up_to_a_terminating_one() {
    let leaf: &[&str] = &[];
    let graph = Site::graph(&["a", "b"], &[("a", &["c", "d"]), ("b", leaf), ("c", leaf), ("d", leaf)]);
    assert_eq!(order(&graph), ["a", "c", "d", "b"]);
    let terminating =
        Site::graph(&["a", "b"], &[("a", &["c!", "d"]), ("b", leaf), ("c", &["e"]), ("d", leaf), ("e", leaf)]);
    assert_eq!(order(&terminating), ["a", "c", "e"], "neither its siblings nor its delegator's");
    let cycle = Site::graph(&["a", "b"], &[("a", leaf), ("b", &["c"]), ("c", &["d"]), ("d", &["b", "a", "d"])]);
    assert_eq!(order(&cycle), ["a", "b", "c", "d"]);
}

#[test]
fn the_first_role_in_order_wins_and_the_top_before_all() {
    let mut site =
        Site::new(to(&["a", "b"]), &[("a", delegate("a", &["x", "hello/0"])), ("b", delegate("b", &["x", "y"]))]);
    assert_eq!(search(&site, "x").role().as_deref(), Some("a"));
    assert_eq!(search(&site, "y").role().as_deref(), Some("b"));
    let top = search(&site, "hello/0");
    assert_eq!((top.role().as_deref(), top.asked.len()), (Some("targets"), 0));
    // A terminating role hides what those after it have.
    site.delegations = to(&["a!", "b"]);
    site.publish();
    assert_eq!(search(&site, "y").role(), None);
}

#[test]
fn a_role_speaks_only_for_what_the_whole_chain_leaves_to_it() {
    let (rollout, inner) = (key_of("rollout"), key_of("inner"));
    let top =
        delegations(only(&rollout), &[entry("rollout", only(&rollout), 1, true, &json!({"paths": ["rollout/*"]}))]);
    let mut role = delegate("rollout", &["rollout/stable", "hello/1", "rollout/a/b", "evil"]);
    // It passes on more than it was left.
    role.delegations = Some(delegations(only(&inner), &[entry("inner", only(&inner), 1, false, &everything())]));
    let site = Site::new(top, &[("rollout", role), ("inner", delegate("inner", &["hello/2", "rollout/beta"]))]);
    assert_eq!(search(&site, "rollout/stable").role().as_deref(), Some("rollout"));
    assert_eq!(search(&site, "rollout/beta").role().as_deref(), Some("inner"));
    for name in ["hello/1", "hello/2", "evil", "rollout/a/b", "rollout"] {
        let searched = search(&site, name);
        assert_eq!((searched.role(), searched.asked.len()), (None, 0), "{name}: nobody is even asked");
    }
}

#[test]
fn a_delegated_threshold_counts_distinct_keys() {
    let (one, two) = (Key::new(41), Key::new(42));
    let twin = Key { algorithms: Some(json!(["sha256"])), ..one.clone() };
    let site = |keys: &[Key], threshold: u32, signers: &[Key]| {
        let mut role = delegate("a", &["x"]);
        role.keys = signers.to_vec();
        Site::new(delegations(keys, &[entry("a", keys, threshold, false, &everything())]), &[("a", role)])
    };
    let both = [one.clone(), two.clone()];
    assert_eq!(search(&site(&both, 2, &both), "x").role().as_deref(), Some("a"));
    assert_eq!(search(&site(&both, 1, &both[1..]), "x").role().as_deref(), Some("a"));
    let twins = [one.clone(), twin];
    for (keys, signers) in [(&both, &both[..1]), (&twins, &twins[..]), (&both, &[one.clone(), Key::new(43)][..])] {
        let searched = search(&site(keys, 2, signers), "x");
        assert!(matches!(searched.error().rule(), Rule::Threshold { valid: 1, threshold: 2, .. }));
        assert_eq!((searched.error().role(), searched.error().file()), (Role::Targets, "a.json"));
    }
    // More than there are keys: nothing satisfies it, and the delegator is fine.
    assert!(matches!(
        search(&site(&both, 3, &both), "x").error().rule(),
        Rule::Threshold { valid: 2, threshold: 3, .. }
    ));
}

#[test]
fn another_ways_word_is_not_enough() {
    // `release` is delegated to by both parents, by different keys; only the first parent's key signs.
    let (first, second) = (key_of("release"), Key::new(77));
    let parent = |key: &Key, path: &str| {
        let covers = json!({"paths": [path]});
        Some(delegations(only(key), &[entry("release", only(key), 1, false, &covers)]))
    };
    let (mut a, mut b) = (delegate("a", &[]), delegate("b", &[]));
    (a.delegations, b.delegations) = (parent(&first, "a/*"), parent(&second, "b/*"));
    let site = Site::new(to(&["a", "b"]), &[("a", a), ("b", b), ("release", delegate("release", &["a/x", "b/x"]))]);
    let through_a = search(&site, "a/x");
    assert_eq!(through_a.role().as_deref(), Some("release"));
    let held = through_a.set;
    assert!(held.delegated(&"release".parse().unwrap()).is_some());
    assert!(held.find(&"a/x".parse().unwrap()).is_some());
    assert!(held.find(&"b/x".parse().unwrap()).is_none(), "held, but not on this parent's word");
    let through_b = search_at(held, &site.repo, "b/x", NOW);
    assert!(matches!(through_b.error().rule(), Rule::Threshold { valid: 0, .. }));
}

#[test]
fn a_delegated_file_that_is_not_the_one_meant_is_refused() {
    let good = Site::new(to(&["a", "b"]), &[("a", delegate("a", &["x"])), ("b", delegate("b", &["x"]))]);
    let said = |change: &dyn Fn(&mut Site)| {
        let mut site = good.clone();
        change(&mut site);
        let searched = search(&site, "x");
        assert_eq!(searched.error().file(), "a.json");
        searched.error().rule().clone()
    };
    let key = key_of("a");
    // An older and a newer version than the snapshot lists, well signed.
    for version in [1, 3] {
        let rule = said(&|site| {
            site.roles.get_mut("a").unwrap().version = 2;
            site.publish();
            let mut other = site.roles["a"].clone();
            other.version = version;
            site.serve("a", envelope(&other.signed(), only(&key)));
        });
        assert_eq!(rule, Rule::Version { version, expected: 2 });
    }
    let rule = said(&|site| {
        let stranger = envelope(&site.roles["a"].signed(), &[key_of("b")]);
        site.serve("a", stranger);
    });
    assert!(matches!(rule, Rule::Threshold { valid: 0, .. }), "{rule}");
    let rule = said(&|site| {
        let top = envelope(&site.roles["a"].signed(), site.repo.keys(Role::Targets));
        site.serve("a", top);
    });
    assert!(matches!(rule, Rule::Threshold { valid: 0, .. }), "not even by the delegator itself: {rule}");
    let rule = said(&|site| {
        let mut signed = site.roles["a"].signed();
        signed["_type"] = json!("snapshot");
        site.serve("a", envelope(&signed, only(&key)));
    });
    assert_eq!(rule, Rule::WrongType("snapshot".into()));
    let rule = said(&|site| {
        site.roles.get_mut("a").unwrap().expires = NOW;
        site.publish();
    });
    assert!(matches!(rule, Rule::Expired { .. }), "{rule}");
    let bytes_max = limits::TARGETS_BYTES_MAX;
    let rule = said(&|site| site.serve("a", vec![b' '; usize::try_from(bytes_max).unwrap() + 1].into()));
    assert_eq!(rule, Rule::TooLarge { bytes: bytes_max + 1, bytes_max });
    let rule = said(&|site| _ = site.repo.files.remove("1.a.json"));
    assert_eq!(rule, Rule::Missing);
}

#[test]
fn a_role_that_the_snapshot_does_not_list_is_not_even_asked_for() {
    let mut site = Site::new(to(&["a"]), &[("a", delegate("a", &["x"]))]);
    let trusted = site.refreshed();
    site.roles.get_mut("a").unwrap().listed = false;
    let mut fresh = site.clone();
    fresh.publish();
    let searched = search(&fresh, "x");
    assert_eq!(searched.error().rule(), &Rule::NotListed("a.json".into()));
    assert!(searched.asked.is_empty());
    // Who has seen it listed does not believe that it went away, nor that its version went down.
    site.publish();
    assert_eq!(again(&trusted, &site.repo).error().rule(), &Rule::Disappeared("a.json".into()));
    let mut site = Site::new(to(&["a"]), &[("a", delegate("a", &["x"]))]);
    site.roles.get_mut("a").unwrap().version = 5;
    site.publish();
    let trusted = site.refreshed();
    site.roles.get_mut("a").unwrap().version = 4;
    site.publish();
    let rule = Rule::Rollback { subject: "a.json".into(), version: 4, trusted: 5 };
    assert_eq!(again(&trusted, &site.repo).error().rule(), &rule);
}

#[test]
fn searches_end() {
    let names: Vec<String> = (0..200).map(|number| format!("r{number}")).collect();
    let roles: Vec<_> = names.iter().map(|name| (name.as_str(), delegate(name, &[]))).collect();
    let too_wide = Rule::SearchTooWide { roles_max: limits::SEARCH_ROLES_MAX, depth_max: limits::SEARCH_DEPTH_MAX };
    // As wide as may be, and one wider.
    let most = usize::try_from(limits::SEARCH_ROLES_MAX).unwrap();
    for (width, ends) in [(most, true), (most + 1, false)] {
        let wide: Vec<&str> = names[..width].iter().map(String::as_str).collect();
        let searched = search(&Site::new(to(&wide), &roles[..width]), "nowhere");
        assert_eq!(searched.asked.len(), most);
        assert_eq!(searched.result.is_ok(), ends);
        if !ends {
            assert_eq!(searched.error().rule(), &too_wide, "said, not taken for an absent target");
        }
    }
    let deepest = usize::try_from(limits::SEARCH_DEPTH_MAX).unwrap();
    for (length, ends) in [(deepest, true), (deepest + 1, false)] {
        let mut chain = roles[..length].to_vec();
        for at in 0..length - 1 {
            chain[at].1.delegations = Some(to(&[names[at + 1].as_str()]));
        }
        let searched = search(&Site::new(to(&[names[0].as_str()]), &chain), "nowhere");
        assert_eq!(searched.asked.len(), deepest);
        assert_eq!(searched.result.is_ok(), ends);
    }
}

#[test]
fn delegations_that_make_no_sense_are_refused() {
    let key = key_of("a");
    let good = entry("a", only(&key), 1, false, &everything());
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut role = good.clone();
        edit(&mut role);
        delegations(only(&key), &[role])
    };
    let without = |field: &str| with(&|role| _ = role.as_object_mut().unwrap().remove(field));
    let succinct = |edit: &dyn Fn(&mut Value)| {
        let mut roles = json!({"keyids": [key.id()], "threshold": 1, "bit_length": 4, "name_prefix": "bin"});
        edit(&mut roles);
        json!({"keys": {}, "succinct_roles": roles})
    };
    let many = vec![json!("a"); usize::try_from(limits::PATH_PATTERNS_MAX).unwrap() + 1];
    let mut cases: Vec<(&str, Value)> = vec![
        ("twice", delegations(only(&key), &[good.clone(), good.clone()])),
        ("delegated role", with(&|role| role["name"] = json!(""))),
        ("delegated role", with(&|role| role["name"] = json!("/".repeat(100)))),
        ("exactly one", with(&|role| role["path_hash_prefixes"] = json!(["ab"]))),
        ("exactly one", without("paths")),
        ("paths", with(&|role| role["paths"] = json!("*"))),
        ("paths", with(&|role| role["paths"] = json!(["a".repeat(513)]))),
        ("too many", with(&|role| role["paths"] = json!(many))),
        ("terminating", without("terminating")),
        ("keyids", without("keyids")),
        ("threshold", with(&|role| role["threshold"] = json!(0))),
        ("roles", json!({"keys": {}, "roles": {}})),
        ("keys", json!({"keys": [], "roles": []})),
        ("neither", json!({"keys": {}})),
        ("not an object", json!([])),
        ("both", json!({"keys": {}, "roles": [], "succinct_roles": {}})),
        ("bit_length", succinct(&|roles| roles["bit_length"] = json!(0))),
        ("bit_length", succinct(&|roles| roles["bit_length"] = json!(33))),
        ("name_prefix", succinct(&|roles| roles["name_prefix"] = json!("x".repeat(200)))),
        ("threshold", succinct(&|roles| roles["threshold"] = json!(-1))),
    ];
    for role in Role::ALL {
        cases.push(("delegated role", with(&|entry| entry["name"] = json!(role.name()))));
    }
    let mut prefixes = good.clone();
    prefixes.as_object_mut().unwrap().remove("paths");
    for prefix in ["AB", "xyz", &"a".repeat(65)] {
        prefixes["path_hash_prefixes"] = json!([prefix]);
        cases.push(("path_hash_prefixes", delegations(only(&key), &[prefixes.clone()])));
    }
    for (word, delegations) in cases {
        let error = refused(&Site::new(delegations, &[]));
        assert!(matches!(error.rule(), Rule::Malformed(text) if text.contains(word)), "{word}: {error}");
        assert_eq!(error.role(), Role::Targets);
    }
    let key = Key::new(8).id().to_string();
    let twice = with(&|role| role["keyids"] = json!([key, key]));
    assert_eq!(refused(&Site::new(twice, &[])).rule(), &Rule::DuplicateKeyId(key));
}

/// `file1.txt` hashes to 55ae75d9…, `file2.txt` does not begin with 5.
#[test]
fn hash_prefixes_and_bins_lead_to_one_role() {
    let key = key_of("a");
    let prefixes = |list: Value| entry("a", only(&key), 1, false, &json!({"path_hash_prefixes": list}));
    for (list, asked) in
        [(json!(["55ae"]), 1), (json!(["56", "5"]), 1), (json!([""]), 1), (json!(["56"]), 0), (json!([]), 0)]
    {
        let top = delegations(only(&key), &[prefixes(list)]);
        let site = Site::new(top, &[("a", delegate("a", &["file1.txt"]))]);
        assert_eq!(search(&site, "file1.txt").asked.len(), asked);
    }
    // The bin that the name does not fall to lists it, signed by the same key.
    let bins = |listing: &str| {
        let top = json!({
            "keys": {key.id().to_string(): key.json()},
            "succinct_roles": {"keyids": [key.id()], "threshold": 1, "bit_length": 4, "name_prefix": "bin"},
        });
        let names: Vec<String> = (0..16).map(|bin| format!("bin-{bin:x}")).collect();
        let role = |name: &String| {
            let mut role = delegate("a", if name == listing { &["file1.txt"] } else { &[] });
            role.keys = vec![key.clone()];
            role
        };
        let roles: Vec<_> = names.iter().map(|name| (name.as_str(), role(name))).collect();
        search(&Site::new(top, &roles), "file1.txt")
    };
    let right = bins("bin-5");
    assert_eq!((right.role().as_deref(), right.asked), (Some("bin-5"), vec!["1.bin-5.json".to_owned()]));
    let wrong = bins("bin-6");
    assert_eq!((wrong.role(), wrong.asked), (None, vec!["1.bin-5.json".to_owned()]));
}

#[test]
fn what_was_found_is_kept_comes_back_and_is_not_asked_for_again() {
    let mut a = delegate("a", &[]);
    a.delegations = Some(to(&["../b"]));
    let site = Site::new(to(&["a"]), &[("a", a), ("../b", delegate("../b", &["x"]))]);
    let searched = search(&site, "x");
    assert_eq!(searched.asked, ["1.a.json", "1...%2Fb.json"]);
    let stored: Vec<_> = searched.set.files().map(|(name, bytes)| (name.into_owned(), bytes.clone())).collect();
    assert_eq!(stored.iter().skip(4).map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["..%2Fb.json", "a.json"]);
    let loaded = TrustedSet::load(stored.clone()).unwrap();
    assert!(loaded.is_whole() && loaded.set_aside().is_empty());
    assert!(loaded.find(&"x".parse().unwrap()).is_some());
    let refreshed = again(&loaded, &site.repo).set();
    let anew = search_at(refreshed, &site.repo, "x", NOW);
    assert_eq!((anew.role().as_deref(), anew.asked.len()), (Some("../b"), 0));
    // Expired, it is asked for again, and what is no fresher is refused.
    let later = search_at(loaded, &site.repo, "x", NOW.plus(31 * DAY));
    assert!(later.error().is_expired());
    // Without the role between, nobody vouches for the one below; a damaged one is not believed either.
    for change in [None, Some("a.json")] {
        let mut files = stored.clone();
        match change {
            None => files.retain(|(name, _)| name != "a.json"),
            Some(damaged) => {
                let file = files.iter_mut().find(|(name, _)| name == damaged).unwrap();
                file.1 = envelope(&delegate("a", &["x"]).signed(), &[Key::new(9)]);
            }
        }
        let loaded = TrustedSet::load(files).unwrap();
        assert!(loaded.is_whole(), "the top is untouched");
        assert!(loaded.delegated(&"../b".parse().unwrap()).is_none());
        assert!(loaded.find(&"x".parse().unwrap()).is_none());
        assert_eq!(loaded.set_aside().len(), 1 + usize::from(change.is_some()));
    }
}

#[test]
fn a_role_of_another_version_than_the_snapshots_is_dropped() {
    let mut site = Site::new(to(&["a"]), &[("a", delegate("a", &["x"]))]);
    let held = search(&site, "x").set;
    let role: RoleName = "a".parse().unwrap();
    assert!(held.delegated(&role).is_some());
    let a = site.roles.get_mut("a").unwrap();
    (a.version, a.targets) = (2, Vec::new());
    site.publish();
    let moved = again(&held, &site.repo).set();
    assert!(moved.delegated(&role).is_none());
    assert!(moved.find(&"x".parse().unwrap()).is_none());
    assert_eq!(search_at(moved, &site.repo, "x", NOW).role(), None);
}

#[test]
fn a_search_needs_a_whole_set() {
    let site = Site::new(to(&["a"]), &[("a", delegate("a", &["x"]))]);
    let root = TrustedSet::from_root_file(&site.repo.files["1.root.json"]).unwrap();
    let searched = search_at(root, &site.repo, "x", NOW);
    assert!(matches!(searched.error().rule(), Rule::OutOfStep(_)));
    assert!(!searched.error().can_retry_elsewhere() && searched.asked.is_empty());
}

#[test]
fn the_word_of_targets_is_what_its_own_keys_signed_where_it_says_so() {
    let (targets, other) = (Key::new(4), key_of("other"));
    let (own, foreign) = ("package/0", "other/0");
    let roles = [
        entry("other", only(&other), 1, false, &json!({"paths": ["other/*"]})),
        entry("bin", only(&targets), 1, true, &everything()),
    ];
    let to = delegations(&[targets.clone(), other.clone()], &roles);
    let mut bin = delegate("bin", &[own]);
    bin.keys = vec![targets];
    let mut site = Site::new(to, &[("bin", bin), ("other", delegate("other", &[foreign]))]);
    let names = |set: &TrustedSet, now| {
        let own = set.own_targets(now);
        own.iter().flat_map(|role| role.iter()).map(|(name, _)| name.to_string()).collect::<Vec<_>>()
    };
    let held = |site: &Site| {
        let set = search(site, foreign).set;
        search_at(set, &site.repo, own, NOW).set
    };
    assert_eq!(names(&site.refreshed(), NOW), ["hello/0"], "what is not held is not known");
    assert_eq!(names(&held(&site), NOW), ["hello/0", own]);
    assert_eq!(names(&held(&site), NOW.plus(31 * DAY)), ["hello/0"], "a bin that has expired does not count");
    let found = search(&site, own).result.unwrap().unwrap();
    assert_eq!((found.role.clone(), found.through), (found.role, "bin".parse().ok()));

    // Whoever holds the other key, and those of snapshot and timestamp, says that he too delegates to `bin`.
    let mine = entry("bin", only(&other), 1, true, &everything());
    site.roles.get_mut("other").unwrap().delegations = Some(delegations(only(&other), &[mine]));
    site.roles.get_mut("bin").unwrap().keys = vec![other];
    site.publish();
    let searched = search(&site, "other/1");
    assert_eq!(searched.role(), None);
    assert!(searched.set.delegated(&"bin".parse().unwrap()).is_some(), "it is believed, as far as he is");
    assert_eq!(names(&searched.set, NOW), ["hello/0"]);
    site.roles.get_mut("bin").unwrap().targets.push("other/1".to_owned());
    site.roles.get_mut("bin").unwrap().version += 1;
    site.publish();
    let found = search(&site, "other/1").result.unwrap().unwrap();
    assert_eq!((found.role, found.through), ("bin".parse().ok(), "other".parse().ok()));
}

#[test]
fn a_whole_set_has_every_role_that_somebody_delegates_to() {
    let leaf: &[&str] = &[];
    let mut site =
        Site::graph(&["a", "b"], &[("a", &["c"]), ("b", leaf), ("c", &["d"]), ("d", leaf), ("nobodys", leaf)]);
    let whole = |site: &Site, now| {
        let set = site.refreshed();
        let read = |role: &RoleName, meta: &colibri_metadata::FileMeta| {
            site.repo.files.get(&role.numbered_file(meta.version)).cloned()
        };
        set.with_delegated(read, now)
    };
    let set = whole(&site, NOW).unwrap();
    let names: Vec<_> = set.delegated_roles().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    let refused = |site: &Site, now| {
        let error = whole(site, now).unwrap_err();
        (error.file().to_owned(), error.rule().clone())
    };
    assert!(matches!(refused(&site, NOW.plus(31 * DAY)), (_, Rule::Expired { .. })));
    // A nested role by another key, under another number, or away.
    let good = site.repo.files["1.d.json"].clone();
    site.serve("d", envelope(&site.roles["d"].signed(), only(&key_of("e"))));
    assert!(matches!(refused(&site, NOW), (file, Rule::Threshold { .. }) if file == "d.json"));
    let mut later = site.roles["d"].clone();
    later.version = 2;
    site.serve("d", envelope(&later.signed(), &later.keys));
    assert!(matches!(refused(&site, NOW), (_, Rule::Version { .. })));
    site.repo.files.remove("1.d.json");
    assert!(matches!(refused(&site, NOW), (file, Rule::Missing) if file == "d.json"));
    site.repo.files.insert("1.d.json".to_owned(), good);
    // What the top role says of a role counts, whoever else says something of it.
    site.roles.get_mut("b").unwrap().delegations =
        Some(delegations(only(&key_of("thief")), &[entry("a", only(&key_of("thief")), 1, false, &everything())]));
    site.publish();
    assert!(whole(&site, NOW).is_ok());
    site.roles.get_mut("a").unwrap().keys = vec![key_of("thief")];
    site.publish();
    assert!(matches!(refused(&site, NOW), (file, Rule::Threshold { .. }) if file == "a.json"));
}
