//! System updates end to end: an origin with update packages, a device with two slots that is started again and again.

mod scene;
mod systems;

use colibri_device::sets::ImageSets;
use colibri_device::update::{AttemptState, Phase, Slot, SlotHealth, System, TRIES, UpdateError, UpdateSource};
use colibri_device::{Depth, DeviceConfig, DeviceError, ResolvedBy};
use colibri_release::update_package::UpdateRefused;
use colibri_store::Disk;
use colibri_store::OsDisk;
use scene::url;
use std::sync::Arc;
use systems::{Bench, Change, Release, images, quiet};

fn update() -> UpdateSource {
    url("update").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_installed_started_and_committed() {
    let bench = Bench::new();
    let first = bench.release(&Release::new("1"));
    let mut device = bench.start("0").await;
    let attempt = device.updater.install(&update(), quiet()).await.unwrap();
    assert_eq!((attempt.state, attempt.slot, attempt.to_version.as_str()), (AttemptState::WaitToReboot, Slot::B, "1"));
    assert_eq!(device.updater.boot().running().unwrap(), System::A, "nothing has changed for what runs");

    drop(device);

    device = bench.start("1").await;
    assert_eq!(device.updater.boot().running().unwrap(), System::B);
    assert_eq!(device.updater.history().last().unwrap().state, AttemptState::Rebooted);
    assert!(first.is_whole(&device, Slot::B).await);
    assert!(matches!(device.device.collect(Depth::Unused).await, Err(DeviceError::PendingCommit)));
    let busy = device.updater.install(&update(), quiet()).await;
    assert!(matches!(busy, Err(UpdateError::NotCommitted)), "the way back stays open");
    device.updater.commit(async { Ok(()) }).await.unwrap();
    assert_eq!(device.updater.history().last().unwrap().state, AttemptState::Complete);

    let second = bench.release(&Release::new("2"));
    let attempt = device.updater.install(&update(), quiet()).await.unwrap();
    assert_eq!((attempt.slot, attempt.from_version.as_str()), (Slot::A, "1"));
    assert!(first.is_whole(&device, Slot::B).await, "both are here until the new one is committed");
    drop(device);
    device = bench.start("2").await;
    assert!(second.is_whole(&device, Slot::A).await);
    device.updater.commit(async { Ok(()) }).await.unwrap();
    device.device.collect(Depth::Unused).await.unwrap();
    assert!(second.is_whole(&device, Slot::A).await);
    assert!(!device.device.is_on_device(first.packages[0]).await.unwrap(), "the old system's own package is collected");
    assert_eq!(device.updater.history().len(), 2);
}

/// A device without a product release: what its base is called, the update package says.
#[tokio::test(flavor = "multi_thread")]
async fn base_packages_of_an_update_have_their_urls_without_a_network() {
    let bench = Bench::new();
    let first = bench.release(&Release::new("1"));
    let mut device = bench.start("0").await;
    device.updater.install(&update(), quiet()).await.unwrap();
    drop(device);
    let second = {
        device = bench.start("1").await;
        device.updater.commit(async { Ok(()) }).await.unwrap();
        let second = bench.release(&Release::new("2"));
        device.updater.install(&update(), quiet()).await.unwrap();
        second
    };
    // Nobody is asked, not even where the repository is: it lists the second one's package by now.
    let base = async |device: &systems::Started, name: &str| {
        device.device.repositories().remove(scene::HOST).unwrap();
        let resolved = device.device.resolve(&url(name), scene::nobody()).await.unwrap();
        assert_eq!(resolved.by, ResolvedBy::Base, "{name}");
        resolved.hash
    };
    assert_eq!(base(&device, "system-own").await, first.packages[0], "an update that waits says nothing yet");
    assert_eq!(base(&device, "system-shared").await, first.packages[1]);
    let pinned = format!("{}/0?hash={}", url("system-own"), first.packages[0]).parse().unwrap();
    assert!(device.device.get_hash(&pinned).await.is_err(), "a pin asks for a version, which is for the repository");
    drop(device);
    device = bench.start("2").await;
    assert_eq!(base(&device, "system-own").await, second.packages[0]);
    // It is never healthy: with the old system its names are back.
    for start in 0..TRIES {
        drop(device);
        device = bench.start(&format!("try {start}")).await;
    }
    assert_eq!(device.updater.boot().running().unwrap(), System::B);
    assert_eq!(base(&device, "system-own").await, first.packages[0]);
}

/// A device whose first update is given up has what it was made with, and its names.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_was_made_with_outlives_an_update_that_is_given_up() {
    let bench = Bench::new();
    let made_with = bench.release(&Release::new("1"));
    let mut device = bench.start("0").await;
    for name in ["system-own", "system-shared"] {
        device.device.resolve(&url(name), scene::nobody()).await.unwrap();
    }
    let mut image = ImageSets::default();
    let lines = format!("system-own/0={}\nsystem-shared/0={}\n", made_with.packages[0], made_with.packages[1]);
    image.read_static_packages(lines.as_bytes()).unwrap();
    device.device.set_image(&image).await.unwrap();
    bench.release(&Release::new("2"));
    device.updater.install(&update(), quiet()).await.unwrap();
    for start in 0..=TRIES {
        drop(device);
        device = bench.start(&format!("try {start}")).await;
    }
    assert_eq!(device.updater.boot().running().unwrap(), System::A);
    device.device.collect(Depth::Unused).await.unwrap();
    assert!(device.device.is_on_device(made_with.packages[0]).await.unwrap(), "base was not given up");
    let base = "fuchsia-pkg://fuchsia.com/system-own".parse().unwrap();
    assert_eq!(device.device.get_hash(&base).await.unwrap(), made_with.packages[0]);
}

