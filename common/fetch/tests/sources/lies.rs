//! What a source can do wrong with a blob, one row each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_api::ContentRange;
use colibri_common::{ByteRange, merkle};
use colibri_package::delivery::Encoding;
use colibri_transport::{Body, Request, Response};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::forge::{bomb, delivery_blob, frames};
use crate::site::{self, Asked, Lie, Site, Stage, TYPE, status};

/// One thing that the first source does wrong; the second is honest.
pub struct Row {
    pub name: &'static str,
    pub encoding: Encoding,
    pub length: usize,
    /// What the liar has, if not the same as the honest one.
    pub site: Option<Site>,
    pub lie: Lie,
    pub honest_has_leaves: bool,
    /// The liar wins time: the test must not wait as long as a device would.
    pub hasty: bool,
    pub expect: Expect,
}

/// What must come of it, besides the right bytes.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// The liar is blamed.
    pub blame: bool,
    /// Whether the honest source takes the first unit over *in the middle*; nothing if it matters not.
    pub taken_over: Option<bool>,
}

const RAW: Encoding = Encoding::Raw;
const DELIVERY: Encoding = Encoding::Delivery(TYPE);

impl Row {
    fn new(name: &'static str, encoding: Encoding, length: usize, lie: Lie) -> Self {
        let expect = Expect { blame: false, taken_over: None };
        Self { name, encoding, length, site: None, lie, honest_has_leaves: true, hasty: false, expect }
    }

    fn blamed(mut self) -> Self {
        self.expect.blame = true;
        self
    }

    fn taken_over(mut self) -> Self {
        self.expect.taken_over = Some(true);
        self
    }

    /// The liar is good enough: nobody else is asked for the unit.
    fn harmless(mut self) -> Self {
        self.expect.taken_over = Some(false);
        self
    }

    fn hasty(mut self) -> Self {
        self.hasty = true;
        self
    }

    fn has(mut self, site: Site) -> Self {
        self.site = Some(site);
        self
    }

    fn honest_without_leaves(mut self) -> Self {
        self.honest_has_leaves = false;
        self
    }
}

/// A lie at one stage, made of the bytes that were asked for.
fn at(stage: Stage, lie: impl Fn(Bytes, Response, &Asked) -> Response + Send + Sync + 'static) -> Lie {
    Arc::new(move |site: &Site, asked: &Asked, request: &Request| {
        let (file, _) = site.files.get(&asked.path).filter(|_| asked.stage == stage)?;
        let whole = ByteRange::whole(file.len() as u64);
        let part = file.slice(asked.range.map_or(whole, |range| range.intersect(whole)).within(0));
        Some(lie(part, site.honest(request), asked))
    })
}

fn always(lie: impl Fn() -> Response + Send + Sync + 'static) -> Lie {
    Arc::new(move |_, _, _| Some(lie()))
}

fn truth() -> Lie {
    Arc::new(|_, _, _| None)
}

fn with_body(response: Response, body: Body) -> Response {
    response.map(|_| body)
}

fn flip(part: &[u8], at: usize) -> Body {
    let mut part = part.to_vec();
    part[at] ^= 1;
    Body::full(part)
}

/// The first `bytes` of `part`, then nothing: the sender is dropped, or kept for ever.
fn stops(part: &Bytes, bytes: usize, hangs: bool) -> Body {
    let (mut sender, body) = Body::channel(Some(part.len() as u64));
    let head = part.slice(..bytes);
    tokio::spawn(async move {
        let sent = sender.send(head).await;
        if sent.is_ok() && hangs {
            std::future::pending::<()>().await;
        }
    });
    body
}

