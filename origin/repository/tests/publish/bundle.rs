//! Bundles: written from a repository, opened and checked by somebody who has nothing but a root; damaged and tampered with.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{Start, TrustAnchor};
use colibri_package::delivery::DeliveryType;
use colibri_package::far::{self, FarBytes};
use colibri_release::bundle::{Bundle, BundleError};
use colibri_release::{Availability, Missing, Release, ReleaseBuilder, ReleasePackage, Versioning};
use colibri_repository::{CreateOptions, Profile, Publish, Repository, RepositoryError};

use crate::fixture::{Built, Desk, NOW, content, publish_of};

const URL: &str = "fuchsia-pkg://a.com";

/// A release of one package with a subpackage, which was published, as its document.
fn release_of(repository: &Repository, name: &str) -> Release {
    let mut builder = ReleaseBuilder::new("p", "1.0".parse().unwrap());
    let root = repository.trusted_root_bytes().unwrap();
    builder.repository(URL.parse().unwrap(), String::from_utf8(root.to_vec()).unwrap());
    builder.package(ReleasePackage {
        url: format!("{URL}/{name}").parse().unwrap(),
        availability: Availability::Permanent,
        versioning: Versioning::Anchored,
        hash: Some(repository.package(name).unwrap().hash),
        minimum_version: None,
    });
    while let Some(missing) = builder.missing() {
        match missing {
            Missing::Contents(hash) => builder.contents(repository.release_contents(hash).unwrap().unwrap()),
            Missing::Blob(id) => builder.blob(repository.release_blob(id).unwrap().unwrap()),
        }
    }
    builder.finish().unwrap()
}

/// A repository with two packages, one a subpackage of the other, and the package `carrier` with their release.
fn published(desk: &Desk) -> (Repository, Built, Release) {
    let repository = desk.repository();
    let (long, other) = (content(1, 3_000_000), content(2, 20_000));
    let inner = desk.build("inner", &[("data/other", &other), ("data/empty", b"")], &[]);
    let outer = desk.build("outer", &[("data/long", &long)], &[&inner]);
    repository.publish(&publish_of(&[&outer])).unwrap();
    // A second root, so that there is a chain.
    let release = release_of(&repository, "outer");
    let document = release.to_bytes().unwrap();
    let carrier = desk.build("carrier", &[(Release::PATH, &document)], &[]);
    repository.publish(&Publish { refresh_root: true, ..publish_of(&[&carrier]) }).unwrap();
    (repository, carrier, release)
}

fn write(repository: &Repository, now: UnixSeconds) -> Result<Vec<u8>, RepositoryError> {
    let mut out = Vec::new();
    repository.write_release_bundle("carrier", now, &mut out, &|_, _| {})?;
    Ok(out)
}

fn start(repository: &Repository) -> Start {
    let root = fs::read(repository.served_dir().join("1.root.json")).unwrap();
    Start::FromAnchor(TrustAnchor::RootFile(root.into()))
}

fn check(bundle: &[u8], start: Start) -> Result<(Release, usize), BundleError> {
    let checked = Bundle::open(Cursor::new(bundle))?.check(start, NOW)?;
    Ok((checked.release, checked.blobs.len()))
}

/// The bundle written anew after a change to its files.
fn edited(bundle: &[u8], edit: impl FnOnce(&mut BTreeMap<Vec<u8>, Bytes>)) -> Vec<u8> {
    let archive = FarBytes::parse(Bytes::copy_from_slice(bundle)).unwrap();
    let names = archive.entries().iter().map(|entry| entry.name().to_vec());
    let mut files: BTreeMap<_, _> = names.map(|name| (name.clone(), archive.get(&name).unwrap())).collect();
    edit(&mut files);
    far::to_bytes(&files).unwrap()
}

#[test]
fn a_bundle_holds_one_whole_release_and_nothing_else() {
    let desk = Desk::new();
    let (repository, carrier, release) = published(&desk);
    let mut out = Vec::new();
    let heard = std::cell::RefCell::new(Vec::new());
    let report = repository
        .write_release_bundle("carrier/0", NOW, &mut out, &|done, total| heard.borrow_mut().push((done, total)))
        .unwrap();
    assert_eq!((report.hash, &report.release), (carrier.hash, &release));
    assert_eq!(heard.borrow().last(), Some(&(report.bytes, report.bytes)), "progress ends at the end");

    let mut bundle = Bundle::open(Cursor::new(&out)).unwrap();
    let checked = bundle.check(start(&repository), NOW).unwrap();
    // Two meta.fars with three files, and the carrier with one.
    assert_eq!((checked.blobs.len(), report.blobs), (7, 7));
    assert_eq!(checked.set.root().version(), 2);
    assert_eq!(checked.release, release);
    for id in &checked.blobs {
        let mut there = Vec::new();
        bundle.blob(*id).unwrap().read_to_end(&mut there).unwrap();
        assert_eq!(there, fs::read(repository.served_dir().join(format!("blobs/1/{id}"))).unwrap());
    }
    let archive = FarBytes::parse(out.clone().into()).unwrap();
    let mut metadata: Vec<_> =
        archive.entries().iter().filter_map(|entry| entry.text()?.strip_prefix("metadata/")).collect();
    metadata.sort_unstable();
    assert_eq!(metadata, ["1.root.json", "2.root.json", "3.snapshot.json", "3.targets.json", "timestamp.json"]);
    assert_eq!(archive.entries().len(), 1 + 5 + 2 * 7);
    // Same repository, same bytes.
    assert_eq!(write(&repository, NOW).unwrap(), out);
}

