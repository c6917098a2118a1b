//! Certificates that are replaced, and rules that change, while a server runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use colibri_transport::{Body, Client, ClientConfig, ServerConfig, Trust, handler};

use crate::support::{Running, Way, fetch, identity, pattern, respond, says};

const RELOADS: u64 = 1000;

/// Handshakes and requests until told to stop; how many there were.
async fn work(way: Way, url: String, stop: Arc<AtomicBool>, keep_connection: bool) -> u64 {
    let mut client = way.client();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        if !keep_connection {
            client = way.client();
        }
        let response = client.send(crate::support::get(&url)).await.expect("no handshake and no request is lost");
        assert_eq!(response.extensions().get(), Some(&way.protocol()), "no protocol falls away");
        let body = response.into_body().read_all(u64::MAX).await.expect("no body is cut");
        assert_eq!(body.len(), 100_000);
        done += 1;
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_lose_nothing() {
    let identities = [identity(), identity()];
    let config = ServerConfig { tls: Some(identities[0].clone()), ..Way::Http3.server_config() };
    let body = pattern(100_000);
    let answer = handler(move |_| {
        let body = body.clone();
        async move { respond(Body::full(body)) }
    });
    let server = Running::start(config, answer);
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = [(Way::Http3, false), (Way::Http2, false), (Way::Http3, true), (Way::Http2, true)]
        .into_iter()
        .map(|(way, keep)| tokio::spawn(work(way, way.url(server.address, "/"), stop.clone(), keep)))
        .collect();
    let tls = server.tls.clone().unwrap();
    let fresh = AtomicU64::new(0);
    for number in 0..RELOADS {
        let next = &identities[(number % 2) as usize];
        tls.replace(next.clone()).unwrap();
        if number % 50 == 0 {
            // A handshake now sees the new certificate.
            for way in [Way::Http3, Way::Http2] {
                let trust = Trust::Pin(vec![next.certificate_pin()]);
                let client = Client::new(ClientConfig { trust, ..way.client_config() }).unwrap();
                fetch(&client, &way.url(server.address, "/")).await.expect("the new certificate is shown");
                fresh.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
    let failed = ["quic", "tls"].map(|transport| server.counters.get("handshake_failures", transport));
    assert_eq!(failed, [0, 0]);
    assert_eq!(fresh.into_inner(), 2 * RELOADS / 50);
}

#[tokio::test]
async fn a_replaced_certificate_is_told_by_its_pin() {
    let (first, second) = (identity(), identity());
    let config = ServerConfig { tls: Some(first.clone()), ..Way::Http3.server_config() };
    let server = Running::start(config, says("x"));
    let tls = server.tls.clone().unwrap();
    assert_eq!(tls.certificate_pin(), first.certificate_pin());
    tls.replace(second.clone()).unwrap();
    assert_eq!(tls.certificate_pin(), second.certificate_pin());
    // The handle keeps no port open.
    let address = server.address;
    server.stopped().await;
    let again = ServerConfig { address, ..Way::Http3.server_config() };
    drop(Running::start(again, says("y")));
    drop(tls);
}
