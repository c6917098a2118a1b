//! Invariant 1 at the edge: whatever upstream sends, no bad byte reaches a reader, memory or disk, and no body ends clean
//! that is not whole.

use colibri_edge::{Admission, EdgeConfig};

use colibri_edge::Edge;
use http::Method;
use serde_json::Value;

use crate::site::{build, config, disk, get, part, request, send, unit_files, whole};
use crate::upstream::{Fault, Upstream, content, id, until};

const LENGTH: usize = (4 << 20) + 54_321;

/// A compressed delivery blob whose frames hold so much content each, stored, not compressed.
pub fn stored_frames(content: &[u8], frame_content: usize) -> Vec<u8> {
    let frames: Vec<(usize, Vec<u8>)> = content
        .chunks(frame_content)
        .map(|part| {
            let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
            let blocks = part.chunks(128 << 10);
            let last = blocks.len() - 1;
            for (index, block) in blocks.enumerate() {
                let header = (block.len() as u32) << 3 | u32::from(index == last);
                frame.extend_from_slice(&header.to_le_bytes()[..3]);
                frame.extend_from_slice(block);
            }
            (part.len(), frame)
        })
        .collect();
    let (mut table, mut content_at, mut frame_at) = (Vec::new(), 0, 32 + 32 * frames.len());
    for (content_bytes, frame) in &frames {
        for number in [content_at, *content_bytes, frame_at, frame.len()] {
            table.extend_from_slice(&(number as u64).to_le_bytes());
        }
        (content_at, frame_at) = (content_at + content_bytes, frame_at + frame.len());
    }
    let mut archive = vec![0x46, 0x9b, 0x78, 0xef, 0x0f, 0xd0, 0xb2, 0x03, 2, 0, 0, 0];
    archive.extend_from_slice(&(frames.len() as u32).to_le_bytes());
    archive.resize(32, 0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&archive[..16]);
    crc.update(&archive[20..]);
    crc.update(&table);
    archive[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
    archive.extend_from_slice(&table);
    frames.iter().for_each(|(_, frame)| archive.extend_from_slice(frame));

    let mut header = vec![0xfc, 0x1a, 0xb1, 0x0b, 1, 0, 0, 0, 28, 0, 0, 0];
    header.extend_from_slice(&(archive.len() as u64).to_le_bytes());
    header.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    let crc = crc32fast::hash(&header);
    header[20..24].copy_from_slice(&crc.to_le_bytes());
    [header, archive].concat()
}

/// Which requests a lie is told to.
fn is_part(path: &str, range: Option<&str>, wanted: &str) -> bool {
    match wanted {
        "leaves" => path.contains("/leaves/"),
        "unit" => range.is_some_and(|range| {
            let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            end.parse::<u64>().unwrap() - start.parse::<u64>().unwrap() > 40_000
        }),
        _ => !path.contains("/leaves/"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_poison_gives_errors_and_never_a_byte() {
    let content = content(LENGTH, 1);
    let id = id(&content);
    let faults = [
        ("leaves", Fault::Flip(100)),
        ("unit", Fault::Flip(0)),
        ("unit", Fault::Flip(1_000_000)),
        ("blob", Fault::Flip(77)),
        ("unit", Fault::Cut(300_000)),
        ("unit", Fault::Status(500)),
        ("blob", Fault::Status(404)),
    ];
    for form in ["", "1/"] {
        for (wanted, fault) in faults.clone() {
            let dir = tempfile::tempdir().unwrap();
            let upstream = Upstream::with(&[&content]).await;
            let edge =
                build(&EdgeConfig { disk: disk(dir.path(), 1 << 30, Admission::Always), ..config(&[&upstream]) });
            let path = format!("/blobs/{form}{id}");
            let right = upstream.file(&path);
            let told = fault.clone();
            upstream.faults(move |path, range| is_part(path, range, wanted).then(|| told.clone()));
            let got = get(&edge, &path, &[]).await;
            match (&got.body, got.status) {
                (Ok(body), 200) => assert!(*body == right, "{wanted} {fault:?}"),
                (Ok(_), 502) => assert!(got.problem()["detail"].as_str().unwrap().contains(&upstream.name())),
                (Ok(_), 404) => assert!(matches!(fault, Fault::Status(404))),
                (Err(part), 200) => assert!(right.starts_with(part), "{wanted} {fault:?}"),
                other => panic!("{wanted} {fault:?}: {other:?}"),
            }
            // What was good came to the tiers, what was bad did not: now everything is right.
            upstream.no_faults();
            whole(&edge, &path, &right).await;
            whole(&edge, &path, &right).await;
            edge.finish().await;
            let kept = unit_files(dir.path());
            assert_eq!(kept.len(), 1, "one blob in one form");
            assert!(std::fs::read(&kept[0]).unwrap().starts_with(&right), "{wanted} {fault:?}: the file on disk");
        }
    }
}

/// What the edge's admin port says.
async fn admin(edge: &Edge, path: &str) -> Value {
    let got = send(&edge.control(), request(Method::GET, path, &[])).await;
    assert_eq!(got.status, 200, "{path}: {got:?}");
    serde_json::from_slice(got.bytes()).unwrap()
}

/// What was sent is kept, as it was sent, with where it came from: the leaf or the frame, not what is around it.
#[tokio::test(flavor = "multi_thread")]
async fn poison_is_kept_in_quarantine_with_where_it_came_from() {
    let content = content(LENGTH, 6);
    let id = id(&content);
    for (form, encoding, wanted, at) in [
        ("", "raw", "unit", 1_000_000),
        ("1/", "1", "unit", 1_000_000),
        ("", "leaves", "leaves", 100),
        ("1/", "leaves", "leaves", 100),
    ] {
        let (liar, honest) = (Upstream::with(&[&content]).await, Upstream::with(&[&content]).await);
        let dir = tempfile::tempdir().unwrap();
        let edge =
            build(&EdgeConfig { disk: disk(dir.path(), 1 << 30, Admission::Always), ..config(&[&liar, &honest]) });
        liar.faults(move |path, range| is_part(path, range, wanted).then_some(Fault::Flip(at)));
        let path = format!("/blobs/{form}{id}");
        let right = honest.file(&path);
        whole(&edge, &path, &right).await;
        let list = admin(&edge, "/quarantine").await;
        let piece = list["pieces"].as_array().unwrap().first().unwrap_or_else(|| panic!("{path} {wanted}: nothing"));
        assert_eq!((&piece["source"], &piece["blob"]), (&liar.name().into(), &id.to_string().into()));
        assert_eq!(piece["encoding"], encoding);
        assert!(piece["first_at"].as_u64().unwrap() > 1_700_000_000 && piece["times"].as_u64().unwrap() >= 1);
        assert!(piece["detail"].as_str().unwrap().contains("bad"), "{piece}");
        let shown = admin(&edge, &format!("/quarantine/{}", piece["number"])).await;
        let sent = unhex(shown["content"].as_str().unwrap());
        assert_eq!((sent.len() as u64, shown["kept_bytes"].as_u64()), (sent.len() as u64, Some(sent.len() as u64)));
        if wanted == "unit" {
            let offset = piece["offset"].as_u64().unwrap() as usize;
            let should = &right[offset..offset + sent.len()];
            let wrong: Vec<_> = (0..sent.len()).filter(|at| sent[*at] != should[*at]).collect();
            assert_eq!(wrong.len(), 1, "{path}: all of it is as it was sent");
            assert!(sent.len() <= 64 << 10 && (!form.is_empty() || sent.len() == 8192), "{}", sent.len());
        }
        if form.is_empty() || wanted == "leaves" {
            let (expected, found) = (piece["expected"].as_str().unwrap(), piece["found"].as_str().unwrap());
            assert!(expected.len() == 64 && found.len() == 64 && expected != found, "{piece}");
        }
        let explained = admin(&edge, &format!("/explain/{id}")).await;
        assert!(explained["quarantined"].as_array().unwrap().contains(&piece["number"]), "{explained}");
        let absent = send(&edge.control(), request(Method::GET, "/quarantine/999999", &[])).await;
        assert_eq!(absent.status, 404);
        // What is served from here is right all the same.
        edge.finish().await;
        let kept = unit_files(dir.path());
        assert!(std::fs::read(&kept[0]).unwrap().starts_with(&right), "{path}: the file on disk");
    }
}

/// A source that sends something else each time: what is kept of it is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn poison_without_end_stays_within_the_quarantine() {
    let upstream = Upstream::start().await;
    let edge = build(&config(&[&upstream]));
    upstream.faults(|path, _| (!path.contains("/leaves/")).then_some(Fault::Flip(3)));
    let bound = colibri_edge::limits::QUARANTINE_OF_ONE_SOURCE_MAX;
    for seed in 0..bound as u64 + 20 {
        let lie = content(5000, 1000 + seed);
        upstream.add_raw(&lie);
        assert_eq!(get(&edge, &format!("/blobs/{}", id(&lie)), &[]).await.status, 502);
    }
    let list = admin(&edge, "/quarantine").await;
    let pieces = list["pieces"].as_array().unwrap();
    assert_eq!(pieces.len(), bound);
    let newest = id(&content(5000, 1000 + bound as u64 + 19));
    assert_eq!(pieces.last().unwrap()["blob"], newest.to_string());
    let metrics = edge.metrics();
    assert_eq!(metrics.quarantine_pieces.get(), bound as i64);
    assert_eq!(metrics.quarantine_bytes.get(), 5000 * bound as i64);
    assert!(metrics.quarantined.get() >= bound as u64 + 20);
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_is_an_error_or_made_good_and_never_a_clean_end() {
    let content = content(LENGTH, 3);
    let id = id(&content);
    for form in ["", "1/"] {
        let path = format!("/blobs/{form}{id}");
        for cut in [0, 1, 8191, 8192, 300_000, (2 << 20) - 1] {
            let (short, honest) = (Upstream::with(&[&content]).await, Upstream::with(&[&content]).await);
            let right = short.file(&path);
            short.faults(move |path, range| is_part(path, range, "unit").then_some(Fault::Cut(cut)));
            let alone = build(&config(&[&short]));
            let got = get(&alone, &path, &[]).await;
            // Retries may go on where the one before was cut off.
            match (&got.body, got.status) {
                (Ok(body), 200) => assert!(*body == right, "cut at {cut}"),
                (Err(part), 200) => assert!(part.len() < right.len() && right.starts_with(part), "cut at {cut}"),
                (Ok(_), 502) => assert!(got.problem()["detail"].as_str().unwrap().contains(&short.name())),
                other => panic!("cut at {cut}: {other:?}"),
            }
            let both = build(&config(&[&short, &honest]));
            whole(&both, &path, &right).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_second_upstream_makes_good_for_a_lying_first() {
    let content = content(LENGTH, 2);
    let id = id(&content);
    for form in ["", "1/"] {
        for (wanted, fault, blamed) in [
            ("leaves", Fault::Flip(100), true),
            ("unit", Fault::Flip(1_000_000), true),
            ("unit", Fault::Cut(300_000), false),
            ("unit", Fault::Hang(300_000), false),
            ("leaves", Fault::Hang(10), false),
            ("blob", Fault::Status(404), false),
            ("blob", Fault::Status(503), false),
        ] {
            let (liar, honest) = (Upstream::with(&[&content]).await, Upstream::with(&[&content]).await);
            let edge = build(&EdgeConfig { upstream_patience_s: 1, ..config(&[&liar, &honest]) });
            let told = fault.clone();
            liar.faults(move |path, range| is_part(path, range, wanted).then(|| told.clone()));
            let path = format!("/blobs/{form}{id}");
            whole(&edge, &path, &honest.file(&path)).await;
            let blames: Vec<_> = edge.sources().blames().into_iter().map(|blame| blame.source).collect();
            assert_eq!(!blames.is_empty(), blamed, "{wanted} {fault:?}: {blames:?}");
            assert!(blames.iter().all(|source| *source == liar.name()), "{blames:?}");
            assert_eq!(honest.asked_max(), 1);
            assert_eq!(edge.metrics().fill_failures.get(), 0);
        }
    }
}

/// The first upstream shows a form whose frames are bad; the second has the same content in another form. The form that
/// cannot be had to its end is given up and the other is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_cannot_be_had_is_replaced_by_one_that_can() {
    let content = content(LENGTH, 3);
    let (liar, honest) = (Upstream::start().await, Upstream::with(&[&content]).await);
    let mut forged = stored_frames(&content, 64 << 10);
    // In the first frame, behind unit H: the last piece, which proves the length, is right.
    let at = forged.len() / 3;
    forged[at] ^= 1;
    liar.add_encoded(&content, &forged);
    let edge = build(&config(&[&liar, &honest]));
    let path = format!("/blobs/1/{}", id(&content));
    let first = get(&edge, &path, &[]).await;
    if let Ok(body) = &first.body {
        assert!(*body == honest.file(&path));
    }
    whole(&edge, &path, &honest.file(&path)).await;
    assert!(edge.sources().blames().iter().all(|blame| blame.source == liar.name()));
}

/// Upstream was rebuilt with another version of zstd. Readers get one form or the other, whole, and the entity tag says which.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_encodes_anew_is_followed() {
    let content = content(LENGTH, 4);
    let upstream = Upstream::with(&[&content]).await;
    // Nothing stays in memory: every unit is fetched again.
    let edge = build(&EdgeConfig { memory_bytes: 1 << 20, ..config(&[&upstream]) });
    let path = format!("/blobs/1/{}", id(&content));
    let old = whole(&edge, &path, &upstream.file(&path)).await;
    upstream.add_encoded(&content, &stored_frames(&content, 64 << 10));
    let new = whole(&edge, &path, &upstream.file(&path)).await;
    assert_ne!(old.header("etag"), new.header("etag"));
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_that_is_away_is_named_and_what_is_here_is_served_on() {
    let content = content(LENGTH, 5);
    let mut upstream = Upstream::with(&[&content]).await;
    let edge = build(&config(&[&upstream]));
    let id = id(&content);
    let path = format!("/blobs/{id}");
    part(&edge, &path, &content, 0, 1000).await;
    upstream.go_away().await;
    for path in [&*path, &format!("/blobs/1/{id}"), "/repo/timestamp.json", "/repo/1.root.json"] {
        let got = get(&edge, path, &[("range", "bytes=3000000-")]).await;
        assert_eq!(got.status, 502, "{path}");
        assert!(got.problem()["detail"].as_str().unwrap().contains(&upstream.name()), "{path}: {got:?}");
        assert_eq!(got.header("cache-control"), "no-store");
    }
    // The failures have not taken away what was here before.
    part(&edge, &path, &content, 5, 2 << 20).await;
    upstream.come_back().await;
    until(|| std::net::TcpStream::connect(upstream.name()).is_ok()).await;
    whole(&edge, &path, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_blob_is_404_from_one_upstream_and_502_while_another_cannot_say() {
    let (empty, mut other) = (Upstream::start().await, Upstream::start().await);
    let edge = build(&config(&[&empty, &other]));
    let path = format!("/blobs/1/{}", id(b"nobody has this"));
    let got = get(&edge, &path, &[]).await;
    assert_eq!((got.status, got.header("cache-control")), (404, "public, max-age=5"));
    other.go_away().await;
    // Another one: what was answered a moment ago may be remembered.
    let path = format!("/blobs/1/{}", id(b"nobody has this either"));
    assert_eq!(get(&edge, &path, &[]).await.status, 502);
}
