//! An edge as a process: its certificate is replaced, it is told to end, and its clients move, while it serves.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use colibri_edge::EdgeConfig;
use colibri_edge::process::{EdgeProcess, EdgeServerConfig};
use colibri_service::ListenerConfig;
use colibri_transport::{Body, Client, ClientConfig, Protocol, ServerTls, Trust};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::site;
use crate::upstream::{Fault, Upstream, content, id, loopback};

/// A running process, and how to end it.
struct Running {
    address: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

fn start(upstream: &Upstream, dir: &Path, listener: ListenerConfig) -> Running {
    let config = EdgeServerConfig {
        listen: loopback(0),
        listen_admin: Some(loopback(0)),
        tls_dir: dir.to_owned(),
        listener,
        edge: site::config(&[upstream]),
        ..EdgeServerConfig::default()
    };
    let process = EdgeProcess::start(&config).unwrap();
    let (address, admin, stop) = (process.address(), process.admin_address().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(process.serve(stop.clone()));
    Running { address, admin, stop, serving }
}

fn client(http3: bool, trust: Trust) -> Client {
    let http3_head_start = Duration::from_secs(5);
    Client::new(ClientConfig { http3, http3_head_start, trust, ..ClientConfig::default() }).unwrap()
}

async fn get(client: &Client, url: &str) -> Option<Vec<u8>> {
    let request = http::Request::get(url).body(Body::empty()).unwrap();
    let response = client.send(request).await.ok().filter(|response| response.status() == 200)?;
    Some(response.into_body().read_all(u64::MAX).await.ok()?.to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_of_the_certificate_under_load() {
    let blob = content(300_000, 7);
    let upstream = Upstream::with(&[&blob]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&upstream, dir.path(), ListenerConfig { tls_reload_s: 1, ..ListenerConfig::default() });
    let url = format!("https://{}/blobs/{}", edge.address, id(&blob));
    let done = Arc::new(AtomicBool::new(false));
    let workers = [true, false].map(|http3| {
        let (url, done, blob) = (url.clone(), done.clone(), blob.clone());
        tokio::spawn(async move {
            let mut requests = 0;
            while !done.load(Ordering::SeqCst) {
                let got = get(&client(http3, Trust::None), &url).await;
                assert!(got.expect("no handshake and no request is lost") == blob);
                requests += 1;
            }
            requests
        })
    });
    let fresh = tempfile::tempdir().unwrap();
    let pin = ServerTls::load_or_create(fresh.path(), &["localhost".to_owned()]).unwrap().certificate_pin();
    for (from, to) in ServerTls::files(fresh.path()).iter().zip(ServerTls::files(dir.path())) {
        std::fs::copy(from, to).unwrap();
    }
    for http3 in [true, false] {
        while get(&client(http3, Trust::Pin(vec![pin])), &url).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    done.store(true, Ordering::SeqCst);
    for worker in workers {
        assert!(worker.await.unwrap() > 0);
    }
    let metrics = get(&client(false, Trust::None), &format!("http://{}/metrics", edge.admin)).await.unwrap();
    let metrics = String::from_utf8(metrics).unwrap();
    for name in ["colibri_tls_reloads_total{outcome=\"new\"} ", "colibri_listener_shed_total{class=\"demand\"} 0"] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is missing in\n{metrics}");
    }
    let h3 = metrics.lines().find_map(|line| line.strip_prefix("colibri_listener_requests_total{protocol=\"h3\"} "));
    assert!(h3.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{h3:?}");
    edge.stop.cancel();
    edge.serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_and_the_state_of_ports_are_in_the_metrics() {
    let blob = content(5 << 20, 10);
    let upstream = Upstream::with(&[&blob]).await;
    let dir = tempfile::tempdir().unwrap();
    let disk = site::disk(&dir.path().join("tier"), 1 << 30, colibri_edge::Admission::Always);
    let config = EdgeServerConfig {
        listen: loopback(0),
        listen_admin: Some(loopback(0)),
        tls_dir: dir.path().join("tls"),
        edge: EdgeConfig { disk, memory_bytes: 64 << 20, ..site::config(&[&upstream]) },
        ..EdgeServerConfig::default()
    };
    let process = EdgeProcess::start(&config).unwrap();
    let (address, admin, stop) = (process.address(), process.admin_address().unwrap(), CancellationToken::new());
    let serving = tokio::spawn(process.serve(stop.clone()));
    let metric = async |name: &str| -> i64 {
        let text = get(&client(false, Trust::None), &format!("http://{admin}/metrics")).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).parse().unwrap()
    };
    for (name, expected) in [
        ("colibri_edge_memory_budget_bytes", 44 << 20),
        ("colibri_edge_filling_budget_bytes", 12 << 20),
        ("colibri_edge_pinned_budget_bytes", 4 << 20),
        ("colibri_edge_disk_budget_bytes", 1 << 30),
        ("colibri_edge_disk_budget_files", 1_000_000),
        ("colibri_edge_pinned_bytes", 0),
        ("colibri_edge_filling_bytes", 0),
        ("colibri_listener_datagrams_total{fate=\"dropped-by-system\"}", 0),
    ] {
        assert_eq!(metric(name).await, expected, "{name}");
    }
    for name in ["sent", "received"] {
        assert!(metric(&format!("colibri_listener_udp_segments{{direction=\"{name}\"}}")).await >= 1);
    }
    let tls = ServerTls::load(&dir.path().join("tls")).unwrap();
    assert_eq!(metric("colibri_tls_certificate_expiry_seconds").await, tls.expires_at().unwrap().0 as i64);
    // A reader in the middle of a unit that is coming in.
    let gate = Arc::new(Semaphore::new(0));
    let gated = gate.clone();
    upstream.faults(move |path, range| {
        let is_first_unit = !path.contains("leaves") && range.is_some_and(|range| range.starts_with("bytes=0-"));
        is_first_unit.then(|| Fault::Step(64 << 10, gated.clone()))
    });
    let url = format!("https://{address}/blobs/{}", id(&blob));
    let reader = tokio::spawn(async move { get(&client(true, Trust::None), &url).await });
    while metric("colibri_edge_filling_bytes").await == 0 || metric("colibri_edge_pinned_bytes").await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gate.add_permits(100_000);
    assert!(reader.await.unwrap().unwrap() == blob);
    while metric("colibri_edge_filling_bytes").await > 0 || metric("colibri_edge_pinned_bytes").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_stays_ready_and_takes_new_clients_for_a_while() {
    let blob = content(300_000, 8);
    let upstream = Upstream::with(&[&blob]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&upstream, dir.path(), ListenerConfig { drain_pause_s: 4, ..ListenerConfig::default() });
    let (url, ready) =
        (format!("https://{}/blobs/{}", edge.address, id(&blob)), format!("http://{}/readyz", edge.admin));
    let begun = std::time::Instant::now();
    edge.stop.cancel();
    for http3 in [true, false] {
        assert!(get(&client(http3, Trust::None), &url).await.expect("a new client in the pause") == blob);
    }
    assert!(get(&client(false, Trust::None), &ready).await.is_some(), "ready while it drains");
    assert!(begun.elapsed() < Duration::from_secs(4), "this machine is too slow for the test's pause");
    edge.serving.await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(4));
    assert!(get(&client(false, Trust::None), &url).await.is_none());
}

/// Passes the datagrams of one client on to `edge`, from one port, then from another, as a NAT does that has forgotten.
struct Nat {
    address: SocketAddr,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    front: Arc<UdpSocket>,
    client: Arc<Mutex<Option<SocketAddr>>>,
}

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap())
}

impl Nat {
    async fn before(edge: SocketAddr) -> Self {
        let front = socket().await;
        let outside = Arc::new(Mutex::new(socket().await));
        let nat = Self { address: front.local_addr().unwrap(), outside, front, client: Arc::default() };
        nat.listen();
        let (front, outside, client) = (nat.front.clone(), nat.outside.clone(), nat.client.clone());
        tokio::spawn(async move {
            let mut datagram = vec![0; 65536];
            loop {
                let Ok((length, from)) = front.recv_from(&mut datagram).await else { continue };
                *client.lock().unwrap() = Some(from);
                let outside = outside.lock().unwrap().clone();
                _ = outside.send_to(&datagram[..length], edge).await;
            }
        });
        nat
    }

    /// What comes to the port as it is now goes to the client.
    fn listen(&self) {
        let (front, outside, client) = (self.front.clone(), self.outside.lock().unwrap().clone(), self.client.clone());
        tokio::spawn(async move {
            let mut datagram = vec![0; 65536];
            loop {
                let Ok(length) = outside.recv(&mut datagram).await else { continue };
                let to = *client.lock().unwrap();
                if let Some(to) = to {
                    _ = front.send_to(&datagram[..length], to).await;
                }
            }
        });
    }

    async fn forgets(&self) {
        let other = socket().await;
        *self.outside.lock().unwrap() = other;
        self.listen();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebind_in_the_middle_of_a_blob_goes_unnoticed() {
    let blob = content(5 << 20, 9);
    let upstream = Upstream::with(&[&blob]).await;
    let dir = tempfile::tempdir().unwrap();
    let edge = start(&upstream, dir.path(), ListenerConfig::default());
    let nat = Nat::before(edge.address).await;
    let url = format!("https://{}/blobs/{}", nat.address, id(&blob));
    let request = http::Request::get(url).body(Body::empty()).unwrap();
    let response = client(true, Trust::None).send(request).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&Protocol::Http3), "nothing else can move");
    let (mut body, mut got, mut moved) = (response.into_body(), Vec::new(), 0);
    while let Some(piece) = body.next().await {
        got.extend_from_slice(&piece.unwrap());
        if got.len() > (moved + 1) << 20 {
            nat.forgets().await;
            moved += 1;
        }
    }
    assert!(got == blob, "every byte, in order");
    assert!(moved >= 3, "the port changed in the middle: {moved} times");
    edge.stop.cancel();
    edge.serving.await.unwrap();
}
