//! What a start finds: after a clean stop, a kill, a power loss at any moment, or other people's hands.

use std::path::PathBuf;

use colibri_store::testing::CrashDisk;

use super::*;

fn open(disk: &Arc<dyn Disk>, dir: &Path, bytes: u64) -> (DiskTier, Metrics) {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let config = DiskTierConfig::new(dir.to_owned(), bytes);
    (DiskTier::open_on(disk, &config, metrics.clone()).unwrap(), metrics)
}

/// Runs upkeep until everything is in the books.
fn load(tier: &DiskTier) {
    let mut upkeep = upkeep::Upkeep::default();
    while tier.inner.is_loading() {
        tier.inner.tick(&mut upkeep);
    }
}

fn blobs() -> Vec<Blob> {
    [UNIT * 3 + 77, 5000, UNIT, 8192, 100_000]
        .into_iter()
        .zip(1..)
        .map(|(length, seed)| Blob::noise(length, seed))
        .collect()
}

async fn write_all(tier: &DiskTier, blobs: &[Blob]) {
    for blob in blobs {
        for unit in 0..blob.0.unit_count() {
            write(tier, blob, unit).await;
        }
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_and_serves_before_it_has_looked() {
    for clean in [true, false] {
        let (dir, disk): (_, Arc<dyn Disk>) = (tempfile::tempdir().unwrap(), Arc::new(OsDisk));
        let blobs = blobs();
        let (tier, _) = open(&disk, dir.path(), 1 << 30);
        write_all(&tier, &blobs).await;
        let before = lock(&tier.inner.ledger).totals();
        tier.inner.tick(&mut upkeep::Upkeep::default());
        if clean {
            tier.close().await;
        }
        drop(tier);
        let (tier, metrics) = open(&disk, dir.path(), 1 << 30);
        assert_eq!(tier.inner.doubtful.load(Ordering::SeqCst), !clean);
        assert_eq!(lock(&tier.inner.ledger).totals(), before, "known before anything was looked at");
        assert!(has(&tier, &blobs[0], 3).await && tier.inner.is_loading());
        let known = tier.known(blobs[2].0.id(), Encoding::Raw).await.unwrap();
        assert_eq!(known.length.unwrap().bytes(), UNIT as u64);
        load(&tier);
        assert_eq!(lock(&tier.inner.ledger).totals(), before);
        for blob in &blobs {
            for unit in 0..blob.0.unit_count() {
                assert!(tier.has(&blob.key(unit)) && has(&tier, blob, unit).await);
            }
        }
        assert_eq!((metrics.disk_errors.get(), metrics.disk_damaged.get()), (0, 0));
    }
}

/// After a clean stop guards are believed, after any other the leaves decide: wrong bytes with right guards.
#[tokio::test]
async fn what_decides_after_a_stop() {
    for clean in [true, false] {
        let (dir, disk): (_, Arc<dyn Disk>) = (tempfile::tempdir().unwrap(), Arc::new(OsDisk));
        let blob = Blob::noise(UNIT, 9);
        let (tier, _) = open(&disk, dir.path(), 1 << 30);
        write(&tier, &blob, 0).await;
        let path = tier.inner.files.path(FileKey::of(&blob.key(0)));
        if clean {
            tier.close().await;
        }
        drop(tier);
        // The file of another blob of the same length under this name, but for its end: wrong bytes, right guards.
        forge(&path, &blob);
        let (tier, metrics) = open(&disk, dir.path(), 1 << 30);
        load(&tier);
        let parts = tier.read(blob.key(0)).await.unwrap();
        let missing = parts.iter().any(|part| matches!(part, Part::Missing(_)));
        assert_eq!((missing, metrics.disk_damaged.get()), if clean { (false, 0) } else { (true, 1) });
        // A doubt that nobody has cleared outlives a clean stop; a scrub clears it.
        if !clean {
            tier.close().await;
            drop(tier);
            let (tier, _) = open(&disk, dir.path(), 1 << 30);
            assert!(tier.inner.doubtful.load(Ordering::SeqCst));
            load(&tier);
            tier.inner.scrub(&mut upkeep::Upkeep::default(), 1 << 30);
            assert_eq!(lock(&tier.inner.ledger).doubts(), 0);
            tier.close().await;
            drop(tier);
            assert!(!open(&disk, dir.path(), 1 << 30).0.inner.doubtful.load(Ordering::SeqCst));
        }
    }
}

/// Changes the first leaf, and the guards so that they match: what a CRC cannot see.
fn forge(path: &Path, blob: &Blob) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[100] ^= 1;
    let guards = blob.1.len();
    let pieces = blob.0.piece_count() as usize;
    let guard = crc32c::crc32c(&bytes[..8192]);
    bytes[guards..guards + 4].copy_from_slice(&guard.to_le_bytes());
    let check = crc32c::crc32c_append(crc32c::crc32c(&0_u32.to_le_bytes()), &bytes[guards..guards + 4 * pieces]).max(1);
    let check_at = bytes.len() - 92 - 4;
    bytes[check_at..check_at + 4].copy_from_slice(&check.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// Power is lost at any moment, of anything not synced any part survives: the tier opens, and what it gives is right.
#[tokio::test]
async fn invariant_6_after_power_loss_at_any_moment_no_torn_byte_is_served() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let crash = CrashDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(crash.clone());
    let blobs: Vec<_> = (0..4).map(|seed| Blob::noise([UNIT + 5, 9000, 300_000, 100][seed as usize], seed)).collect();
    let dir = PathBuf::from("/tier");
    // Two processes, the first stopped cleanly; little room, so that units go and come.
    for _ in 0..2 {
        let (tier, _) = open(&disk, &dir, UNIT as u64 + 600_000);
        load(&tier);
        write_all(&tier, &blobs).await;
        tier.inner.tick(&mut upkeep::Upkeep::default());
        tier.close().await;
    }
    for _ in 0..60 {
        let at = random.usize(0..=crash.operations());
        let survivor: Arc<dyn Disk> = Arc::new(crash.crash(at, random.u64(..)));
        let (tier, metrics) = open(&survivor, &dir, 8 * UNIT as u64);
        let early = random.bool();
        if early {
            load(&tier);
        }
        for blob in &blobs {
            for unit in 0..blob.0.unit_count() {
                has(&tier, blob, unit).await;
            }
            if let Some(known) = tier.known(blob.0.id(), Encoding::Raw).await {
                assert!(known.length.is_none_or(|length| length.bytes() == blob.1.len() as u64));
            }
        }
        load(&tier);
        // It works on.
        write_all(&tier, &blobs).await;
        for blob in &blobs {
            has(&tier, blob, 0).await;
        }
        assert_eq!(metrics.disk_errors.get(), 0, "crash at {at}");
    }
}

/// Files and the epoch are garbled, cut, removed and swapped at random between starts.
#[tokio::test]
async fn whatever_happens_to_the_folder_between_starts_it_opens_and_serves_no_wrong_byte() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (dir, disk): (_, Arc<dyn Disk>) = (tempfile::tempdir().unwrap(), Arc::new(OsDisk));
    let blobs = blobs();
    for round in 0..12 {
        let (tier, _) = open(&disk, dir.path(), 1 << 30);
        load(&tier);
        for blob in &blobs {
            for unit in 0..blob.0.unit_count() {
                has(&tier, blob, unit).await;
            }
        }
        write_all(&tier, &blobs).await;
        for blob in &blobs {
            has(&tier, blob, 0).await;
        }
        if random.bool() {
            tier.close().await;
        }
        drop(tier);
        let mut paths = unit_files(dir.path());
        paths.push(dir.path().join("epoch"));
        for path in &paths {
            let Ok(mut bytes) = std::fs::read(path) else { continue };
            let at = random.usize(0..bytes.len().max(1));
            match random.u8(0..6) {
                0 => bytes.truncate(at),
                1 => _ = bytes.get_mut(at).map(|byte| *byte ^= 1 << random.u8(0..8)),
                2 => bytes = std::fs::read(&paths[random.usize(0..paths.len())]).unwrap_or_default(),
                3 => bytes.iter_mut().skip(at).take(5000).for_each(|byte| *byte = random.u8(..)),
                _ => continue,
            }
            std::fs::write(path, bytes).unwrap();
        }
        if round % 4 == 3 {
            _ = std::fs::remove_file(&paths[random.usize(0..paths.len())]);
        }
    }
}

#[tokio::test]
async fn nothing_is_added_while_nobody_knows_how_much_there_is() {
    let (dir, disk): (_, Arc<dyn Disk>) = (tempfile::tempdir().unwrap(), Arc::new(OsDisk));
    let (one, other) = (Blob::noise(UNIT, 1), Blob::noise(UNIT, 2));
    let (tier, _) = open(&disk, dir.path(), 3 * UNIT as u64);
    write(&tier, &one, 0).await;
    drop(tier);
    std::fs::write(dir.path().join("epoch"), "torn").unwrap();
    let (tier, metrics) = open(&disk, dir.path(), 3 * UNIT as u64);
    write(&tier, &other, 0).await;
    assert_eq!(metrics.disk_dropped.get(), 1);
    assert!(has(&tier, &one, 0).await, "but what is there is served");
    load(&tier);
    write(&tier, &other, 0).await;
    assert!(has(&tier, &one, 0).await && has(&tier, &other, 0).await);
}

#[tokio::test]
async fn a_start_leaves_strangers_alone_and_takes_away_what_is_of_no_use() {
    let (dir, disk): (_, Arc<dyn Disk>) = (tempfile::tempdir().unwrap(), Arc::new(OsDisk));
    let blob = Blob::noise(UNIT, 1);
    let (tier, _) = open(&disk, dir.path(), 1 << 30);
    write(&tier, &blob, 0).await;
    let path = tier.inner.files.path(FileKey::of(&blob.key(0)));
    assert!(
        DiskTier::open_on(
            &disk,
            &DiskTierConfig::new(dir.path().to_owned(), 1),
            Metrics::register(&Registry::new()).unwrap()
        )
        .is_err(),
        "one process at a time"
    );
    drop(tier);
    let folder = path.parent().unwrap();
    let old = dir.path().join(format!("{}.raw..unit", blob.0.id()));
    let renamed = folder.join(format!("{}00000000.raw.unit", &blob.0.id().to_string()[..56]));
    let strangers = [dir.path().join("thesis.tex"), dir.path().join("notes.unit"), folder.join("notes.unit")];
    for stranger in strangers.iter().chain([&old]) {
        std::fs::write(stranger, "mine").unwrap();
    }
    std::fs::copy(&path, &renamed).unwrap();
    let (tier, _) = open(&disk, dir.path(), 1 << 30);
    load(&tier);
    assert!(has(&tier, &blob, 0).await);
    assert!(strangers.iter().all(|path| std::fs::read(path).unwrap() == b"mine"));
    assert!(!old.exists() && !renamed.exists());
}

#[tokio::test]
async fn a_folder_that_is_removed_or_replaced_is_noticed() {
    let (dir, disk): (_, Arc<dyn Disk>) = (tempfile::tempdir().unwrap(), Arc::new(OsDisk));
    let blobs = blobs();
    let path = dir.path().join("tier");
    let (tier, _) = open(&disk, &path, 1 << 30);
    let mut upkeep = upkeep::Upkeep::default();
    write_all(&tier, &blobs).await;
    tier.inner.tick(&mut upkeep);
    std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    tier.inner.tick(&mut upkeep);
    assert_eq!(lock(&tier.inner.ledger).totals(), Totals::default());
    assert!(!has(&tier, &blobs[0], 0).await);
    write(&tier, &blobs[0], 0).await;
    assert!(has(&tier, &blobs[0], 0).await);
    // Somebody puts the old one back.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(dir.path().join("elsewhere"), &path).unwrap();
    tier.inner.tick(&mut upkeep);
    load(&tier);
    for blob in &blobs {
        assert!(has(&tier, blob, 0).await);
    }
}
