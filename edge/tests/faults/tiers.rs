//! Invariants 2 and 5: memory and disk come and go; nobody gets a wrong byte for it, and upstream is asked again only for
//! what is no longer here.

use std::path::Path;

use colibri_edge::{Admission, Edge, EdgeConfig};
use http::Method;

use crate::site::{build, config, disk, part, request, whole};
use crate::upstream::{Upstream, content, id, until};

const UNIT: usize = 2 << 20;

fn on_disk(upstream: &Upstream, memory_bytes: u64, dir: &Path, bytes: u64, admission: Admission) -> EdgeConfig {
    EdgeConfig { memory_bytes, disk: disk(dir, bytes, admission), ..config(&[upstream]) }
}

fn unit_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "unit")).count()
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
            whole(&edge, path, &file).await;
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
    assert_eq!(unit_files(dir.path()), 1, "the scans were not worth it");
    let asked = upstream.requests();
    whole(&edge, &hot_path, &hot).await;
    assert_eq!((upstream.requests(), edge.metrics().disk_errors.get()), (asked, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_stays_within_its_budget() {
    let contents: Vec<_> = (0..6).map(|seed| content(2 * UNIT + 4000, 10 + seed)).collect();
    let upstream = Upstream::with(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let dir = tempfile::tempdir().unwrap();
    let budget = 3 * UNIT as u64 + 20_000;
    let edge = build(&on_disk(&upstream, 1 << 20, dir.path(), budget, Admission::Always));
    for content in contents.iter().chain(&contents) {
        whole(&edge, &format!("/blobs/{}", id(content)), content).await;
    }
    edge.finish().await;
    assert!(edge.metrics().disk_bytes.get() <= budget as i64);
    let allocated: u64 = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(allocated <= budget + 64 * 1024, "{allocated} bytes on disk for a budget of {budget}");
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

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_wiping_the_disk_under_load_loses_time_only() {
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
    for (number, entry) in std::fs::read_dir(dir).into_iter().flatten().flatten().enumerate() {
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(entry.path()) else { continue };
        if number % 2 == 0 {
            _ = file.set_len(100_000);
        } else {
            _ = std::os::unix::fs::FileExt::write_at(&file, b"damaged", 70_000);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_disk_is_found_and_fetched_again() {
    let one = content(UNIT, 70);
    let upstream = Upstream::with(&[&one, &content(UNIT, 71)]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = build(&on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always));
    let path = format!("/blobs/{}", id(&one));
    whole(&edge, &path, &one).await;
    until(|| edge.metrics().disk_written_bytes.get() >= UNIT as u64).await;
    let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[UNIT / 2] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let fills = edge.metrics().fills.get();
    whole(&edge, &path, &one).await;
    assert_eq!((edge.metrics().disk_errors.get(), edge.metrics().fills.get()), (1, fills + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_empties_what_an_earlier_process_left_and_nothing_else() {
    let one = content(UNIT + 5, 80);
    let upstream = Upstream::with(&[&one]).await;
    let dir = tempfile::tempdir().unwrap();
    let start = || build(&on_disk(&upstream, 1 << 20, dir.path(), 1 << 30, Admission::Always));
    let path = format!("/blobs/{}", id(&one));
    let serve = async |edge: &Edge| {
        whole(edge, &path, &one).await;
        edge.finish().await;
    };
    serve(&start()).await;
    assert_eq!(unit_files(dir.path()), 1);
    std::fs::write(dir.path().join("thesis.tex"), "mine").unwrap();
    std::fs::write(dir.path().join("notes.unit"), "mine").unwrap();
    let again = start();
    assert_eq!(unit_files(dir.path()), 1, "the notes");
    serve(&again).await;
    assert_eq!(std::fs::read(dir.path().join("thesis.tex")).unwrap(), b"mine");
    assert_eq!(std::fs::read(dir.path().join("notes.unit")).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_passed_through_and_a_folder_that_is_none_stops_the_start() {
    let one = content(2 * UNIT, 90);
    let upstream = Upstream::with(&[&one]).await;
    let dir = tempfile::tempdir().unwrap();
    let tier = dir.path().join("tier");
    let edge = build(&on_disk(&upstream, 1 << 20, &tier, 1 << 30, Admission::Always));
    std::fs::remove_dir_all(&tier).unwrap();
    std::fs::write(&tier, "in the way").unwrap();
    let path = format!("/blobs/{}", id(&one));
    for _ in 0..3 {
        whole(&edge, &path, &one).await;
    }
    until(|| edge.metrics().disk_errors.get() > 0).await;
    let config = on_disk(&upstream, 1 << 20, &tier, 1 << 30, Admission::Always);
    let error = Edge::build(&config, &colibri_service::metrics::Registry::new()).unwrap_err().to_string();
    assert!(error.contains("tier"), "{error}");
}
