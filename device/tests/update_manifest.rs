//! System updates by a signed manifest of blobs: what is taken, what is refused, what it costs.

mod scene;
mod systems;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use colibri_common::BlobId;
use colibri_device::update::{
    AttemptState, Phase, Slot, System, UpdateConfig, UpdateError, UpdateObserver, UpdateProgress, UpdateSource,
};
use colibri_device::{Depth, DeviceConfig, DeviceError};
use colibri_release::ota_manifest::OtaManifestError;
use colibri_release::update_package::UpdateRefused;
use scene::{nobody, noise, url};
use systems::manifest::{Manifest, STRANGER, TRUSTED};
use systems::{Bench, Change, Release, Started, Told, quiet};

fn bench() -> Bench {
    Bench::new().telling(Told::ByManifest)
}

/// Hands out a manifest at `http://…/products/toucan.manifest`, and the blobs of a repository at `/blobs/1`, as any server of
/// plain files does: whole, and without leaves.
fn serve(file: Vec<u8>, repository: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/products/toucan.manifest", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let found = match path.strip_prefix("/blobs/1/") {
                Some(name) => std::fs::read(repository.join("blobs/1").join(name)).ok(),
                None => (path == "/products/toucan.manifest").then(|| file.clone()),
            };
            let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
            let body = found.unwrap_or_default();
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

