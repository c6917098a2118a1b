//! Blobs in every form: whole, in ranges, under every condition, and when the disk is wrong.

mod fixture;

use std::sync::Arc;

use colibri_common::{BlobId, merkle};
use colibri_origin::OriginConfig;
use colibri_package::delivery::{DeliveryType, Identity, Layout, encode};
use colibri_transport::Handler;
use fixture::{Answer, Blobs, Folder, LEVEL, ask, content, get, open, send};
use http::{Method, StatusCode};

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

fn identity(encoded: &[u8]) -> String {
    let unit_h = Layout::unit_h_bytes(encoded).unwrap() as usize;
    Identity::of_unit_h(&encoded[..unit_h]).etag_hex()
}

/// GET and HEAD of a whole representation, at both of its addresses.
async fn check_whole(handler: &Handler, path: &str, etag: &str, expected: &[u8]) {
    for prefix in ["/devhost", ""] {
        let path = format!("{prefix}{path}");
        let answer = get(handler, &path, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
        assert!(answer.body == expected, "{path}: {} bytes instead of {}", answer.body.len(), expected.len());
        assert_eq!(answer.header("content-length"), expected.len().to_string());
        assert_eq!(answer.header("etag"), etag, "{path}");
        assert_eq!(answer.header("cache-control"), IMMUTABLE);
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        assert!(answer.header("cache-status").starts_with("colibri-origin; hit"), "{}", answer.header("cache-status"));
        let head = ask(handler, Method::HEAD, &path, &[("range", "bytes=0-1")]).await;
        assert_eq!((head.status, &head.headers, head.body.len()), (StatusCode::OK, &answer.headers, 0), "{path}");
    }
}

#[tokio::test]
async fn every_form_of_blobs_of_every_size() {
    let folder = Folder::new();
    let sizes = [0, 1, 8191, 8192, 8193, 40_000, 300_000, 2 << 20, (5 << 20) + 77];
    for (seed, size) in sizes.into_iter().enumerate() {
        let bytes = content(seed as u64, size);
        let tree = merkle::build(&bytes);
        let (id, type1) = folder.put_delivery(&bytes, DeliveryType::Type1);
        let (_, type2) = folder.put_delivery(&bytes, DeliveryType::Type2);
        let handler = folder.origin().handler();
        check_whole(&handler, &format!("/blobs/1/{id}"), &format!("\"{id}.1.{}\"", identity(&type1)), &type1).await;
        check_whole(&handler, &format!("/blobs/2/{id}"), &format!("\"{id}.2.{}\"", identity(&type2)), &type2).await;
        check_whole(&handler, &format!("/blobs/{id}"), &format!("\"{id}\""), &bytes).await;
        check_whole(&handler, &format!("/blobs/leaves/{id}"), &format!("\"{id}.leaves\""), &tree.leaves.wire()).await;
        let leaves = tree.leaves.wire();
        assert_eq!(leaves.len(), if size <= 8192 { 0 } else { 32 * size.div_ceil(8192) });
        let kept = folder.blobs(Blobs::Inside).join(format!("leaves/{id}"));
        assert_eq!(kept.exists(), size > 8192, "computed leaves are kept beside the blobs");
    }
}

#[tokio::test]
async fn raw_files_need_no_delivery_blob() {
    let folder = Folder::new();
    for size in [0, 5, 8193, 700_000] {
        let bytes = content(9, size);
        let id = folder.put_raw(&bytes);
        let handler = folder.origin().handler();
        check_whole(&handler, &format!("/blobs/{id}"), &format!("\"{id}\""), &bytes).await;
        check_whole(
            &handler,
            &format!("/blobs/leaves/{id}"),
            &format!("\"{id}.leaves\""),
            &merkle::build(&bytes).leaves.wire(),
        )
        .await;
        let delivery = get(&handler, &format!("/blobs/1/{id}"), &[]).await;
        assert_eq!((delivery.status, delivery.header("cache-control")), (StatusCode::NOT_FOUND, "public, max-age=7"));
    }
}

#[tokio::test]
async fn blobs_beside_the_metadata_are_found_as_product_bundles_have_them() {
    let folder = Folder::new();
    let bytes = content(3, 50_000);
    let id = merkle::build(&bytes).id;
    let encoded = encode(&bytes, DeliveryType::Type1, LEVEL).unwrap();
    folder.put(Blobs::Beside, &format!("1/{id}"), &encoded);
    let handler = folder.origin().handler();
    check_whole(&handler, &format!("/blobs/1/{id}"), &format!("\"{id}.1.{}\"", identity(&encoded)), &encoded).await;
}

#[tokio::test]
async fn golden_delivery_blobs_are_served() {
    let folder = Folder::new();
    let read = |name: &str| std::fs::read(fixture::vectors().join(name)).unwrap();
    let raw = read("lcg100000.raw");
    let id = merkle::build(&raw).id;
    folder.put(Blobs::Inside, &format!("1/{id}"), &read("type1-lcg100000-zstd14.blob"));
    folder.put(Blobs::Inside, &format!("2/{id}"), &read("type2-lcg100000-zstd21.blob"));
    let handler = folder.origin().handler();
    assert!(get(&handler, &format!("/blobs/{id}"), &[]).await.body == raw);
    assert!(get(&handler, &format!("/blobs/2/{id}"), &[]).await.body == read("type2-lcg100000-zstd21.blob"));
}

#[tokio::test]
async fn any_range_is_that_slice() {
    let folder = Folder::new();
    let bytes = content(11, (4 << 20) + 12_345);
    let (id, encoded) = folder.put_delivery(&bytes, DeliveryType::Type1);
    let plain = content(12, 900_001);
    let plain_id = folder.put_raw(&plain);
    let leaves = merkle::build(&bytes).leaves.wire();
    let handler = folder.origin().handler();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let forms: [(String, &[u8]); 4] = [
        (format!("/blobs/{id}"), &bytes),
        (format!("/blobs/1/{id}"), &encoded),
        (format!("/blobs/{plain_id}"), &plain),
        (format!("/blobs/leaves/{id}"), &leaves),
    ];
    for (path, whole) in forms {
        let length = whole.len();
        let mut cases =
            vec![(0, 0), (0, length - 1), (length - 1, length - 1), (8191, 8192), (0, 32_795.min(length - 1))];
        cases.extend((0..20).map(|_| {
            let first = random.usize(..length);
            (first, random.usize(first..length))
        }));
        for (first, last) in cases {
            let answer = get(&handler, &path, &[("range", &format!("bytes={first}-{last}"))]).await;
            assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
            assert!(answer.body == whole[first..=last], "{path} {first}-{last}");
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{length}"));
            assert_eq!(answer.header("content-length"), (last - first + 1).to_string());
        }
        for (range, first) in
            [("bytes=-10".to_owned(), length - 10), (format!("bytes={}-{}", length - 3, length * 9), length - 3)]
        {
            let answer = get(&handler, &path, &[("range", &range)]).await;
            assert_eq!(answer.header("content-range"), format!("bytes {first}-{}/{length}", length - 1));
            assert!(answer.body == whole[first..]);
        }
        let beyond = get(&handler, &path, &[("range", &format!("bytes={length}-"))]).await;
        assert_eq!(
            (beyond.status, beyond.header("content-range")),
            (StatusCode::RANGE_NOT_SATISFIABLE, &*format!("bytes */{length}"))
        );
        assert_eq!(beyond.json()["status"], 416);
        for ignored in ["lines=1-2", "bytes=2-1"] {
            assert_eq!(get(&handler, &path, &[("range", ignored)]).await.body.len(), length, "{ignored}");
        }
    }
}

#[tokio::test]
async fn conditions() {
    let folder = Folder::new();
    let (id, encoded) = folder.put_delivery(&content(5, 30_000), DeliveryType::Type1);
    let handler = folder.origin().handler();
    let path = format!("/devhost/blobs/1/{id}");
    let etag = format!("\"{id}.1.{}\"", identity(&encoded));
    let weak = format!("W/{etag}");
    let other = format!("\"{id}.1.0000000000000000\"");
    let status = |answer: Answer| answer.status.as_u16();
    for (headers, expected) in [
        (vec![("if-none-match", &*etag)], 304),
        (vec![("if-none-match", &weak)], 304),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-none-match", &other)], 200),
        (vec![("if-none-match", &etag), ("range", "bytes=0-1")], 304),
        (vec![("range", "bytes=0-1"), ("if-range", &etag)], 206),
        (vec![("range", "bytes=0-1"), ("if-range", &weak)], 200),
        (vec![("range", "bytes=0-1"), ("if-range", &other)], 200),
        (vec![("range", "bytes=0-1"), ("if-range", "Sat, 29 Oct 1994 19:43:31 GMT")], 200),
        (vec![("range", "bytes=999999-"), ("if-range", &other)], 200),
        (vec![("if-match", &other)], 412),
        (vec![("if-match", &etag), ("range", "bytes=0-1")], 206),
    ] {
        assert_eq!(status(get(&handler, &path, &headers).await), expected, "{headers:?}");
    }
    let same = get(&handler, &path, &[("if-none-match", &etag)]).await;
    assert_eq!((same.body.len(), same.header("etag"), same.header("content-length")), (0, &*etag, ""));
    // A tag of one form says nothing of another.
    assert_eq!(status(get(&handler, &format!("/blobs/{id}"), &[("if-none-match", &etag)]).await), 200);
}

#[tokio::test]
async fn absent_blobs_and_strange_files() {
    let folder = Folder::new();
    let absent = BlobId::from_digest([0xee; 32]);
    let as_folder = BlobId::from_digest([0xdd; 32]);
    std::fs::create_dir_all(folder.blobs(Blobs::Inside).join(format!("1/{as_folder}"))).unwrap();
    let only_leaves = merkle::build(&content(1, 20_000));
    folder.put(Blobs::Inside, &format!("leaves/{}", only_leaves.id), &only_leaves.leaves.wire());
    let handler = folder.origin().handler();
    for id in [absent, as_folder, only_leaves.id] {
        for form in ["", "1/", "2/", "leaves/"] {
            let answer = get(&handler, &format!("/devhost/blobs/{form}{id}"), &[]).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (StatusCode::NOT_FOUND, "application/problem+json")
            );
            assert_eq!(answer.header("cache-control"), "public, max-age=7");
            assert!(answer.json()["detail"].as_str().unwrap().contains(&id.to_string()));
        }
    }
}