/// One byte now and then.
fn drips(part: Bytes) -> Body {
    let (mut sender, body) = Body::channel(Some(part.len() as u64));
    tokio::spawn(async move {
        for at in 0..part.len() {
            if sender.send(part.slice(at..=at)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sender.finish();
    });
    body
}

/// `part`, then zeros for as long as somebody reads.
fn goes_on(part: Bytes, mut response: Response) -> Response {
    let (mut sender, body) = Body::channel(None);
    tokio::spawn(async move {
        let zeros = Bytes::from_static(&[0; 8192]);
        let mut next = part;
        while sender.send(next).await.is_ok() {
            next = zeros.clone();
        }
    });
    response.headers_mut().remove(CONTENT_LENGTH);
    with_body(response, body)
}

fn says_range(mut response: Response, range: ByteRange, total: Option<u64>) -> Response {
    response.headers_mut().insert(CONTENT_RANGE, ContentRange::satisfied(range, total).to_value());
    response
}

/// A list of leaves without end.
pub fn never_ends_leaves() -> Lie {
    at(Stage::Leaves, |_, response, _| goes_on(vec![1; 1 << 20].into(), response))
}

/// All rows, for a blob of `length` bytes, which is several units.
pub fn rows(length: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for encoding in [RAW, DELIVERY] {
        rows.extend(of_connections(encoding, length));
        rows.extend(of_ranges(encoding, length));
        rows.extend(of_statuses(encoding, length));
        rows.extend(of_bytes(encoding, length));
    }
    rows.extend(of_leaves(length));
    rows.extend(of_encodings(length));
    rows
}

fn of_connections(encoding: Encoding, length: usize) -> Vec<Row> {
    let row = |name, lie| Row::new(name, encoding, length, lie);
    let half = |hangs| {
        at(Stage::Pieces, move |part, response, _| {
            let body = stops(&part, part.len() / 2, hangs);
            with_body(response, body)
        })
    };
    vec![
        row("breaks off in a unit", half(false)).taken_over(),
        row("stalls in a unit", half(true)).taken_over().hasty(),
        row("drips", at(Stage::Pieces, |part, response, _| with_body(response, drips(part)))).hasty(),
        row("drips leaves", at(Stage::Leaves, |part, response, _| with_body(response, drips(part)))).hasty(),
        row("never answers", at(Stage::Pieces, |part, response, _| with_body(response, stops(&part, 0, true)))).hasty(),
        row("never ends a unit", at(Stage::Pieces, |part, response, _| goes_on(part, response))).harmless(),
        row("never ends leaves", never_ends_leaves()).hasty(),
        Row::new("never ends a small blob", RAW, 50_000, at(Stage::Whole, |part, response, _| goes_on(part, response)))
            .blamed(),
        row(
            "breaks off in the last piece",
            at(Stage::LastPiece, |part, response, _| {
                let body = stops(&part, part.len() / 2, false);
                with_body(response, body)
            }),
        ),
        row(
            "breaks off in leaves",
            at(Stage::Leaves, |part, response, _| {
                let body = stops(&part, part.len() / 2, false);
                with_body(response, body)
            }),
        ),
        Row::new(
            "cuts a small blob without saying its length",
            encoding,
            5_000,
            Arc::new(|site, asked, request| {
                let (file, _) = site.files.get(&asked.path).filter(|_| asked.stage != Stage::Leaves)?;
                let (mut sender, body) = Body::channel(None);
                let half = file.slice(..file.len() / 2);
                tokio::spawn(async move {
                    if sender.send(half).await.is_ok() {
                        sender.finish();
                    }
                });
                let mut response = with_body(site.honest(request), body);
                *response.status_mut() = StatusCode::OK;
                response.headers_mut().remove(CONTENT_LENGTH);
                Some(response)
            }),
        ),
    ]
}

fn of_ranges(encoding: Encoding, length: usize) -> Vec<Row> {
    let row = |name, lie| Row::new(name, encoding, length, lie);
    vec![
        row(
            "sends more than it says",
            at(Stage::Pieces, |part, mut response, _| {
                response.headers_mut().remove(CONTENT_LENGTH);
                with_body(response, Body::full([&part[..], b"and more"].concat()))
            }),
        )
        .harmless(),
        row(
            "sends less than it says",
            at(Stage::Pieces, |part, mut response, _| {
                response.headers_mut().remove(CONTENT_LENGTH);
                let body = Body::full(part.slice(..part.len() / 2));
                with_body(response, body)
            }),
        )
        .taken_over(),
        row(
            "answers another range",
            at(Stage::Pieces, |_, response, asked| {
                let range = asked.range.unwrap();
                says_range(response, ByteRange::new(range.start() + 8192, range.end() + 8192), None)
            }),
        ),
        row(
            "answers a part of the range",
            at(Stage::Pieces, |part, mut response, asked| {
                let range = asked.range.unwrap();
                let half = part.len() / 2;
                response.headers_mut().remove(CONTENT_LENGTH);
                let response = with_body(response, Body::full(part.slice(..half)));
                says_range(response, ByteRange::new(range.start(), range.start() + half as u64), None)
            }),
        ),
        row(
            "says another total",
            at(Stage::Pieces, |_, response, asked| says_range(response, asked.range.unwrap(), Some(99 << 20))),
        )
        .blamed(),
        row(
            "says another total at the last piece",
            at(Stage::LastPiece, |_, response, asked| says_range(response, asked.range.unwrap(), Some(99 << 20))),
        )
        .blamed(),
        row(
            "answers 206 without a range",
            at(Stage::Pieces, |_, mut response, _| {
                response.headers_mut().remove(CONTENT_RANGE);
                response
            }),
        ),
        row(
            "answers a range that is none",
            at(Stage::Pieces, |_, mut response, _| {
                response.headers_mut().insert(CONTENT_RANGE, HeaderValue::from_static("bytes 5-1/0"));
                response
            }),
        ),
        row(
            "ignores ranges",
            Arc::new(|site, _, request| {
                let mut plain = http::Request::new(Body::empty());
                *plain.uri_mut() = request.uri().clone();
                Some(site.honest(&plain))
            }),
        ),
    ]
}

fn of_statuses(encoding: Encoding, length: usize) -> Vec<Row> {
    let row = |name, lie| Row::new(name, encoding, length, lie);
    let only_units = |code| at(Stage::Pieces, move |_, _, _| status(code));
    vec![
        row(
            "redirects",
            always(|| {
                let mut response = status(302);
                response.headers_mut().insert(LOCATION, HeaderValue::from_static("http://192.0.2.1/"));
                response
            }),
        ),
        row("has nothing", always(|| status(404))),
        row("has leaves and no blob", only_units(404)),
        row(
            "is shedding load for an hour",
            always(|| {
                let mut response = status(429);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("3600"));
                response
            }),
        ),
        row("fails", always(|| status(500))),
        row("fails in the middle", only_units(503)),
        row("says there is no such range", only_units(416)),
        row("says nothing at all", always(|| status(204))),
        row("says not modified", always(|| status(304))),
    ]
}

fn of_bytes(encoding: Encoding, length: usize) -> Vec<Row> {
    let row = |name, lie| Row::new(name, encoding, length, lie);
    let other = site::content(length, 8);
    let form = if encoding == RAW { "" } else { "1/" };
    let other = Site::with(&other, 1).files[&format!("/blobs/{form}{}", site::id(&other))].0.clone();
    vec![
        row(
            "flips a bit at the beginning of a unit",
            at(Stage::Pieces, |part, response, _| with_body(response, flip(&part, 1))),
        )
        .blamed(),
        row(
            "flips a bit late in a unit",
            at(Stage::Pieces, |part, response, _| with_body(response, flip(&part, part.len() - 1))),
        )
        .blamed()
        .taken_over(),
        row(
            "flips a bit of the last piece",
            at(Stage::LastPiece, |part, response, _| with_body(response, flip(&part, part.len() / 2))),
        )
        .blamed(),
        row("sends zeros", at(Stage::Pieces, |part, response, _| with_body(response, Body::full(vec![0; part.len()]))))
            .blamed(),
        row(
            "serves another blob",
            Arc::new(move |site: &Site, asked: &Asked, request: &Request| {
                if asked.stage == Stage::Leaves {
                    return None;
                }
                let mut swapped = site.clone();
                swapped.files.insert(asked.path.clone(), (other.clone(), None));
                Some(swapped.honest(request))
            }),
        )
        .blamed(),
        row("flips a bit of leaves", at(Stage::Leaves, |part, response, _| with_body(response, flip(&part, 40))))
            .blamed(),
        Row::new(
            "flips a bit of a small blob",
            encoding,
            5_000,
            Arc::new(|site, asked, request| {
                let (file, _) = site.files.get(&asked.path).filter(|_| asked.stage != Stage::Leaves)?;
                let response = site.honest(request);
                Some(with_body(response, flip(file, file.len() / 2)))
            }),
        )
        .blamed(),
    ]
}

fn of_leaves(length: usize) -> Vec<Row> {
    let row = |name, encoding, lie| Row::new(name, encoding, length, lie);
    let list = |bytes: &'static [u8]| {
        at(Stage::Leaves, move |_, mut response, _| {
            response.headers_mut().remove(CONTENT_LENGTH);
            with_body(response, Body::full(bytes))
        })
    };
    let bad = || at(Stage::Leaves, |part, response, _| with_body(response, flip(&part, 40)));
    vec![
        row(
            "sends an all-zero leaf",
            RAW,
            at(Stage::Leaves, |part, response, _| {
                let mut list = part.to_vec();
                list[64..96].fill(0);
                with_body(response, Body::full(list))
            }),
        )
        .blamed(),
        row(
            "adds a zero leaf",
            RAW,
            at(Stage::Leaves, |part, mut response, _| {
                response.headers_mut().remove(CONTENT_LENGTH);
                with_body(response, Body::full([&part[..], &[0; 32]].concat()))
            }),
        )
        .blamed(),
        row(
            "leaves the last leaf out",
            RAW,
            at(Stage::Leaves, |part, mut response, _| {
                response.headers_mut().remove(CONTENT_LENGTH);
                let body = Body::full(part.slice(..part.len() - 32));
                with_body(response, body)
            }),
        )
        .blamed(),
        row("says that a large blob has one leaf", RAW, list(b"")).blamed(),
        row("says that a large blob has one leaf", DELIVERY, list(b"")).blamed(),
        row("sends the root as a leaf list", RAW, list(&[3; 32])).blamed(),
        row("sends half a leaf", RAW, list(&[3; 48])).blamed(),
        // The honest source has no leaves at all: it must not matter what others say about them.
        row("sends bad leaves beside a plain file server", RAW, bad()).blamed().honest_without_leaves(),
        row("sends bad leaves beside a plain file server", DELIVERY, bad()).blamed().honest_without_leaves(),
        row(
            "has no leaves and a bad blob",
            RAW,
            at(Stage::Whole, |part, response, _| with_body(response, flip(&part, 9))),
        )
        .has(Site::with(&site::content(length, 7), 1).without_leaves())
        .blamed()
        .honest_without_leaves(),
        row(
            "has no leaves and another blob",
            DELIVERY,
            at(Stage::Whole, |_, mut response, _| {
                response.headers_mut().remove(CONTENT_LENGTH);
                with_body(response, Body::full(delivery_blob(&frames(&site::content(9_000, 5)), 0, 0)))
            }),
        )
        .has(Site::with(&site::content(length, 7), 1).without_leaves())
        .blamed()
        .honest_without_leaves(),
    ]
}

