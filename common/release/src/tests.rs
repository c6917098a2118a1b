//! Releases of the vectors' packages: built, read again, tampered with, compared.

use std::path::Path;

use bytes::Bytes;
use colibri_common::{BlobId, merkle};
use colibri_package::MetaFar;
use colibri_package::delivery::{DeliveryType, Identity};
use serde_json::{Value, json};

use super::*;

const ROOT: &str = "1.root.json";

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> String {
    String::from_utf8(vector(&format!("tuf-repo/{ROOT}"))).unwrap()
}

/// The meta.far of a vector's package, by name or by hash.
fn meta(wanted: impl Fn(&str, BlobId) -> bool) -> (BlobId, MetaFar) {
    for name in ["package1", "package2", "anonymous_subpackage", "named_subpackage", "superpackage"] {
        let bytes = Bytes::from(vector(&format!("{name}.meta.far")));
        let hash = merkle::build(&bytes).id;
        if wanted(name, hash) {
            return (hash, MetaFar::parse(bytes).unwrap());
        }
    }
    panic!("no such vector");
}

fn hash_of(name: &str) -> BlobId {
    meta(|known, _| known == name).0
}

/// Sizes that nobody checks here, but that differ from blob to blob.
fn described(hash: BlobId) -> ReleaseBlob {
    let bytes = 100 + u64::from(hash.as_bytes()[0]);
    let form = |ty, bytes| EncodedForm { ty, bytes, identity: Identity::of_unit_h(hash.as_bytes()) };
    let encoded = vec![form(DeliveryType::Type1, bytes), form(DeliveryType::Type2, bytes - 1)];
    ReleaseBlob { hash, raw_bytes: 2 * bytes, encoded }
}

fn package(name: &str, availability: Availability, versioning: Versioning, hash: Option<&str>) -> ReleasePackage {
    ReleasePackage {
        url: format!("fuchsia-pkg://a.com/{name}").parse().unwrap(),
        availability,
        versioning,
        hash: hash.map(hash_of),
        minimum_version: None,
    }
}

/// Answers all that the builder asks.
fn finish(mut builder: ReleaseBuilder) -> Result<Release, ReleaseError> {
    while let Some(missing) = builder.missing() {
        match missing {
            Missing::Contents(wanted) => {
                let (hash, meta) = meta(|_, hash| hash == wanted);
                builder.contents(PackageContents::of(hash, &meta));
            }
            Missing::Blob(id) => builder.blob(described(id)),
        }
    }
    builder.finish()
}

/// A release with packages in all seven sets.
fn full() -> Release {
    use Availability::{Automatic, OnDemand, Permanent};
    use Versioning::{Anchored, Upgradable};
    let mut builder = ReleaseBuilder::new("workstation", "8.20220622.2.1".parse().unwrap());
    for host in ["z.org", "a.com"] {
        builder.repository(format!("fuchsia-pkg://{host}").parse().unwrap(), root());
    }
    builder.discoverable("fuchsia-pkg://z.org".parse().unwrap());
    builder.package(package("super", Permanent, Anchored, Some("superpackage")));
    builder.package(package("late", Automatic, Anchored, Some("package1")));
    builder.package(package("rare", OnDemand, Anchored, Some("package2")));
    builder.package(package("time/0", Permanent, Upgradable, Some("package1")));
    let eager = package("eager", Automatic, Upgradable, None);
    builder.package(ReleasePackage { minimum_version: Some("1.2".parse().unwrap()), ..eager });
    builder.package(package("app", OnDemand, Upgradable, None));
    finish(builder).unwrap()
}

fn json_of(release: &Release) -> Value {
    serde_json::from_slice(&release.to_bytes().unwrap()).unwrap()
}

fn parse(value: &Value) -> Result<Release, ReleaseError> {
    Release::parse(&serde_json::to_vec(value).unwrap())
}

fn said(edit: impl FnOnce(&mut Value)) -> String {
    let mut value = json_of(&full());
    edit(&mut value);
    let said = parse(&value).expect_err("refused").to_string();
    assert!(!said.contains('\n'), "{said}");
    said
}

fn index_of(value: &Value, name: &str) -> usize {
    let packages = value["packages"].as_array().unwrap();
    packages.iter().position(|package| package["url"].as_str().unwrap().contains(name)).unwrap()
}