async fn refused(handler: &Handler, id: BlobId, why: &str) {
    for form in ["", "1/", "leaves/"] {
        for _ in 0..2 {
            let answer = get(handler, &format!("/blobs/{form}{id}"), &[]).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{why}, form {form:?}");
        }
    }
}

#[tokio::test]
async fn damaged_files_are_not_served() {
    let bytes = content(21, 200_000);
    let merkle::Tree { id, leaves, .. } = merkle::build(&bytes);
    let leaves = leaves.wire();
    let encoded = encode(&bytes, DeliveryType::Type1, LEVEL).unwrap();
    let flipped = |at: usize| {
        let mut wrong = encoded.clone();
        wrong[at] ^= 1;
        wrong
    };
    let other = encode(&content(22, 200_000), DeliveryType::Type1, LEVEL).unwrap();
    let cases = [
        ("cut by one byte", encoded[..encoded.len() - 1].to_vec()),
        ("cut in the header", encoded[..20].to_vec()),
        ("cut in the seek table", encoded[..100].to_vec()),
        ("empty", Vec::new()),
        ("with a tail", [&encoded[..], b"x"].concat()),
        ("last byte flipped", flipped(encoded.len() - 1)),
        ("header flipped", flipped(21)),
        ("seek table flipped", flipped(70)),
        ("middle flipped", flipped(encoded.len() / 2)),
        ("another blob", other),
        ("not a delivery blob", bytes.clone()),
        ("type 2 under type 1", encode(&bytes, DeliveryType::Type2, LEVEL).unwrap()),
    ];
    for (why, stored) in &cases {
        for leaves_stored in [false, true] {
            // Behind good leaves only header, table, length and the last piece are looked at beforehand.
            if leaves_stored && *why == "middle flipped" {
                continue;
            }
            let folder = Folder::new();
            let kept = folder.blobs(Blobs::Inside).join(format!("leaves/{id}"));
            if leaves_stored {
                fixture::replace(&kept, &leaves);
            }
            folder.put(Blobs::Inside, &format!("1/{id}"), stored);
            let origin = folder.origin();
            refused(&origin.handler(), id, why).await;
            let kept = std::fs::read(kept);
            assert!(kept.is_err() || kept.unwrap() == leaves, "{why}: no wrong leaves are kept");
            // The verdict is about this version of the file only.
            folder.put(Blobs::Inside, &format!("1/{id}"), &encoded);
            assert!(get(&origin.handler(), &format!("/blobs/{id}"), &[]).await.body == bytes, "{why}: repaired");
        }
    }
}

