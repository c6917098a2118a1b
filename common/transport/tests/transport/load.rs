//! More than a server should take: from one client, from all, and from clients that mean harm.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use colibri_transport::{Body, Client, ClientConfig, Handler, Priority, Request, ServerConfig, ShareLimits, handler};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::hostile::http3_by_hand;
use crate::support::{Running, WAYS, Way, fetch, get, pattern, respond, says, until};

fn with(way: Way, client: ShareLimits, total: ShareLimits) -> ServerConfig {
    let mut config = way.server_config();
    (config.limits.client, config.limits.total) = (client, total);
    config
}

fn urgent(url: &str, priority: &str) -> http::Request<Body> {
    let mut request = get(url);
    request.headers_mut().insert("priority", priority.parse().unwrap());
    request
}

#[tokio::test]
async fn what_is_too_much_is_told_to_come_back_and_demand_goes_last() {
    for way in WAYS {
        for bounds_all in [false, true] {
            let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
            let (at_handler, opened) = (arrived.clone(), gate.clone());
            let slow = handler(move |request: Request| {
                let (arrived, gate) = (at_handler.clone(), opened.clone());
                async move {
                    assert_eq!(request.extensions().get::<Priority>().map(|priority| priority.urgency), Some(3));
                    arrived.add_permits(1);
                    gate.acquire().await.unwrap().forget();
                    respond(Body::full("done"))
                }
            });
            let bound = ShareLimits { requests_max: 4, ..ShareLimits::default() };
            let none = ShareLimits::default();
            let config = if bounds_all { with(way, none, bound) } else { with(way, bound, none) };
            let server = Running::start(config, slow);
            let url = way.url(server.address, "/");
            let client = way.client();
            let ask = |priority: &'static str| {
                let (client, request) = (client.clone(), urgent(&url, priority));
                tokio::spawn(async move { client.send(request).await.unwrap() })
            };
            let mut under_way = Vec::new();
            for taken in 0..4 {
                // Half of the bound is not for warming.
                if taken == 2 {
                    let refused = ask("u=7").await.unwrap();
                    assert_eq!(refused.status(), 429, "{way:?}");
                    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                    assert!(wait >= 1);
                    let problem = crate::refusals::problem(refused).await;
                    assert!(problem.contains(r#""type":"urn:colibri:problem:too-many-requests""#), "{problem}");
                }
                under_way.push(ask("u=3"));
                arrived.acquire().await.unwrap().forget();
            }
            assert_eq!(ask("u=0").await.unwrap().status(), 429, "{way:?}: the bound holds for everybody");
            gate.add_permits(4);
            for request in under_way {
                let response = request.await.unwrap();
                assert_eq!(response.into_body().read_all(10).await.unwrap(), "done");
            }
            gate.add_permits(1);
            // What was under way counts until its body is read, and then no more.
            loop {
                let again = ask("u=3").await.unwrap();
                if again.status() == 200 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(server.counters.get("shed", "warm"), 1);
            assert!(server.counters.get("shed", "demand") >= 1);
        }
    }
}

#[tokio::test]
async fn requests_per_second_are_bounded() {
    for way in WAYS {
        let bound = ShareLimits { requests_per_s: 1, ..ShareLimits::default() };
        let server = Running::start(with(way, bound, ShareLimits::default()), says("x"));
        let (client, url) = (way.client(), way.url(server.address, "/"));
        let mut answers = Vec::new();
        // Four at once and one each second: a hundred cannot all be answered in less than a minute and a half.
        let begun = Instant::now();
        while !answers.contains(&429) && begun.elapsed() < Duration::from_secs(60) {
            answers.push(client.send(get(&url)).await.unwrap().status().as_u16());
        }
        assert_eq!(answers.last(), Some(&429), "{way:?}");
    }
}

#[tokio::test]
async fn bytes_per_second_are_held_and_nothing_is_lost() {
    let body = pattern(2_000_000);
    for way in WAYS {
        let bound = ShareLimits { bytes_per_s: 1_000_000, ..ShareLimits::default() };
        let answer = body.clone();
        let server = Running::start(
            with(way, bound, bound),
            handler(move |_| {
                let answer = answer.clone();
                async move { respond(Body::full(answer)) }
            }),
        );
        let begun = Instant::now();
        let got = fetch(&way.client(), &way.url(server.address, "/")).await.unwrap();
        assert_eq!(got, body);
        // One second's worth at once, the other in a second, but for the last piece.
        assert!(begun.elapsed() >= Duration::from_millis(900), "{way:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn one_client_has_no_more_connections_than_it_may() {
    for way in WAYS {
        let mut config = way.server_config();
        config.limits.client_connections_max = 1;
        let server = Running::start(config, says("one"));
        let url = way.url(server.address, "/");
        let first = way.client();
        assert_eq!(fetch(&first, &url).await.unwrap(), "one");
        let config = ClientConfig { connect_timeout: Duration::from_secs(1), ..way.client_config() };
        assert!(Client::new(config).unwrap().send(get(&url)).await.is_err(), "{way:?}");
        assert!(server.counters.get("refused", "client") >= 1);
        assert_eq!(fetch(&first, &url).await.unwrap(), "one");
        drop(first);
        // It left: there is room again.
        loop {
            if way.client().send(get(&url)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// HEADERS with END_STREAM and END_HEADERS: GET, http, `/`, authority `x`, all but the last from HPACK's static table.
fn http2_get(stream: u32) -> Vec<u8> {
    let block = [0x82, 0x86, 0x84, 0x41, 1, b'x'];
    [&[0, 0, block.len() as u8, 1, 5][..], &stream.to_be_bytes(), &block].concat()
}

/// RST_STREAM with CANCEL.
fn http2_reset(stream: u32) -> Vec<u8> {
    [&[0, 0, 4, 3, 0][..], &stream.to_be_bytes(), &8u32.to_be_bytes()].concat()
}

/// Answers never; how many requests are with it, and the most there ever were.
fn never() -> (Handler, Arc<AtomicUsize>) {
    struct Here(Arc<AtomicUsize>);
    impl Drop for Here {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let (here, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = most.clone();
    let answer = handler(move |_| {
        let now = here.fetch_add(1, Ordering::SeqCst) + 1;
        highest.fetch_max(now, Ordering::SeqCst);
        let here = Here(here.clone());
        async move {
            let _here = here;
            std::future::pending().await
        }
    });
    (answer, most)
}

#[tokio::test]
async fn rapid_reset_ends_the_http2_connection() {
    let (answer, most) = never();
    let server = Running::start(Way::PlainHttp1.server_config(), answer);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let (mut receive, mut send) = stream.into_split();
    let drain = tokio::spawn(async move {
        let mut rest = vec![0; 64 << 10];
        while receive.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    });
    let mut sent = 0;
    for number in 0..2_000_000u32 {
        let frames = [http2_get(2 * number + 1), http2_reset(2 * number + 1)].concat();
        if send.write_all(&frames).await.is_err() {
            break;
        }
        sent += 1;
        if number % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(sent < 1_000_000, "{sent} requests were taken and given up");
    drain.await.unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 100, "{most} at a time");
}

#[tokio::test]
async fn rapid_reset_ends_the_http3_connection() {
    let (answer, most) = never();
    let server = Running::start(Way::Http3.server_config(), answer);
    let (connection, _control) = http3_by_hand(server.address).await;
    let mut sent = 0;
    while let Ok((mut send, mut receive)) = connection.open_bi().await {
        if send.write_all(&[1, 8, 0, 0, 0xc1, 0xd1, 0xd7, 0x50, 1, b'x']).await.is_err() {
            break;
        }
        _ = send.finish();
        _ = receive.stop(0x10cu32.into());
        sent += 1;
        assert!(sent < 1_000_000, "{sent} requests were taken and given up");
    }
    let why = connection.closed().await;
    let excessive =
        matches!(&why, quinn::ConnectionError::ApplicationClosed(close) if close.error_code == 0x107u32.into());
    assert!(excessive, "{why}");
    assert_eq!(server.counters.get("refused", "resets"), 1);
    assert!(most.load(Ordering::SeqCst) <= 100);
}

#[tokio::test]
async fn a_flood_of_streams_is_bounded() {
    // HTTP/2: what is beyond the bound is refused.
    let (answer, most) = never();
    let server = Running::start(Way::PlainHttp1.server_config(), answer);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    for number in 0..1000u32 {
        if stream.write_all(&http2_get(2 * number + 1)).await.is_err() {
            break;
        }
    }
    until(|| most.load(Ordering::SeqCst) == 100).await;
    // HTTP/3: no more can be opened.
    let (answer, most) = never();
    let server = Running::start(Way::Http3.server_config(), answer);
    let (connection, _control) = http3_by_hand(server.address).await;
    let mut streams = Vec::new();
    while let Ok(Ok((mut send, receive))) = tokio::time::timeout(Duration::from_millis(500), connection.open_bi()).await
    {
        send.write_all(&[1, 8, 0, 0, 0xc1, 0xd1, 0xd7, 0x50, 1, b'x']).await.unwrap();
        send.finish().unwrap();
        streams.push((send, receive));
        assert!(streams.len() <= 100, "more streams than were offered");
    }
    until(|| most.load(Ordering::SeqCst) == streams.len()).await;
}

#[tokio::test]
async fn an_http3_header_that_never_comes_ends_its_stream() {
    let mut config = Way::Http3.server_config();
    config.limits.header_timeout = Duration::from_millis(200);
    let server = Running::start(config, says("never"));
    let (connection, _control) = http3_by_hand(server.address).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[1, 8, 0]).await.unwrap();
    assert!(receive.read_to_end(100).await.is_err(), "the stream is broken off");
    assert_eq!(fetch(&Way::Http3.client(), &Way::Http3.url(server.address, "/")).await.unwrap(), "never");
}

/// Passes on what a client sends first, then nothing; how many bytes went to the server and came back.
fn one_datagram_only(server: SocketAddr) -> (SocketAddr, std::thread::JoinHandle<(usize, usize)>) {
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = front.local_addr().unwrap();
    let relay = std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        let length = front.recv(&mut buffer).unwrap();
        back.send_to(&buffer[..length], server).unwrap();
        // Long enough for the server's first answer and its repetitions.
        back.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut returned = 0;
        while let Ok(length) = back.recv(&mut buffer) {
            returned += length;
        }
        (length, returned)
    });
    (address, relay)
}

#[tokio::test]
async fn an_unproven_address_gets_little_more_than_three_times_what_it_sent() {
    let server = Running::way(Way::Http3, says("never"));
    let (relay, counted) = one_datagram_only(server.address);
    let config = ClientConfig { connect_timeout: Duration::from_secs(2), ..Way::Http3.client_config() };
    let client = Client::new(config).unwrap();
    assert!(client.send(get(&Way::Http3.url(relay, "/"))).await.is_err());
    let (sent, returned) = tokio::task::spawn_blocking(|| counted.join().unwrap()).await.unwrap();
    // quinn finishes the datagram in which the bound falls (its issue 1082).
    assert!(returned > 0 && returned < 3 * sent + 1472, "{sent} bytes were answered with {returned}");
}
