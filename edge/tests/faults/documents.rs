//! Metadata and targets: short lives, revalidation, outages, and names that carry a hash.

use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_api::Coding;
use colibri_common::{UnixSeconds, hex, sha256, sha512};
use colibri_edge::{Edge, EdgeConfig};
use colibri_fetch::AttemptError;
use colibri_fetch::metadata::{MetadataSource, refresh_from};
use colibri_metadata::{Answer, Role, Start, TrustAnchor, Want};
use colibri_transport::coding;
use http::Method;

use crate::desk::{Desk, HOUR_S, NOW};
use crate::site::{build, config, get, request, send, whole};
use crate::upstream::{Fault, Upstream};

const TIMESTAMP: &str = "/repo/timestamp.json";
const NO_CACHE: &[(&str, &str)] = &[("cache-control", "no-cache")];

fn lived(upstream: &Upstream, life_s: u64) -> EdgeConfig {
    EdgeConfig { metadata_max_age_s: life_s, ..config(&[upstream]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn unnumbered_metadata_lives_shortly_and_is_revalidated_when_a_client_insists() {
    let upstream = Upstream::start().await;
    upstream.put(TIMESTAMP, "one");
    let edge = build(&lived(&upstream, 1000));
    for _ in 0..5 {
        let got = whole(&edge, TIMESTAMP, b"one").await;
        assert_eq!(got.header("cache-control"), "public, max-age=1000, stale-if-error=86400");
    }
    assert_eq!(upstream.requests(), 1);
    let same = get(&edge, TIMESTAMP, NO_CACHE).await;
    assert_eq!((same.bytes(), upstream.requests(), upstream.not_modified()), (&b"one"[..], 2, 1));
    upstream.put(TIMESTAMP, "two");
    assert_eq!(get(&edge, TIMESTAMP, &[]).await.bytes(), b"one");
    assert_eq!(get(&edge, TIMESTAMP, &[("cache-control", "max-stale=1, No-Cache")]).await.bytes(), b"two");
    let etag = get(&edge, TIMESTAMP, &[]).await.header("etag").to_owned();
    assert_eq!(get(&edge, TIMESTAMP, &[("if-none-match", &etag)]).await.status, 304);
    let edge = build(&lived(&upstream, 0));
    for text in ["three", "four"] {
        upstream.put(TIMESTAMP, text);
        whole(&edge, TIMESTAMP, text.as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_asks_once() {
    let upstream = Upstream::start().await;
    upstream.put(TIMESTAMP, "one");
    let edge = build(&lived(&upstream, 1000));
    let herd = (0..100).map(|_| {
        let edge = edge.clone();
        tokio::spawn(async move { whole(&edge, TIMESTAMP, b"one").await })
    });
    for client in herd.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(upstream.requests(), 1);
}

/// Edge and origin come up in any order: nobody who asks an edge that was first is told that there is no gateway.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_may_start_before_its_upstream() {
    let orders = [None, Some(0), Some(50), Some(400), Some(1200)].map(|upstream_comes_after_ms| async move {
        let mut upstream = Upstream::start().await;
        upstream.put("/repo/repo.config", r#"{"mirrors":[]}"#);
        upstream.put(TIMESTAMP, "one");
        if upstream_comes_after_ms.is_some() {
            upstream.go_away().await;
        }
        let edge = build(&lived(&upstream, 1000));
        let clients = ["/repo/repo.config", TIMESTAMP].map(|path| {
            let edge = edge.clone();
            tokio::spawn(async move { (path, get(&edge, path, &[]).await) })
        });
        if let Some(ms) = upstream_comes_after_ms {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            upstream.come_back().await;
        }
        for client in clients {
            let (path, got) = client.await.unwrap();
            assert_eq!(got.status, 200, "{path}, upstream after {upstream_comes_after_ms:?} ms: {got:?}");
        }
        // Once they have met, what is away is told at once: others may know more.
        upstream.go_away().await;
        let since = std::time::Instant::now();
        assert_eq!(get(&edge, "/repo/9.root.json", &[]).await.status, 502);
        since.elapsed()
    });
    let mut told = Vec::new();
    for order in orders {
        told.push(order.await);
    }
    let quickest = told.iter().min().unwrap();
    assert!(quickest.as_millis() < 3000, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbered_metadata_never_changes_though_clients_insist() {
    let upstream = Upstream::start().await;
    upstream.put("/repo/7.targets.json", "seven");
    let edge = build(&lived(&upstream, 0));
    for fields in [&[][..], NO_CACHE, NO_CACHE] {
        let got = get(&edge, "/repo/7.targets.json", fields).await;
        assert_eq!((got.bytes(), got.header("cache-control").contains("immutable")), (&b"seven"[..], true));
    }
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_here_is_served_while_upstream_is_away() {
    let mut upstream = Upstream::start().await;
    upstream.put(TIMESTAMP, "one");
    let edge = build(&lived(&upstream, 0));
    whole(&edge, TIMESTAMP, b"one").await;
    upstream.faults(|_, _| Some(Fault::Status(500)));
    let before = upstream.requests();
    for _ in 0..50 {
        let got = get(&edge, TIMESTAMP, NO_CACHE).await;
        assert_eq!((got.status, got.bytes()), (200, &b"one"[..]));
        assert!(got.header("cache-status").contains("stale"), "{}", got.header("cache-status"));
    }
    assert!(upstream.requests() - before < 50, "an upstream in trouble is not asked by everybody");
    upstream.go_away().await;
    whole(&edge, TIMESTAMP, b"one").await;
    assert!(edge.metrics().documents_stale.get() > 50);
    // Not for ever, and not what upstream says is gone.
    let strict = build(&EdgeConfig { metadata_stale_max_s: 0, ..lived(&upstream, 0) });
    upstream.come_back().await;
    upstream.no_faults();
    whole(&strict, TIMESTAMP, b"one").await;
    upstream.faults(|_, _| Some(Fault::Status(500)));
    assert_eq!(get(&strict, TIMESTAMP, &[]).await.status, 502);
    upstream.no_faults();
    upstream.remove(TIMESTAMP);
    assert_eq!(get(&strict, TIMESTAMP, &[]).await.status, 404);
}

/// A client asks for the next root before anything else: that there is none is as good, while upstream is away, as the timestamp
/// that is here. How old it is, is for the client to judge.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_through_its_update_check_while_upstream_is_away() {
    let desk = Desk::new();
    let site = desk.publish(&[&desk.build("one", &[("data/a", b"a")], &[])]);
    let mut upstream = Upstream::start().await;
    upstream.serves(&site);
    let edge = build(&lived(&upstream, 0));
    let root: Bytes = site["/repo/1.root.json"].clone();
    let check = async |now: UnixSeconds| {
        let first = Start::FromAnchor(TrustAnchor::RootFile(root.clone()));
        refresh_from(&Client(edge.clone()), first, now).await.map(|set| set.version(Role::Timestamp))
    };
    let fresh = check(NOW).await.unwrap();
    for gone in ["stops", "hangs"] {
        match gone {
            "stops" => upstream.go_away().await,
            _ => {
                upstream.come_back().await;
                let never = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
                upstream.faults(move |_, _| Some(Fault::Gate(never.clone())));
            }
        }
        let began = Instant::now();
        assert_eq!(check(NOW).await.unwrap(), fresh, "upstream {gone}");
        // Not what a question upstream may take.
        assert!(began.elapsed() < Duration::from_secs(8), "upstream {gone}: {:?}", began.elapsed());
    }
    // Years later the same bytes come, and the client knows what to think of them.
    let expired = check(UnixSeconds(NOW.0 + 20 * 365 * 24 * HOUR_S)).await.unwrap_err();
    assert!(expired.error.to_string().contains("expired"), "{}", expired.error);
    // What was never asked for is not made up.
    upstream.go_away().await;
    assert_eq!(get(&edge, "/repo/99.root.json", NO_CACHE).await.status, 502);
    let strict = build(&EdgeConfig { metadata_stale_max_s: 0, ..lived(&upstream, 0) });
    upstream.come_back().await;
    upstream.no_faults();
    assert_eq!(get(&strict, "/repo/2.root.json", NO_CACHE).await.status, 404);
    upstream.go_away().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(get(&strict, "/repo/2.root.json", NO_CACHE).await.status, 502);
}

/// A client of an edge, as devices are.
struct Client(Edge);

impl MetadataSource for Client {
    async fn fetch(&self, want: &Want) -> Result<Answer, AttemptError> {
        let got = get(&self.0, &format!("/repo/{}", want.name), NO_CACHE).await;
        match got.status {
            200 => Ok(Answer::Found(Bytes::copy_from_slice(got.bytes()))),
            404 => Ok(Answer::NotFound),
            status => Err(AttemptError::Unexpected(format!("{}: status {status}", want.name))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absence_is_remembered_for_as_long_as_a_timestamp_lives() {
    let upstream = Upstream::start().await;
    let edge = build(&lived(&upstream, 1000));
    for _ in 0..20 {
        let got = get(&edge, "/repo/2.root.json", &[]).await;
        assert_eq!((got.status, got.header("cache-control")), (404, "public, max-age=1000"));
    }
    assert_eq!(upstream.requests(), 1);
    let edge = build(&lived(&upstream, 0));
    assert_eq!(get(&edge, "/repo/3.root.json", &[]).await.status, 404);
    upstream.put("/repo/3.root.json", "three");
    whole(&edge, "/repo/3.root.json", b"three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_path_written_in_many_ways_is_one_document() {
    let upstream = Upstream::start().await;
    upstream.put(TIMESTAMP, "one");
    upstream.put("/repo/targets/a%20b", "target");
    let edge = build(&lived(&upstream, 1000));
    for path in [TIMESTAMP, "/repo/%74imestamp.json", "/rep%6f/timestamp.json?x=1", "/repo/timestamp.json?y"] {
        whole(&edge, path, b"one").await;
    }
    for path in ["/repo/targets/a%20b", "/repo/targets/%61%20b"] {
        whole(&edge, path, b"target").await;
    }
    assert_eq!(upstream.requests(), 2, "{:?}", upstream.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_with_a_hash_in_their_name_are_checked_before_they_are_kept() {
    for long in [true, false] {
        let hash = if long { hex(&sha512(b"right")) } else { hex(&sha256(b"right")) };
        let path = format!("/repo/targets/package/{hash}.0");
        let (liar, honest) = (Upstream::start().await, Upstream::start().await);
        liar.put(&path, "wrong");
        honest.put(&path, "right");
        let alone = build(&lived(&liar, 0));
        let got = get(&alone, &path, &[]).await;
        assert_eq!(got.status, 502);
        let detail = got.problem()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(&liar.name()) && detail.contains(&hash), "{detail}");
        let both = build(&config(&[&liar, &honest]));
        assert_eq!(whole(&both, &path, b"right").await.header("cache-control"), "public, max-age=31536000, immutable");
        // What was bad was not kept.
        liar.put(&path, "right");
        whole(&alone, &path, b"right").await;
        let asked = liar.requests();
        for _ in 0..3 {
            whole(&alone, &path, b"right").await;
        }
        assert_eq!(liar.requests(), asked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_are_kept_and_larger_ones_refused() {
    let upstream = Upstream::start().await;
    let large = vec![b' '; 32 << 20];
    upstream.put("/repo/1.targets.json", large.clone());
    upstream.put("/repo/2.targets.json", vec![b' '; (32 << 20) + 1]);
    let edge = build(&config(&[&upstream]));
    for _ in 0..3 {
        whole(&edge, "/repo/1.targets.json", &large).await;
    }
    assert_eq!(upstream.requests(), 1);
    assert_eq!(get(&edge, "/repo/2.targets.json", &[]).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn repository_configurations_name_this_edge_whatever_upstream_sends() {
    let upstream = Upstream::start().await;
    let edge = build(&lived(&upstream, 0));
    upstream
        .put("/repo/repo.config", r#"{"repo_url":"fuchsia-pkg://x","mirrors":[{"mirror_url":"http://origin/repo"}]}"#);
    let got = get(&edge, "/repo/repo.config", &[]).await;
    let config: serde_json::Value = serde_json::from_slice(got.bytes()).unwrap();
    assert_eq!(config["mirrors"][0]["mirror_url"], "http://edge.example/repo");
    assert_eq!((got.header("cache-control"), &config["repo_url"]), ("no-store", &"fuchsia-pkg://x".into()));
    for bad in ["[]", "7", "\"text\"", "{", "null", ""] {
        upstream.put("/repo/repo.config", bad.to_owned());
        let got = get(&edge, "/repo/repo.config", &[]).await;
        assert_eq!(got.status, 502, "{bad}");
        got.problem();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn codings_are_passed_on_as_they_came_and_made_once_where_they_did_not_come() {
    let plain = "{\"signed\":{}} ".repeat(100).into_bytes();
    let tag = hex(&sha256(&plain)[..8]);
    let (zstd, gzip) = (coding::zstd(&plain).unwrap(), coding::gzip(&plain).unwrap());
    for came in [Coding::Zstd, Coding::Gzip, Coding::Identity] {
        let upstream = Upstream::start().await;
        match came {
            Coding::Zstd => upstream.put_coded(TIMESTAMP, &plain, came, zstd.clone()),
            Coding::Gzip => upstream.put_coded(TIMESTAMP, &plain, came, gzip.clone()),
            Coding::Identity => upstream.put(TIMESTAMP, plain.clone()),
        }
        let edge = build(&lived(&upstream, 1000));
        for (accepted, body, suffix, encoding) in [
            ("gzip", &gzip[..], "-gzip", "gzip"),
            ("zstd, gzip;q=0.9", &zstd, "-zstd", "zstd"),
            ("br", &plain, "", ""),
            ("zstd;q=0, identity;q=0, *", &gzip, "-gzip", "gzip"),
        ] {
            let fields = [("accept-encoding", accepted), ("range", "bytes=0-3")];
            let got = get(&edge, TIMESTAMP, &fields).await;
            assert_eq!((got.status, got.header("content-encoding")), (200, encoding), "{accepted}");
            assert!(got.bytes() == body, "{accepted}, came {came:?}");
            let etag = format!("\"{tag}{suffix}\"");
            assert_eq!((got.header("etag"), got.header("vary")), (&*etag, "accept-encoding"));
            let head = send(&edge.handler(), request(Method::HEAD, TIMESTAMP, &fields)).await;
            assert_eq!((head.header("content-length"), head.header("etag")), (&*body.len().to_string(), &*etag));
            for (known, status) in [(format!("W/{etag}"), 304), (format!("\"{tag}-br\""), 200)] {
                let fields = [("accept-encoding", accepted), ("if-none-match", &known)];
                assert_eq!(get(&edge, TIMESTAMP, &fields).await.status, status, "{accepted} {known}");
            }
        }
        let refused = get(&edge, TIMESTAMP, &[("accept-encoding", "*;q=0")]).await;
        assert_eq!((refused.status, refused.header("vary")), (406, "accept-encoding"));
        assert_eq!(upstream.requests(), 1, "one version for all codings");
        // Revalidated with the tag of the coding it came in.
        assert_eq!((get(&edge, TIMESTAMP, NO_CACHE).await.bytes(), upstream.not_modified()), (&plain[..], 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_never_coded() {
    let upstream = Upstream::start().await;
    upstream.put("/repo/targets/package/0", "target");
    let edge = build(&config(&[&upstream]));
    let got = get(&edge, "/repo/targets/package/0", &[("accept-encoding", "zstd, gzip, identity;q=0")]).await;
    assert_eq!((got.bytes(), got.header("content-encoding"), got.header("vary")), (&b"target"[..], "", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_by_name_and_the_next_upstream_asked() {
    let (bomber, honest) = (Upstream::start().await, Upstream::start().await);
    let zeroes = vec![0; (32 << 20) + 1];
    for (coding, bomb) in [(Coding::Zstd, coding::zstd(&zeroes)), (Coding::Gzip, coding::gzip(&zeroes))] {
        bomber.put_coded(TIMESTAMP, b"", coding, bomb.unwrap());
        let got = get(&build(&config(&[&bomber])), TIMESTAMP, &[]).await;
        let detail = got.problem()["detail"].as_str().unwrap().to_owned();
        assert!(got.status == 502 && detail.contains(coding.name()), "{detail}");
        assert!(detail.contains(&bomber.name()) && detail.contains(&(32 << 20).to_string()), "{detail}");
        honest.put(TIMESTAMP, "one");
        whole(&build(&config(&[&bomber, &honest])), TIMESTAMP, b"one").await;
    }
}
