//! Uploads: whole, in parts, torn, resumed, wrong, slow, twice at once, and across a restart.

use std::time::Duration;

use bytes::Bytes;
use colibri_common::{BlobId, merkle};
use colibri_package::delivery::{DeliveryType, decode_verified, encode};
use colibri_repository::limits::UPLOAD_PIECE_BYTES;
use colibri_transport::{Body, BodySender, ClientError, Response};
use http::{Method, StatusCode};
use tokio::task::JoinHandle;

use crate::site::{Site, content};

/// Bytes beyond a durable piece: more than the origin gathers before it writes.
const MORE: usize = 600 << 10;

/// An upload whose body the test feeds.
fn begin(
    site: &Site,
    form: &str,
    id: BlobId,
    offset: u64,
    length: u64,
) -> (BodySender, JoinHandle<Result<Response, ClientError>>) {
    let (sender, body) = Body::channel(Some(length - offset));
    let request = http::Request::builder()
        .method(Method::PATCH)
        .uri(site.url(&format!("blobs/{form}/{id}")))
        .header("authorization", format!("Bearer {}", site.publisher))
        .header("upload-offset", offset.to_string())
        .header("upload-length", length.to_string());
    let (client, request) = (site.client.clone(), request.body(body).unwrap());
    (sender, tokio::spawn(async move { client.send(request).await }))
}