fn of_encodings(length: usize) -> Vec<Row> {
    let content = site::content(length, 7);
    let row = |name, encoded: Vec<u8>| {
        Row::new(name, DELIVERY, length, truth()).has(Site::encoded(&site::content(length, 7), &encoded))
    };
    let good = frames(&content);
    let with_frame = |index: usize, frame: Vec<u8>| {
        let mut frames = good.clone();
        frames[index].1 = frame;
        delivery_blob(&frames, 0, 0)
    };
    let last = good.len() - 1;
    let mut flipped_header = delivery_blob(&good, 0, 0);
    flipped_header[13] ^= 1;
    let mut flipped_table = delivery_blob(&good, 0, 0);
    flipped_table[100] ^= 1;
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4], &good[0].1[..]].concat();
    let two_frames = [&good[0].1[..], &good[0].1[..]].concat();
    let uncompressed_lie = {
        let mut header = delivery_blob(&good, 0, 0)[..28].to_vec();
        header[24..28].copy_from_slice(&7_u32.to_le_bytes());
        header[20..24].fill(0);
        let crc = crc32fast::hash(&header);
        header[20..24].copy_from_slice(&crc.to_le_bytes());
        [header, content.clone()].concat()
    };
    vec![
        row("has a gap before the first frame", delivery_blob(&good, 8, 0)).blamed(),
        row("has a tail", delivery_blob(&good, 0, 8)).blamed(),
        row("has a flipped header", flipped_header).blamed(),
        row("has a flipped seek table", flipped_table).blamed(),
        row("has unknown flags", uncompressed_lie).blamed(),
        row("has HTML", b"<html>Welcome to our hotel! Please pay.</html>".repeat(2_000)).blamed(),
        row("has a decompression bomb", with_frame(0, bomb(2_000))).blamed(),
        row("has a decompression bomb at the end", with_frame(last, bomb(2_000))).blamed(),
        row("has a skippable frame", with_frame(0, skippable)).blamed(),
        row("has two frames in one", with_frame(0, two_frames)).blamed(),
        row("has a frame of another place", with_frame(1, good[2].1.clone())).blamed(),
        Row::new(
            "names a form that its own header denies",
            DELIVERY,
            length,
            at(Stage::UnitH, |_, mut response, asked| {
                let id = asked.path.rsplit('/').next().unwrap();
                let etag = format!("\"{id}.1.0123456789abcdef\"");
                response.headers_mut().insert(ETAG, HeaderValue::from_str(&etag).unwrap());
                response
            }),
        ),
        Row::new(
            "names another encoded form",
            DELIVERY,
            length,
            at(Stage::Pieces, |_, mut response, asked| {
                let id = asked.path.rsplit('/').next().unwrap();
                let etag = format!("\"{id}.1.0123456789abcdef\"");
                response.headers_mut().insert(ETAG, HeaderValue::from_str(&etag).unwrap());
                response
            }),
        ),
        // Nothing says which form it has, and its header is right: the bad frame is its own.
        Row::new(
            "says nothing of its form and flips a bit",
            DELIVERY,
            length,
            at(Stage::Pieces, |part, mut response, asked| {
                response.headers_mut().remove(ETAG);
                let response = says_range(response, asked.range.unwrap(), None);
                with_body(response, flip(&part, 5))
            }),
        )
        .blamed(),
        Row::new("has the raw content in place of the blob", DELIVERY, length, truth())
            .has({
                let mut site = Site::with(&content, 1);
                let id = merkle::build(&content).id;
                site.put(&format!("/blobs/1/{id}"), content.clone(), None);
                site
            })
            .blamed(),
    ]
}
