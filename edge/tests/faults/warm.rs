//! Warming, pins, imports, and blobs that nobody has: what an edge does because it knows what a set reaches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_edge::{Admission, Edge, EdgeConfig, WarmConfig};
use colibri_release::{Availability, Missing, Release, ReleaseBuilder, ReleasePackage, Versioning};
use colibri_transport::Body;
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::desk::{Built, Desk, HOUR_S, NOW, Site, build_at, clock};
use crate::site::{Got, disk, get, request, send, whole};
use crate::upstream::{Upstream, content};

const URL: &str = "fuchsia-pkg://a.com";
const TIMESTAMP: &str = "/repo/timestamp.json";

/// Two packages, one with a subpackage, and the package `carrier` with a release in which `rare` is on demand.
struct Product {
    desk: Desk,
    carrier: Built,
    base: Built,
    rare: Built,
}

impl Product {
    fn new() -> Self {
        let desk = Desk::new();
        let inner = desk.build("inner", &[("data/inner", &content(30_000, 1))], &[]);
        let base = desk.build("base", &[("data/base", &content(3_000_000, 2))], &[&inner]);
        let rare = desk.build("rare", &[("data/rare", &content(50_000, 3))], &[]);
        desk.publish(&[&base, &rare]);
        let release = release_of(&desk, &[("base", Availability::Permanent), ("rare", Availability::OnDemand)]);
        let carrier = desk.build("carrier", &[(Release::PATH, &release.to_bytes().unwrap())], &[]);
        desk.publish(&[&carrier]);
        Self { desk, carrier, base, rare }
    }

    fn bundle(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.desk.repository.write_release_bundle("carrier", NOW, &mut out, &|_, _| {}).unwrap();
        out
    }
}

fn release_of(desk: &Desk, packages: &[(&str, Availability)]) -> Release {
    let mut builder = ReleaseBuilder::new("p", "1.0".parse().unwrap());
    let root = desk.repository.trusted_root_bytes().unwrap();
    builder.repository(URL.parse().unwrap(), String::from_utf8(root.to_vec()).unwrap());
    for (name, availability) in packages {
        builder.package(ReleasePackage {
            url: format!("{URL}/{name}").parse().unwrap(),
            availability: *availability,
            versioning: Versioning::Anchored,
            hash: Some(desk.repository.package(name).unwrap().hash),
            minimum_version: None,
        });
    }
    while let Some(missing) = builder.missing() {
        match missing {
            Missing::Contents(hash) => builder.contents(desk.repository.release_contents(hash).unwrap().unwrap()),
            Missing::Blob(id) => builder.blob(desk.repository.release_blob(id).unwrap().unwrap()),
        }
    }
    builder.finish().unwrap()
}

/// An edge that follows until the guard is dropped.
fn following(edge: &Edge) -> DropGuard {
    let stop = CancellationToken::new();
    tokio::spawn({
        let (edge, stop) = (edge.clone(), stop.clone());
        async move { edge.follow(stop).await }
    });
    stop.drop_guard()
}

async fn tell(edge: &Edge, method: Method, path: &str, body: Value) -> Got {
    let mut request = request(method, path, &[]);
    *request.body_mut() = Body::full(body.to_string());
    send(&edge.control(), request).await
}

async fn status(edge: &Edge) -> Value {
    let got = tell(edge, Method::GET, "/warm", json!({})).await;
    let mut status: Value = serde_json::from_slice(got.bytes()).unwrap();
    status["repositories"][0].take()
}

