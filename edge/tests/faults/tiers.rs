//! Invariants 2 and 5: memory and disk come and go; nobody gets a wrong byte for it, and upstream is asked again only for
//! what is no longer here.

use std::path::Path;

use colibri_edge::{Admission, DiskTierConfig, Edge, EdgeConfig};
use http::Method;

use crate::site::{build, config, disk, part, request, unit_files, whole};
use crate::upstream::{Upstream, content, id, until};

const UNIT: usize = 2 << 20;

fn on_disk(upstream: &Upstream, memory_bytes: u64, dir: &Path, bytes: u64, admission: Admission) -> EdgeConfig {
    EdgeConfig { memory_bytes, disk: disk(dir, bytes, admission), ..config(&[upstream]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn disk_serves_what_memory_has_let_go() {
    let (one, other) = (content(3 * UNIT + 99, 1), content(3 * UNIT, 2));
    let upstream = Upstream::with(&[&one, &other]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = build(&on_disk(&upstream, 3 << 20, dir.path(), 1 << 30, Admission::Always));
    for form in ["", "1/"] {
        let paths = [&one, &other].map(|content| format!("/blobs/{form}{}", id(content)));
        let mut bytes = edge.metrics().disk_written_bytes.get();
        for path in &paths {
            let file = upstream.file(path);
            whole(&edge, path, &file).await;
            bytes += file.len() as u64 - if form.is_empty() { 0 } else { unit_h_bytes(&file) };
        }
        until(|| edge.metrics().disk_written_bytes.get() == bytes).await;
        let (asked, hits) = (upstream.requests(), edge.metrics().disk_hits.get());
        for path in paths.iter().chain(&paths) {
            let file = upstream.file(path);
            let got = whole(&edge, path, &file).await;
            // The last unit may be in memory, the first is not.
            assert!(got.header("cache-status").starts_with("edge; hit; detail=disk"), "{:?}", got.headers);
            part(&edge, path, &file, file.len() / 2, file.len()).await;
        }
        assert_eq!(upstream.requests(), asked, "everything came from the disk");
        assert!(edge.metrics().disk_hits.get() > hits + 5);
    }
    assert_eq!(edge.metrics().disk_errors.get(), 0);
}

fn unit_h_bytes(encoded: &[u8]) -> u64 {
    colibri_package::delivery::Layout::unit_h_bytes(encoded).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_asked_for_again_goes_to_disk_by_default() {
    let (hot, cold) = (content(UNIT, 3), content(6 * UNIT, 4));
    let upstream = Upstream::with(&[&hot, &cold]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = build(&on_disk(&upstream, 5 << 20, dir.path(), 1 << 30, Admission::Reused));
    let hot_path = format!("/blobs/{}", id(&hot));
    whole(&edge, &hot_path, &hot).await;
    whole(&edge, &hot_path, &hot).await;
    // A scan; until the hot unit has left memory it is not on disk either.
    for round in 0..20 {
        let scan = content(6 * UNIT, 100 + round);
        upstream.add(&scan);
        whole(&edge, &format!("/blobs/{}", id(&scan)), &scan).await;
        if edge.metrics().disk_written_bytes.get() > 0 {
            break;
        }
    }
    until(|| edge.metrics().disk_written_bytes.get() >= UNIT as u64).await;
    assert_eq!(unit_files(dir.path()).len(), 1, "the scans were not worth it");
    let asked = upstream.requests();
    whole(&edge, &hot_path, &hot).await;
    assert_eq!((upstream.requests(), edge.metrics().disk_errors.get()), (asked, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_stays_within_its_budget() {
    let contents: Vec<_> = (0..6).map(|seed| content(2 * UNIT + 4000, 10 + seed)).collect();
    let upstream = Upstream::with(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let dir = tempfile::tempdir().unwrap();
    let budget = 3 * UNIT as u64 + 150_000;
    let edge = build(&on_disk(&upstream, 1 << 20, dir.path(), budget, Admission::Always));
    for content in contents.iter().chain(&contents) {
        whole(&edge, &format!("/blobs/{}", id(content)), content).await;
    }
    edge.finish().await;
    assert!(edge.metrics().disk_bytes.get() <= budget as i64);
    let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    let allocated: u64 = unit_files(dir.path()).iter().map(|path| blocks(path)).sum();
    assert!(allocated > budget / 2 && allocated <= budget, "{allocated} bytes on disk for a budget of {budget}");
}

/// A budget below the size of a unit: nothing is kept, everything is fetched again, and that is counted.
#[tokio::test(flavor = "multi_thread")]
async fn memory_smaller_than_a_unit_works_and_its_refetches_are_counted() {
    let content = content(2 * UNIT + 99, 20);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&EdgeConfig { memory_bytes: 1 << 20, ..config(&[&upstream]) });
    let path = format!("/blobs/{}", id(&content));
    for _ in 0..3 {
        whole(&edge, &path, &content).await;
    }
    let units: u64 =
        upstream.asked().iter().filter(|((_, range), _)| is_unit(range.as_deref())).map(|(_, count)| count).sum();
    assert_eq!(edge.metrics().fills.get(), units, "{:?}", upstream.asked());
    assert_eq!(units, 7, "the small last unit fits");
    assert!(edge.metrics().memory_bytes.get() <= 1 << 20);
}

/// Units, and the last leaf where it is a unit of its own.
fn is_unit(range: Option<&str>) -> bool {
    range.is_some_and(|range| {
        let (start, _) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        start.parse::<usize>().unwrap().is_multiple_of(UNIT)
    })
}

/// Readers that stop in the middle of a unit hold memory only as far as there is room for that. When they go on, they get
/// the right bytes, if need be from a second fetch, which is counted.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_no_number_of_slow_readers_pins_memory() {
    let contents: Vec<_> = (0..24).map(|seed| content(UNIT + 9000, 30 + seed)).collect();
    let upstream = Upstream::with(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let edge = build(&EdgeConfig { memory_bytes: 4 << 20, ..config(&[&upstream]) });
    let mut readers = Vec::new();
    for content in &contents {
        let mut body = edge.handler()(request(Method::GET, &format!("/blobs/{}", id(content)), &[])).await.into_body();
        let first = body.next().await.unwrap().unwrap();
        readers.push((content, first, body));
    }
    // All units have come in and most have been let go, though everybody is still at them: there is room for four.
    until(|| edge.metrics().fills.get() >= 24).await;
    let fills = edge.metrics().fills.get();
    for (content, first, body) in readers {
        let rest = body.read_all(1 << 30).await.unwrap();
        assert!([&first[..], &rest[..]].concat() == *content);
    }
    assert!(edge.metrics().lapses.get() > 0);
    assert!(edge.metrics().fills.get() > fills);
}

/// Each of many readers stops with something on its way, all in different units: what is alive stays within the budget, and
/// whoever goes on gets the right bytes.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_7_stalled_readers_of_distinct_units_stay_within_the_budget() {
    const READERS: u64 = 400;
    const BUDGET_BYTES: u64 = 64 << 20;
    let upstream = Upstream::start().await;
    let contents: Vec<_> = (0..READERS).map(|seed| content(300_000, 500 + seed)).collect();
    contents.iter().for_each(|content| upstream.add_raw(content));
    let edge = build(&EdgeConfig { memory_bytes: BUDGET_BYTES, ..config(&[&upstream]) });
    let within = |when: &str| {
        let live = edge.metrics().live_bytes.get();
        assert!(live as u64 <= BUDGET_BYTES + BUDGET_BYTES / 100, "{when}: {live} bytes are alive");
    };
    let mut readers = Vec::new();
    for content in &contents {
        let mut body = edge.handler()(request(Method::GET, &format!("/blobs/{}", id(content)), &[])).await.into_body();
        let first = body.next().await.unwrap().unwrap();
        within("while they come");
        readers.push((content, first, body));
    }
    until(|| edge.metrics().fills.get() >= READERS).await;
    within("when all have come");
    assert!(edge.metrics().evictions.get() > READERS / 3, "most units had to go");
    for (content, first, body) in readers.into_iter().rev() {
        let rest = body.read_all(1 << 30).await.unwrap();
        assert!([&first[..], &rest[..]].concat() == *content);
    }
    within("at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_wipe_under_load_loses_time_only() {
    let contents: Vec<_> = (0..4).map(|seed| content(2 * UNIT + 77, 60 + seed)).collect();
    let upstream = Upstream::with(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let dir = tempfile::tempdir().unwrap();
    let tier = dir.path().join("tier");
    let edge = build(&on_disk(&upstream, 1 << 20, &tier, 1 << 30, Admission::Always));
    let readers: Vec<_> = (0..4_usize)
        .map(|reader| {
            let (edge, contents) = (edge.clone(), contents.clone());
            tokio::spawn(async move {
                for round in 0..6 {
                    let content = &contents[(reader + round) % contents.len()];
                    whole(&edge, &format!("/blobs/{}", id(content)), content).await;
                }
            })
        })
        .collect();
    let wiping = std::thread::spawn({
        let tier = tier.clone();
        move || {
            for round in 0..20 {
                if round % 2 == 0 {
                    _ = std::fs::remove_dir_all(&tier);
                } else {
                    damage(&tier);
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    });
    for reader in readers {
        reader.await.unwrap();
    }
    wiping.join().unwrap();
}

/// Writes into the middle of every file, and cuts some.
fn damage(dir: &Path) {
    for (number, path) in unit_files(dir).into_iter().enumerate() {
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) else { continue };
        if number % 2 == 0 {
            _ = file.set_len(100_000);
        } else {
            _ = std::os::unix::fs::FileExt::write_at(&file, b"damaged", 70_000);
        }
    }
}

/// Bits rot in two places of a unit: the reader gets the unit, upstream is asked for the two leaves or frames only, and the
/// disk has them back.
#[tokio::test(flavor = "multi_thread")]
async fn bit_rot_repair_while_the_request_succeeds() {
    let one = content(UNIT + 5000, 70);
    let upstream = Upstream::with(&[&one, &content(UNIT, 71)]).await;
    for form in ["", "1/"] {
        let dir = tempfile::tempdir().unwrap();
        let edge = build(&on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always));
        let path = format!("/blobs/{form}{}", id(&one));
        let served = upstream.file(&path);
        whole(&edge, &path, &served).await;
        let written = served.len() as u64 - if form.is_empty() { 0 } else { unit_h_bytes(&served) };
        until(|| edge.metrics().disk_written_bytes.get() == written).await;
        let file = unit_files(dir.path()).remove(0);
        // In place: the tier looks after its files at any moment, and must not find an empty one.
        let rotting = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        for (at, bit) in [(100_000, 1), (served.len() / 2, 0x80)] {
            std::os::unix::fs::FileExt::write_at(&rotting, &[served[at] ^ bit], at as u64).unwrap();
        }
        let (fills, filled) = (edge.metrics().fills.get(), edge.metrics().filled_bytes.get());
        let got = whole(&edge, &path, &served).await;
        assert_eq!(got.header("cache-status"), "edge; fwd=partial; stored");
        let metrics = edge.metrics();
        assert_eq!((metrics.disk_damaged.get(), metrics.disk_repaired.get()), (2, 2));
        assert_eq!((metrics.fills.get(), metrics.disk_errors.get()), (fills, 0));
        assert!(metrics.filled_bytes.get() - filled < 200_000, "the rest of the unit was not fetched again");
        until(|| edge.metrics().disk_written_bytes.get() > written).await;
        // Memory is smaller than the unit: this is the disk again.
        let asked = upstream.requests();
        until(|| std::fs::read(&file).unwrap()[..served.len()] == served[..]).await;
        whole(&edge, &path, &served).await;
        assert_eq!((upstream.requests(), edge.metrics().disk_damaged.get()), (asked, 2));
    }
}

/// Rots a byte of the only file of a tier, in place: the tier looks after its files at any moment, and must not find an
/// empty one.
fn rot(dir: &Path, served: &[u8], at: usize) {
    let file = std::fs::OpenOptions::new().write(true).open(&unit_files(dir)[0]).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, &[served[at] ^ 1], at as u64).unwrap();
}

fn scrubbing(config: EdgeConfig) -> EdgeConfig {
    let disk = config.disk.map(|disk| DiskTierConfig { scrub_bytes_per_s: 64 << 20, ..disk });
    EdgeConfig { disk, ..config }
}

/// What nobody reads rots, too: the scrub finds it, and the leaf or frame is fetched again, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn bit_rot_repair_of_what_only_the_scrub_reads() {
    let one = content(UNIT + 5000, 73);
    let upstream = Upstream::with(&[&one]).await;
    for form in ["", "1/"] {
        let dir = tempfile::tempdir().unwrap();
        let edge = build(&scrubbing(on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always)));
        let path = format!("/blobs/{form}{}", id(&one));
        let served = upstream.file(&path);
        whole(&edge, &path, &served).await;
        let written = served.len() as u64 - if form.is_empty() { 0 } else { unit_h_bytes(&served) };
        until(|| edge.metrics().disk_written_bytes.get() == written).await;
        let filled = edge.metrics().filled_bytes.get();
        for at in [100_000, served.len() / 2] {
            rot(dir.path(), &served, at);
        }
        let metrics = edge.metrics();
        until(|| metrics.disk_repaired.get() == 2).await;
        let file = unit_files(dir.path()).remove(0);
        until(|| std::fs::read(&file).unwrap()[..served.len()] == served[..]).await;
        assert_eq!((metrics.disk_damaged.get(), metrics.disk_errors.get()), (2, 0));
        assert!(metrics.filled_bytes.get() - filled < 200_000, "the rest of the unit was not fetched again");
        let asked = upstream.requests();
        whole(&edge, &path, &served).await;
        assert_eq!((upstream.requests(), metrics.disk_damaged.get()), (asked, 2), "it is on disk as before");
    }
}

/// No source has it now: it goes, and whoever asks for it is told the truth.
#[tokio::test(flavor = "multi_thread")]
async fn bit_rot_repair_without_a_source_lets_the_unit_go() {
    let one = content(UNIT, 74);
    let upstream = Upstream::with(&[&one]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = build(&scrubbing(on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always)));
    let path = format!("/blobs/{}", id(&one));
    whole(&edge, &path, &one).await;
    until(|| edge.metrics().disk_written_bytes.get() == UNIT as u64).await;
    upstream.clear();
    rot(dir.path(), &one, 100_000);
    until(|| unit_files(dir.path()).is_empty()).await;
    assert_eq!((edge.metrics().disk_damaged.get(), edge.metrics().disk_repaired.get()), (1, 0));
    until(|| edge.metrics().disk_files.get() == 0).await;
    assert_eq!(crate::site::get(&edge, &path, &[]).await.status, 404);
    // And when it is there again, it is served and kept.
    upstream.add(&one);
    whole(&edge, &path, &one).await;
    until(|| edge.metrics().disk_files.get() == 1).await;
}

/// What is on disk after a restart is served without upstream: leaves, shapes, lengths, units; partly present blobs cost a
/// question for what is missing only.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_serves_what_is_on_disk_while_upstream_is_away() {
    for clean in [true, false] {
        let contents = [content(2 * UNIT + 5, 80), content(3000, 81)];
        let mut upstream = Upstream::with(&[&contents[0], &contents[1]]).await;
        let dir = tempfile::tempdir().unwrap();
        let config = on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always);
        let edge = build(&config);
        let mut served = Vec::new();
        for content in &contents {
            for form in ["", "1/"] {
                let path = format!("/blobs/{form}{}", id(content));
                let file = upstream.file(&path);
                whole(&edge, &path, &file).await;
                served.push((path, file));
            }
        }
        let written = || edge.metrics().disk_written_bytes.get();
        let all: usize = served.iter().map(|(_, file)| file.len()).sum();
        until(|| written() + 2 * 4096 > all as u64).await;
        if clean {
            edge.finish().await;
        }
        drop(edge);
        upstream.go_away().await;
        let edge = again(&config).await;
        for (path, file) in &served {
            whole(&edge, path, file).await;
            part(&edge, path, file, file.len() / 2, file.len()).await;
        }
        let leaves = format!("/blobs/leaves/{}", id(&contents[0]));
        whole(&edge, &leaves, &upstream.file(&leaves)).await;
        assert_eq!((edge.metrics().fills.get(), edge.metrics().disk_errors.get()), (0, 0));
    }
}

/// An edge in a folder that another one, dropped a moment ago, may still be letting go of.
async fn again(config: &EdgeConfig) -> Edge {
    let mut edge = None;
    until(|| {
        edge = Edge::build(config, &colibri_service::metrics::Registry::new()).ok();
        edge.is_some()
    })
    .await;
    edge.unwrap()
}

/// Only the middle of a blob is on disk: nothing proves its length, so that is asked for, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_that_the_disk_cannot_prove_is_asked_for() {
    let content = content(3 * UNIT + 50_000, 85);
    let upstream = Upstream::with(&[&content]).await;
    let dir = tempfile::tempdir().unwrap();
    let config = on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always);
    let edge = build(&config);
    let path = format!("/blobs/{}", id(&content));
    part(&edge, &path, &content, UNIT, UNIT + 10).await;
    until(|| edge.metrics().disk_written_bytes.get() >= UNIT as u64).await;
    edge.finish().await;
    drop(edge);
    let edge = again(&config).await;
    let asked = upstream.requests();
    part(&edge, &path, &content, UNIT + 5, 2 * UNIT).await;
    assert_eq!(upstream.requests(), asked + 1, "the last leaf: {:?}", upstream.asked());
    assert_eq!(edge.metrics().fills.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn warmed_blobs_are_on_disk_at_once_whatever_the_admission() {
    let content = content(2 * UNIT + 5, 86);
    let upstream = Upstream::with(&[&content]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = build(&on_disk(&upstream, 64 << 20, dir.path(), 1 << 30, Admission::Reused));
    let kind = colibri_package::delivery::Encoding::Delivery(crate::upstream::TYPE);
    let path = format!("/blobs/1/{}", id(&content));
    let file = upstream.file(&path);
    // One unit is in memory by somebody's request.
    part(&edge, &path, &file, 100, 200).await;
    assert_eq!(edge.warm("", id(&content), kind).await.unwrap(), file.len() as u64);
    let bytes = file.len() as u64 - unit_h_bytes(&file);
    until(|| edge.metrics().disk_written_bytes.get() == bytes).await;
    let asked = upstream.requests();
    edge.warm("", id(&content), kind).await.unwrap();
    whole(&edge, &path, &file).await;
    assert_eq!((upstream.requests(), edge.metrics().disk_written_bytes.get()), (asked, bytes));
    assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
}

/// Nothing more fits on the disk, though the budget would allow it: everybody is served, operators see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_passed_through() {
    let contents: Vec<_> = (0..3).map(|seed| content(UNIT + 7, 87 + seed)).collect();
    let upstream = Upstream::with(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = build(&on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always));
    let first = format!("/blobs/{}", id(&contents[0]));
    whole(&edge, &first, &contents[0]).await;
    until(|| edge.metrics().disk_files.get() == 1).await;
    // The machine's own full device stands where the next files would be made.
    for byte in 0..=u8::MAX {
        let folder = dir.path().join(format!("{byte:02x}"));
        if !folder.exists() {
            std::os::unix::fs::symlink("/dev/full", folder).unwrap();
        }
    }
    for _ in 0..3 {
        for content in &contents {
            whole(&edge, &format!("/blobs/{}", id(content)), content).await;
        }
    }
    until(|| edge.metrics().disk_alarm.get() == 1).await;
    let asked = upstream.requests();
    whole(&edge, &first, &contents[0]).await;
    assert_eq!(upstream.requests(), asked, "what is on disk is served on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_passed_through_and_a_folder_that_is_none_stops_the_start() {
    let one = content(2 * UNIT, 90);
    let upstream = Upstream::with(&[&one]).await;
    let dir = tempfile::tempdir().unwrap();
    let tier = dir.path().join("tier");
    let edge = build(&on_disk(&upstream, 1 << 20, &tier, 1 << 30, Admission::Always));
    // The edge makes its folder again as long as it can.
    until(|| {
        _ = std::fs::remove_dir_all(&tier);
        std::fs::write(&tier, "in the way").is_ok()
    })
    .await;
    let path = format!("/blobs/{}", id(&one));
    for _ in 0..3 {
        whole(&edge, &path, &one).await;
    }
    until(|| edge.metrics().disk_errors.get() > 0).await;
    let config = on_disk(&upstream, 1 << 20, &tier, 1 << 30, Admission::Always);
    let error = Edge::build(&config, &colibri_service::metrics::Registry::new()).unwrap_err().to_string();
    assert!(error.contains("tier"), "{error}");
}
