//! Edges of one region: each part of a blob is asked of the parent once, a lost or leaving member hurts nobody.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use colibri_common::BlobId;
use colibri_edge::{Edge, EdgeConfig, PeersConfig};
use colibri_fetch::Part;
use colibri_transport::{Server, ServerConfig, handler};
use http::Method;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::site::{build, config, get, part, request, whole};
use crate::upstream::{Fault, Upstream, content, id, loopback};

/// Edges that know each other, all over one upstream.
struct Region {
    edges: Vec<Edge>,
    names: Vec<String>,
    stops: Vec<Option<DropGuard>>,
}

impl Region {
    fn start(count: usize, upstream: &Upstream) -> Self {
        Self::start_with(count, upstream, 0)
    }

    /// `unknown_blob_s` is how long each remembers what was missing.
    fn start_with(count: usize, upstream: &Upstream, unknown_blob_s: u64) -> Self {
        // Addresses must be known before the edges exist: each server finds its edge later.
        let slots: Vec<Arc<OnceLock<Edge>>> = (0..count).map(|_| Arc::default()).collect();
        let (mut names, mut stops) = (Vec::new(), Vec::new());
        for slot in &slots {
            let slot = slot.clone();
            let answers = handler(move |request| {
                let slot = slot.clone();
                async move { slot.get().unwrap().handler()(request).await }
            });
            let server = Server::bind(ServerConfig::plain(loopback(0)), answers).unwrap();
            names.push(server.address().to_string());
            let stop = CancellationToken::new();
            tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
            stops.push(Some(stop.drop_guard()));
        }
        let edges = names.iter().map(|own| {
            let (own, members) = (own.clone(), names.clone());
            let peers = PeersConfig { own, members, secure: false, http3: false, ..PeersConfig::default() };
            // A machine under load would hedge, and then the parent is asked twice on purpose.
            let config = EdgeConfig { unknown_blob_s, ..config(&[upstream]) };
            build(&EdgeConfig { peers: Some(peers), upstream_hedge_percent: 0, ..config })
        });
        let edges: Vec<_> = edges.collect();
        slots.iter().zip(&edges).for_each(|(slot, edge)| slot.set(edge.clone()).unwrap());
        Self { edges, names, stops }
    }

    /// The number of the edge that the first one asks for a unit; nothing if that is itself.
    fn owner_for_first(&self, blob: &BlobId, unit: u32, of: u32) -> Option<usize> {
        let owner = self.edges[0].peers().unwrap().owner(blob, Part::Unit { unit, of })?;
        self.names.iter().position(|name| *name == owner)
    }

    /// Content of `length` bytes whose first unit the first edge asks of another.
    fn content_of_another(&self, length: usize, first_seed: u64) -> (Vec<u8>, usize) {
        let of = length.div_ceil(2 << 20) as u32;
        let mut seeds = first_seed..first_seed + 100;
        seeds.find_map(|seed| content(length, seed).into_owned_by(self, of)).expect("another edge has some share")
    }
}

trait OwnedBy: Sized {
    fn into_owned_by(self, region: &Region, of: u32) -> Option<(Self, usize)>;
}

