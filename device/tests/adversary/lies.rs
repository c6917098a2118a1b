//! Things that a mirror can do wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use colibri_api::ContentRange;
use colibri_common::{BlobId, ByteRange};
use colibri_transport::{Body, Response};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::liar::{Asked, Kind, Lie, Truth};

/// A lie about everything.
pub fn always(lie: impl Fn(&Asked, &Truth) -> Response + Send + Sync + 'static) -> Lie {
    Arc::new(move |asked, truth| Some(lie(asked, truth)))
}

/// A lie about one kind of thing, where there is something to lie about.
pub fn about(kind: Kind, lie: impl Fn(&Asked, &Truth) -> Response + Send + Sync + 'static) -> Lie {
    Arc::new(move |asked, truth| {
        (asked.kind == kind && truth.status.is_success() && !truth.body.is_empty()).then(|| lie(asked, truth))
    })
}

/// A lie about blobs in either form.
pub fn about_blobs(lie: impl Fn(&Asked, &Truth) -> Response + Send + Sync + 'static) -> Lie {
    Arc::new(move |asked, truth| {
        let is_blob = matches!(asked.kind, Kind::Raw | Kind::Delivery);
        (is_blob && truth.status.is_success() && !truth.body.is_empty()).then(|| lie(asked, truth))
    })
}

/// A lie about large parts of blobs, so that everything before them is true.
pub fn about_units(lie: impl Fn(&Asked, &Truth) -> Response + Send + Sync + 'static) -> Lie {
    Arc::new(move |asked, truth| {
        let is_blob = matches!(asked.kind, Kind::Raw | Kind::Delivery);
        (is_blob && truth.status.is_success() && truth.body.len() > 200_000).then(|| lie(asked, truth))
    })
}

