//! Clients whose address changes, servers that come back, and servers that stand in for each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use colibri_transport::{Body, QuicKeys, ServerConfig, handler};
use quinn::crypto::rustls::QuicClientConfig;

use crate::relay::Relay;
use crate::support::{Running, Way, pattern, respond, says};

const GET: [u8; 10] = [1, 8, 0, 0, 0xc1, 0xd1, 0xd7, 0x50, 1, b'x'];
const LENGTH: usize = 32 << 20;

fn client() -> quinn::Endpoint {
    let mut tls = crate::trust::accepts_anything();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = quinn::TransportConfig::default();
    transport.max_idle_timeout(Some(Duration::from_secs(10).try_into().unwrap()));
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr) -> (quinn::Connection, quinn::SendStream) {
    let connection = endpoint.connect(address, "localhost").unwrap().await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    (connection, control)
}

async fn ask(connection: &quinn::Connection) -> quinn::RecvStream {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send.write_all(&GET).await.unwrap();
    send.finish().unwrap();
    receive
}

fn large(body: &Bytes) -> colibri_transport::Handler {
    let body = body.clone();
    handler(move |_| {
        let body = body.clone();
        async move { respond(Body::full(body)) }
    })
}

/// Reads to the end; `change` happens once, after some of it.
async fn download(mut receive: quinn::RecvStream, change: impl AsyncFnOnce()) -> Vec<u8> {
    let (mut got, mut change) = (Vec::new(), Some(change));
    while let Some(chunk) = receive.read_chunk(1 << 20, true).await.unwrap() {
        got.extend_from_slice(&chunk.bytes);
        if got.len() > LENGTH / 8
            && let Some(change) = change.take()
        {
            change().await;
        }
    }
    assert!(change.is_none(), "the download was over before anything changed");
    data(&got)
}

