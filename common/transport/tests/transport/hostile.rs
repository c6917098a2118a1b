//! Peers that break the rules, written by hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use colibri_transport::{Body, BodyError, Client, Request, handler};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Running, WAYS, Way, fetch, get, respond, says};

#[tokio::test]
async fn http1_bodies_cut_short_are_noticed() {
    let answers: [&'static [u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nabcde",
    ];
    for answer in answers {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let response = Way::PlainHttp1.client().send(get(&format!("http://{address}/"))).await.unwrap();
        let error = response.into_body().read_all(100).await.unwrap_err();
        assert!(matches!(error, BodyError::Connection(_) | BodyError::Truncated { .. }), "{error}");
    }
}

#[tokio::test]
async fn http2_bodies_cut_short_are_noticed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(crate::trust::server_config(&[b"h2"])));
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let service = hyper::service::service_fn(|_| async {
            let response = http::Response::builder().header("content-length", "10").body(Body::full("abcde"));
            Ok::<_, std::convert::Infallible>(response.unwrap())
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        _ = builder.serve_connection(TokioIo::new(stream), service).await;
    });
    let outcome = Way::Http2.client().send(get(&format!("https://{address}/"))).await;
    if let Ok(response) = outcome {
        response.into_body().read_all(100).await.expect_err("five of ten bytes");
    }
}

/// A QUIC server that answers every request stream with these bytes.
fn http3_says(answer: &'static [u8], finish: bool) -> (SocketAddr, quinn::Endpoint) {
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(crate::trust::server_config(&[b"h3"])).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = endpoint.local_addr().unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let connection = incoming.await.unwrap();
            let mut control = connection.open_uni().await.unwrap();
            // Stream type control, an empty SETTINGS frame.
            control.write_all(&[0, 4, 0]).await.unwrap();
            while let Ok((mut send, _receive)) = connection.accept_bi().await {
                send.write_all(answer).await.unwrap();
                if finish {
                    send.finish().unwrap();
                } else {
                    send.reset(0x102u32.into()).unwrap();
                }
            }
        }
    });
    (address, endpoint)
}

/// HEADERS with `:status: 200` of the static table (RFC 9204 appendix A, 25), then DATA that announces five bytes.
const CUT_IN_DATA: &[u8] = &[1, 3, 0, 0, 0xd9, 0, 5, b'a', b'b'];
const WHOLE: &[u8] = &[1, 3, 0, 0, 0xd9, 0, 5, b'a', b'b', b'c', b'd', b'e'];
/// The same with `content-length: 10` (name from the static table, 4; the value two bytes long).
const SHORTER_THAN_ANNOUNCED: &[u8] = &[1, 7, 0, 0, 0xd9, 0x54, 2, b'1', b'0', 0, 5, b'a', b'b', b'c', b'd', b'e'];
/// A HEADERS frame that announces a gigabyte.
const ENDLESS_HEADERS: &[u8] = &[1, 0x80 | 0x40, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0xd9];

#[tokio::test]
async fn http3_bodies_cut_short_are_noticed() {
    let (address, _endpoint) = http3_says(WHOLE, true);
    let url = format!("https://{address}/");
    assert_eq!(fetch(&Way::Http3.client(), &url).await.unwrap(), "abcde", "the hand-made answer is sound");
    for answer in [CUT_IN_DATA, SHORTER_THAN_ANNOUNCED] {
        let (address, _endpoint) = http3_says(answer, true);
        let response = Way::Http3.client().send(get(&format!("https://{address}/"))).await.unwrap();
        response.into_body().read_all(100).await.expect_err("a part is not the whole");
    }
    let (address, _endpoint) = http3_says(WHOLE, false);
    if let Ok(response) = Way::Http3.client().send(get(&format!("https://{address}/"))).await {
        response.into_body().read_all(100).await.expect_err("a reset is not an end");
    }
}

#[tokio::test]
async fn http3_headers_without_end_are_refused_by_the_client() {
    let (address, _endpoint) = http3_says(ENDLESS_HEADERS, true);
    let error = Way::Http3.client().send(get(&format!("https://{address}/"))).await.unwrap_err();
    assert!(error.to_string().contains("announced a frame of 1073741824 bytes"), "{error}");
}

/// A QUIC connection to `address` with an HTTP/3 control stream and nothing else.
pub async fn http3_by_hand(address: SocketAddr) -> (quinn::Connection, quinn::SendStream) {
    let mut tls = crate::trust::accepts_anything();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connection = endpoint.connect_with(config, address, "localhost").unwrap().await.unwrap();
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    (connection, control)
}

/// HEADERS with `:path /`, `:method POST`, `:scheme https` of the static table and `:authority x` spelled out.
const POST: &[u8] = &[1, 8, 0, 0, 0xc1, 0xd4, 0xd7, 0x50, 1, b'x'];

#[tokio::test]
async fn http3_headers_without_end_are_refused_by_the_server() {
    let server = Running::way(Way::Http3, says("never"));
    let (connection, _control) = http3_by_hand(server.address).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[1, 0x80 | 0x40, 0, 0, 0, 0x40, 0, 0, 0]).await.unwrap();
    // The server stops reading long before the announced gigabyte; without the bound this would go on for ever.
    let piece = Bytes::from(vec![0; 64 << 10]);
    let mut sent = 0;
    while send.write_chunk(piece.clone()).await.is_ok() {
        sent += piece.len();
        assert!(sent < 256 << 20, "the server swallows header bytes without end");
    }
    receive.read_to_end(1000).await.expect_err("there is no answer");
    // The server is well.
    assert_eq!(fetch(&Way::Http3.client(), &Way::Http3.url(server.address, "/")).await.unwrap(), "never");
}