#[test]
fn a_release_with_every_package_set_goes_round() {
    let release = full();
    let bytes = release.to_bytes().unwrap();
    let again = Release::parse(&bytes).unwrap();
    assert_eq!((&again, again.to_bytes().unwrap()), (&release, bytes));
    for set in PackageSet::all() {
        let expected = usize::from(set.versioning() != Versioning::Discoverable);
        assert_eq!(release.packages_in(set).count(), expected, "{set}");
    }
    assert_eq!((&json_of(&release)["format"], release.forbids_overlay()), (&json!(1), false));
    let anchor = release.repositories()[0].trust_anchor();
    assert!(matches!(anchor, colibri_metadata::TrustAnchor::RootFile(file) if file == root()));
}

#[test]
fn a_package_needs_its_subpackages_to_any_depth() {
    let release = full();
    let needed = release.blobs_needed([hash_of("superpackage")]);
    for name in ["superpackage", "named_subpackage", "anonymous_subpackage"] {
        let (hash, meta) = meta(|known, _| known == name);
        assert!(needed.contains(&hash) && meta.content_blobs().is_subset(&needed), "{name}");
    }
    // Three packages of one meta.far and two blobs each.
    assert_eq!(needed.len(), 9);
    assert_eq!(release.blobs().len(), 15);
    assert_eq!(release.blob(hash_of("package1")).unwrap(), &described(hash_of("package1")));
}

#[test]
fn what_came_with_format_2_is_written_only_where_it_is_used() {
    let mut builder = ReleaseBuilder::new("workstation", "1".parse().unwrap());
    builder.forbid_overlay();
    let release = finish(builder).unwrap();
    let value = json_of(&release);
    assert_eq!((&value["format"], &value["forbids_overlay"]), (&json!(2), &json!(true)));
    assert_eq!(parse(&value).unwrap(), release);
    assert!(json_of(&full()).get("forbids_overlay").is_none());
    let refused = said(|value| value["forbids_overlay"] = json!(true));
    assert_eq!(refused, "product release: format 1 has no `forbids_overlay`");
}

#[test]
fn versions_of_the_form_are_told_apart() {
    assert_eq!(
        said(|value| {
            value["format"] = json!(FORMAT + 1);
            value["colour"] = json!("new in 3");
        }),
        "this product release has format 4; this program reads formats 1 to 3: update it"
    );
    assert!(said(|value| value["format"] = json!(0)).contains("format 0"));
    assert!(said(|value| value["format"] = json!("1")).contains("invalid type: string"));
    assert!(said(|value| drop(value.as_object_mut().unwrap().remove("format"))).contains("format"));
    for path in
        ["", "/packages/0", "/repositories/0", "/discoverable/0", "/contents/0", "/blobs/0", "/blobs/0/encoded/0"]
    {
        let said = said(|value| value.pointer_mut(path).unwrap()["colour"] = json!(1));
        assert!(said.contains("colour"), "{path}: {said}");
    }
}

