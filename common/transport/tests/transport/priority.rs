//! Answers share a connection by urgency (RFC 9218).

use std::time::Duration;

use bytes::Bytes;
use colibri_transport::handler;

use crate::hostile::http3_by_hand;
use crate::support::{Running, Way, get, pattern, respond};

/// More than a connection holds: the rest has to wait for its turn.
const LENGTH: usize = 24 << 20;

fn large() -> (Bytes, colibri_transport::Handler) {
    let body = pattern(LENGTH);
    let answer = body.clone();
    let handler = handler(move |_| {
        let answer = answer.clone();
        async move { respond(colibri_transport::Body::full(answer)) }
    });
    (body, handler)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_urgent_overtakes_what_is_not() {
    let (body, answer) = large();
    let server = Running::start(Way::Http3.server_config(), answer);
    let (client, url) = (Way::Http3.client(), Way::Http3.url(server.address, "/"));
    let ask = |priority: &str| {
        let mut request = get(&url);
        request.headers_mut().insert("priority", priority.parse().unwrap());
        client.send(request)
    };
    let mut warm = ask("u=7").await.unwrap().into_body();
    let mut read = warm.next().await.unwrap().unwrap().len();
    let mut demand = ask("u=1").await.unwrap().into_body();
    let mut got = Vec::new();
    loop {
        tokio::select! {
            piece = demand.next() => match piece {
                Some(piece) => got.extend_from_slice(&piece.unwrap()),
                None => break,
            },
            piece = warm.next() => read += piece.expect("the later one comes first").unwrap().len(),
        }
    }
    assert!(got == body, "the urgent one is whole");
    assert!(read < LENGTH, "the other one had a lead and lost it");
    while let Some(piece) = warm.next().await {
        read += piece.unwrap().len();
    }
    assert_eq!(read, LENGTH, "and comes to its end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_priority_update_changes_the_order() {
    const GET: [u8; 10] = [1, 8, 0, 0, 0xc1, 0xd1, 0xd7, 0x50, 1, b'x'];
    let (_, answer) = large();
    let server = Running::start(Way::Http3.server_config(), answer);
    let (connection, mut control) = http3_by_hand(server.address).await;
    let (mut first, mut first_answer) = connection.open_bi().await.unwrap();
    first.write_all(&GET).await.unwrap();
    first.finish().unwrap();
    let mut read = first_answer.read_chunk(1 << 16, true).await.unwrap().unwrap().bytes.len();
    // The first is less urgent from now on; the second, which is still to come, more.
    control.write_all(&[0x80, 0x0f, 0x07, 0, 4, 0, b'u', b'=', b'7']).await.unwrap();
    control.write_all(&[0x80, 0x0f, 0x07, 0, 4, 4, b'u', b'=', b'0']).await.unwrap();
    // They have arrived before the request does.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (mut second, mut second_answer) = connection.open_bi().await.unwrap();
    second.write_all(&GET).await.unwrap();
    second.finish().unwrap();
    let mut got = 0;
    loop {
        tokio::select! {
            piece = second_answer.read_chunk(1 << 16, true) => match piece.unwrap() {
                Some(piece) => got += piece.bytes.len(),
                None => break,
            },
            piece = first_answer.read_chunk(1 << 16, true) => {
                read += piece.unwrap().expect("the later one comes first").bytes.len();
            }
        }
    }
    assert!(got > LENGTH && read < LENGTH, "{got} and {read} bytes");
    while let Some(piece) = first_answer.read_chunk(1 << 16, true).await.unwrap() {
        read += piece.bytes.len();
    }
    assert_eq!(read, got, "both came to their ends");
}