#[tokio::test]
async fn http3_bodies_in_tiny_and_empty_frames_arrive_whole() {
    let server = Running::way(
        Way::Http3,
        handler(|request: Request| async move {
            match request.into_body().read_all(1 << 20).await {
                Ok(bytes) => {
                    respond(Body::full(format!("{} {}", bytes.len(), bytes.iter().map(|b| u64::from(*b)).sum::<u64>())))
                }
                Err(error) => respond(Body::full(error.to_string())),
            }
        }),
    );
    let (connection, _control) = http3_by_hand(server.address).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut frames = POST.to_vec();
    for number in 0..100_000u32 {
        // An empty DATA frame, one of one byte, an unknown frame now and then.
        frames.extend([0, 0, 0, 1, (number % 251) as u8]);
        if number.is_multiple_of(1000) {
            frames.extend([0x21, 2, 9, 9]);
        }
    }
    // Trailers: none but the empty prefix.
    frames.extend([1, 2, 0, 0]);
    send.write_all(&frames).await.unwrap();
    send.finish().unwrap();
    let answer = receive.read_to_end(1000).await.unwrap();
    let sum: u64 = (0..100_000).map(|number| number % 251).sum();
    let expected = format!("100000 {sum}");
    assert!(answer.ends_with(expected.as_bytes()), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn http3_frames_do_not_pile_up_behind_a_slow_handler() {
    let (read, mut wait) = tokio::sync::mpsc::channel(1);
    let server = Running::way(
        Way::Http3,
        handler(move |request: Request| {
            let read = read.clone();
            async move {
                let mut body = request.into_body();
                for _ in 0..10_000 {
                    body.next().await.unwrap().unwrap();
                }
                read.send(()).await.unwrap();
                std::future::pending().await
            }
        }),
    );
    let (connection, _control) = http3_by_hand(server.address).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(POST).await.unwrap();
    let frames: Bytes = [0, 1, 7].repeat(10_000).into();
    let (mut sent, mut done) = (0, false);
    // Writes until nothing more is taken, after the handler has read its ten thousand bytes.
    loop {
        tokio::select! {
            biased;
            result = send.write_chunk(frames.clone()) => { result.unwrap(); sent += frames.len(); }
            _ = wait.recv(), if !done => done = true,
            () = tokio::time::sleep(std::time::Duration::from_millis(300)), if done => break,
        }
    }
    let window = colibri_transport::limits::SERVER_STREAM_WINDOW_BYTES as usize;
    let own_buffer = 10 << 20;
    assert!(sent < window + own_buffer + (2 << 20), "{sent} bytes were taken for 10,000 read");
}

#[tokio::test]
async fn header_floods_are_refused() {
    for way in WAYS {
        let server = Running::way(way, says("fine"));
        let client = way.client();
        let url = way.url(server.address, "/");
        let mut request = get(&url);
        for number in 0..64 {
            let name: http::HeaderName = format!("x-filler-{number}").parse().unwrap();
            request.headers_mut().insert(name, "f".repeat(4000).parse().unwrap());
        }
        match client.send(request).await {
            Ok(response) => assert_eq!(response.status(), 431, "{way:?}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        assert_eq!(fetch(&client, &url).await.unwrap(), "fine", "{way:?}");
    }
}

#[tokio::test]
async fn an_endless_http1_header_ends_the_connection() {
    let server = Running::way(Way::PlainHttp1, says("never"));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ").await.unwrap();
    let mut sent: usize = 0;
    while stream.write_all(&[b'a'; 4096]).await.is_ok() {
        sent += 4096;
        assert!(sent < 64 << 20, "the server swallows header bytes without end");
    }
}

#[tokio::test]
async fn a_header_that_never_comes_ends_the_connection() {
    let mut config = Way::PlainHttp1.server_config();
    config.limits.header_timeout = std::time::Duration::from_millis(30);
    config.limits.idle_timeout = std::time::Duration::from_millis(30);
    let server = Running::start(config, says("never"));
    for opening in [&b""[..], b"GET / HTTP/1.1\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        let mut rest = Vec::new();
        // Ends, or breaks; either way it comes back.
        _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn a_tls_handshake_that_never_comes_ends_the_connection() {
    let mut config = Way::Http2.server_config();
    config.limits.header_timeout = std::time::Duration::from_millis(30);
    let server = Running::start(config, says("never"));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut rest = Vec::new();
    _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off() {
    for way in WAYS {
        let mut config = way.server_config();
        config.limits.stall_timeout = std::time::Duration::from_millis(100);
        let (gone, mut went) = tokio::sync::mpsc::channel::<()>(1);
        let server = Running::start(
            config,
            handler(move |_: Request| {
                let gone = gone.clone();
                async move {
                    let (mut sender, body) = Body::channel(None);
                    tokio::spawn(async move {
                        while sender.send(Bytes::from(vec![0; 256 << 10])).await.is_ok() {}
                        _ = gone.send(()).await;
                    });
                    respond(body)
                }
            }),
        );
        let client: Client = way.client();
        let unread = client.send(get(&way.url(server.address, "/"))).await.unwrap();
        went.recv().await.expect("the server gives up on it");
        drop(unread);
    }
}