#[test]
fn not_applicable_cells_and_contradictions_are_refused() {
    let package = |name: &str, field: &str, new: Value| {
        said(|value| {
            let index = index_of(value, name);
            value["packages"][index][field] = new;
        })
    };
    for (said, word) in [
        (package("super", "versioning", json!("discoverable")), "no permanent & discoverable"),
        (package("late", "versioning", json!("discoverable")), "no automatic & discoverable"),
        (package("rare", "versioning", json!("discoverable")), "lists domains"),
        (package("super", "hash", json!(null)), "needs a hash"),
        (package("super", "minimum_version", json!("1")), "not a minimum version"),
        (package("time", "hash", json!(null)), "fall back"),
        (package("super", "availability", json!("always")), "always"),
        (package("super", "url", json!("fuchsia-pkg://a.com/super?hash=00")), "super?hash=00"),
        (package("time", "url", json!("fuchsia-pkg://zz.net/time")), "not of a repository that this release trusts"),
        (said(|value| value["discoverable"][0]["url"] = json!("fuchsia-pkg://evil.net")), "evil.net is not of a repo"),
    ] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn repositories_come_with_a_root_that_is_one() {
    let text = root();
    let tampered =
        text.replacen("\"expires\": \"2", "\"expires\": \"3", 1).replacen("\"expires\":\"2", "\"expires\":\"3", 1);
    assert_ne!(text, tampered);
    for bad in ["", "{}", &tampered] {
        let said = said(|value| value["repositories"][0]["root"] = json!(bad));
        assert!(said.starts_with("repository fuchsia-pkg://a.com: root metadata"), "{said}");
    }
    assert!(said(|value| drop(value["repositories"].as_array_mut().unwrap().remove(0))).contains("a.com/app"));
}

#[test]
fn lists_are_sorted_and_without_repetition() {
    for list in ["repositories", "packages", "contents", "blobs", "discoverable"] {
        let twice = said(|value| {
            let again = value[list][0].clone();
            value[list].as_array_mut().unwrap().insert(0, again);
        });
        assert!(twice.ends_with("is listed twice"), "{list}: {twice}");
        if list != "discoverable" {
            let swapped = said(|value| value[list].as_array_mut().unwrap().swap(0, 1));
            assert!(swapped.contains("is not in its place"), "{list}: {swapped}");
        }
    }
    let forms = said(|value| value["blobs"][0]["encoded"].as_array_mut().unwrap().swap(0, 1));
    assert!(forms.contains("delivery type 1 is not in its place"), "{forms}");
    // `NAME` and `NAME/0` are one package.
    let aliases = said(|value| {
        let index = index_of(value, "time/0");
        let mut again = value["packages"][index].clone();
        again["url"] = json!("fuchsia-pkg://a.com/time");
        value["packages"].as_array_mut().unwrap().insert(index, again);
    });
    assert!(aliases.ends_with("is listed twice"), "{aliases}");
}

#[test]
fn one_package_has_one_anchored_version() {
    let both = |hash: &str| {
        let mut value = json_of(&full());
        let index = index_of(&value, "super");
        let mut again = value["packages"][index].clone();
        again["availability"] = json!("automatic");
        again["hash"] = json!(hash_of(hash));
        value["packages"].as_array_mut().unwrap().insert(index + 1, again);
        parse(&value)
    };
    assert!(both("superpackage").is_ok(), "the same version in two sets");
    assert!(matches!(both("package1"), Err(ReleaseError::TwoVersions { .. })));
}

#[test]
fn a_release_is_one_closed_whole() {
    let hash = hash_of("named_subpackage");
    let at = |value: &Value, list: &str, hash: BlobId| {
        let items = value[list].as_array().unwrap();
        items.iter().position(|item| item["hash"] == json!(hash)).unwrap()
    };
    let without = |list: &str| {
        said(|value| {
            let index = at(value, list, hash);
            value[list].as_array_mut().unwrap().remove(index);
        })
    };
    assert_eq!(without("contents"), format!("the contents of package hash {hash} are not listed"));
    assert_eq!(without("blobs"), format!("blob {hash} is used but not described in `blobs`"));
    let dropped = said(|value| {
        let index = at(value, "contents", hash_of("superpackage"));
        value["contents"][index]["subpackages"] = json!([]);
    });
    assert!(
        dropped.starts_with("contents ") && dropped.ends_with("belongs to no package of this release"),
        "{dropped}"
    );
    let blob = said(|value| {
        let index = at(value, "contents", hash);
        value["contents"][index]["blobs"].as_array_mut().unwrap().pop();
    });
    assert!(blob.starts_with("blob ") && blob.ends_with("belongs to no package of this release"), "{blob}");
    // A package that claims to be its own subpackage ends, whatever it means.
    let mut value = json_of(&full());
    let index = at(&value, "contents", hash_of("superpackage"));
    let own = json!({"name": "zzz", "hash": hash_of("superpackage")});
    value["contents"][index]["subpackages"].as_array_mut().unwrap().push(own);
    assert_eq!(parse(&value).unwrap().blobs_needed([hash_of("superpackage")]).len(), 9);
}

#[test]
fn sizes_are_those_of_blobs() {
    let form = |field: &str, new: Value| said(|value| value["blobs"][0]["encoded"][0][field] = new);
    for (said, word) in [
        (form("bytes", json!(27)), "shorter than its header"),
        (form("bytes", json!(u64::MAX)), "larger than any blob"),
        (form("bytes", json!(-1)), "invalid value"),
        (form("type", json!(3)), "Type3"),
        (form("identity", json!("AB")), "64 lower-case hex digits"),
        (said(|value| value["blobs"][0]["encoded"] = json!([])), "no delivery form"),
        (said(|value| value["blobs"][0]["raw_bytes"] = json!(u64::MAX)), "larger than any blob"),
        (said(|value| value["blobs"][0]["raw_bytes"] = json!(1.5)), "1.5"),
    ] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn bad_names_and_broken_text_are_refused() {
    for name in [json!(""), json!("a\nb"), json!("x".repeat(256))] {
        assert!(said(|value| value["product"] = name).contains("is not a product name"));
    }
    for text in ["{", "[]", "null", "{\"format\":1,\"format\":1}", "\u{feff}{}"] {
        assert!(matches!(Release::parse(text.as_bytes()), Err(ReleaseError::Malformed(_))), "{text}");
    }
    let mut twice = full().to_bytes().unwrap();
    twice.splice(1..1, b"\"product\":\"other\",".iter().copied());
    assert!(Release::parse(&twice).unwrap_err().to_string().contains("duplicate field `product`"));
    let mut tail = full().to_bytes().unwrap();
    tail.extend_from_slice(b"{}");
    assert!(Release::parse(&tail).is_err());
}

/// Whatever is cut, changed or inserted: an error or a release that goes round, never a panic.
#[test]
fn damaged_releases_are_refused_or_read_as_what_they_say() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let whole = full().to_bytes().unwrap();
    for _ in 0..2_000 {
        let mut bytes = whole.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(32..127),
                1 => drop(bytes.drain(at..(at + random.usize(1..40)).min(bytes.len()))),
                _ => bytes.insert(at, random.u8(32..127)),
            }
        }
        if let Ok(release) = Release::parse(&bytes) {
            assert_eq!(Release::parse(&release.to_bytes().unwrap()).unwrap(), release);
        }
    }
}

