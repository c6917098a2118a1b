//! Several upstreams: one that goes bad in the middle of a fill is replaced without the reader noticing, and the origin is
//! asked for no more than it was promised.

use std::sync::Arc;
use std::time::{Duration, Instant};

use colibri_edge::{Edge, EdgeConfig};
use colibri_package::delivery::Encoding;
use colibri_service::metrics::Registry;
use http::Method;

use crate::site::{build, config, head, part, request, whole};
use crate::upstream::{Fault, Upstream, content, id, until};

const LENGTH: usize = (4 << 20) + 54_321;

/// A request for a whole unit, the last one excepted.
fn is_unit(range: Option<&str>) -> bool {
    let numbers = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    numbers.is_some_and(|(first, last)| {
        last.parse::<u64>().unwrap_or(0).saturating_sub(first.parse().unwrap_or(0)) > 1_000_000
    })
}

/// Ranges of units that were asked for in the middle: what had been verified is not fetched again.
fn taken_over(upstream: &Upstream) -> bool {
    let first = |range: &str| range.strip_prefix("bytes=")?.split_once('-')?.0.parse::<u64>().ok();
    let asked = upstream.asked();
    let mut starts =
        asked.keys().filter(|(_, range)| is_unit(range.as_deref())).filter_map(|(_, range)| first(range.as_deref()?));
    starts.any(|start| !start.is_multiple_of(2 << 20))
}

#[tokio::test(flavor = "multi_thread")]
async fn source_swap_in_the_middle_of_a_fill_goes_unnoticed() {
    let content = content(LENGTH, 1);
    let path = format!("/blobs/{}", id(&content));
    for (fault, blamed, replaced) in [
        (Fault::Flip(500_000), true, true),
        (Fault::Cut(500_000), false, true),
        (Fault::Drip(500_000), false, true),
        (Fault::Hang(500_000), false, true),
        // Nobody reads what was not asked for.
        (Fault::Endless, false, false),
    ] {
        let (bad, good) = (Upstream::with(&[&content]).await, Upstream::with(&[&content]).await);
        let edge = build(&EdgeConfig { upstream_patience_s: 1, ..config(&[&bad, &good]) });
        let told = fault.clone();
        bad.faults(move |_, range| is_unit(range).then(|| told.clone()));
        let before = whole(&edge, &path, &content).await;
        assert_eq!(taken_over(&good), replaced, "{fault:?}: {:?}", good.asked());
        assert_eq!(edge.sources().list()[0].blames() > 0, blamed, "{fault:?}");
        assert_eq!((edge.metrics().fill_failures.get(), edge.metrics().lapses.get()), (0, 0));
        // The same identity, whoever supplied the bytes.
        assert_eq!(part(&edge, &path, &content, 7, 3_000_000).await.header("etag"), before.header("etag"));
    }
}