/// What is in the DATA frames.
fn data(mut frames: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let [kind, first, ..] = *frames {
        let length_bytes = 1 << (first >> 6);
        let (number, rest) = frames[1..].split_at(length_bytes);
        let length =
            number.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) & ((1 << (8 * length_bytes - 2)) - 1);
        let (payload, rest) = rest.split_at(length);
        if kind == 0 {
            data.extend_from_slice(payload);
        }
        frames = rest;
    }
    data
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebind_of_the_client_in_the_middle_of_a_download() {
    let body = pattern(LENGTH);
    let server = Running::start(Way::Http3.server_config(), large(&body));
    let endpoint = client();
    let (connection, _control) = connect(&endpoint, server.address).await;
    let before = endpoint.local_addr().unwrap();
    let got = download(ask(&connection).await, async || {
        endpoint.rebind(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
    })
    .await;
    assert_ne!(endpoint.local_addr().unwrap(), before);
    assert!(got == body, "whole, in spite of the other port");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebind_of_a_nat_in_the_middle_of_a_download() {
    let body = pattern(LENGTH);
    let server = Running::start(Way::Http3.server_config(), large(&body));
    let relay = Relay::start(server.address).await;
    let endpoint = client();
    let (connection, _control) = connect(&endpoint, relay.address).await;
    let got = download(ask(&connection).await, async || relay.rebind().await).await;
    assert!(got == body, "whole, though the client never knew");
}

/// Sixteen clients of a server with four sockets, each from a second address in the middle; how many datagrams user space had to
/// bring to another socket.
async fn passed_on_when_clients_move(steered_by_system: bool) -> u64 {
    let body = pattern(300_000);
    let config = ServerConfig { sockets: 4, steered_by_system, ..Way::Http3.server_config() };
    let server = Running::start(config, large(&body));
    let mut clients = Vec::new();
    for _ in 0..16 {
        let endpoint = client();
        let connected = connect(&endpoint, server.address).await;
        let got = ask(&connected.0).await.read_to_end(LENGTH).await.unwrap();
        assert!(data(&got) == body);
        clients.push((endpoint, connected));
    }
    assert_eq!(server.counters.get("datagrams", "passed-on"), 0, "the system keeps addresses apart");
    for (endpoint, (connection, _)) in &clients {
        endpoint.rebind(std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let got = ask(connection).await.read_to_end(LENGTH).await.unwrap();
        assert!(data(&got) == body, "from the new port, on the old connection");
    }
    let passed_on = server.counters.get("datagrams", "passed-on");
    assert_eq!(server.counters.get("connections", "quic"), 16);
    drop(clients);
    server.stopped().await;
    passed_on
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebind_reaches_the_same_connection_at_another_socket() {
    // Sixteen new ports do not all lead to the sockets of the old ones.
    assert!(passed_on_when_clients_move(false).await > 0);
    assert_eq!(passed_on_when_clients_move(true).await, 0, "the system knows where each belongs");
}

/// A server with keys from this secret, of this name.
fn keyed(secret: &[u8; 32], name: &str) -> ServerConfig {
    ServerConfig { keys: QuicKeys::new(secret, name), ..Way::Http3.server_config() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_resets_the_connections_of_its_former_self() {
    for (secret, name, known) in [([7; 32], "a", true), ([7; 32], "b", false), ([8; 32], "a", false)] {
        let server = Running::start(keyed(&[7; 32], "a"), says("here"));
        let relay = Relay::start(server.address).await;
        let endpoint = client();
        let (connection, _control) = connect(&endpoint, relay.address).await;
        assert!(ask(&connection).await.read_to_end(100).await.unwrap().ends_with(b"here"));
        // It goes without a word that the client could hear, and another is there in its place.
        relay.deaf.store(true, Ordering::SeqCst);
        drop(server);
        let next = Running::start(keyed(&secret, name), says("again"));
        relay.turn_to(next.address);
        tokio::time::sleep(Duration::from_millis(100)).await;
        relay.deaf.store(false, Ordering::SeqCst);
        let mut asked = ask(&connection).await;
        let answer = tokio::time::timeout(Duration::from_secs(2), asked.read_to_end(100)).await;
        match connection.close_reason() {
            Some(quinn::ConnectionError::Reset) => assert!(known, "{name}: a server ended what is not its own"),
            other => assert!(!known, "{name}: {other:?} {answer:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_tokens_of_one_server_are_good_at_the_other() {
    for (secret, known) in [([7; 32], true), ([8; 32], false)] {
        let careful = |secret: &[u8; 32], name| {
            let mut config = keyed(secret, name);
            config.limits.retry_from_connections = 0;
            config
        };
        let one = Running::start(careful(&[7; 32], "one"), says("one"));
        let other = Running::start(careful(&secret, "other"), says("other"));
        let relay = Relay::start(one.address).await;
        // The first asks for a retry, the second gets it.
        *relay.then.lock().unwrap() = Some(other.address);
        let endpoint = client();
        let connecting = endpoint.connect(relay.address, "localhost").unwrap();
        let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
        assert_eq!(one.counters.get("refused", "retry"), 1);
        if known {
            let retries = other.counters.get("refused", "retry");
            assert!(matches!(connected, Ok(Ok(_))) && retries == 0, "{connected:?} {retries}");
        } else {
            assert!(other.counters.get("refused", "retry") > 0, "a token of strangers is no token");
        }
    }
}

#[tokio::test]
async fn retry_is_asked_for_from_the_chosen_number_of_connections_on() {
    let mut config = Way::Http3.server_config();
    config.limits.retry_from_connections = 1;
    let server = Running::start(config, says("x"));
    let endpoint = client();
    let first = connect(&endpoint, server.address).await;
    assert_eq!(server.counters.get("refused", "retry"), 0);
    let second = connect(&endpoint, server.address).await;
    assert_eq!(server.counters.get("refused", "retry"), 1, "and it came in all the same");
    drop((first, second));
}