#[test]
fn a_diff_says_what_changes_and_what_a_device_fetches() {
    use Availability::{Automatic, OnDemand, Permanent};
    use Versioning::{Anchored, Upgradable};
    let with = |packages: Vec<ReleasePackage>| {
        let mut builder = ReleaseBuilder::new("p", "1".parse().unwrap());
        builder.repository("fuchsia-pkg://a.com".parse().unwrap(), root());
        packages.into_iter().for_each(|package| builder.package(package));
        finish(builder).unwrap()
    };
    let old = with(vec![
        package("named", Permanent, Anchored, Some("named_subpackage")),
        package("same", OnDemand, Anchored, Some("package2")),
        package("gone", Permanent, Anchored, Some("package1")),
        package("moved/0", Permanent, Upgradable, Some("package1")),
    ]);
    let new = with(vec![
        package("named", Permanent, Anchored, Some("superpackage")),
        package("same", OnDemand, Anchored, Some("package2")),
        package("come", OnDemand, Anchored, Some("package1")),
        package("moved", Automatic, Upgradable, Some("package1")),
    ]);
    let diff = ReleaseDiff::of(&old, &new);
    let names = |packages: &[&ReleasePackage]| packages.iter().map(|p| p.url.name().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&diff.added), ["come", "moved"]);
    assert_eq!(names(&diff.removed), ["gone", "moved"]);
    assert_eq!(diff.changed.len(), 1);
    assert_eq!(diff.changed[0].1.hash, Some(hash_of("superpackage")));
    // The old named_subpackage and its own subpackage are part of superpackage: three new blobs.
    assert_eq!((diff.blobs_added.len(), diff.blobs_removed.len()), (3, 0));
    assert_eq!(diff.fetched, diff.blobs_added);
    assert_eq!(fetched_bytes(diff.fetched.iter().copied()) * 2, raw_bytes(diff.fetched.iter().copied()));
    // On demand: package2; package1 is held, for `gone` and `moved`.
    assert_eq!(diff.fetched_on_demand.len(), 3);
    assert!(ReleaseDiff::of(&old, &old).is_empty() && !diff.is_empty());
}

#[test]
fn an_audit_lists_subpackages_of_anchored_packages_to_any_depth_and_nothing_else() {
    let lines: Vec<String> = audit(&full()).unwrap().into_iter().collect();
    assert_eq!(
        lines.iter().filter(|line| !line.contains("super")).collect::<Vec<_>>(),
        ["automatic & anchored fuchsia-pkg://a.com/late", "on demand & anchored fuchsia-pkg://a.com/rare",]
    );
    let of_super = "permanent & anchored fuchsia-pkg://a.com/super";
    let below: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(of_super)).collect();
    let inner = " named_subpackage/anon_subpackage_of_namedsubpkg";
    assert_eq!(below, ["", " anon_subpackage_of_superpkg", " named_subpackage", inner]);
    let all = audit(&full()).unwrap();
    assert!(AuditDiff::of(&all, &lines.join("\n")).is_empty());
    let diff = AuditDiff::of(&all, &lines[1..].join("\r\n"));
    assert_eq!((diff.added, diff.removed), (vec![lines[0].clone()], vec![]));
}