/// The upstream's process dies while its answer is on the way.
#[tokio::test(flavor = "multi_thread")]
async fn source_swap_when_an_upstream_vanishes() {
    let content = content(LENGTH, 2);
    let path = format!("/blobs/{}", id(&content));
    let (mut gone, good) = (Upstream::with(&[&content]).await, Upstream::with(&[&content]).await);
    let edge = build(&config(&[&gone, &good]));
    gone.faults(|_, range| is_unit(range).then_some(Fault::Hang(500_000)));
    let mut body = edge.handler()(request(Method::GET, &path, &[])).await.into_body();
    let mut got = body.next().await.unwrap().unwrap().to_vec();
    gone.go_away().await;
    while let Some(piece) = body.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert!(got == content && taken_over(&good), "{:?}", good.asked());
    assert_eq!(edge.sources().blames(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_swap_for_leaves_that_never_end() {
    let content = content(LENGTH, 3);
    let path = format!("/blobs/1/{}", id(&content));
    let (bad, good) = (Upstream::with(&[&content]).await, Upstream::with(&[&content]).await);
    let edge = build(&config(&[&bad, &good]));
    bad.faults(|path, _| path.contains("/leaves/").then_some(Fault::Endless));
    whole(&edge, &path, &good.file(&path)).await;
    assert!(bad.requests() > 0 && good.requests() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_gives_no_more_than_it_may_and_its_share_is_exported() {
    let content = content(8 << 20, 4);
    let path = format!("/blobs/{}", id(&content));
    let (parent, origin) = (Upstream::start().await, Upstream::with(&[&content]).await);
    let registry = Registry::new();
    let limited = EdgeConfig { origin_bytes_per_s: 4 << 20, ..config(&[&parent, &origin]) };
    let edge = Edge::build(&limited, &registry).unwrap();
    let began = Instant::now();
    whole(&edge, &path, &content).await;
    // One second's worth is there at once, and the last unit is not waited for after it was asked for.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    whole(&edge, &path, &content).await;
    let text = registry.render();
    let value = |name: &str, tier: &str| {
        let line = text.lines().find(|line| line.starts_with(name) && (tier.is_empty() || line.contains(tier)));
        let line = line.unwrap_or_else(|| panic!("{name} {tier} is not in {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    // Leaves and the last leaf come besides; what is served twice was fetched once.
    let received = value("colibri_edge_upstream_bytes_total", "origin");
    assert!((8_388_608.0..8_388_608.0 * 1.01).contains(&received), "{received}");
    assert_eq!(value("colibri_edge_served_bytes_total", ""), 2.0 * 8_388_608.0);
    // On a machine that is slower than the bound nobody has to wait.
    let waited_ms = value("colibri_edge_upstream_waited_ms_total", "origin");
    assert!(waited_ms >= 400.0 || took > Duration::from_secs(1), "waited {waited_ms} ms of {took:?}");
    assert!(value("colibri_edge_upstream_requests_total", "\"upstream\"") >= 1.0);
    assert_eq!(value("colibri_edge_upstream_bytes_total", "\"upstream\""), 0.0);
}

#[tokio::test]
async fn an_origin_that_is_no_upstream_is_a_mistake() {
    let upstream = Upstream::start().await;
    let wrong = EdgeConfig { origins: vec!["http://elsewhere:1".to_owned()], ..config(&[&upstream]) };
    let error = Edge::build(&wrong, &Registry::new()).unwrap_err().to_string();
    assert!(error.contains("http://elsewhere:1"), "{error}");
}

/// A fill that warming began waits behind others; as soon as a reader joins it, it goes before them.
#[tokio::test(flavor = "multi_thread")]
async fn warm_flights_become_demand_when_somebody_waits_for_them() {
    let (warmed, blocks) = (content(3_000_000, 40), [41, 42, 43].map(|seed| content(3_000_000, seed)));
    for opened_before in [false, true] {
        let origin = Upstream::with(&[&warmed, &blocks[0], &blocks[1], &blocks[2]]).await;
        // A quarter of the places is kept for demand.
        let edge = build(&EdgeConfig { upstream_in_flight_max: 4, upstream_hedge_percent: 0, ..config(&[&origin]) });
        let path = format!("/blobs/{}", id(&warmed));
        if opened_before {
            assert_eq!(head(&edge, &path).await.status, 200);
        }
        let (gate, held) = (Arc::new(tokio::sync::Semaphore::new(0)), path.clone());
        origin.faults({
            let gate = gate.clone();
            move |path, _| (path != held && !path.contains("leaves")).then(|| Fault::Gate(gate.clone()))
        });
        let readers = blocks.clone().map(|content| {
            let edge = edge.clone();
            tokio::spawn(async move { whole(&edge, &format!("/blobs/{}", id(&content)), &content).await })
        });
        let counts = || edge.sources().list()[0].counts();
        until(|| counts().in_flight == 3).await;
        let waits = counts().waits;
        let warming = tokio::spawn({
            let (edge, id) = (edge.clone(), id(&warmed));
            async move { edge.warm("", id, Encoding::Raw).await }
        });
        until(|| counts().waits > waits).await;
        let before = origin.asked_bytes(&path);
        whole(&edge, &path, &warmed).await;
        assert_eq!(counts().failures, 0, "it waited until the others gave up");
        assert!(origin.asked_bytes(&path) > before, "warming had not got it");
        warming.await.unwrap().unwrap();
        assert_eq!(
            origin.asked().iter().filter(|((asked, _), _)| *asked == path).map(|(_, times)| *times).max(),
            Some(1)
        );
        gate.add_permits(1000);
        for reader in readers {
            reader.await.unwrap();
        }
    }
}
