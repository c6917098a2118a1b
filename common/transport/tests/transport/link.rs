//! Clients behind links that are made in their own process, and clients that share sockets. Times are judged from below where the
//! link's rate says so, and generously from above: machines may be busy.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_transport::{Body, Client, ClientConfig, Handler, Link, Network, Peer, Request, SharedSockets, handler};

use crate::support::{Running, Way, fetch, respond};

const MEGABIT: Link = Link {
    down_bits_per_s: 1_000_000,
    up_bits_per_s: 500_000,
    delay_us: 10_000,
    jitter_us: 1_000,
    loss_ppm: 0,
    loss_run: 1,
    reorder_ppm: 0,
    queue_us: 300_000,
    rebind_us: 0,
};

fn content(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

fn sends(content: Bytes) -> Handler {
    handler(move |_request: Request| {
        let content = content.clone();
        async move { respond(Body::full(content)) }
    })
}

fn behind(way: Way, link: Link, seed: u64) -> Client {
    Client::new(ClientConfig { network: Network::Link(link, seed), ..way.client_config() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_megabit_is_a_megabit_over_every_protocol() {
    let bytes = 150_000;
    for way in crate::support::WAYS {
        let server = Running::way(way, sends(content(bytes)));
        let client = behind(way, MEGABIT, 1);
        let begun = Instant::now();
        let received = fetch(&client, &way.url(server.address, "/")).await.unwrap();
        let took = begun.elapsed();
        assert!(received == content(bytes), "{way:?}");
        // 1.2 s of the rate, the handshakes and losses besides: never faster, and not by much slower.
        let bits_per_s = bytes as f64 * 8.0 / took.as_secs_f64();
        assert!((50_000.0..=1_050_000.0).contains(&bits_per_s), "{way:?}: {bits_per_s} bit/s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn far_away_takes_its_round_trips() {
    let link = Link { delay_us: 150_000, down_bits_per_s: 100_000_000, ..MEGABIT };
    for (way, round_trips) in [(Way::Http3, 2), (Way::Http2, 3), (Way::PlainHttp1, 2)] {
        let server = Running::way(way, sends(content(100)));
        let begun = Instant::now();
        fetch(&behind(way, link, 1), &way.url(server.address, "/")).await.unwrap();
        assert!(begun.elapsed() >= round_trips * Duration::from_millis(299), "{way:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loss_reordering_and_another_address_cost_time_and_not_a_byte() {
    let server = Running::way(Way::Http3, sends(content(40_000)));
    let link = Link {
        down_bits_per_s: 20_000_000,
        up_bits_per_s: 20_000_000,
        delay_us: 2_000,
        loss_ppm: 20_000,
        loss_run: 2,
        reorder_ppm: 20_000,
        rebind_us: 300_000,
        ..MEGABIT
    };
    let client = behind(Way::Http3, link, 42);
    let url = Way::Http3.url(server.address, "/");
    for _ in 0..30 {
        assert!(fetch(&client, &url).await.unwrap() == content(40_000));
    }
    assert_eq!(client.counts().h3_connections, 1, "the connection goes on from every new address");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_share_a_few_sockets() {
    let ports: Arc<Mutex<HashSet<u16>>> = Arc::default();
    let server = Running::way(Way::Http3, {
        let ports = ports.clone();
        handler(move |request: Request| {
            ports.lock().unwrap().insert(request.extensions().get::<Peer>().unwrap().0.port());
            async move { respond(Body::full("here")) }
        })
    });
    let network = Network::Shared(SharedSockets::new(3));
    let url = Way::Http3.url(server.address, "/");
    let clients = (0..12).map(|_| {
        let config = ClientConfig { network: network.clone(), ..Way::Http3.client_config() };
        Client::new(config).unwrap()
    });
    let clients: Vec<_> = clients.collect();
    for client in &clients {
        assert_eq!(fetch(client, &url).await.unwrap(), "here");
        assert_eq!(fetch(client, &url).await.unwrap(), "here");
    }
    assert_eq!(ports.lock().unwrap().len(), 3, "{ports:?}");
    let counts = clients.iter().map(|client| client.counts());
    assert!(counts.clone().all(|counts| counts.h3_connections == 1 && counts.reused == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_sessions_are_told_from_full_handshakes() {
    for way in [Way::Http3, Way::Http2] {
        let server = Running::way(way, sends(content(10)));
        let config = ClientConfig { pool_idle_timeout: Duration::from_millis(20), ..way.client_config() };
        let client = Client::new(config).unwrap();
        let url = way.url(server.address, "/");
        let begun = Instant::now();
        while client.counts().tls_connections < 3 {
            fetch(&client, &url).await.unwrap();
            assert!(begun.elapsed() < Duration::from_secs(60), "no new connections: {:?}", client.counts());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(client.counts().full_handshakes, 1, "{way:?}: {:?}", client.counts());
    }
}