/// A release with what is beside the grid.
fn with_boot_and_cache() -> ReleaseBuilder {
    let mut builder = ReleaseBuilder::new("workstation", "1".parse().unwrap());
    builder.repository("fuchsia-pkg://a.com".parse().unwrap(), root());
    builder.package(package("late", Availability::Automatic, Versioning::Anchored, Some("package1")));
    builder.boot("loader".parse().unwrap(), hash_of("superpackage"));
    builder.boot("console".parse().unwrap(), hash_of("package2"));
    builder.cache("fuchsia-pkg://a.com/tool".parse().unwrap(), hash_of("package2"));
    builder
}

#[test]
fn boot_packages_and_the_cache_set_are_a_format_of_their_own() {
    let release = finish(with_boot_and_cache()).unwrap();
    let value = json_of(&release);
    assert_eq!((&value["format"], full().format), (&json!(3), 1), "a release without them is as before");
    assert_eq!(Release::parse(&release.to_bytes().unwrap()).unwrap(), release);
    let boot: Vec<_> = release.boot().iter().map(|package| package.name.as_str()).collect();
    assert_eq!((boot, release.cache().len()), (vec!["console", "loader"], 1));
    // All that they need is told, and audited where it is anchored.
    assert!(release.blobs_needed(release.hashes()).contains(&hash_of("superpackage")));
    let lines = audit(&release).unwrap();
    assert!(lines.contains("boot fuchsia-boot:///loader") && lines.iter().all(|line| !line.contains("tool")));
    assert!(lines.iter().any(|line| line.starts_with("boot fuchsia-boot:///loader ")), "subpackages: {lines:?}");
    let refused = |edit: &dyn Fn(&mut Value)| {
        let mut value = value.clone();
        edit(&mut value);
        parse(&value).expect_err("refused").to_string()
    };
    let old = refused(&|value| value["format"] = json!(2));
    assert!(old.ends_with("format 2 has no `boot`"), "{old}");
    let order = refused(&|value| value["boot"].as_array_mut().unwrap().reverse());
    assert!(order.contains("boot package console"), "{order}");
    let stranger = refused(&|value| value["cache"][0]["url"] = json!("fuchsia-pkg://b.com/tool"));
    assert!(stranger.contains("fuchsia-pkg://b.com/tool is not of a repository"), "{stranger}");
    let both = refused(&|value| value["cache"][0]["url"] = json!("fuchsia-pkg://a.com/late/0"));
    assert!(both.contains("leave it out of the cache set"), "{both}");
    let unused = refused(&|value| {
        value.as_object_mut().unwrap().remove("boot");
    });
    assert!(unused.contains("belongs to no package"), "{unused}");
}

#[test]
fn what_changes_beside_the_grid_is_in_the_diff() {
    let old = finish(with_boot_and_cache()).unwrap();
    let new = {
        let mut fresh = ReleaseBuilder::new("workstation", "2".parse().unwrap());
        fresh.repository("fuchsia-pkg://a.com".parse().unwrap(), root());
        fresh.package(package("late", Availability::Automatic, Versioning::Anchored, Some("package1")));
        fresh.boot("loader".parse().unwrap(), hash_of("superpackage"));
        fresh.cache("fuchsia-pkg://a.com/tool".parse().unwrap(), hash_of("package1"));
        finish(fresh).unwrap()
    };
    let diff = ReleaseDiff::of(&old, &new);
    let beside: Vec<_> = diff.beside.iter().map(|beside| (beside.set, beside.url.as_str(), beside.new)).collect();
    let expected =
        [("boot", "fuchsia-boot:///console", None), ("cache", "fuchsia-pkg://a.com/tool/0", Some(hash_of("package1")))];
    assert_eq!(beside, expected);
    assert!(!diff.is_empty() && ReleaseDiff::of(&old, &old).is_empty());
}
