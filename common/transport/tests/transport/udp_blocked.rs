//! UDP that leads nowhere: requests go over TCP, and the way is tried again later.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use colibri_transport::{Client, ClientConfig, Protocol, Routes, ServerConfig};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Running, Way, fetch, get, says, until};

fn impatient(dead_udp_memory: Duration) -> Client {
    let config = ClientConfig {
        connect_timeout: Duration::from_secs(2),
        http3_head_start: Duration::from_millis(5),
        dead_udp_memory,
        ..ClientConfig::default()
    };
    Client::new(config).unwrap()
}

/// A server whose UDP port takes everything and never answers.
fn silent_over_udp() -> (Running, UdpSocket) {
    loop {
        let server = Running::start(ServerConfig { quic: false, ..Way::Http2.server_config() }, says("over tcp"));
        // The UDP twin of the port may belong to another test.
        if let Ok(silent) = UdpSocket::bind(server.address) {
            return (server, silent);
        }
    }
}

/// A host that is in one network after the other.
#[derive(Default)]
struct Roaming(AtomicU8);

impl Roaming {
    /// On into the next network.
    fn moves(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Routes for Roaming {
    fn source(&self, _: SocketAddr) -> Option<IpAddr> {
        Some(Ipv4Addr::new(192, 0, 2, self.0.load(Ordering::Relaxed)).into())
    }
}

async fn protocol(client: &Client, url: &str) -> Protocol {
    *client.send(get(url)).await.unwrap().extensions().get::<Protocol>().unwrap()
}

/// Asks until HTTP/3 answers.
async fn until_http3(client: &Client, url: &str) {
    while protocol(client, url).await != Protocol::Http3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn falls_back_to_http2_and_remembers() {
    let (server, _silent) = silent_over_udp();
    let client = impatient(Duration::from_secs(300));
    let url = Way::Http2.url(server.address, "/");
    for _ in 0..5 {
        assert_eq!(fetch(&client, &url).await.unwrap(), "over tcp");
    }
    until(|| client.counts().dead_udp_paths == 1).await;
    for _ in 0..5 {
        assert_eq!(fetch(&client, &url).await.unwrap(), "over tcp");
    }
    let counts = client.counts();
    assert_eq!((counts.h3_requests, counts.h2_requests, counts.h2_connections), (0, 10, 1));
    assert_eq!((counts.h3_connections, counts.dead_udp_paths), (0, 1), "the dead path was not tried again");
}

/// Carries TCP always and UDP when `open`, from its own port to `target`.
async fn relay(target: SocketAddr, open: Arc<AtomicBool>) -> SocketAddr {
    let (tcp, udp) = loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(udp) = tokio::net::UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (tcp, udp);
        }
    };
    let address = tcp.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = tcp.accept().await.unwrap();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    tokio::spawn(async move {
        let behind = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (mut there, mut back) = (vec![0; 65536], vec![0; 65536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = udp.recv_from(&mut there) => {
                    client = Some(from);
                    if open.load(Ordering::Relaxed) {
                        _ = behind.send_to(&there[..length], target).await;
                    }
                }
                Ok((length, _)) = behind.recv_from(&mut back) => {
                    if let Some(client) = client {
                        _ = udp.send_to(&back[..length], client).await;
                    }
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_dead_path_is_tried_again_once_its_memory_fades() {
    let server = Running::way(Way::Http3, says("both ways"));
    let open = Arc::new(AtomicBool::new(false));
    let address = relay(server.address, open.clone()).await;
    let client = impatient(Duration::from_millis(1));
    let url = Way::Http3.url(address, "/");
    assert_eq!(fetch(&client, &url).await.unwrap(), "both ways");
    until(|| client.counts().dead_udp_paths >= 1).await;
    assert_eq!(client.counts().h3_requests, 0);
    open.store(true, Ordering::Relaxed);
    until_http3(&client, &url).await;
    let before = client.counts();
    assert_eq!(fetch(&client, &url).await.unwrap(), "both ways");
    assert_eq!(client.counts().h3_requests, before.h3_requests + 1, "HTTP/3 is preferred from now on");
}

/// Where UDP is dropped, one wait is paid for all servers, and it is at most a second.
#[tokio::test]
async fn udp_that_is_dropped_costs_one_wait_on_a_network_however_many_servers() {
    assert!(ClientConfig::default().http3_head_start <= Duration::from_secs(1));
    let config = ClientConfig {
        connect_timeout: Duration::from_secs(10),
        http3_head_start: Duration::from_secs(1),
        ..ClientConfig::default()
    };
    let roaming = Arc::new(Roaming::default());
    let client = Client::with_routes(config, roaming.clone()).unwrap();
    let servers: Vec<_> = (0..6).map(|_| silent_over_udp()).collect();
    let ask = async |(server, _): &(Running, UdpSocket)| {
        assert_eq!(fetch(&client, &Way::Http2.url(server.address, "/")).await.unwrap(), "over tcp");
    };
    ask(&servers[0]).await;
    assert_eq!(client.counts().head_starts_lost, 1);
    let began = Instant::now();
    for server in &servers[1..] {
        ask(server).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "five more waits: {:?}", began.elapsed());
    assert_eq!(client.counts().head_starts_lost, 1, "it was paid for already");
    // On another network nothing is known.
    roaming.moves();
    let more = silent_over_udp();
    ask(&more).await;
    assert_eq!(client.counts().head_starts_lost, 2);
}

#[tokio::test]
async fn on_another_network_udp_is_tried_at_once() {
    let server = Running::way(Way::Http3, says("both ways"));
    let open = Arc::new(AtomicBool::new(false));
    let address = relay(server.address, open.clone()).await;
    let roaming = Arc::new(Roaming::default());
    let config = ClientConfig {
        connect_timeout: Duration::from_secs(2),
        http3_head_start: Duration::from_millis(5),
        ..ClientConfig::default()
    };
    let client = Client::with_routes(config, roaming.clone()).unwrap();
    let url = Way::Http3.url(address, "/");
    assert_eq!(protocol(&client, &url).await, Protocol::Http2);
    until(|| client.counts().dead_udp_paths == 1).await;
    open.store(true, Ordering::Relaxed);
    assert_eq!(protocol(&client, &url).await, Protocol::Http2, "its memory lasts for minutes");
    roaming.moves();
    until_http3(&client, &url).await;
    // And on to one where it is dropped: what hangs on the old network takes no more requests.
    open.store(false, Ordering::Relaxed);
    roaming.moves();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let answered = tokio::time::timeout(Duration::from_secs(20), protocol(&client, &url)).await;
    assert_eq!(answered.expect("it does not wait for the old connection"), Protocol::Http2);
}

#[tokio::test]
async fn waiters_share_the_failure_of_one_attempt() {
    // Accepts connections and never says a word: each attempt costs the whole connect time-out.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let config = ClientConfig { http3: false, connect_timeout: Duration::from_millis(300), ..ClientConfig::default() };
    let client = Client::new(config).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        tasks.spawn(async move { client.send(get(&format!("https://{address}/"))).await.map(drop) });
    }
    while let Some(result) = tasks.join_next().await {
        assert!(result.unwrap().is_err());
    }
    let mut attempts = 0;
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), silent.accept()).await {
        attempts += 1;
    }
    assert!(attempts < 20, "{attempts} connections for 200 requests that arrived together");
}