#[test]
fn a_device_with_another_trust_or_a_later_clock_refuses_it() {
    let desk = Desk::new();
    let (repository, ..) = published(&desk);
    let bundle = write(&repository, NOW).unwrap();
    let elsewhere = Desk::new();
    let (other, ..) = published(&elsewhere);
    assert!(matches!(check(&bundle, start(&other)), Err(BundleError::Metadata(_))));
    let later = NOW.plus(40 * 86_400);
    let late = Bundle::open(Cursor::new(&bundle)).unwrap().check(start(&repository), later);
    assert!(matches!(late, Err(BundleError::Metadata(error)) if error.is_expired()));
    let refused = write(&repository, later).unwrap_err().to_string();
    assert!(refused.contains("expired at"), "{refused}");
}

#[test]
fn what_is_missing_is_said_before_anything_is_written() {
    let desk = Desk::new();
    let (repository, ..) = published(&desk);
    let blob = repository.package_blobs("outer").unwrap().pop().unwrap().hash;
    let file = repository.served_dir().join(format!("blobs/1/{blob}"));
    let kept = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let said = write(&repository, NOW).unwrap_err().to_string();
    assert_eq!(said, format!("bundle: 1 blobs of the release are missing, the first is {blob}"));
    fs::write(&file, kept).unwrap();
    assert!(write(&repository, NOW).is_ok());
    let said = repository.write_release_bundle("outer", NOW, &mut Vec::new(), &|_, _| {}).unwrap_err().to_string();
    assert!(said.contains("carries no release: it has no release.json"), "{said}");
    let said = repository.write_release_bundle("nobody", NOW, &mut Vec::new(), &|_, _| {}).unwrap_err().to_string();
    assert!(said.contains("no package nobody"), "{said}");
}

#[test]
fn blobs_of_another_type_only_are_missing() {
    let desk = Desk::new();
    let repository = desk.repository();
    let outer = desk.build("outer", &[("data/file", b"x")], &[]);
    repository.publish(&Publish { delivery_type: DeliveryType::Type2, ..publish_of(&[&outer]) }).unwrap();
    let document = release_of(&repository, "outer").to_bytes().unwrap();
    let carrier = desk.build("carrier", &[(Release::PATH, &document)], &[]);
    repository.publish(&publish_of(&[&carrier])).unwrap();
    let said = write(&repository, NOW).unwrap_err().to_string();
    assert!(said.starts_with("bundle: 2 blobs of the release are missing"), "{said}");
}

#[test]
fn a_damaged_blob_does_not_get_into_a_bundle() {
    let desk = Desk::new();
    let (repository, ..) = published(&desk);
    let blobs = repository.package_blobs("outer").unwrap();
    let long = blobs.iter().find(|blob| blob.path == "data/long").unwrap().hash;
    let file = repository.served_dir().join(format!("blobs/1/{long}"));
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 4;
    fs::write(&file, bytes).unwrap();
    let said = write(&repository, NOW).unwrap_err().to_string();
    assert!(said.contains(&format!("blob {long}: ")), "{said}");
}

#[test]
fn a_release_of_other_repositories_is_refused() {
    let (desk, elsewhere) = (Desk::new(), Desk::new());
    let (other, ..) = published(&elsewhere);
    let repository = desk.repository();
    let outer = desk.build("outer", &[("data/file", b"x")], &[]);
    repository.publish(&publish_of(&[&outer])).unwrap();
    let document = release_of(&other, "outer").to_bytes().unwrap();
    let carrier = desk.build("carrier", &[(Release::PATH, &document)], &[]);
    repository.publish(&publish_of(&[&carrier])).unwrap();
    assert_eq!(write(&repository, NOW).unwrap_err().to_string(), BundleError::Untrusted.to_string());
}

