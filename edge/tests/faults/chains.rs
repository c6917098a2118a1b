//! Edges in front of edges, in a row and in a circle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use colibri_common::merkle;
use colibri_edge::{Edge, EdgeConfig};
use colibri_package::delivery::Layout;
use colibri_transport::{Server, ServerConfig, handler};
use http::Method;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::liars::stored_frames;
use crate::site::{build, config, get, request, whole};
use crate::upstream::{Fault, TYPE, Upstream, content, id, loopback};

/// An edge that listens.
fn listen(edge: &Edge, server: Server) -> DropGuard {
    _ = edge;
    let stop = CancellationToken::new();
    tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
    stop.drop_guard()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tiers_of_edges_with_the_same_name() {
    let content = content((4 << 20) + 5, 1);
    let origin = Upstream::with(&[&content]).await;
    origin.put("/repo/timestamp.json", "one");
    let shield = build(&config(&[&origin]));
    let server = Server::bind(ServerConfig::plain(loopback(0)), shield.handler()).unwrap();
    let url = format!("http://{}", server.address());
    let _listening = listen(&shield, server);
    let outer = || build(&EdgeConfig { upstreams: vec![url.clone()], ..EdgeConfig::default() });
    for edge in [outer(), outer()] {
        for form in ["", "1/", "leaves/"] {
            let path = format!("/blobs/{form}{}", id(&content));
            let readers = (0..10).map(|_| {
                let (edge, path, file) = (edge.clone(), path.clone(), origin.file(&path));
                tokio::spawn(async move { whole(&edge, &path, &file).await })
            });
            for reader in readers.collect::<Vec<_>>() {
                reader.await.unwrap();
            }
        }
        whole(&edge, "/repo/timestamp.json", b"one").await;
    }
    assert_eq!(origin.asked_max(), 1, "the region asks once: {:?}", origin.asked());
}

/// Upstream sends one leaf, or one frame, and then nothing until the reader at the far end of two tiers has it: no tier holds
/// verified bytes back, however slow the sender.
#[tokio::test(flavor = "multi_thread")]
async fn each_leaf_and_each_frame_reaches_the_reader_before_the_next_is_sent() {
    const FRAME_CONTENT: usize = 32 << 10;
    let content = content(10 * FRAME_CONTENT, 3);
    let origin = Upstream::start().await;
    let encoded = stored_frames(&content, FRAME_CONTENT);
    origin.add_encoded(&content, &encoded);
    let layout = Layout::from_unit_h(TYPE, merkle::build(&content).leaves, &encoded).unwrap();
    let frame = usize::try_from(layout.piece_range(0).len()).unwrap();
    let cases = [
        (format!("/blobs/{}", id(&content)), 8192, &content, 0),
        (format!("/blobs/1/{}", id(&content)), frame, &encoded, layout.unit_h().len()),
    ];
    for (path, step, file, head) in cases {
        let permits = Arc::new(Semaphore::new(0));
        // All but the last piece, which has proven the length before.
        let (dripping, from) = (permits.clone(), format!("bytes={head}-{}", file.len() - step - 1));
        origin.faults(move |_, range| (range? == from).then(|| Fault::Step(step, dripping.clone())));
        let shield = build(&config(&[&origin]));
        let server = Server::bind(ServerConfig::plain(loopback(0)), shield.handler()).unwrap();
        let url = format!("http://{}", server.address());
        let _listening = listen(&shield, server);
        let edge = build(&EdgeConfig { upstreams: vec![url], ..EdgeConfig::default() });
        permits.add_permits(1);
        let mut body = edge.handler()(request(Method::GET, &path, &[])).await.into_body();
        let mut got = Vec::new();
        for sent in (head + step..file.len() - step).step_by(step) {
            while got.len() < sent {
                got.extend_from_slice(&body.next().await.expect("more is to come").unwrap());
            }
            assert_eq!(got.len(), sent, "{path}: nothing is there before it was sent");
            permits.add_permits(1);
        }
        got.extend_from_slice(&body.read_all(1 << 20).await.unwrap());
        assert!(got == *file, "{path}");
    }
}

/// Each cache on the way says what it did for this request, the one nearest the origin first; what was done for another
/// request is not told again.
#[tokio::test(flavor = "multi_thread")]
async fn cache_status_tells_the_whole_way() {
    let (small, large, other) = (content(5000, 51), content((4 << 20) + 9, 52), content(300_000, 53));
    let origin = Upstream::with(&[&small, &large, &other]).await;
    origin.put("/repo/9.root.json", "{}");
    let named = |name: &str, config| EdgeConfig { name: name.to_owned(), ..config };
    let shield = build(&named("shield", config(&[&origin])));
    let server = Server::bind(ServerConfig::plain(loopback(0)), shield.handler()).unwrap();
    let url = format!("http://{}", server.address());
    let _listening = listen(&shield, server);
    let behind = |name: &str| build(&named(name, EdgeConfig { upstreams: vec![url.clone()], ..EdgeConfig::default() }));
    let (one, two) = (behind("one"), behind("two"));
    let paths = [&small, &large].map(|content| {
        [(format!("/blobs/{}", id(content)), ""), (format!("/blobs/1/{}", id(content)), "bytes=0-99999")]
    });
    // Leaves of what nobody has opened.
    let alone = (format!("/blobs/leaves/{}", id(&other)), "");
    let documents = [alone, ("/repo/9.root.json".to_owned(), "")];
    for (path, range) in paths.into_iter().flatten().chain(documents) {
        let fields: &[(&str, &str)] = if range.is_empty() { &[] } else { &[("range", range)] };
        let status = async |edge: &Edge| {
            let got = get(edge, &path, fields).await;
            assert!(matches!(got.status, 200 | 206) && !got.bytes().is_empty(), "{path}: {got:?}");
            got.header("cache-status").to_owned()
        };
        let cold = status(&one).await;
        let near = cold.strip_suffix(", one; fwd=miss; stored").unwrap_or_else(|| panic!("{path}: {cold}"));
        let by_shield = ["shield; fwd=miss; stored", "shield; fwd=miss; collapsed", "shield; hit"];
        // One's first question began what its next one joins, or found here.
        assert!(by_shield.contains(&near), "{path}: {cold}");
        // A flight lands a moment after its last byte.
        crate::upstream::until(|| {
            shield.metrics().memory_bytes.get() > 0 || path.contains("json") || path.contains("leaves")
        })
        .await;
        let warm = status(&one).await;
        assert!(["one; hit", "one; fwd=miss; collapsed"].contains(&&*warm), "{path}: {warm}");
        let other = status(&two).await;
        let near = other.strip_suffix(", two; fwd=miss; stored").unwrap_or_else(|| panic!("{path}: {other}"));
        assert!(["shield; hit", "shield; fwd=miss; collapsed"].contains(&near), "{path}: {other}");
    }
}

/// Each edge thinks the other is its upstream. Every question ends, at once, with an error that says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn loop_of_two_edges_is_noticed() {
    // Both must know the other's port before they exist: one listens with a handler that is found later.
    let first_port = std::net::TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap();
    let url = |address| vec![format!("http://{address}")];
    let second = build(&EdgeConfig { upstreams: url(first_port), ..EdgeConfig::default() });
    let second_server = Server::bind(ServerConfig::plain(loopback(0)), second.handler()).unwrap();
    let first = build(&EdgeConfig { upstreams: url(second_server.address()), ..EdgeConfig::default() });
    let first_server = Server::bind(ServerConfig::plain(first_port), first.handler()).unwrap();
    let _listening = (listen(&first, first_server), listen(&second, second_server));
    let blob = format!("/blobs/1/{}", id(b"x"));
    for edge in [&first, &second] {
        for path in ["/repo/timestamp.json", "/repo/1.root.json", &*blob] {
            let got = get(edge, path, &[]).await;
            assert_eq!(got.status, 508, "{path}");
            assert!(got.problem()["detail"].as_str().unwrap().contains("circle"), "{path}: {got:?}");
        }
    }
    let requests = |edge: &Edge| edge.sources().list()[0].requests();
    // Leaves, then the blob, of which each edge asks the other once on behalf of each reader.
    assert!(requests(&first) + requests(&second) <= 20, "{} {}", requests(&first), requests(&second));
}