#[tokio::test]
async fn a_damaged_form_does_not_hide_a_good_one() {
    let folder = Folder::new();
    let bytes = content(23, 100_000);
    let (id, encoded) = folder.put_delivery(&bytes, DeliveryType::Type1);
    folder.put(Blobs::Inside, &id.to_string(), &bytes[..99_999]);
    let handler = folder.origin().handler();
    assert!(get(&handler, &format!("/blobs/{id}"), &[]).await.body == bytes);
    assert!(get(&handler, &format!("/blobs/1/{id}"), &[]).await.body == encoded);
}

#[tokio::test]
async fn damage_in_the_middle_ends_a_raw_answer_and_never_shows() {
    let bytes = content(24, 3 << 20);
    for kind in [None, Some(DeliveryType::Type1)] {
        let folder = Folder::new();
        let tree = merkle::build(&bytes);
        let id = tree.id;
        let (name, mut stored) = match kind {
            None => (id.to_string(), bytes.clone()),
            Some(kind) => (format!("{kind}/{id}"), encode(&bytes, kind, LEVEL).unwrap()),
        };
        let middle = stored.len() / 2;
        stored[middle] ^= 1;
        folder.put(Blobs::Inside, &name, &stored);
        // With stored leaves the last piece proves the length, and the damage is found only when it is read.
        folder.put(Blobs::Inside, &format!("leaves/{id}"), &tree.leaves.wire());
        let handler = folder.origin().handler();
        let response = send(&handler, Method::GET, &format!("/blobs/{id}"), &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let mut received = Vec::new();
        let ended = loop {
            match body.next().await {
                Some(Ok(bytes)) => received.extend_from_slice(&bytes),
                Some(Err(_)) => break "an error",
                None => break "the end",
            }
        };
        assert_eq!(ended, "an error", "{kind:?}");
        assert!(
            bytes.starts_with(&received) && received.len() < bytes.len() && received.len() > 1 << 20,
            "{kind:?}: {}",
            received.len()
        );
        // A range that has none of it is served; one that begins in it is refused before a byte is sent.
        let tail = get(&handler, &format!("/blobs/{id}"), &[("range", "bytes=-100000")]).await;
        assert!(tail.status == StatusCode::PARTIAL_CONTENT && tail.body == bytes[bytes.len() - 100_000..]);
        let range = format!("bytes={}-", received.len());
        assert_eq!(get(&handler, &format!("/blobs/{id}"), &[("range", &range)]).await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn wrong_stored_leaves_are_computed_again() {
    let bytes = content(25, 100_000);
    let tree = merkle::build(&bytes);
    let good = tree.leaves.wire();
    let other = merkle::build(&content(26, 100_000)).leaves.wire();
    let mut flipped = good.to_vec();
    flipped[40] ^= 1;
    for wrong in [
        Vec::new(),
        other.to_vec(),
        flipped,
        good[..good.len() - 32].to_vec(),
        good[..50].to_vec(),
        vec![0; good.len()],
    ] {
        let folder = Folder::new();
        let (id, encoded) = folder.put_delivery(&bytes, DeliveryType::Type1);
        let name = format!("leaves/{id}");
        folder.put(Blobs::Inside, &name, &wrong);
        let handler = folder.origin().handler();
        assert!(get(&handler, &format!("/blobs/leaves/{id}"), &[]).await.body == good);
        assert!(get(&handler, &format!("/blobs/1/{id}"), &[]).await.body == encoded);
        assert!(std::fs::read(folder.blobs(Blobs::Inside).join(name)).unwrap() == good, "replaced on disk");
    }
}

#[tokio::test]
async fn computed_leaves_need_not_be_kept() {
    let folder = Folder::new();
    let (id, _) = folder.put_delivery(&content(27, 100_000), DeliveryType::Type1);
    let origin = open(OriginConfig { keep_computed_leaves: false, ..folder.config("devhost") });
    assert_eq!(get(&origin.handler(), &format!("/blobs/leaves/{id}"), &[]).await.body.len(), 13 * 32);
    let names: Vec<_> =
        std::fs::read_dir(folder.blobs(Blobs::Inside)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["1"]);
}

#[tokio::test]
async fn another_encoding_of_the_blob_is_another_representation() {
    let folder = Folder::new();
    let bytes = content(28, 3 << 20);
    let (id, first) = folder.put_delivery(&bytes, DeliveryType::Type1);
    let origin = folder.origin();
    let handler = origin.handler();
    let path = format!("/blobs/1/{id}");
    let before = get(&handler, &path, &[]).await;
    // A body under way goes on with the file it was opened with.
    let mut under_way = send(&handler, Method::GET, &path, &[]).await.into_body();
    let mut received = under_way.next().await.unwrap().unwrap().to_vec();

    let second = encode(&bytes, DeliveryType::Type1, Some(9)).unwrap();
    assert_ne!(first, second);
    folder.put(Blobs::Inside, &format!("1/{id}"), &second);
    let old_tag = before.header("etag").to_owned();
    let after = get(&handler, &path, &[("range", "bytes=0-9"), ("if-range", &old_tag)]).await;
    assert_eq!(after.status, StatusCode::OK);
    assert!(after.body == second && before.body == first);
    assert_ne!(after.header("etag"), old_tag);

    received.extend_from_slice(&under_way.read_all(1 << 30).await.unwrap());
    assert!(received == first);
}

#[tokio::test]
async fn several_repositories_share_the_host_wide_address() {
    let (left, right) = (Folder::new(), Folder::new());
    let (id_left, bytes_left) = left.put_delivery(&content(31, 9000), DeliveryType::Type1);
    let (id_right, bytes_right) = right.put_delivery(&content(32, 9000), DeliveryType::Type1);
    let mut config = left.config("left");
    config.repositories.extend(right.config("right").repositories);
    let handler = open(config).handler();
    for (path, expected) in [
        (format!("/left/blobs/1/{id_left}"), Some(&bytes_left)),
        (format!("/right/blobs/1/{id_left}"), None),
        (format!("/right/blobs/1/{id_right}"), Some(&bytes_right)),
        (format!("/blobs/1/{id_left}"), Some(&bytes_left)),
        (format!("/blobs/1/{id_right}"), Some(&bytes_right)),
        (format!("/middle/blobs/1/{id_right}"), None),
    ] {
        let answer = get(&handler, &path, &[]).await;
        assert_eq!(
            (answer.status == StatusCode::OK).then_some(&answer.body[..]),
            expected.map(|bytes| &bytes[..]),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_get_the_same() {
    let folder = Folder::new();
    let bytes: Arc<[u8]> = content(33, (6 << 20) + 5).into();
    let (id, _) = folder.put_delivery(&bytes, DeliveryType::Type1);
    let handler = folder.origin().handler();
    let tasks: Vec<_> = (0..16)
        .map(|index: usize| {
            let (handler, bytes) = (handler.clone(), bytes.clone());
            tokio::spawn(async move {
                let first = index * 300_000;
                let answer = get(&handler, &format!("/blobs/{id}"), &[("range", &format!("bytes={first}-"))]).await;
                assert!(answer.body == bytes[first..]);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Raw content is decoded from the delivery blob as it is sent, the others lie as they are.
#[tokio::test]
async fn several_ranges_of_every_form() {
    let folder = Folder::new();
    let bytes = content(21, (2 << 20) + 70_001);
    let (id, type1) = folder.put_delivery(&bytes, DeliveryType::Type1);
    let leaves = merkle::build(&bytes).leaves.wire();
    let handler = folder.origin().handler();
    for (path, file) in [
        (format!("/blobs/{id}"), &bytes[..]),
        (format!("/blobs/1/{id}"), &type1[..]),
        (format!("/blobs/leaves/{id}"), &leaves[..]),
    ] {
        let length = file.len();
        // The second is longer than what is read at once.
        let wanted = [(length - 9, length), (1, length / 2), (length / 2 + 3, length / 2 + 4)];
        let list = wanted.map(|(start, end)| format!("{start}-{}", end - 1)).join(",");
        let answer = get(&handler, &path, &[("range", &format!("bytes={list},{length}-"))]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{path}");
        let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
        let mut expected = Vec::new();
        for (start, end) in wanted {
            let head = format!(
                "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {start}-{}/{length}\r\n\r\n",
                end - 1
            );
            expected.extend_from_slice(head.as_bytes());
            expected.extend_from_slice(&file[start..end]);
            expected.extend_from_slice(b"\r\n");
        }
        expected.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        assert!(answer.body == expected, "{path}: {} bytes instead of {}", answer.body.len(), expected.len());
        assert_eq!(answer.header("content-length"), expected.len().to_string());
        let beyond = get(&handler, &path, &[("range", &format!("bytes={length}-,{length}-{length}"))]).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.header("content-range"), format!("bytes */{length}"));
    }
}