/// Waits until so many uploads are under way.
async fn until_under_way(site: &Site, count: u64) {
    while site.get(&site.reader, "status").await.json()["uploads"] != count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_comes_in_every_form_and_only_once() {
    let site = Site::start().await;
    let raw = content(1, 300_000);
    let (one, two) = (content(2, 100_000), content(3, 5));
    let ids = [&raw, &one, &two].map(|content| merkle::build(content).id);
    assert_eq!(site.missing(&ids).await, ids);
    site.put(&raw).await;
    for (blob, ty) in [(&one, DeliveryType::Type1), (&two, DeliveryType::Type2)] {
        let encoded = encode(blob, ty, Some(1)).unwrap();
        let id = merkle::build(blob).id;
        let answer = site.patch(&ty.to_string(), id, 0, encoded.len() as u64, &encoded).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }
    assert_eq!(site.missing(&ids).await, [], "each is stored");
    let again = site.patch("raw", ids[0], 0, 300_000, &raw).await;
    assert!(again.status == StatusCode::OK && again.is_complete(), "{again:?}");
    assert!(site.state("1", ids[0]).await.is_complete());
    // What is served is the blob, whichever way it came.
    let url = format!("http://{}/{}/blobs/1/{}", site.read_address, crate::site::NAME, ids[0]);
    let served = site.ask("", Method::GET, &url, &[], Body::empty()).await;
    assert_eq!(decode_verified(ids[0], &served.body).unwrap(), raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_in_order_make_the_whole() {
    let site = Site::start().await;
    let blob = content(4, 700_000);
    let (id, length) = (merkle::build(&blob).id, blob.len() as u64);
    let first = site.patch("raw", id, 0, length, &blob[..300_000]).await;
    assert_eq!((first.status, first.offset()), (StatusCode::NO_CONTENT, Some(300_000)));
    for wrong in [0, 299_999, 300_001] {
        let answer = site.patch("raw", id, wrong, length, &blob[300_000..]).await;
        assert_eq!((answer.status, answer.offset()), (StatusCode::CONFLICT, Some(300_000)), "at {wrong}");
    }
    let state = site.state("raw", id).await;
    assert!(state.offset() == Some(300_000) && !state.is_complete());
    assert_eq!(site.state("1", id).await.offset(), Some(0), "each form is its own upload");
    let last = site.patch("raw", id, 300_000, length, &blob[300_000..]).await;
    assert_eq!(last.status, StatusCode::CREATED, "{last:?}");
    let empty = site.patch("raw", merkle::build(&[]).id, 0, 0, &[]).await;
    assert_eq!(empty.status, StatusCode::CREATED, "the empty blob: {empty:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_upload_goes_on_where_it_was_also_after_a_restart() {
    let mut site = Site::start().await;
    let piece = usize::try_from(UPLOAD_PIECE_BYTES).unwrap();
    let blob = content(5, 2 * (piece + MORE) + 1000);
    let (id, length) = (merkle::build(&blob).id, blob.len() as u64);
    let mut offset = 0;
    for round in 0..2_usize {
        let (mut sender, sending) = begin(&site, "raw", id, offset, length);
        let from = usize::try_from(offset).unwrap();
        for part in blob[from..from + piece + MORE].chunks(64 << 10) {
            sender.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        // A whole piece has come, so it must be there whatever happens now.
        let sent = offset + UPLOAD_PIECE_BYTES;
        while site.state("raw", id).await.offset().unwrap() < sent {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.abort("the cable was cut");
        assert!(sending.await.unwrap().is_err(), "torn");
        until_under_way(&site, 0).await;
        if round == 1 {
            site.restart().await;
        }
        offset = site.state("raw", id).await.offset().unwrap();
        assert!(offset >= sent && offset <= sent + MORE as u64, "{offset} of {sent} after round {round}");
    }
    let rest = usize::try_from(offset).unwrap();
    let answer = site.patch("raw", id, offset, length, &blob[rest..]).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(site.missing(&[id]).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_sender_takes_over_from_a_dead_connection_and_another_waits() {
    let site = Site::start().await;
    let blob = content(6, 2 << 20);
    let (id, length) = (merkle::build(&blob).id, blob.len() as u64);
    let (mut sender, hanging) = begin(&site, "raw", id, 0, length);
    for piece in blob[..1 << 20].chunks(64 << 10) {
        sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    until_under_way(&site, 1).await;
    // The connection hangs. Another publisher is told to wait ...
    let url = site.url(&format!("blobs/raw/{id}"));
    let headers = [("upload-length", "2097152")];
    let other = site.ask(&site.admin, Method::PATCH, &url, &headers, Body::full(blob.clone())).await;
    assert_eq!((other.status, &other.headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    // ... the same one goes on.
    let refused = site.patch("raw", id, length, length, &[]).await;
    let offset = refused.offset().unwrap();
    assert_eq!(refused.status, StatusCode::CONFLICT, "{refused:?}");
    let rest = site.patch("raw", id, offset, length, &blob[usize::try_from(offset).unwrap()..]).await;
    assert_eq!(rest.status, StatusCode::CREATED, "{rest:?}");
    let hung = hanging.await.unwrap();
    assert!(hung.is_err() || hung.unwrap().status() == StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_blob_of_its_name_is_thrown_away() {
    let site = Site::start().await;
    let (blob, other) = (content(7, 50_000), content(8, 50_000));
    let id = merkle::build(&blob).id;
    let encoded = encode(&other, DeliveryType::Type1, Some(1)).unwrap();
    let mut flipped = encode(&blob, DeliveryType::Type1, Some(1)).unwrap();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut tail = encode(&blob, DeliveryType::Type1, Some(1)).unwrap();
    tail.push(0);
    let type2 = encode(&blob, DeliveryType::Type2, Some(1)).unwrap();
    for (form, bytes) in [
        ("raw", &other),
        ("raw", &encoded),
        ("1", &blob),
        ("1", &encoded),
        ("1", &flipped),
        ("1", &tail),
        ("1", &type2),
        ("2", &tail),
        ("1", &Vec::new()),
        ("raw", &Vec::new()),
    ] {
        let answer = site.patch(form, id, 0, bytes.len() as u64, bytes).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{form}: {answer:?}");
        assert_eq!(answer.problem().kind, "urn:colibri:problem:wrong-content");
        assert_eq!(site.state(form, id).await.offset(), Some(0), "nothing of it stays");
        assert_eq!(site.missing(&[id]).await, [id]);
    }
    let served = format!("http://{}/{}/blobs/1/{id}", site.read_address, crate::site::NAME);
    assert_eq!(site.ask("", Method::GET, &served, &[], Body::empty()).await.status, StatusCode::NOT_FOUND);
    site.put(&blob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_can_be_discarded() {
    let site = Site::start().await;
    let blob = content(9, 1000);
    let id = merkle::build(&blob).id;
    let url = site.url(&format!("blobs/raw/{id}"));
    assert_eq!(site.patch("raw", id, 0, 1000, &blob[..10]).await.status, StatusCode::NO_CONTENT);
    for _ in 0..2 {
        let discarded = site.ask(&site.publisher, Method::DELETE, &url, &[], Body::empty()).await;
        assert_eq!(discarded.status, StatusCode::NO_CONTENT);
        assert_eq!(site.state("raw", id).await.offset(), Some(0));
    }
    assert_eq!(site.patch("raw", id, 0, 1000, &blob).await.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_loris_is_cut_off_and_its_bytes_stay() {
    let site = Site::with(|write| {
        write.upload_pace_s = 1;
        write.upload_bytes_per_s_min = 100_000;
    })
    .await;
    let blob = content(10, 1 << 20);
    let (id, length) = (merkle::build(&blob).id, blob.len() as u64);
    let (mut sender, slow) = begin(&site, "raw", id, 0, length);
    let mut sent = 0;
    // A few bytes now and then, for as long as they are taken.
    while !slow.is_finished() && sent + 10 < blob.len() {
        if sender.send(Bytes::copy_from_slice(&blob[sent..sent + 10])).await.is_err() {
            break;
        }
        sent += 10;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = slow.await.unwrap();
    assert!(answer.is_err() || answer.unwrap().status() == StatusCode::REQUEST_TIMEOUT);
    let audit = site.audit();
    assert!(audit.iter().any(|line| line["status"] == 408 && line["act"] == "upload"), "{audit:?}");
    let offset = site.patch("raw", id, length, length, &[]).await.offset().unwrap();
    let rest = site.patch("raw", id, offset, length, &blob[usize::try_from(offset).unwrap()..]).await;
    assert_eq!(rest.status, StatusCode::CREATED, "{rest:?}");
}