/// Waits until all that the status tells of is here.
async fn warmed(edge: &Edge) -> Value {
    for _ in 0..6_000 {
        let now = status(edge).await;
        let groups = now["releases"].as_array().unwrap();
        if !groups.is_empty() && groups.iter().all(|group| group["blobs_missing"] == 0) {
            return now;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it was not warmed: {}", status(edge).await);
}

fn blobs(site: &Site) -> BTreeMap<&String, &[u8]> {
    site.iter().filter(|(path, _)| path.contains("/blobs/1/")).map(|(path, bytes)| (path, &bytes[..])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_brings_a_release_here_before_anybody_asks_in_the_order_of_its_sets() {
    let product = Product::new();
    let site = product.desk.site();
    let mut upstream = Upstream::start().await;
    upstream.serves(&site);
    let order = Arc::new(Mutex::new(Vec::new()));
    upstream.faults({
        let order = order.clone();
        move |path, _| {
            order.lock().unwrap().push(path.to_owned());
            None
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let config = EdgeConfig {
        warm: Some(WarmConfig::default()),
        disk: disk(dir.path(), 1 << 30, Admission::Reused),
        metadata_max_age_s: 1000,
        ..product.desk.followed(&[&upstream])
    };
    let edge = build_at(&config, &clock(0));
    let running = following(&edge);
    let status = warmed(&edge).await;
    let group = &status["releases"][0];
    assert_eq!((&group["name"], &group["blobs"]), (&json!("carrier/0 (p 1.0.0.0)"), &json!(8)), "{status}");
    assert_eq!((&group["bytes_missing"], &group["blobs_of_unknown_length"]), (&json!(0), &json!(0)));
    let first = |id: BlobId| {
        let order = order.lock().unwrap();
        order.iter().position(|path| path.ends_with(&format!("/blobs/1/{id}"))).unwrap()
    };
    let id = |length, seed| merkle::build(&content(length, seed)).id;
    assert!(first(id(3_000_000, 2)) < first(id(50_000, 3)), "what is permanent comes before what is on demand");
    upstream.go_away().await;
    for (path, bytes) in blobs(&site) {
        whole(&edge, path, bytes).await;
    }
    assert!(edge.metrics().warmed_bytes.get() > 1_000_000);
    // After a restart all of it is still here, and nothing is fetched.
    drop(running);
    edge.finish().await;
    drop(edge);
    let edge = build_at(&config, &clock(0));
    let _running = following(&edge);
    for (path, bytes) in blobs(&site) {
        whole(&edge, path, bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_keeps_to_its_space_and_its_time() {
    let product = Product::new();
    let upstream = Upstream::start().await;
    upstream.serves(&product.desk.site());
    let follow = |warm| EdgeConfig { warm: Some(warm), ..product.desk.followed(&[&upstream]) };
    // The first package alone needs more than this.
    let small = build_at(&follow(WarmConfig { space_bytes: 100_000, ..WarmConfig::default() }), &clock(0));
    // NOW is midnight.
    let windows = vec!["01:00-02:00".to_owned()];
    let time = clock(0);
    let later = build_at(&follow(WarmConfig { windows, ..WarmConfig::default() }), &time);
    let _running = (following(&small), following(&later));
    for edge in [&small, &later] {
        for _ in 0..6_000 {
            if !status(edge).await["releases"].as_array().unwrap().is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let status = status(edge).await;
        assert_ne!(status["releases"][0]["bytes_missing"], 0, "{status}");
    }
    assert_eq!(later.metrics().warmed_bytes.get(), 0, "it is not the time");
    assert!(small.metrics().warmed_bytes.get() <= 100_000);
    assert!(build_fails(&follow(WarmConfig { windows: vec!["noon".to_owned()], ..WarmConfig::default() })));
}

fn build_fails(config: &EdgeConfig) -> bool {
    Edge::build(config, &colibri_service::metrics::Registry::new()).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_no_trusted_set_reaches_are_refused_without_a_question() {
    let product = Product::new();
    let site = product.desk.site();
    let upstream = Upstream::start().await;
    upstream.serves(&site);
    let stranger = content(10_000, 9);
    upstream.add(&stranger);
    upstream.put(&format!("/repo/blobs/{}", merkle::build(&stranger).id), stranger.clone());
    let config = EdgeConfig { refuse_unlisted_blobs: true, ..product.desk.followed(&[&upstream]) };
    let edge = build_at(&config, &clock(0));
    let _running = following(&edge);
    let strange = format!("/repo/blobs/{}", merkle::build(&stranger).id);
    // Until the set was walked, nothing is refused for that.
    let mut refused = false;
    for _ in 0..6_000 {
        refused = get(&edge, &strange, &[]).await.status == 404;
        if refused {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(refused && edge.metrics().unlisted_blobs.get() > 0);
    let asked =
        |path: &str| upstream.asked().iter().filter(|((asked, _), _)| asked == path).map(|(_, n)| n).sum::<u64>();
    let before = asked(&strange);
    for path in [&strange, &strange.replace("/repo", "")] {
        assert_eq!(get(&edge, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(asked(&strange), before);
    // Content and subpackages stand in no metadata file, but are reached.
    for (path, bytes) in blobs(&site) {
        whole(&edge, path, bytes).await;
    }
    // A repository that is not followed refuses nothing.
    upstream.put(&strange.replace("/repo", "/other"), stranger.clone());
    upstream.put(&strange.replace("/repo/blobs", "/other/blobs/leaves"), merkle::build(&stranger).leaves.wire());
    whole(&edge, &strange.replace("/repo", "/other"), &stranger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_blobs_are_remembered_until_there_is_new_metadata() {
    let desk = Desk::new();
    let upstream = Upstream::start().await;
    upstream.serves(&desk.site());
    let config = EdgeConfig { unknown_blob_s: 1000, ..desk.followed(&[&upstream]) };
    let edge = build_at(&config, &clock(0));
    get(&edge, TIMESTAMP, &[]).await;
    let package = desk.build("late", &[("data/a", &content(20_000, 7))], &[]);
    let path = format!("/repo/blobs/1/{}", package.hash);
    assert_eq!(get(&edge, &path, &[]).await.status, 404);
    let asked = upstream.requests();
    for _ in 0..20 {
        let got = get(&edge, &path, &[]).await;
        assert_eq!((got.status, got.problem()["status"].as_u64()), (404, Some(404)));
    }
    assert_eq!((upstream.requests(), edge.metrics().unknown_blobs.get()), (asked, 20));
    let site = desk.publish(&[&package]);
    upstream.serves(&site);
    assert_eq!(get(&edge, &path, &[]).await.status, 404, "it is still remembered");
    get(&edge, TIMESTAMP, &[]).await;
    whole(&edge, &path, &site[&path]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_pins_are_kept_on_disk_and_hold_what_is_no_longer_listed() {
    let product = Product::new();
    let site = product.desk.site();
    let upstream = Upstream::start().await;
    upstream.serves(&site);
    let dir = tempfile::tempdir().unwrap();
    let config = EdgeConfig {
        warm: Some(WarmConfig::default()),
        refuse_unlisted_blobs: true,
        state_dir: Some(dir.path().to_owned()),
        ..product.desk.followed(&[&upstream])
    };
    let edge = build_at(&config, &clock(0));
    let running = following(&edge);
    warmed(&edge).await;
    let pin = |release: &str| json!({ "repository": "repo", "release": release });
    let got = tell(&edge, Method::POST, "/pins", pin("carrier")).await;
    let answer: Value = serde_json::from_slice(got.bytes()).unwrap();
    assert_eq!((got.status, &answer["hash"]), (200, &json!(product.carrier.hash)), "{answer}");
    for (body, status) in [
        (pin("nobody"), 404),
        (json!({ "repository": "other", "release": "x" }), 404),
        (json!({ "repository": "repo" }), 400),
    ] {
        assert_eq!(tell(&edge, Method::POST, "/pins", body).await.status, status);
    }
    drop(running);
    drop(edge);
    // The release is no longer offered, and the edge is another process.
    let other = product.desk.build("other", &[("data/x", b"x")], &[]);
    let manifests = vec![other.manifest.clone()];
    let publish = colibri_repository::Publish { manifests, clean: true, ..colibri_repository::Publish::new(NOW) };
    product.desk.repository.publish(&publish).unwrap();
    upstream.serves(&product.desk.site());
    let edge = build_at(&config, &clock(0));
    let _running = following(&edge);
    let status = warmed(&edge).await;
    assert_eq!(status["pins"], json!([{ "release": "carrier", "hash": product.carrier.hash }]));
    assert_eq!((&status["releases"][0]["pinned"], &status["releases"][0]["blobs"]), (&json!(true), &json!(8)));
    let path = format!("/repo/blobs/1/{}", product.rare.hash);
    whole(&edge, &path, &site[&path]).await;
    assert_eq!(tell(&edge, Method::DELETE, "/pins", pin("carrier")).await.status, 200);
    assert_eq!(tell(&edge, Method::DELETE, "/pins", pin("carrier")).await.status, 404);
    let no_disk = build_at(&EdgeConfig { state_dir: None, ..config }, &clock(0));
    assert_eq!(tell(&no_disk, Method::POST, "/pins", pin(&product.base.hash.to_string())).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn import_fills_the_cache_from_a_bundle_without_any_upstream() {
    let product = Product::new();
    let site = product.desk.site();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("release.bundle");
    std::fs::write(&file, product.bundle()).unwrap();
    let mut upstream = Upstream::start().await;
    upstream.go_away().await;
    let config = EdgeConfig {
        disk: disk(&dir.path().join("tier"), 1 << 30, Admission::Reused),
        metadata_max_age_s: 1000,
        ..product.desk.followed(&[&upstream])
    };
    let edge = build_at(&config, &clock(0));
    let import = |file: &std::path::Path| json!({ "repository": "repo", "file": file });
    // A bundle of which one bit is wrong changes nothing at all.
    let mut damaged = product.bundle();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    let bad = dir.path().join("damaged.bundle");
    std::fs::write(&bad, damaged).unwrap();
    let got = tell(&edge, Method::POST, "/import", import(&bad)).await;
    assert_eq!(got.status, 422, "{}", String::from_utf8_lossy(got.bytes()));
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.status, 504);
    let got = tell(&edge, Method::POST, "/import", import(&dir.path().join("nowhere"))).await;
    assert!(got.status == 422 && String::from_utf8_lossy(got.bytes()).contains("nowhere"));
    let got = tell(&edge, Method::POST, "/import", import(&file)).await;
    let answer: Value = serde_json::from_slice(got.bytes()).unwrap();
    assert_eq!((got.status, &answer["blobs"], &answer["blobs_without_room"]), (200, &json!(8), &json!(0)), "{answer}");
    for edge in [edge.clone(), edge] {
        whole(&edge, TIMESTAMP, &site[TIMESTAMP]).await;
        for path in ["/repo/1.root.json", "/repo/3.snapshot.json", "/repo/3.targets.json"] {
            whole(&edge, path, &site[path]).await;
        }
        for (path, bytes) in blobs(&site) {
            whole(&edge, path, bytes).await;
        }
    }
}

/// A bundle is a source like any other: what it says of metadata is held against what was seen.
#[tokio::test(flavor = "multi_thread")]
async fn import_of_what_is_older_than_was_seen_or_of_others_is_refused() {
    let (product, other) = (Product::new(), Product::new());
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        json!({ "repository": "repo", "file": file })
    };
    let (old, strange) = (write("old", product.bundle()), write("strange", other.bundle()));
    let upstream = Upstream::start().await;
    upstream.serves(&product.desk.moves_on(1));
    let time = clock(1);
    let edge = build_at(&product.desk.followed(&[&upstream]), &time);
    let seen = get(&edge, TIMESTAMP, &[]).await;
    for (bundle, because) in [(&old, "roll"), (&strange, "signatures")] {
        let got = tell(&edge, Method::POST, "/import", bundle.clone()).await;
        let text = String::from_utf8_lossy(got.bytes()).into_owned();
        assert!(got.status == 422 && text.contains(because), "{text}");
    }
    time.set(UnixSeconds(NOW.0 + 1000 * HOUR_S));
    let fresh = build_at(&product.desk.followed(&[&upstream]), &time);
    let got = tell(&fresh, Method::POST, "/import", old).await;
    assert!(String::from_utf8_lossy(got.bytes()).contains("expired"));
    time.set(UnixSeconds(NOW.0 + HOUR_S));
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.bytes(), seen.bytes());
}
