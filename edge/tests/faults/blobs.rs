//! Invariants 4 and 5: a herd causes one fetch per unit, no reader disturbs another, lengths are proven before they are
//! announced, and ranges fall where they should.

use std::sync::Arc;

use colibri_common::merkle;
use colibri_edge::EdgeConfig;
use colibri_package::delivery::Layout;
use http::Method;
use tokio::sync::Semaphore;

use crate::site::{build, config, get, head, part, request, whole};
use crate::upstream::{Fault, TYPE, Upstream, content, id, until};

const LENGTH: usize = (4 << 20) + 54_321;
const UNIT: usize = 2 << 20;

/// Whole blobs and ranges in both forms; each upstream path and range at most once.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_a_herd_of_readers_causes_one_upstream_fetch_per_unit() {
    let content = content(LENGTH, 1);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let id = id(&content);
    let (raw, delivery) = (format!("/blobs/{id}"), format!("/blobs/1/{id}"));
    let encoded = Arc::new(upstream.file(&delivery));
    let content = Arc::new(content);
    let readers = (0..200_usize).map(|number| {
        let (edge, raw, delivery) = (edge.clone(), raw.clone(), delivery.clone());
        let (content, encoded) = (content.clone(), encoded.clone());
        tokio::spawn(async move {
            let (path, file) = if number.is_multiple_of(2) { (raw, content) } else { (delivery, encoded) };
            match number / 2 % 4 {
                0 => _ = whole(&edge, &path, &file).await,
                1 => _ = part(&edge, &path, &file, number * 100, file.len()).await,
                2 => _ = part(&edge, &path, &file, number * 7_000, number * 7_000 + 9_000).await,
                _ => _ = part(&edge, &path, &file, file.len() - 1 - number, file.len()).await,
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
    // Leaves; per form: the last piece and three units; unit H.
    assert_eq!(upstream.requests(), 1 + 2 * (1 + 3) + 1, "{:?}", upstream.asked());
    let metrics = edge.metrics();
    assert_eq!(metrics.fills.get(), 6);
    assert_eq!(metrics.units_asked.get(), metrics.memory_hits.get() + metrics.joined.get() + metrics.fills.get());
}

/// A thousand readers of a cold blob of 100 MiB, one of all of it, each of the others of a piece of every unit: upstream sends
/// each byte once.
#[tokio::test(flavor = "multi_thread")]
async fn a_herd_of_a_thousand_on_a_large_cold_blob_fetches_each_byte_once() {
    const READERS: u64 = 1000;
    const UNITS: usize = 50;
    let content = Arc::new(content(UNITS * UNIT, 9));
    let upstream = Upstream::start().await;
    upstream.add_raw(&content);
    let edge = build(&EdgeConfig { memory_bytes: 512 << 20, ..config(&[&upstream]) });
    let path = format!("/blobs/{}", id(&content));
    let readers = (0..READERS).map(|number| {
        let (edge, path, content) = (edge.clone(), path.clone(), content.clone());
        tokio::spawn(async move {
            if number == 0 {
                whole(&edge, &path, &content).await;
                return;
            }
            let mut random = fastrand::Rng::with_seed(number);
            let mut units: Vec<usize> = (0..UNITS).collect();
            random.shuffle(&mut units);
            for unit in units {
                let start = unit * UNIT + random.usize(..UNIT - 100);
                part(&edge, &path, &content, start, start + 100).await;
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
    assert_eq!(upstream.asked_bytes(&path), content.len() as u64);
    assert_eq!(edge.metrics().fills.get(), UNITS as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_slow_and_vanished_readers_change_nothing() {
    let content = content(LENGTH, 2);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let path = format!("/blobs/{}", id(&content));
    // Each unit comes only when the test lets it.
    let gate = Arc::new(Semaphore::new(0));
    let gated = gate.clone();
    upstream.faults(move |path, range| {
        let is_unit = !path.contains("leaves") && range.is_some_and(|range| range.starts_with("bytes=0-"));
        is_unit.then(|| Fault::Gate(gated.clone()))
    });
    // The first asks and vanishes before a byte of the unit has come; nobody else waits for it.
    let vanishing = tokio::spawn({
        let (edge, path) = (edge.clone(), path.clone());
        async move { get(&edge, &path, &[]).await }
    });
    until(|| upstream.asked().keys().any(|(_, range)| range.as_deref() == Some("bytes=0-2097151"))).await;
    vanishing.abort();
    _ = vanishing.await;
    gate.add_permits(1);
    until(|| edge.metrics().memory_bytes.get() > 2_000_000).await;
    upstream.no_faults();
    // This one begins and does not read on.
    let mut slow = edge.handler()(request(Method::GET, &path, &[])).await.into_body();
    let first = slow.next().await.unwrap().unwrap();
    assert!(content.starts_with(&first));
    for _ in 0..3 {
        assert_eq!(whole(&edge, &path, &content).await.status, 200);
    }
    let rest = slow.read_all(1 << 30).await.unwrap();
    assert!(first.len() + rest.len() == content.len() && content.ends_with(&rest));
    assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
}

/// A client that opens a stream and does not read must not cost upstream the whole blob.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_are_not_read_ahead_for() {
    let content = content(8 << 20, 3);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let path = format!("/blobs/{}", id(&content));
    let bodies: Vec<_> =
        futures_util::future::join_all((0..20).map(|_| edge.handler()(request(Method::GET, &path, &[])))).await;
    until(|| edge.metrics().memory_bytes.get() > 2_000_000).await;
    // Whoever would read ahead does it within this time.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!((edge.metrics().units_asked.get(), edge.metrics().fills.get()), (20, 1));
    drop(bodies);
    whole(&edge, &path, &content).await;
    assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_head_on_a_cold_edge_proves_the_length_and_fetches_no_unit() {
    for length in [0, 1, 8192, 8193, LENGTH] {
        let content = content(length, 4);
        let upstream = Upstream::with(&[&content]).await;
        let edge = build(&config(&[&upstream]));
        let id = id(&content);
        for form in ["", "1/", "leaves/"] {
            let path = format!("/blobs/{form}{id}");
            let file = upstream.file(&path);
            let got = head(&edge, &path).await;
            assert_eq!((got.status, got.header("content-length")), (200, &*file.len().to_string()), "{path}");
            assert_eq!(got.bytes(), b"");
            let full = whole(&edge, &path, &file).await;
            assert_eq!(full.header("etag"), got.header("etag"));
            assert_eq!(full.header("cache-control"), "public, max-age=31536000, immutable");
        }
        assert_eq!(upstream.asked_max(), 1, "{length}: {:?}", upstream.asked());
    }
    let content = content(LENGTH, 5);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    head(&edge, &format!("/blobs/1/{}", id(&content))).await;
    assert_eq!((upstream.requests(), edge.metrics().fills.get()), (3, 0), "leaves, unit H, last piece");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_at_the_borders_of_units_in_both_forms() {
    let content = content(LENGTH, 6);
    let upstream = Upstream::with(&[&content]).await;
    let id = id(&content);
    let raw = Layout::raw(merkle::build(&content).leaves, merkle::build(&content).length.into()).unwrap();
    let encoded = upstream.file(&format!("/blobs/1/{id}"));
    let delivery = Layout::from_unit_h(TYPE, raw.leaves().clone(), &encoded).unwrap();
    for (form, layout, file) in [("", raw, &content), ("1/", delivery, &encoded)] {
        let path = format!("/blobs/{form}{id}");
        let mut places = vec![0, 1, layout.unit_h().len(), file.len()];
        places.extend((0..layout.unit_count()).flat_map(|unit| {
            let range = layout.unit_range(unit);
            [range.start() as usize, range.end() as usize]
        }));
        let around = places.iter().flat_map(|at| [at.saturating_sub(1), *at, at + 1]);
        let places: std::collections::BTreeSet<usize> = around.filter(|at| *at <= file.len()).collect();
        let edge = build(&config(&[&upstream]));
        for start in &places {
            for end in places.iter().filter(|end| *end > start) {
                part(&edge, &path, file, *start, *end).await;
            }
        }
        let last = get(&edge, &path, &[("range", "bytes=-1")]).await;
        assert_eq!(last.bytes(), &file[file.len() - 1..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_and_ranges_that_do_not_exist() {
    let content = content(LENGTH, 7);
    let upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let path = format!("/blobs/{}", id(&content));
    let etag = head(&edge, &path).await.header("etag").to_owned();
    let same = get(&edge, &path, &[("if-none-match", &etag)]).await;
    assert_eq!((same.status, same.bytes(), same.header("etag")), (304, &b""[..], &*etag));
    let beyond = get(&edge, &path, &[("range", &format!("bytes={LENGTH}-"))]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{LENGTH}")));
    beyond.problem();
    assert_eq!(edge.metrics().fills.get(), 0, "none of these needs a unit");
    let other = get(&edge, &path, &[("range", "bytes=0-9"), ("if-range", "\"other\"")]).await;
    assert!(other.status == 200 && other.bytes() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_are_none_never_reach_upstream() {
    let upstream = Upstream::start().await;
    let edge = build(&config(&[&upstream]));
    for path in ["/r/../x", "/r/%2e%2e/x", "/r/targets/../../etc/passwd", "/r/targets/a%2fb", "/r//root.json", "/r/%zz"]
    {
        let got = get(&edge, path, &[]).await;
        assert_eq!(got.status, 400, "{path}");
        got.problem();
        assert!(!got.header("cache-status").contains("fwd"), "{}", got.header("cache-status"));
    }
    let upper = format!("/blobs/{}", "A".repeat(64));
    for path in [&*upper, "/blobs/1/xyz", "/blobs/3/x", "/r/x/y/z", "/config.json"] {
        let got = get(&edge, path, &[]).await;
        assert_eq!(got.status, 404, "{path}");
    }
    let put = crate::site::send(&edge.handler(), request(Method::PUT, "/r/root.json", &[])).await;
    assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD"));
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_needs_an_upstream_that_is_an_address() {
    let registry = || colibri_service::metrics::Registry::new();
    for upstreams in [vec![], vec!["localhost:80".to_owned()], vec!["ftp://x/".to_owned()]] {
        let config = EdgeConfig { upstreams: upstreams.clone(), ..EdgeConfig::default() };
        let error = colibri_edge::Edge::build(&config, &registry()).unwrap_err().to_string();
        assert!(error.contains("upstream"), "{error}");
    }
}

/// A content unit in whose window no frame begins: its bytes belong to the frame before. Whole and range reads skip it.
#[tokio::test(flavor = "multi_thread")]
async fn windows_without_a_frame_are_empty_units() {
    let content = content((9 << 20) + 5, 8);
    let encoded = crate::liars::stored_frames(&content, 5 << 20);
    for has_leaves in [true, false] {
        let upstream = Upstream::start().await;
        upstream.add_encoded(&content, &encoded);
        if !has_leaves {
            upstream.remove(&format!("/blobs/leaves/{}", id(&content)));
        }
        let edge = build(&config(&[&upstream]));
        let path = format!("/blobs/1/{}", id(&content));
        whole(&edge, &path, &encoded).await;
        let middle = encoded.len() / 2;
        part(&edge, &path, &encoded, middle, middle + 3_000_000).await;
        assert_eq!(edge.metrics().fills.get(), 2, "five windows, two frames");
        assert_eq!(upstream.asked_max(), 1, "{:?}", upstream.asked());
    }
}