/// Whether this is the error that a release should meet with.
type Expected<'a> = &'a dyn Fn(&UpdateError) -> bool;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meant_for_this_device_changes_nothing() {
    let bench = Bench::new();
    bench.release(&Release { epoch: 7, ..Release::new("1") });
    let mut device = bench.start("0").await;
    device.updater.install(&update(), quiet()).await.unwrap();
    drop(device);
    device = bench.start("1").await;
    device.updater.commit(async { Ok(()) }).await.unwrap();
    let refused: [(Release, Expected<'_>); 5] = [
        (Release { board: "heron", epoch: 7, ..Release::new("2") }, &|e| {
            matches!(e, UpdateError::Refused(UpdateRefused::Board { .. }))
        }),
        (Release { epoch: 6, ..Release::new("2") }, &|e| {
            matches!(e, UpdateError::Refused(UpdateRefused::Epoch { found: 6, epoch: 7 }))
        }),
        (Release { change: Change::ForceRecovery, epoch: 7, ..Release::new("2") }, &|e| {
            matches!(e, UpdateError::Refused(UpdateRefused::Recovery))
        }),
        (Release { change: Change::WrongImageHash, epoch: 7, ..Release::new("2") }, &|e| {
            matches!(e, UpdateError::WrongImage { .. })
        }),
        (Release { change: Change::NoImages, epoch: 7, ..Release::new("2") }, &|e| {
            matches!(e, UpdateError::Package { .. })
        }),
    ];
    for (release, expected) in refused {
        bench.release(&release);
        device.device.refresh(scene::HOST, true).await.unwrap();
        let checked = device.updater.check(&update()).await;
        let error = device.updater.install(&update(), quiet()).await.unwrap_err();
        assert!(expected(&error), "{error}");
        match checked {
            // Found out when the image is written, and not before.
            Ok(_) => assert_eq!(release.change, Change::WrongImageHash),
            Err(checked) => assert_eq!(checked.to_string(), error.to_string(), "check refuses as install does"),
        }
        let last = device.updater.history().pop().unwrap();
        let AttemptState::Failed { reason, .. } = last.state else { panic!("{:?}", last.state) };
        assert_eq!(reason, error.to_string());
        assert_eq!(device.updater.boot().next().unwrap(), System::B);
        assert_eq!(device.updater.boot().health(Slot::A).unwrap(), SlotHealth::Unbootable);
    }
    let other = device.updater.install(&url("app").into(), quiet()).await.unwrap_err();
    assert!(matches!(&other, UpdateError::Name { found, .. } if found == "app"), "{other}");
    let checked = device.updater.check(&url("app").into()).await.unwrap_err();
    assert_eq!(checked.to_string(), other.to_string());
    let absent = device.updater.install(&url("absent").into(), quiet()).await.unwrap_err();
    assert!(matches!(absent, UpdateError::Device(DeviceError::PackageNotFound { .. })), "{absent}");
    drop(device);
    device = bench.start("2").await;
    assert_eq!(device.updater.boot().running().unwrap(), System::B, "the running system was never in danger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_is_never_healthy_is_given_up_and_the_old_one_is_whole() {
    let bench = Bench::new();
    let first = bench.release(&Release::new("1"));
    let mut device = bench.start("0").await;
    device.updater.install(&update(), quiet()).await.unwrap();
    drop(device);
    device = bench.start("1").await;
    device.updater.commit(async { Ok(()) }).await.unwrap();
    bench.release(&Release::new("2"));
    device.device.refresh(scene::HOST, true).await.unwrap();
    device.updater.install(&update(), quiet()).await.unwrap();
    for start in 0..TRIES {
        drop(device);
        device = bench.start(&format!("try {start}")).await;
        assert_eq!(device.updater.boot().running().unwrap(), System::A);
        let ill = device.updater.commit(async { Err("no network".to_owned()) }).await;
        assert!(matches!(ill, Err(UpdateError::Unhealthy(reason)) if reason == "no network"));
    }
    drop(device);
    device = bench.start("after").await;
    assert_eq!(device.updater.boot().running().unwrap(), System::B);
    assert_eq!(device.updater.history().last().unwrap().state, AttemptState::FellBack);
    device.device.collect(Depth::Unused).await.unwrap();
    assert!(first.is_whole(&device, Slot::B).await);
    device.updater.install(&update(), quiet()).await.unwrap();
    assert_eq!(device.updater.history().last().unwrap().state, AttemptState::WaitToReboot, "it may be tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_is_written_and_started_where_that_is_allowed() {
    let bench = Bench::new();
    bench.release(&Release { change: Change::ForceRecovery, ..Release::new("r") });
    let device = bench.start_with("0", DeviceConfig::default(), |config| config.writes_recovery = true).await;
    let attempt = device.updater.install(&update(), quiet()).await.unwrap();
    assert_eq!(attempt.state, AttemptState::WaitToReboot);
    drop(device);
    let device = bench.start_with("1", DeviceConfig::default(), |config| config.writes_recovery = true).await;
    assert_eq!(device.updater.boot().running().unwrap(), System::Recovery);
    assert_eq!(device.updater.history().last().unwrap().state, AttemptState::Complete, "nobody commits recovery");
    assert!(matches!(device.updater.commit(async { Ok(()) }).await, Err(UpdateError::Recovery)));
    bench.release(&Release::new("1"));
    device.device.refresh(scene::HOST, true).await.unwrap();
    device.updater.install(&update(), quiet()).await.unwrap();
    drop(device);
    let device = bench.start("2").await;
    assert_eq!(device.updater.boot().running().unwrap(), System::A, "recovery installed a system");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_counts_bytes_and_an_image_that_is_there_is_not_written_again() {
    let bench = Bench::new();
    let release = Release::new("1");
    bench.release(&release);
    let device = bench.start("0").await;
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let hear = {
        let heard = heard.clone();
        Arc::new(move |progress| heard.lock().unwrap().push(progress))
    };
    device.updater.install(&update(), hear).await.unwrap();
    let heard: Vec<colibri_device::update::UpdateProgress> = std::mem::take(&mut heard.lock().unwrap());
    let last = heard.last().unwrap();
    assert_eq!((last.phase, last.packages, last.packages_total), (Phase::Commit, 2, 2));
    assert_eq!(last.image_bytes, last.image_bytes_total);
    assert!(last.fetched_bytes > last.image_bytes_total);
    assert!(heard.is_sorted_by_key(|progress| (progress.phase, progress.image_bytes, progress.packages)));
    let image = bench.dir().join("slots").join("b.zbi");
    let before = OsDisk.file_len(&image).unwrap();
    let written = std::fs::metadata(&image).unwrap().modified().unwrap();
    device.updater.install(&update(), quiet()).await.unwrap();
    assert_eq!(OsDisk.file_len(&image).unwrap(), before);
    assert_eq!(std::fs::metadata(&image).unwrap().modified().unwrap(), written);
    assert_eq!(std::fs::read(&image).unwrap(), images(&release).0);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_asks_for_what_install_takes_whatever_release_the_device_follows() {
    let bench = Bench::new();
    bench.release(&Release::new("1"));
    let device = bench.start("0").await;
    device.device.set_release(bench.bare_release()).await.unwrap();
    let eligible = device.device.get_hash(&url("update")).await;
    assert!(matches!(eligible, Err(DeviceError::Set(_))), "an update package is in no package set: {eligible:?}");
    let offered = device.updater.check(&update()).await.unwrap();
    assert_eq!((offered.version.as_str(), offered.is_running), ("1", false));
    let attempt = device.updater.install(&update(), quiet()).await.unwrap();
    assert_eq!(attempt.state, AttemptState::WaitToReboot);
    drop(device);
    let device = bench.start("1").await;
    let running = device.updater.running().unwrap().unwrap();
    assert_eq!(running.update, offered.update, "what was checked for was installed");
    assert!(device.updater.check(&update()).await.unwrap().is_running);
}
