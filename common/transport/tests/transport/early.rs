//! Requests in early data: what may run runs at once, what may not waits for the handshake, and nothing runs twice.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use colibri_transport::{Body, EarlyData, EarlyRule, QuicKeys, Request, ServerConfig, handler};
use quinn::crypto::rustls::QuicClientConfig;

use crate::relay::Relay;
use crate::support::{Running, Way, respond, until};

/// HEADERS with GET or POST, https, `:path` of two bytes, `:authority x`.
fn ask(get: bool, path: &[u8; 2]) -> Vec<u8> {
    [&[1, 11, 0, 0, if get { 0xd1 } else { 0xd4 }, 0xd7, 0x51, 2][..], path, &[0x50, 1, b'x']].concat()
}

/// A client that keeps its sessions.
fn client() -> (quinn::Endpoint, quinn::ClientConfig) {
    let mut tls = crate::trust::accepts_anything();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    tls.enable_early_data = true;
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    (quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap(), config)
}

async fn get(connection: &quinn::Connection, request: &[u8]) -> String {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(request).await.unwrap();
    send.finish().unwrap();
    String::from_utf8_lossy(&receive.read_to_end(1000).await.unwrap()).into_owned()
}

/// Visits until the server has given a session, so that the next connection resumes.
async fn visit(endpoint: &quinn::Endpoint, config: &quinn::ClientConfig, server: SocketAddr) {
    let connection = endpoint.connect_with(config.clone(), server, "localhost").unwrap().await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    assert!(get(&connection, &ask(true, b"/a")).await.contains("in time"), "the first visit is not early");
    // Tickets come with or before the answer's acknowledgement.
    tokio::time::sleep(Duration::from_millis(100)).await;
    connection.close(0u32.into(), b"");
}

/// Says how each request came; the paths of all.
fn server(config: ServerConfig) -> (Running, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let paths = seen.clone();
    let running = Running::start(
        config,
        handler(move |request: Request| {
            let early = request.extensions().get::<EarlyData>().is_some();
            paths.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            async move { respond(Body::full(if early { "early" } else { "in time" })) }
        }),
    );
    (running, seen)
}

fn config() -> ServerConfig {
    ServerConfig { early: Some(EarlyRule::new(|path| path != "/n")), ..Way::Http3.server_config() }
}

#[tokio::test]
async fn early_data_runs_what_may_and_delays_the_rest() {
    let (server, seen) = server(config());
    let (endpoint, config) = client();
    visit(&endpoint, &config, server.address).await;
    // A path on which the server is not heard: the handshake does not come to its end.
    let relay = Relay::start(server.address).await;
    relay.deaf.store(true, Ordering::SeqCst);
    let connecting = endpoint.connect_with(config, relay.address, "localhost").unwrap();
    let (connection, accepted) = connecting.into_0rtt().expect("there is a session to resume");
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    let [first, second, third] = [ask(true, b"/a"), ask(false, b"/a"), ask(true, b"/n")].map(|request| {
        let connection = connection.clone();
        tokio::spawn(async move { get(&connection, &request).await })
    });
    until(|| seen.lock().unwrap().len() == 2 && server.counters.get("early_requests", "delayed") == 2).await;
    assert_eq!(*seen.lock().unwrap(), ["GET /a", "GET /a"], "the second one came early; the others wait");
    relay.deaf.store(false, Ordering::SeqCst);
    assert!(accepted.await, "early data was taken");
    assert!(first.await.unwrap().ends_with("early"));
    for waited in [second, third] {
        assert!(waited.await.unwrap().ends_with("in time"), "after the handshake it is as any other");
    }
    assert_eq!(server.counters.get("early_requests", "answered"), 1);
}

#[tokio::test]
async fn what_is_overheard_and_repeated_runs_no_second_time() {
    let (server, seen) = server(config());
    let (endpoint, config) = client();
    visit(&endpoint, &config, server.address).await;
    let relay = Relay::start(server.address).await;
    let connecting = endpoint.connect_with(config, relay.address, "localhost").unwrap();
    let (connection, accepted) = connecting.into_0rtt().expect("there is a session to resume");
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    assert!(get(&connection, &ask(true, b"/a")).await.ends_with("early"));
    assert!(accepted.await);
    assert_eq!(seen.lock().unwrap().len(), 2);
    let taken = server.counters.get("connections", "quic");
    let overheard = relay.heard.lock().unwrap().clone();
    // While the connection lives, its repetition is but a duplicate.
    connection.close(0u32.into(), b"");
    let attacker = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    while server.counters.get("connections", "quic") == taken {
        for datagram in &overheard {
            attacker.send_to(datagram, server.address).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The server answers the attacker's handshake, and takes no early data with it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(seen.lock().unwrap().len(), 2, "a session serves once");
}

#[tokio::test]
async fn without_a_rule_with_shared_tickets_and_with_client_certificates_there_is_no_early_data() {
    let dir = tempfile::tempdir().unwrap();
    let clients = dir.path().join("clients.pem");
    std::fs::write(&clients, crate::support::identity().certificate_pem()).unwrap();
    let asking = crate::support::identity().with_client_authorities(&clients).unwrap();
    let shared = QuicKeys::new(&[7; 32], "a").unwrap().with_tickets();
    for (what, config) in [
        ("no rule", ServerConfig { early: None, ..config() }),
        ("shared tickets", ServerConfig { keys: Some(shared), ..config() }),
        ("client certificates", ServerConfig { tls: Some(asking), ..config() }),
    ] {
        let (server, _) = server(config);
        let (endpoint, config) = client();
        visit(&endpoint, &config, server.address).await;
        let connecting = endpoint.connect_with(config, server.address, "localhost").unwrap();
        assert!(connecting.into_0rtt().is_err(), "{what}: the server's tickets allow none");
    }
}

#[tokio::test]
async fn shared_tickets_resume_at_the_other_server() {
    let resumed = AtomicUsize::new(0);
    for (secret, expected) in [([7; 32], true), ([8; 32], false)] {
        let keys = |secret: &[u8], name| Some(QuicKeys::new(secret, name).unwrap().with_tickets());
        let (one, _) = server(ServerConfig { keys: keys(&[7; 32], "one"), ..config() });
        let (other, _) = server(ServerConfig { keys: keys(&secret, "other"), ..config() });
        let mut tls = crate::trust::accepts_anything();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Arc::new(tls);
        for (server, second) in [(&one, false), (&other, true)] {
            let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(tls.clone());
            let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            let is_resumed = kind == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(is_resumed, second && expected, "{kind:?}");
            resumed.fetch_add(usize::from(is_resumed), Ordering::SeqCst);
            // Tickets are read with whatever comes.
            let mut settings = [0; 9];
            _ = tokio::io::AsyncWriteExt::write_all(
                &mut stream,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            )
            .await;
            _ = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut settings).await;
        }
    }
    assert_eq!(resumed.into_inner(), 1);
}
