//! Budgets hold in real blocks and in files, what goes is chosen well, and nobody reads what is being punched.

use super::*;

#[tokio::test]
async fn units_used_longest_ago_go_when_there_are_too_many_files() {
    let desk = Desk::with(1 << 30, 3, |_| ());
    let blobs: Vec<_> = (0..5).map(|seed| Blob::new(10_000, seed)).collect();
    for blob in &blobs[..3] {
        desk.write(blob, 0).await;
    }
    assert!(desk.has(&blobs[0], 0).await);
    for blob in &blobs[3..] {
        desk.write(blob, 0).await;
    }
    let mut here = Vec::new();
    for blob in &blobs {
        here.push(desk.has(blob, 0).await);
    }
    assert_eq!((here, desk.files()), (vec![true, false, false, true, true], 3));
    assert_eq!((desk.metrics.disk_files.get(), desk.metrics.disk_errors.get()), (3, 0));
}

#[tokio::test]
async fn a_unit_that_is_being_read_goes_later() {
    let desk = Desk::new(2 * UNIT as u64 + 150_000, |_| ());
    let (old, new) = (Blob::new(2 * UNIT, 1), Blob::new(2 * UNIT, 2));
    desk.write(&old, 0).await;
    desk.write(&old, 1).await;
    let file = desk.tier.inner.files.get(FileKey::of(&old.key(0))).unwrap();
    let guard = file.hold(0..2);
    desk.write(&new, 0).await;
    assert_eq!(file.used_units().len(), 2);
    assert_eq!(desk.metrics.disk_dropped.get(), 1, "there was no other room");
    drop(guard);
    desk.write(&new, 0).await;
    assert_eq!(file.used_units().len(), 1);
    assert!(desk.has(&new, 0).await);
}

#[tokio::test]
async fn without_holes_whole_files_go() {
    let budget = 3 * UNIT as u64 + 150_000;
    let desk = Desk::new(budget, |inner| inner.files.set_punching(HolePunching::Unsupported));
    let (old, new) = (Blob::new(2 * UNIT, 1), Blob::new(3 * UNIT, 2));
    for (blob, unit) in [(&old, 0), (&old, 1), (&new, 0), (&new, 1), (&new, 2)] {
        desk.write(blob, unit).await;
    }
    assert!(allocated_bytes(desk.dir.path()) <= budget);
    assert_eq!((desk.has(&old, 0).await, desk.has(&new, 2).await), (false, true));
}

#[tokio::test]
async fn blobs_of_the_current_release_go_last() {
    let desk = Desk::new(4 * UNIT as u64 + 300_000, |_| ());
    let (release, others) = ([Blob::new(UNIT, 1), Blob::new(UNIT, 2)], (10..16).map(|seed| Blob::new(UNIT, seed)));
    // One is named before it comes, one after; the others are used more.
    desk.write(&release[0], 0).await;
    desk.tier.prefer(release.iter().map(|blob| blob.0.id()).collect());
    desk.write(&release[1], 0).await;
    for other in others {
        desk.write(&other, 0).await;
        desk.has(&other, 0).await;
        desk.has(&other, 0).await;
    }
    assert!(desk.tier.has(&release[0].key(0)) && desk.tier.has(&release[1].key(0)));
    // The next release has only one of them.
    desk.tier.prefer(HashSet::from([release[1].0.id()]));
    for seed in 20..26 {
        desk.write(&Blob::new(UNIT, seed), 0).await;
    }
    assert!(!desk.tier.has(&release[0].key(0)) && desk.tier.has(&release[1].key(0)));
    // A release that is larger than the tier does not stop it.
    let all: Vec<_> = (30..36).map(|seed| Blob::new(UNIT, seed)).collect();
    desk.tier.prefer(all.iter().map(|blob| blob.0.id()).collect());
    for blob in &all {
        desk.write(blob, 0).await;
    }
    assert!(desk.has(&all[5], 0).await);
}

/// Blobs of all sizes and both kinds of form come and go; what the file system says is what was configured, within 1 %.
#[tokio::test]
async fn budgets_hold_in_real_blocks_and_files_within_a_percent() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (budget, files) = (24 * UNIT as u64, 60);
    let desk = Desk::with(budget, files, |_| ());
    let mut peak = (0, 0);
    for round in 0..150 {
        let length = if round % 3 == 0 { random.usize(1..4 * UNIT) } else { random.usize(1..40_000) };
        let blob = Blob::noise(length, random.u64(..));
        for unit in 0..blob.0.unit_count() {
            desk.write(&blob, unit).await;
        }
        if round % 10 == 0 {
            let taken = allocated_bytes(desk.dir.path());
            assert!(taken <= budget + budget / 100, "{taken} bytes of {budget}");
            assert!(desk.files() as u64 <= files, "{} files", desk.files());
            // The books say the same as the file system, but for what folders take.
            let booked = desk.metrics.disk_bytes.get() as u64;
            let folders = taken - unit_files(desk.dir.path()).iter().map(|path| blocks(path)).sum::<u64>();
            assert!(booked.abs_diff(taken - folders) <= budget / 100, "{booked} booked, {taken} taken");
            peak = (peak.0.max(taken), peak.1.max(desk.files()));
        }
    }
    assert!(peak.0 >= budget / 100 * 90 || peak.1 as u64 == files, "the budgets are used: {peak:?}");
    assert_eq!((desk.metrics.disk_errors.get(), desk.metrics.disk_damaged.get()), (0, 0));
}

fn blocks(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512
}

/// Readers of units that are being punched, unlinked and written again by others: no reader sees a zero that is not there.
/// Damage would be counted: guards would not match what a hole reads as.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eviction_never_punches_what_is_being_read() {
    let desk = Arc::new(Desk::with(5 * UNIT as u64, 4, |inner| inner.files.open_max = 3));
    let blobs: Arc<Vec<_>> = Arc::new((0..6).map(|seed| Blob::noise(2 * UNIT + 9000, seed)).collect());
    let workers = (0..6).map(|seed| {
        let (desk, blobs) = (desk.clone(), blobs.clone());
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut hits = 0;
            for _ in 0..120 {
                let blob = &blobs[random.usize(..blobs.len())];
                let unit = random.u32(0..3);
                if random.u8(0..3) == 0 {
                    desk.write(blob, unit).await;
                } else {
                    hits += u32::from(desk.has(blob, unit).await);
                }
            }
            hits
        })
    });
    let mut hits = 0;
    for worker in workers.collect::<Vec<_>>() {
        hits += worker.await.unwrap();
    }
    assert!(hits > 20 && desk.metrics.disk_evictions.get() > 20, "{hits}");
    assert_eq!((desk.metrics.disk_damaged.get(), desk.metrics.disk_errors.get()), (0, 0));
    let taken = allocated_bytes(desk.dir.path());
    assert!(taken <= 5 * UNIT as u64 + UNIT as u64 / 20, "{taken}");
}