impl OwnedBy for Vec<u8> {
    fn into_owned_by(self, region: &Region, of: u32) -> Option<(Self, usize)> {
        let owner = region.owner_for_first(&id(&self), 0, of)?;
        Some((self, owner))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn herd_over_three_peers_causes_one_origin_fetch_per_unit() {
    let contents = [content((20 << 20) + 77, 1), content((5 << 20) + 1, 2), content(100_000, 3), content(10, 4)];
    let origin = Upstream::start().await;
    contents.iter().for_each(|content| origin.add(content));
    let region = Region::start(3, &origin);
    let mut readers = Vec::new();
    for content in &contents {
        for form in ["", "1/", "leaves/"] {
            let path = format!("/blobs/{form}{}", id(content));
            let file = Arc::new(origin.file(&path));
            for number in 0..6 {
                let (edge, path, file) = (region.edges[number % 3].clone(), path.clone(), file.clone());
                readers.push(tokio::spawn(async move {
                    let from = file.len() / 7 * number;
                    if number < 3 || file.is_empty() {
                        whole(&edge, &path, &file).await;
                    } else {
                        part(&edge, &path, &file, from, file.len()).await;
                    }
                }));
            }
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(origin.asked_max(), 1, "{:?}", origin.asked());
    let unique: u64 = contents.iter().map(|content| content.len().div_ceil(2 << 20) as u64).sum();
    let units_of_origin =
        origin.asked().keys().filter(|(path, range)| !path.contains("leaves") && range.is_some()).count();
    assert!(units_of_origin as u64 >= unique, "{units_of_origin} {unique}");
    let totals: Vec<_> = region.edges.iter().map(|edge| edge.peers().unwrap().totals()).collect();
    assert!(totals.iter().any(|totals| totals.requests > 0), "{totals:?}");
    assert!(totals.iter().all(|totals| totals.failures == 0 && totals.blames == 0), "{totals:?}");
}

/// A member dies while it passes on what it is being sent itself.
#[tokio::test(flavor = "multi_thread")]
async fn peer_loss_in_the_middle_of_a_unit_goes_unnoticed() {
    let origin = Upstream::start().await;
    let mut region = Region::start(3, &origin);
    let (content, owner) = region.content_of_another((4 << 20) + 5, 10);
    origin.add(&content);
    let path = format!("/blobs/{}", id(&content));
    let first_time = std::sync::atomic::AtomicBool::new(true);
    origin.faults(move |_, range| {
        let is_first = range == Some("bytes=0-2097151") && first_time.swap(false, std::sync::atomic::Ordering::SeqCst);
        is_first.then_some(Fault::Hang(500_000))
    });
    let mut body = region.edges[0].handler()(request(Method::GET, &path, &[])).await.into_body();
    let mut got = body.next().await.unwrap().unwrap().to_vec();
    assert_eq!(region.edges[0].sources().list()[0].requests(), 0, "all of it came from the peer so far");
    region.stops[owner] = None;
    while let Some(piece) = body.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert!(got == content);
    let peers = region.edges[0].peers().unwrap();
    assert!(peers.totals().failures >= 1);
    // While it is away, its share is another's.
    let of = 3;
    assert_ne!(region.owner_for_first(&id(&content), 0, of), Some(owner));
    for edge in [0, 1, 2].iter().filter(|edge| **edge != owner) {
        whole(&region.edges[*edge], &path, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_about_to_stop_gets_nothing_new() {
    let origin = Upstream::start().await;
    let region = Region::start(3, &origin);
    let (content, owner) = region.content_of_another(3 << 20, 20);
    let (late, _) = (20..)
        .map(|seed| region.content_of_another(3 << 20, seed))
        .find(|(late, also)| *also == owner && *late != content)
        .unwrap();
    [&content, &late].iter().for_each(|content| origin.add(content));
    region.edges[owner].leave();
    // It learns that with an answer, which is as good as any.
    whole(&region.edges[0], &format!("/blobs/{}", id(&content)), &content).await;
    assert_ne!(region.owner_for_first(&id(&late), 0, 2), Some(owner));
    let before = region.edges[owner].metrics().units_asked.get();
    whole(&region.edges[0], &format!("/blobs/{}", id(&late)), &late).await;
    assert_eq!(region.edges[owner].metrics().units_asked.get(), before);
    let totals = region.edges[0].peers().unwrap().totals();
    assert_eq!((totals.failures, totals.blames), (0, 0), "{totals:?}");
    // Nobody but peers is told.
    assert_eq!(get(&region.edges[owner], "/", &[]).await.header("colibri-leaving"), "");
    assert_eq!(get(&region.edges[owner], "/", &[("colibri-peer", "1")]).await.header("colibri-leaving"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_asks_is_asked_of_no_third() {
    let origin = Upstream::start().await;
    let region = Region::start(3, &origin);
    let (content, _) = region.content_of_another(3 << 20, 30);
    origin.add(&content);
    let path = format!("/blobs/{}", id(&content));
    let edge = &region.edges[0];
    // The head is there, units are not.
    assert_eq!(crate::site::head(edge, &path).await.status, 200);
    let before = edge.peers().unwrap().totals().requests;
    let got = get(edge, &path, &[("colibri-peer", "1")]).await;
    assert!(got.bytes() == content);
    assert_eq!(edge.peers().unwrap().totals().requests, before);
    assert_eq!(edge.sources().list()[0].requests(), 2, "both units");
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_change_moves_only_the_share_of_who_came_or_went() {
    let origin = Upstream::start().await;
    let region = Region::start(2, &origin);
    let peers = region.edges[0].peers().unwrap();
    let ids: Vec<_> =
        (0..2000_u64).map(|seed| BlobId::from_digest(colibri_common::sha256(&seed.to_le_bytes()))).collect();
    let owners = || ids.iter().map(|id| peers.owner(id, Part::Head)).collect::<Vec<_>>();
    let four: Vec<_> = (2..6).map(|number| format!("10.0.0.{number}:8443")).collect();
    peers.set(&four).unwrap();
    let before = owners();
    peers.set(&four[..3]).unwrap();
    let after = owners();
    let gone = Some(four[3].clone());
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    let mut count = 0;
    for (old, _) in moved {
        assert_eq!(*old, gone);
        count += 1;
    }
    // A fifth of 2,000: this edge has a share, too.
    assert!((320..480).contains(&count), "{count}");
    peers.set(&four).unwrap();
    assert!(owners() == before);
    assert!(peers.set(&["no address/".to_owned()]).is_err());
    assert_eq!(peers.names(), four);
    peers.set(&[]).unwrap();
    assert!(owners().iter().all(Option::is_none));
}

#[tokio::test]
async fn peers_without_an_own_name_are_a_mistake() {
    let upstream = Upstream::start().await;
    let wrong = EdgeConfig { peers: Some(PeersConfig::default()), ..config(&[&upstream]) };
    let error = Edge::build(&wrong, &colibri_service::metrics::Registry::new()).unwrap_err().to_string();
    assert!(error.contains("own"), "{error}");
}

/// Numbered metadata and targets never change: one member gets them for all. What changes is asked of the parent by each.
#[tokio::test(flavor = "multi_thread")]
async fn metadata_that_lasts_is_asked_of_the_parent_once_for_all_members() {
    let origin = Upstream::start().await;
    let hash = colibri_common::hex(&colibri_common::sha256(b"target"));
    let lasting = [1, 2, 3, 4].map(|number| format!("/repo/{number}.targets.json"));
    lasting.iter().for_each(|path| origin.put(path, path.clone()));
    let target = format!("/repo/targets/{hash}.name");
    origin.put(&target, "target");
    origin.put("/repo/timestamp.json", "now");
    let region = Region::start(3, &origin);
    for edge in &region.edges {
        for path in &lasting {
            assert_eq!(get(edge, path, &[]).await.bytes(), path.as_bytes());
        }
        assert_eq!(get(edge, &target, &[]).await.bytes(), b"target");
        assert_eq!(get(edge, "/repo/timestamp.json", &[]).await.bytes(), b"now");
    }
    let mut asked: Vec<_> = origin.asked().into_iter().map(|((path, _), times)| (path, times)).collect();
    asked.sort();
    let expected = lasting.iter().cloned().chain([target]).map(|path| (path, 1));
    let mut expected: Vec<_> = expected.chain([("/repo/timestamp.json".to_owned(), 3)]).collect();
    expected.sort();
    assert_eq!(asked, expected);
}

/// What the parent does not have is asked of it once for all, and what is said of it in one region is believed in it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_asked_of_the_parent_once_for_all_members() {
    let origin = Upstream::start().await;
    let region = Region::start_with(3, &origin, 3600);
    let absent: Vec<_> = (0..6).map(|seed| content(100_000, 200 + seed)).collect();
    for form in ["leaves/", "1/", ""] {
        for content in &absent {
            for edge in &region.edges {
                let got = get(edge, &format!("/blobs/{form}{}", id(content)), &[]).await;
                assert_eq!(got.status, 404, "{got:?}");
                // Only members are told how they know.
                assert_eq!(got.header("colibri-absent"), "");
            }
        }
    }
    let asked = origin.asked();
    let per_form = |form: &str| asked.iter().filter(|((path, _), _)| path.starts_with(form)).map(|(_, n)| *n).max();
    assert_eq!((per_form("/blobs/1/"), per_form("/blobs/leaves/").is_some()), (Some(1), true), "{asked:?}");
    for content in &absent {
        assert_eq!(asked.get(&(format!("/blobs/{}", id(content)), None)), Some(&1), "{asked:?}");
    }
    let totals = region.edges.iter().map(|edge| edge.peers().unwrap().totals());
    assert!(totals.clone().all(|totals| totals.failures == 0 && totals.blames == 0), "absence is no fault");
    assert!(totals.map(|totals| totals.requests).sum::<u64>() > 0);
}

/// A member's memory is not believed by one who has seen newer metadata since, nor by a client who insists.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_remembers_to_be_missing_is_asked_again_when_somebody_insists() {
    let origin = Upstream::start().await;
    let region = Region::start_with(3, &origin, 3600);
    let (content, owner) = (0..100)
        .find_map(|seed| {
            let content = content(10_000, 300 + seed);
            let owner = region.edges[0].peers().unwrap().owner(&id(&content), Part::Head)?;
            Some((content, region.names.iter().position(|name| *name == owner)?))
        })
        .expect("another edge has some share");
    let path = format!("/blobs/{}", id(&content));
    let told = get(&region.edges[owner], &path, &[("colibri-peer", "1")]).await;
    assert_eq!((told.status, told.header("colibri-absent")), (404, "0"));
    let again = get(&region.edges[owner], &path, &[("colibri-peer", "1")]).await;
    assert_eq!(again.status, 404);
    assert!(again.header("colibri-absent").parse::<u64>().unwrap() > 0, "a moment ago is rounded up");
    origin.add(&content);
    let got = get(&region.edges[0], &path, &[("cache-control", "no-cache")]).await;
    assert!((got.status, got.bytes()) == (200, &content[..]), "{got:?}");
}