#[test]
fn every_part_is_needed_and_none_may_be_added() {
    let desk = Desk::new();
    let (repository, carrier, _) = published(&desk);
    let bundle = write(&repository, NOW).unwrap();
    let whole = check(&bundle, start(&repository)).unwrap();
    assert_eq!(check(&edited(&bundle, |_| {}), start(&repository)).unwrap(), whole);
    let names: Vec<Vec<u8>> =
        FarBytes::parse(bundle.clone().into()).unwrap().entries().iter().map(|entry| entry.name().to_vec()).collect();
    for name in &names {
        let less = edited(&bundle, |files| drop(files.remove(name)));
        // That there is a newer root cannot be known from what is left.
        let newest_root = name.ends_with(b"/2.root.json");
        assert_eq!(check(&less, start(&repository)).is_ok(), newest_root, "{}", name.escape_ascii());
        let empty = edited(&bundle, |files| drop(files.insert(name.clone(), Bytes::new())));
        let was_empty = edited(&bundle, |_| {}) == empty;
        assert!(was_empty || check(&empty, start(&repository)).is_err(), "{}", name.escape_ascii());
    }
    let id = BlobId::from_digest([7; 32]);
    let (blob, leaves) = (format!("blobs/1/{id}"), format!("leaves/{id}"));
    for name in ["more", "blobs/1/x", "blobs/2/x", "leaves/x", &blob, &leaves] {
        let more = edited(&bundle, |files| drop(files.insert(name.into(), Bytes::new())));
        assert!(matches!(check(&more, start(&repository)), Err(BundleError::Unexpected(_))), "{name}");
    }
    let head = |text: String| edited(&bundle, |files| drop(files.insert(b"bundle.json".to_vec(), text.into())));
    let newer = head(r#"{"format":2,"colour":1}"#.to_owned());
    assert!(matches!(check(&newer, start(&repository)), Err(BundleError::TooNew { found: 2 })));
    let other = head(format!(r#"{{"format":1,"package":"outer/0","hash":"{}"}}"#, carrier.hash));
    assert!(matches!(check(&other, start(&repository)), Err(BundleError::NotListed { .. })));
}

/// Wherever a byte is changed: refused, or it was padding.
#[test]
fn no_changed_byte_goes_unnoticed() {
    let desk = Desk::new();
    let (repository, ..) = published(&desk);
    let bundle = write(&repository, NOW).unwrap();
    let whole = check(&bundle, start(&repository)).unwrap();
    let mut state = NOW.0;
    for _ in 0..40 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 16).unwrap() % bundle.len();
        let mut damaged = bundle.clone();
        damaged[at] ^= 1 << (state >> 8 & 7);
        if let Ok(read) = check(&damaged, start(&repository)) {
            assert_eq!(read, whole);
            assert_eq!(bundle[at], 0, "only padding may differ, byte {at}");
            assert_eq!(edited(&damaged, |_| {}), bundle);
        }
    }
}

/// With hash bins, the bins are delegated roles: all of them are in the bundle, and each is needed.
#[test]
fn delegated_roles_come_along() {
    let desk = Desk::new();
    let options = CreateOptions { profile: Profile::Scale, ..CreateOptions::new(NOW) };
    Repository::create(&desk.path("repo"), options).unwrap();
    let (repository, ..) = published(&desk);
    let bundle = write(&repository, NOW).unwrap();
    let mut opened = Bundle::open(Cursor::new(&bundle)).unwrap();
    let checked = opened.check(start(&repository), NOW).unwrap();
    let bins = checked.set.snapshot().unwrap().meta().len() - 1;
    assert!(bins >= 1024, "{bins}");
    let archive = FarBytes::parse(bundle.clone().into()).unwrap();
    let metadata = archive.entries().iter().filter(|entry| entry.name().starts_with(b"metadata/"));
    let names: Vec<Vec<u8>> = metadata.map(|entry| entry.name().to_vec()).collect();
    assert_eq!(names.len(), bins + 5);
    let is_bin = |name: &&Vec<u8>| {
        !["root.json", "targets.json", "snapshot.json", "timestamp.json"]
            .iter()
            .any(|top| name.ends_with(top.as_bytes()))
    };
    let bin = names.iter().filter(is_bin).nth(700).unwrap();
    let less = edited(&bundle, |files| drop(files.remove(bin)));
    assert!(matches!(
        check(&less, start(&repository)),
        Err(BundleError::MissingRole(_) | BundleError::NotListed { .. })
    ));
    let empty = edited(&bundle, |files| drop(files.insert(bin.clone(), Bytes::from_static(b"{}"))));
    assert!(matches!(check(&empty, start(&repository)), Err(BundleError::Metadata(_))));
}