/// A device whose first system was installed from a manifest and committed.
async fn committed(bench: &Bench, release: &Release, change: impl FnOnce(&mut UpdateConfig) + Copy) -> Started {
    let first = bench.release(release);
    let device = bench.start("0").await;
    device.updater.install(&first.source, quiet()).await.unwrap();
    drop(device);
    let device = bench.start_with("1", DeviceConfig::default(), change).await;
    device.updater.commit(async { Ok(()) }).await.unwrap();
    device
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_is_installed_from_a_signed_manifest_and_stays_whole() {
    let bench = bench();
    let first = bench.release(&Release::new("1"));
    let mut device = bench.start("0").await;
    let offered = device.updater.check(&first.source).await.unwrap();
    assert_eq!((offered.version.as_str(), offered.is_running), ("1", false));
    let attempt = device.updater.install(&first.source, quiet()).await.unwrap();
    assert_eq!((attempt.state, attempt.slot, attempt.to_version.as_str()), (AttemptState::WaitToReboot, Slot::B, "1"));
    drop(device);
    device = bench.start("1").await;
    assert_eq!(device.updater.boot().running().unwrap(), System::B);
    assert!(first.is_whole(&device, Slot::B).await);
    assert!(matches!(device.device.collect(Depth::Unused).await, Err(DeviceError::PendingCommit)));
    device.updater.commit(async { Ok(()) }).await.unwrap();
    assert!(device.updater.check(&first.source).await.unwrap().is_running);
    device.device.collect(Depth::Free { bytes: u64::MAX }).await.unwrap();
    assert!(first.is_whole(&device, Slot::B).await, "base is firm");
    assert_eq!(device.updater.running().unwrap().unwrap().packages.len(), 3, "subpackages are packages too");

    let second = bench.release(&Release::new("2"));
    device.updater.install(&second.source, quiet()).await.unwrap();
    assert!(first.is_whole(&device, Slot::B).await, "both are here until the new one is committed");
    drop(device);
    device = bench.start("2").await;
    assert!(second.is_whole(&device, Slot::A).await);
    device.updater.commit(async { Ok(()) }).await.unwrap();
    device.device.collect(Depth::Unused).await.unwrap();
    assert!(second.is_whole(&device, Slot::A).await);
    assert!(!device.device.is_on_device(first.packages[0]).await.unwrap(), "the old system's own package is collected");
    assert!(
        !device.store.ids().unwrap().contains(&image_of(&bench, "2")),
        "images are in their slots, not in the store"
    );
}

/// The blob that the zbi of a system is.
fn image_of(bench: &Bench, version: &'static str) -> BlobId {
    Manifest::of(bench, &Release::new(version), &[]).images[0].blob
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_on_a_web_server_says_where_its_blobs_are_relative_to_itself() {
    let bench = bench();
    let released = bench.release(&Release::new("1"));
    let device = bench.start("0").await;
    let manifest = Manifest { blobs_url: "../blobs/1".to_owned(), ..bench.manifest_of(&Release::new("1")) };
    let at = serve(manifest.signed(&[STRANGER, TRUSTED]), bench.path("repository/repository"));
    let source: UpdateSource = at.parse().unwrap();
    let attempt = device.updater.install(&source, quiet()).await.unwrap();
    assert_eq!(attempt.url, at);
    assert!(released.is_whole(&device, Slot::B).await);
    let absent: UpdateSource = format!("{at}.old").parse().unwrap();
    let absent = device.updater.check(&absent).await.unwrap_err();
    assert!(matches!(&absent, UpdateError::NoManifest { from, .. } if *from == format!("{at}.old")), "{absent}");
    // Beside the manifest there are none.
    let beside = Manifest { blobs_url: "blobs/1".to_owned(), ..bench.manifest_of(&Release::new("2")) };
    let beside: UpdateSource = serve(beside.signed(&[TRUSTED]), bench.path("repository/repository")).parse().unwrap();
    let nothing_there = device.updater.install(&beside, quiet()).await.unwrap_err();
    assert!(matches!(nothing_there, UpdateError::Device(DeviceError::Blob(_))), "{nothing_there}");
}

/// Whether this is the error that a manifest should meet with.
type Expected<'a> = &'a dyn Fn(&UpdateError) -> bool;
type Changed<'a> = &'a dyn Fn(&mut Manifest);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_for_this_device_or_not_whole_changes_nothing() {
    let bench = bench();
    let device = committed(&bench, &Release { epoch: 7, ..Release::new("5") }, |_| ()).await;
    let fresh = bench.manifest_of(&Release { epoch: 7, ..Release::new("6") });
    let absent = colibri_common::merkle::build(b"nowhere").id;
    let refused: [(Changed<'_>, Expected<'_>); 10] = [
        (&|manifest| manifest.board = "heron".to_owned(), &|e| {
            matches!(e, UpdateError::Refused(UpdateRefused::Board { .. }))
        }),
        (&|manifest| manifest.epoch = 6, &|e| {
            matches!(e, UpdateError::Refused(UpdateRefused::Epoch { found: 6, epoch: 7 }))
        }),
        (&|manifest| manifest.version = "4.9".to_owned(), &|e| {
            matches!(e, UpdateError::Refused(UpdateRefused::Older { .. }))
        }),
        (
            &|manifest| {
                manifest.is_recovery = true;
                manifest.images[0].slot = 1;
            },
            &|e| matches!(e, UpdateError::Refused(UpdateRefused::Recovery)),
        ),
        (&|manifest| manifest.images.clear(), &|e| {
            matches!(e, UpdateError::Manifest { error: OtaManifestError::Images(_), .. })
        }),
        (&|manifest| manifest.blobs_url = "blobs/1".to_owned(), &|e| matches!(e, UpdateError::BlobAddress { .. })),
        (&|manifest| manifest.images[0].sha256 = [1; 32], &|e| matches!(e, UpdateError::WrongImage { .. })),
        (&|manifest| *manifest.blobs.values_mut().next().unwrap() += 1, &|e| {
            matches!(e, UpdateError::BlobLength { .. })
        }),
        (&|manifest| _ = manifest.blobs.insert(absent, 7), &|e| matches!(e, UpdateError::Device(DeviceError::Blob(_)))),
        (
            &|manifest| {
                let content = colibri_common::merkle::build(&noise(3, 20_000)).id;
                manifest.blobs.remove(&content).unwrap();
            },
            &|e| matches!(e, UpdateError::PackageNotWhole { .. }),
        ),
    ];
    for (index, (change, expected)) in refused.iter().enumerate() {
        let mut manifest = fresh.clone();
        change(&mut manifest);
        let source = bench.manifest_file(&manifest.signed(&[TRUSTED]));
        let checked = device.updater.check(&source).await;
        let error = device.updater.install(&source, quiet()).await.unwrap_err();
        assert!(expected(&error), "{index}: {error}");
        match checked {
            Ok(_) => assert!(index > 5, "{index}: found out before anything is fetched"),
            Err(checked) => assert_eq!(checked.to_string(), error.to_string(), "check refuses as install does"),
        }
        let last = device.updater.history().pop().unwrap();
        assert!(matches!(last.state, AttemptState::Failed { reason, .. } if reason == error.to_string()));
        assert_eq!(device.updater.boot().next().unwrap(), System::B);
    }
    device.updater.install(&bench.manifest_file(&fresh.signed(&[TRUSTED])), quiet()).await.unwrap();
    assert_eq!(device.updater.boot().next().unwrap(), System::A, "without a change it is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_keys_of_the_configuration_count() {
    let bench = bench();
    let released = bench.release(&Release::new("1"));
    let device = bench.start("0").await;
    let manifest = bench.manifest_of(&Release::new("1"));
    let by_a_stranger = bench.manifest_file(&manifest.signed(&[STRANGER]));
    let refused = device.updater.install(&by_a_stranger, quiet()).await.unwrap_err();
    assert!(matches!(refused, UpdateError::Manifest { error: OtaManifestError::Untrusted, .. }), "{refused}");
    drop(device);
    let device = bench.start_with("0", DeviceConfig::default(), |config| config.manifest_keys.clear()).await;
    let nobody = device.updater.check(&released.source).await.unwrap_err();
    assert!(matches!(nobody, UpdateError::NoKeys), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_is_taken_where_that_is_wanted() {
    let bench = bench();
    let device = committed(&bench, &Release::new("5"), |config| config.takes_older = true).await;
    let older = bench.release(&Release::new("4"));
    device.updater.install(&older.source, quiet()).await.unwrap();
    assert!(older.is_whole(&device, Slot::A).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_is_written_and_started_where_that_is_allowed() {
    let bench = bench();
    let released = bench.release(&Release { change: Change::ForceRecovery, ..Release::new("r") });
    let device = bench.start_with("0", DeviceConfig::default(), |config| config.writes_recovery = true).await;
    let attempt = device.updater.install(&released.source, quiet()).await.unwrap();
    assert!(attempt.recovery && attempt.state == AttemptState::WaitToReboot, "{attempt:?}");
    assert!(device.updater.running().unwrap().is_none());
    assert!(!device.device.is_on_device(released.packages[0]).await.unwrap(), "no packages");
}

type Heard = Arc<Mutex<Vec<(UpdateProgress, u64)>>>;

/// Hears everything, and how much the store held each time.
fn watched(device: &Started) -> (UpdateObserver, Heard) {
    let heard = Heard::default();
    let (log, store) = (heard.clone(), device.store.clone());
    let hear = move |progress| log.lock().unwrap().push((progress, store.stats().unwrap().blob_bytes));
    (Arc::new(hear), heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_forecast_of_an_update_by_manifest_is_what_happens_and_progress_counts_bytes() {
    let bench = bench();
    let device = committed(&bench, &Release::new("1"), |_| ()).await;
    // Of no use to anybody afterwards, and there on demand.
    device.device.resolve(&url("app"), nobody()).await.unwrap();
    let second = bench.release(&Release::new("2"));
    let plan = device.updater.check(&second.source).await.unwrap().plan.unwrap();
    let (hear, heard) = watched(&device);
    device.updater.install(&second.source, hear).await.unwrap();
    let heard = std::mem::take(&mut *heard.lock().unwrap());
    assert_eq!(heard.iter().map(|(_, stored)| *stored).max(), Some(plan.peak_bytes));
    let (last, stored) = heard.last().unwrap();
    assert_eq!((last.phase, last.image_bytes), (Phase::Commit, last.image_bytes_total));
    assert_eq!((last.content_bytes, last.content_bytes_total), (plan.stored_after_bytes, plan.stored_after_bytes));
    assert_eq!(last.fetched_bytes, plan.before_commit.stored_bytes, "what is here is not fetched");
    assert!(last.content_bytes > last.fetched_bytes - last.image_bytes, "and what is shared counts as here");
    assert!(heard.is_sorted_by_key(|(at, _)| (at.phase, at.image_bytes, at.content_bytes, at.fetched_bytes)));
    assert!(*stored < plan.peak_bytes, "images were more than what came after them");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_goes_on_where_the_last_one_stopped() {
    let bench = bench();
    bench.release(&Release::new("1"));
    let device = bench.start("0").await;
    let whole = bench.manifest_of(&Release::new("1"));
    let mut broken = whole.clone();
    let forgotten = colibri_common::merkle::build(&noise(3, 20_000)).id;
    let forgotten_bytes = broken.blobs.remove(&forgotten).unwrap();
    let broken = bench.manifest_file(&broken.signed(&[TRUSTED]));
    let refused = device.updater.install(&broken, quiet()).await.unwrap_err();
    assert!(matches!(refused, UpdateError::PackageNotWhole { blob, .. } if blob == forgotten), "{refused}");
    let (hear, heard) = watched(&device);
    device.updater.install(&bench.manifest_file(&whole.signed(&[TRUSTED])), hear).await.unwrap();
    let (last, _) = *heard.lock().unwrap().last().unwrap();
    assert_eq!(last.fetched_bytes, forgotten_bytes, "all else, images included, was here");
}
