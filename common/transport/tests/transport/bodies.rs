//! Bodies arrive whole or not at all, in both directions, and nobody buffers what nobody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use colibri_transport::{Body, BodyError, BodySender, ClientErrorKind, ReaderGone, Request, handler};
use http::header::CONTENT_LENGTH;
use tokio::sync::{mpsc, oneshot};

use crate::support::{Running, WAYS, Way, fetch, get, pattern, respond};

const BIG: usize = 20 << 20;

fn cut(bytes: &Bytes, piece: usize) -> Vec<Bytes> {
    (0..bytes.len()).step_by(piece).map(|start| bytes.slice(start..(start + piece).min(bytes.len()))).collect()
}

#[tokio::test]
async fn twenty_mebibytes_arrive_intact() {
    let bytes = pattern(BIG);
    for way in WAYS {
        for piece in [8 << 10, 64 << 10, BIG] {
            let segments = cut(&bytes, piece);
            let server = Running::way(
                way,
                handler(move |_| {
                    let body = Body::segments(segments.clone());
                    async move { respond(body) }
                }),
            );
            let response = way.client().send(get(&way.url(server.address, "/"))).await.unwrap();
            assert_eq!(response.body().exact_length(), Some(BIG as u64));
            let got = response.into_body().read_all(BIG as u64).await.unwrap();
            assert!(got == bytes, "{way:?} in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn uploads_arrive_intact_with_and_without_a_length() {
    let bytes = pattern(BIG);
    for way in WAYS {
        let server = Running::way(
            way,
            handler(|request: Request| async move {
                let announced = request.headers().contains_key(CONTENT_LENGTH);
                match request.into_body().read_all(BIG as u64).await {
                    Ok(got) => respond(Body::segments(vec![Bytes::from(format!("{announced} ")), got])),
                    Err(error) => respond(Body::full(error.to_string())),
                }
            }),
        );
        let client = way.client();
        for length in [Some(BIG as u64), None] {
            let (mut sender, body) = Body::channel(length);
            let pieces = cut(&bytes, 50_000);
            tokio::spawn(async move {
                for piece in pieces {
                    sender.send(piece).await.unwrap();
                }
                sender.finish();
            });
            let request = http::Request::put(way.url(server.address, "/")).body(body).unwrap();
            let got = client.send(request).await.unwrap().into_body().read_all(u64::MAX).await.unwrap();
            let expected = [format!("{} ", length.is_some()).as_bytes(), &bytes].concat();
            assert!(got == expected, "{way:?} {length:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_an_error_on_both_sides() {
    for way in WAYS {
        let (seen, mut read) = mpsc::channel(1);
        let server = Running::way(
            way,
            handler(move |request: Request| {
                let seen = seen.clone();
                async move {
                    let result = request.into_body().read_all(u64::MAX).await;
                    // HTTP/1.1 and 2 may drop this future as the connection or stream goes.
                    seen.send(result.map(|bytes| bytes.len())).await.unwrap();
                    respond(Body::empty())
                }
            }),
        );
        let (mut sender, body) = Body::channel(None);
        let request = http::Request::put(way.url(server.address, "/")).body(body).unwrap();
        let client = way.client();
        let sending = tokio::spawn(async move { client.send(request).await });
        sender.send(pattern(100_000)).await.unwrap();
        sender.abort("the disk is gone");
        let outcome = sending.await.unwrap();
        if let Ok(response) = &outcome {
            panic!("{way:?}: an upload that broke off was answered: {response:?}");
        }
        drop(server);
        match read.recv().await {
            None | Some(Err(_)) => {}
            Some(Ok(length)) => panic!("{way:?}: {length} bytes were taken for the whole"),
        }
    }
}

#[tokio::test]
async fn request_bodies_are_capped() {
    for way in WAYS {
        let mut config = way.server_config();
        config.limits.request_body_bytes_max = 1000;
        let server = Running::start(
            config,
            handler(|request: Request| async move {
                match request.into_body().read_all(u64::MAX).await {
                    Ok(bytes) => respond(Body::full(bytes.len().to_string())),
                    Err(error) => respond(Body::full(error.to_string())),
                }
            }),
        );
        let client = way.client();
        let post = |body| http::Request::post(way.url(server.address, "/")).body(body).unwrap();
        let response = client.send(post(Body::full(pattern(1001)))).await.unwrap();
        assert_eq!(response.status(), 413, "{way:?}");
        let problem = crate::refusals::problem(response).await;
        assert!(problem.contains(r#""type":"urn:colibri:problem:content-too-large""#), "{problem}");
        assert!(problem.contains("may have 1000 bytes"), "{problem}");
        let response = client.send(post(Body::full(pattern(1000)))).await.unwrap();
        assert_eq!(response.into_body().read_all(100).await.unwrap(), "1000");
        let (mut sender, body) = Body::channel(None);
        tokio::spawn(async move {
            _ = sender.send(pattern(1001)).await;
            sender.finish();
        });
        let response = client.send(post(body)).await.unwrap();
        let text = response.into_body().read_all(1000).await.unwrap();
        assert!(text.starts_with(b"body is longer than the allowed 1000 bytes"), "{text:?}");
    }
}

/// What the sender does after 100,000 bytes of an announced 200,000, or of an unknown length.
async fn broken_off(way: Way, length: Option<u64>, end: fn(BodySender)) -> BodyError {
    let server = Running::way(
        way,
        handler(move |_| async move {
            let (mut sender, body) = Body::channel(length);
            tokio::spawn(async move {
                _ = sender.send(pattern(100_000)).await;
                end(sender);
            });
            respond(body)
        }),
    );
    // The break may come before the head was flushed: then the request fails as a whole, which is as good.
    match way.client().send(get(&way.url(server.address, "/"))).await {
        Err(error) => BodyError::Connection(error.to_string()),
        Ok(response) => response.into_body().read_all(u64::MAX).await.expect_err("half a body is no body"),
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_never_ends_cleanly() {
    for way in WAYS {
        for length in [Some(200_000), None] {
            broken_off(way, length, drop).await;
            broken_off(way, length, |sender| sender.abort("no more")).await;
        }
        broken_off(way, Some(200_000), BodySender::finish).await;
        broken_off(way, Some(50_000), BodySender::finish).await;
    }
}

#[tokio::test]
async fn a_channel_tells_its_reader_why() {
    let (sender, mut body) = Body::channel(None);
    drop(sender);
    assert!(matches!(body.next().await, Some(Err(BodyError::Aborted { .. }))));
    assert!(body.next().await.is_none(), "one error is enough");
    let (mut sender, body) = Body::channel(Some(3));
    sender.send(Bytes::from_static(b"ab")).await.unwrap();
    sender.finish();
    let error = body.read_all(10).await.unwrap_err();
    assert!(matches!(error, BodyError::Truncated { expected_bytes: 3, got_bytes: 2 }), "{error}");
    let (mut sender, body) = Body::channel(Some(1));
    sender.send(Bytes::from_static(b"ab")).await.unwrap();
    assert!(matches!(body.read_all(10).await, Err(BodyError::TooLong { expected_bytes: 1 })));
    let (mut sender, body) = Body::channel(None);
    drop(body);
    assert_eq!(sender.send(Bytes::from_static(b"x")).await, Err(ReaderGone));
    assert!(matches!(Body::full("abc").read_all(2).await, Err(BodyError::OverLimit { bytes_max: 2 })));
    assert_eq!(Body::segments(vec!["a".into(), "".into(), "b".into()]).read_all(2).await.unwrap(), "ab");
}

#[tokio::test]
async fn a_slow_reader_holds_back_the_sender_and_its_leaving_ends_the_handler() {
    const PRODUCED_MAX: u64 = 512 << 20;
    const BUFFERED_MAX: u64 = 64 << 20;
    for way in WAYS {
        let produced = Arc::new(AtomicU64::new(0));
        let (gone, reader_gone) = oneshot::channel();
        let gone = Arc::new(std::sync::Mutex::new(Some(gone)));
        let counter = produced.clone();
        let server = Running::way(
            way,
            handler(move |_| {
                let (counter, gone) = (counter.clone(), gone.clone());
                async move {
                    let (mut sender, body) = Body::channel(None);
                    tokio::spawn(async move {
                        let piece = pattern(64 << 10);
                        while counter.load(Ordering::Relaxed) < PRODUCED_MAX {
                            if sender.send(piece.clone()).await.is_err() {
                                _ = gone.lock().unwrap().take().unwrap().send(());
                                return;
                            }
                            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        }
                        sender.finish();
                    });
                    respond(body)
                }
            }),
        );
        let client = way.client();
        let response = client.send(get(&way.url(server.address, "/"))).await.unwrap();
        // Wait for a standstill; looking too early could only make the number smaller.
        let mut last = u64::MAX;
        let mut still = 0;
        while still < 5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = produced.load(Ordering::Relaxed);
            still = if now == last { still + 1 } else { 0 };
            last = now;
        }
        assert!(last <= BUFFERED_MAX, "{way:?}: {last} bytes left the sender though nobody read");
        drop(response);
        reader_gone.await.expect("the producer learns that the reader is gone");
    }
}

#[tokio::test]
async fn a_slow_reader_does_not_stop_the_others() {
    for way in [Way::Http3, Way::Http2] {
        let bytes = pattern(BIG);
        let server = Running::way(
            way,
            handler(move |_| {
                let body = Body::full(bytes.clone());
                async move { respond(body) }
            }),
        );
        let client = way.client();
        let url = way.url(server.address, "/");
        let unread = client.send(get(&url)).await.unwrap();
        let also_unread = client.send(get(&url)).await.unwrap();
        for _ in 0..3 {
            assert_eq!(fetch(&client, &url).await.unwrap().len(), BIG);
        }
        for response in [unread, also_unread] {
            assert_eq!(response.into_body().read_all(u64::MAX).await.unwrap().len(), BIG, "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_silent_body_is_an_error() {
    for way in WAYS {
        let server = Running::way(
            way,
            handler(|_| async move {
                let (mut sender, body) = Body::channel(None);
                tokio::spawn(async move {
                    _ = sender.send(Bytes::from_static(b"first")).await;
                    sender.closed().await;
                });
                respond(body)
            }),
        );
        let config =
            colibri_transport::ClientConfig { body_idle_timeout: Duration::from_millis(50), ..way.client_config() };
        let client = colibri_transport::Client::new(config).unwrap();
        let mut body = client.send(get(&way.url(server.address, "/"))).await.unwrap().into_body();
        let error = loop {
            match body.next().await.expect("no clean end") {
                Ok(piece) => assert_eq!(piece, "first"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BodyError::Idle(_)), "{way:?}: {error}");
    }
}

#[tokio::test]
async fn a_silent_handler_times_out() {
    for way in WAYS {
        let server = Running::way(way, handler(|_| std::future::pending()));
        let config =
            colibri_transport::ClientConfig { header_timeout: Duration::from_millis(50), ..way.client_config() };
        let client = colibri_transport::Client::new(config).unwrap();
        let error = client.send(get(&way.url(server.address, "/"))).await.unwrap_err();
        assert_eq!(error.kind, ClientErrorKind::Timeout, "{error}");
    }
}
