//! Power loss at every operation of a system update: what starts afterwards is the old system or the new one, whole.

mod scene;
mod systems;

use std::path::Path;
use std::sync::Arc;

use colibri_device::update::{AttemptState, Slot, System, UpdateSource};
use colibri_device::{Depth, DeviceConfig};
use colibri_store::Disk;
use colibri_store::testing::CrashDisk;
use scene::Scene;
use systems::{Bench, Release, Released, Started, Told, quiet};

/// After so many cuts one of the devices goes on with the update, over the network.
const GOES_ON_EVERY: usize = 97;

fn config() -> DeviceConfig {
    DeviceConfig { http3: false, ..DeviceConfig::default() }
}

fn disk_with_folders() -> CrashDisk {
    let disk = CrashDisk::new();
    for folder in ["/device", "/device/slots"] {
        disk.create_dir(Path::new(folder)).unwrap();
    }
    disk.sync_dir(Path::new("/")).unwrap();
    disk.sync_dir(Path::new("/device")).unwrap();
    disk
}

/// The system that runs is one of these two, and all of it is there.
async fn check(device: &Started, old: &Released, new: &Released) -> Result<System, String> {
    let running = device.updater.boot().running().map_err(|error| error.to_string())?;
    let whole = match running {
        System::B => old.is_whole(device, Slot::B).await,
        System::A => new.is_whole(device, Slot::A).await,
        System::Recovery => return Err("recovery runs".to_owned()),
    };
    // What its base is called is its own, too.
    let released = if running == System::B { old } else { new };
    if matches!(&released.source, UpdateSource::Package(_)) {
        let said = device.device.get_hash(&scene::url("system-own")).await.map_err(|error| error.to_string())?;
        if said != released.packages[0] {
            return Err(format!("{running:?} runs, and its URLs are of another system"));
        }
    }
    if whole { Ok(running) } else { Err(format!("{running:?} runs and is not whole")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_at_every_operation_of_an_update_ends_in_the_old_or_the_new_system() {
    cut_everywhere(Told::ByPackage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_loss_at_every_operation_of_an_update_by_manifest_ends_in_the_old_or_the_new_system() {
    cut_everywhere(Told::ByManifest).await;
}

async fn cut_everywhere(told: Told) {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let disk = disk_with_folders();
    let bench = Bench::on(Scene::new(), Arc::new(disk.clone()), "/device".into()).telling(told);
    let old = bench.release(&Release::new("1"));
    let device = bench.start_with("0", config(), |_| ()).await;
    device.updater.install(&old.source, quiet()).await.unwrap();
    drop(device);
    let device = bench.start_with("1", config(), |_| ()).await;
    device.updater.commit(async { Ok(()) }).await.unwrap();

    let before = disk.operations();
    let new = bench.release(&Release::new("2"));
    device.updater.install(&new.source, quiet()).await.unwrap();
    let installed = disk.operations();
    drop(device);
    let device = bench.start_with("2", config(), |_| ()).await;
    device.updater.commit(async { Ok(()) }).await.unwrap();
    let committed = disk.operations();
    device.device.collect(Depth::Unused).await.unwrap();
    drop(device);

    let mut went_on = 0;
    for cut in before..=disk.operations() {
        let survivor: Arc<dyn Disk> = Arc::new(disk.crash(cut, seed ^ cut as u64));
        let device = bench.start_on(&survivor, &format!("cut {cut}"), config(), |_| ()).await;
        let running = check(&device, &old, &new).await.unwrap_or_else(|wrong| panic!("cut {cut}: {wrong}"));
        if cut >= installed {
            assert_eq!(running, System::A, "cut {cut}: the update was acknowledged");
        }
        let last = device.updater.history().pop().map(|attempt| attempt.state);
        match running {
            System::A if cut >= committed => assert_eq!(last, Some(AttemptState::Complete)),
            System::A => assert!(matches!(last, Some(AttemptState::Rebooted | AttemptState::Complete)), "{last:?}"),
            _ => assert!(!matches!(last, Some(AttemptState::Running(_))), "cut {cut}: {last:?} says it goes on"),
        }
        if (cut - before).is_multiple_of(GOES_ON_EVERY) {
            device.updater.commit(async { Ok(()) }).await.unwrap();
            device.updater.install(&new.source, quiet()).await.unwrap();
            went_on += 1;
        }
    }
    assert!(went_on > 1 && installed > before && committed > installed);
}

/// A slot that waits to be started is written again: it is unbootable before its record is forgotten. The other way round,
/// power lost between the two would start a system of which nobody knows what it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_could_start_is_never_one_whose_system_is_forgotten() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let disk = disk_with_folders();
    let bench = Bench::on(Scene::new(), Arc::new(disk.clone()), "/device".into());
    let first = bench.release(&Release::new("1"));
    let device = bench.start_with("0", config(), |_| ()).await;
    device.updater.install(&first.source, quiet()).await.unwrap();
    let before = disk.operations();
    let second = bench.release(&Release::new("2"));
    device.updater.install(&second.source, quiet()).await.unwrap();
    drop(device);
    let mut started = [0, 0];
    for cut in before..=disk.operations() {
        let survivor: Arc<dyn Disk> = Arc::new(disk.crash(cut, seed ^ cut as u64));
        let device = bench.start_on(&survivor, &format!("cut {cut}"), config(), |_| ()).await;
        let running = device.updater.running().unwrap();
        if device.updater.boot().running().unwrap() == System::B {
            let version = running.unwrap_or_else(|| panic!("cut {cut}: what runs is forgotten")).version;
            let whole = if version == "1" { &first } else { &second };
            assert!(whole.is_whole(&device, Slot::B).await, "cut {cut}: {version} is not whole");
            started[usize::from(version == "2")] += 1;
        }
    }
    assert!(started.iter().all(|count| *count > 0), "{started:?}");
}

/// The test above proves nothing if a disk that ignores syncs passes too.
#[tokio::test(flavor = "multi_thread")]
async fn the_syncs_of_an_update_are_needed() {
    let disk = disk_with_folders();
    let bench = Bench::on(Scene::new(), Arc::new(disk.clone()), "/device".into());
    let device = bench.start_with("0", config(), |_| ()).await;
    let new = bench.release(&Release::new("1"));
    device.updater.install(&new.source, quiet()).await.unwrap();
    drop(device);
    let end = disk.operations();
    for (kind, folder) in [("images", "/device/slots"), ("what starts next", "/device/state")] {
        let mut lost = 0;
        for seed in 0..40 {
            let survivor: Arc<dyn Disk> = Arc::new(disk.crash_ignoring(end, seed, |path| path.starts_with(folder)));
            let Ok(device) = bench.try_start_on(&survivor, "after", config()).await else {
                lost += 1;
                continue;
            };
            let is_new = device.updater.boot().running().unwrap() == System::B;
            if !(is_new && new.is_whole(&device, Slot::B).await) {
                lost += 1;
            }
        }
        assert!(lost > 0, "{kind}: an acknowledged update survives without its syncs");
    }
}