/// Two edges that ask each other before the origin, each with its own reader of the same thing: each question joins the fill
/// that waits for the other, and none comes back to where it has been.
#[tokio::test(flavor = "multi_thread")]
async fn loop_of_two_edges_that_wait_for_each_other_is_refused_soon() {
    let content = content(3_000_000, 12);
    let origin = Upstream::with(&[&content]).await;
    origin.put("/repo/timestamp.json", "one");
    let blob = format!("/blobs/1/{}", id(&content));
    let file = origin.file(&blob);
    for (behind, path, expected) in [
        (Some(origin.url()), "/repo/timestamp.json", &b"one"[..]),
        (Some(origin.url()), &*blob, &*file),
        (None, "/repo/timestamp.json", b""),
        (None, &*blob, b""),
    ] {
        // Questions of one edge to the other are let in when both have asked: then both fills are under way.
        let gate = Arc::new(tokio::sync::Barrier::new(2));
        let ports = [0, 1].map(|_| std::net::TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap());
        let edges = [1, 0].map(|other: usize| {
            let upstreams = [format!("http://{}", ports[other])].into_iter().chain(behind.clone()).collect();
            // Whoever waits until patience ends, waits longer than this test.
            let (upstream_patience_s, upstream_hedge_percent) = (600, 0);
            build(&EdgeConfig { upstreams, upstream_patience_s, upstream_hedge_percent, ..EdgeConfig::default() })
        });
        let listening: Vec<_> = [0, 1]
            .map(|number: usize| {
                let (edge, gate, first) = (edges[number].clone(), gate.clone(), Arc::new(AtomicBool::new(true)));
                let answers = handler(move |request| {
                    let (edge, gate, first) = (edge.clone(), gate.clone(), first.clone());
                    async move {
                        if first.swap(false, Ordering::SeqCst) {
                            gate.wait().await;
                        }
                        edge.handler()(request).await
                    }
                });
                listen(&edges[number], Server::bind(ServerConfig::plain(ports[number]), answers).unwrap())
            })
            .into();
        let both = async { tokio::join!(get(&edges[0], path, &[]), get(&edges[1], path, &[])) };
        let (first, second) =
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("they wait for each other");
        for got in [first, second] {
            if behind.is_some() {
                assert!((got.status, got.bytes()) == (200, expected), "{path}: {} {:?}", got.status, got.headers);
            } else {
                assert_eq!(got.status, 508, "{path}: {got:?}");
                assert!(got.problem()["detail"].as_str().unwrap().contains("circle"), "{path}: {got:?}");
            }
        }
        drop(listening);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loop_of_an_edge_with_itself_says_508() {
    let address = std::net::TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap();
    let edge = build(&EdgeConfig { upstreams: vec![format!("http://{address}")], ..EdgeConfig::default() });
    let server = Server::bind(ServerConfig::plain(address), edge.handler()).unwrap();
    let _listening = listen(&edge, server);
    let got = get(&edge, "/repo/timestamp.json", &[]).await;
    assert_eq!(got.status, 508);
    assert!(got.problem()["detail"].as_str().unwrap().contains("circle"), "{got:?}");
    assert_eq!(edge.sources().list()[0].requests(), 1, "asking again would not help");
}

/// Anybody can write into the field: it must not harm anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn loop_hops_that_are_made_up_fail_nobody() {
    let upstream = Upstream::start().await;
    upstream.put("/repo/timestamp.json", "one");
    let edge = build(&config(&[&upstream]));
    let long = vec!["edge"; 500].join(", ");
    for hops in ["edge", "edge;i=0000000000000000", "\"", ",,,", &*long] {
        let got = get(&edge, "/repo/timestamp.json", &[("cdn-loop", hops)]).await;
        assert_eq!((got.status, got.bytes()), (200, &b"one"[..]), "{hops}");
    }
}