/// Without what says how long the body is.
fn without_length(mut response: Response) -> Response {
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// The first half, then an end that looks like one.
pub fn truncates(_: &Asked, truth: &Truth) -> Response {
    let (mut sender, body) = Body::channel(None);
    let half = truth.body.slice(..truth.body.len() / 2);
    tokio::spawn(async move {
        if sender.send(half).await.is_ok() {
            sender.finish();
        }
    });
    without_length(truth.with(body))
}

/// The first half, then the connection breaks.
pub fn resets(_: &Asked, truth: &Truth) -> Response {
    let (mut sender, body) = Body::channel(Some(truth.body.len() as u64));
    let half = truth.body.slice(..truth.body.len() / 2);
    tokio::spawn(async move {
        if sender.send(half).await.is_ok() {
            _ = sender.drained().await;
            sender.abort("a lie");
        }
    });
    truth.with(body)
}

/// The first half, then nothing.
pub fn stalls(_: &Asked, truth: &Truth) -> Response {
    let (mut sender, body) = Body::channel(Some(truth.body.len() as u64));
    let half = truth.body.slice(..truth.body.len() / 2);
    tokio::spawn(async move {
        if sender.send(half).await.is_ok() {
            sender.closed().await;
        }
    });
    truth.with(body)
}

/// A byte now and then.
pub fn drips(_: &Asked, truth: &Truth) -> Response {
    let (mut sender, body) = Body::channel(Some(truth.body.len() as u64));
    let bytes = truth.body.clone();
    tokio::spawn(async move {
        for at in 0..bytes.len() {
            if sender.send(bytes.slice(at..=at)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.finish();
    });
    truth.with(body)
}

/// What is right, then zeros for as long as somebody reads.
pub fn never_ends(_: &Asked, truth: &Truth) -> Response {
    let (mut sender, body) = Body::channel(None);
    let mut next = truth.body.clone();
    tokio::spawn(async move {
        while sender.send(next).await.is_ok() {
            next = Bytes::from_static(&[0; 8192]);
        }
    });
    without_length(truth.with(body))
}

/// The right bytes, and a range that says that the whole is longer.
pub fn says_longer(asked: &Asked, truth: &Truth) -> Response {
    let mut response = truth.told();
    match asked.range {
        Some(range) => {
            let sent = ByteRange::new(range.start(), range.start() + truth.body.len() as u64);
            let says = ContentRange::satisfied(sent, Some(1 << 40)).to_value();
            response.headers_mut().insert(CONTENT_RANGE, says);
            response
        }
        None => without_length(truth.with(Body::full([&truth.body[..], &[7; 9000]].concat()))),
    }
}

/// Half of the bytes, said to be all that there are.
pub fn says_shorter(asked: &Asked, truth: &Truth) -> Response {
    let half = truth.body.len() / 2;
    let mut response = without_length(truth.with(Body::full(truth.body.slice(..half))));
    if let Some(range) = asked.range {
        let sent = ByteRange::new(range.start(), range.start() + half as u64);
        let says = ContentRange::satisfied(sent, Some(sent.end())).to_value();
        response.headers_mut().insert(CONTENT_RANGE, says);
    }
    response
}

/// The bytes of the range before, under their own name.
pub fn answers_another_range(asked: &Asked, truth: &Truth) -> Response {
    let mut response = truth.told();
    if let Some(range) = asked.range {
        let other = ByteRange::new(range.start() + 8192, range.start() + 8192 + truth.body.len() as u64);
        response.headers_mut().insert(CONTENT_RANGE, ContentRange::satisfied(other, None).to_value());
    }
    response
}

/// The bytes of another range under the name of the one that was asked for.
pub fn shifts(_: &Asked, truth: &Truth) -> Response {
    let mut shifted = truth.body.to_vec();
    shifted.rotate_left(8192.min(truth.body.len() / 2));
    truth.with(Body::full(shifted))
}

/// The right bytes, said to be compressed.
pub fn says_compressed(_: &Asked, truth: &Truth) -> Response {
    let mut response = truth.told();
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// One bit is wrong, late.
pub fn flips(_: &Asked, truth: &Truth) -> Response {
    let mut spoiled = truth.body.to_vec();
    let at = spoiled.len() * 3 / 4;
    spoiled[at] ^= 1;
    truth.with(Body::full(spoiled))
}

/// A page of a hotel, whatever was asked.
pub fn welcomes(_: &Asked, truth: &Truth) -> Response {
    let page = b"<html>Welcome to our hotel! Please pay.</html>".repeat(truth.body.len() / 46 + 1);
    let mut response = truth.with(Body::full(page[..truth.body.len()].to_vec()));
    response.headers_mut().remove(CONTENT_ENCODING);
    response
}

/// The part that was asked for, of other bytes.
pub fn part_of(whole: &[u8], asked: &Asked, truth: &Truth) -> Response {
    let all = ByteRange::whole(whole.len() as u64);
    let range = asked.range.map_or(all, |range| range.intersect(all));
    let mut response = without_length(truth.with(Body::full(whole[range.within(0)].to_vec())));
    if asked.range.is_some() {
        let says = ContentRange::satisfied(range, Some(whole.len() as u64)).to_value();
        response.headers_mut().insert(CONTENT_RANGE, says);
    }
    response
}

/// Every other part of a delivery blob comes from another form of it.
pub fn mixes(id: BlobId, other: Vec<u8>) -> Lie {
    let turn = AtomicBool::new(false);
    Arc::new(move |asked, truth| {
        let is_part = asked.kind == Kind::Delivery && asked.id == Some(id);
        let is_part = is_part && asked.range.is_some_and(|range| range.start() > 0) && truth.body.len() > 200_000;
        let from_other = is_part && !turn.fetch_xor(true, Ordering::SeqCst);
        let range = asked.range.filter(|range| from_other && range.end() <= other.len() as u64)?;
        Some(truth.with(Body::full(other[range.within(0)].to_vec())))
    })
}

/// Another form of a delivery blob, under the entity tag of the usual one or without any.
pub fn serves(id: BlobId, form: Vec<u8>, keeps_tag: bool) -> Lie {
    Arc::new(move |asked, truth| {
        (asked.kind == Kind::Delivery && asked.id == Some(id) && truth.status.is_success()).then(|| {
            let mut response = part_of(&form, asked, truth);
            if !keeps_tag {
                response.headers_mut().remove(ETAG);
            }
            response
        })
    })
}

/// A status, with a pause that is asked for if one is given.
pub fn status(status: u16, retry_after: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(pause) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(pause));
    }
    response
}

/// More and more leaves.
pub fn many_leaves(_: &Asked, truth: &Truth) -> Response {
    let list = [&truth.body[..], &[0x55; 320_000]].concat();
    without_length(truth.with(Body::full(list)))
}

/// Somewhere else.
pub fn redirects() -> Response {
    let mut response = status(302, None);
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("http://192.0.2.1/"));
    response
}
