//! One source, or none that is wholly right: what still works, and what the error says when nothing does.

use std::sync::Arc;

use colibri_fetch::FetchError;
use colibri_package::delivery::Encoding;
use colibri_transport::{Body, Request};
use http::StatusCode;

use crate::site::{self, Lie, Node, Site, Stage, TYPE, status};
use crate::{fetch, fetch_units, fetcher};

const LENGTH: usize = (2 << 20) + 70_000;

/// A file server that has never heard of ranges.
fn without_ranges() -> Lie {
    Arc::new(|site, _, request| {
        let mut plain = http::Request::new(Body::empty());
        *plain.uri_mut() = request.uri().clone();
        Some(site.honest(&plain))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_file_server_without_ranges_or_tags_is_enough() {
    let content = site::content(LENGTH, 1);
    for has_leaves in [true, false] {
        for encoding in [Encoding::Raw, Encoding::Delivery(TYPE)] {
            let site = Site::with(&content, 1).without_etags();
            let site = if has_leaves { site } else { site.without_leaves() };
            let node = Node::lying(site, without_ranges());
            let fetcher = fetcher(vec![node.source()]);
            let fetched = fetch(&fetcher, site::id(&content), encoding).await.unwrap();
            assert_eq!(fetched.runs.iter().map(|(_, count)| count).sum::<u32>(), fetched.layout.piece_count());
            assert_eq!(fetcher.sources().blames(), [], "{encoding} {has_leaves}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_file_server_without_entity_tags_serves_single_frames() {
    let content = site::content(LENGTH, 1);
    let site = Site::with(&content, 1).without_etags();
    let node = Node::honest(site);
    let fetcher = fetcher(vec![node.source()]);
    fetch(&fetcher, site::id(&content), Encoding::Delivery(TYPE)).await.unwrap();
    assert!(node.asked().iter().all(|asked| asked.range.is_some() || asked.stage == Stage::Leaves));
}

/// zstd output differs between versions: an honest source may have another form of the same content. It cannot supply
/// frames, with or without an entity tag that says so, and it is not to blame.
#[tokio::test(flavor = "multi_thread")]
async fn another_encoded_form_is_never_joined_and_nobody_is_blamed() {
    let content = site::content(LENGTH, 1);
    let id = site::id(&content);
    // As an edge sees it that says neither form nor total.
    let mute: Lie = Arc::new(|site, asked, request: &Request| {
        let mut response = site.honest(request);
        if asked.stage == Stage::Pieces {
            let range = asked.range.unwrap();
            let value = format!("bytes {}-{}/*", range.start(), range.end() - 1);
            response.headers_mut().insert(http::header::CONTENT_RANGE, value.parse().unwrap());
        }
        Some(response)
    });
    let other = Site::with(&content, 9);
    let others = [
        Node::honest(other.clone()),
        Node::honest(other.clone().without_etags()),
        Node::lying(other.without_etags(), mute),
    ];
    for other in others {
        let (alone, honest) = (other.source(), Node::honest(Site::with(&content, 1)));
        let opened = fetcher(vec![honest.source()]).open("", id, Encoding::Delivery(TYPE)).await.unwrap();
        let both = fetcher(vec![other.source(), honest.source()]);
        let fetched = fetch_units(&both, opened.layout.clone()).await.unwrap();
        assert!(fetched.encoded == Site::with(&content, 1).files[&format!("/blobs/1/{id}")].0);
        assert_eq!(both.sources().blames(), []);
        // Alone it is no use for this form, and the error says so; opened anew, it serves its own.
        let alone = fetcher(vec![alone]);
        match fetch_units(&alone, opened.layout).await.map(drop).unwrap_err() {
            FetchError::AllFailed { other_form, bad_bytes, .. } => assert!(other_form && !bad_bytes),
            error => panic!("{error}"),
        }
        fetch(&alone, id, Encoding::Delivery(TYPE)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_always_breaks_off_is_worn_down() {
    let content = site::content(LENGTH, 1);
    let lie: Lie = Arc::new(|site, asked, request: &Request| {
        let mut response = site.honest(request);
        let range = asked.range.filter(|_| asked.stage == Stage::Pieces)?;
        // A tenth of a unit at a time.
        let (file, _) = &site.files[&asked.path];
        let (mut sender, body) = Body::channel(Some(range.len()));
        let part = file.slice(range.within(0));
        let part = part.slice(..part.len().min(200 << 10));
        tokio::spawn(async move { sender.send(part).await });
        *response.body_mut() = body;
        Some(response)
    });
    let node = Node::lying(Site::with(&content, 1), lie);
    let fetched = fetch(&fetcher(vec![node.source()]), site::id(&content), Encoding::Raw).await.unwrap();
    assert!(fetched.encoded == content);
    assert!(node.asked().iter().filter(|asked| asked.stage == Stage::Pieces).count() > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_blob_and_every_source() {
    let content = site::content(LENGTH, 1);
    let id = site::id(&content);
    let empty = Node::honest(Site::default());
    let error = fetch(&fetcher(vec![empty.source()]), id, Encoding::Raw).await.map(drop).unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    assert!(error.to_string().contains(empty.source.url.authority()), "{error}");

    let failing = Node::lying(Site::default(), Arc::new(|_, _, _| Some(status(500))));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone_url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let sources = vec![failing.source(), colibri_fetch::Source::new(gone_url.parse().unwrap()), empty.source()];
    let error = fetch(&fetcher(sources), id, Encoding::Raw).await.map(drop).unwrap_err();
    assert!(matches!(error, FetchError::AllFailed { bad_bytes: false, absent_somewhere: true, .. }), "{error}");
    for name in [failing.source.url.authority(), gone_url.strip_prefix("http://").unwrap()] {
        assert!(error.to_string().contains(name), "{error}");
    }
    let error = fetch(&fetcher(Vec::new()), id, Encoding::Raw).await.map(drop).unwrap_err();
    assert!(matches!(error, FetchError::NoSource(_)), "{error}");
}

/// Two addresses on one host are two sources: what one does not have, the other may.
#[tokio::test(flavor = "multi_thread")]
async fn two_sources_on_one_host_are_two() {
    let content = site::content(9_000, 1);
    let site = Site::with(&content, 1);
    let mut moved = Site::default();
    for (path, (bytes, etag)) in &site.files {
        moved.put(&format!("/second{path}"), bytes.to_vec(), etag.clone());
    }
    // The second fails the first time it is asked for a path: the first's "no" must not be taken for its own.
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let hesitant: Lie = Arc::new(move |_, one, _| {
        let first_time = one.path.starts_with("/second/") && seen.lock().unwrap().insert(one.path.clone());
        first_time.then(|| status(500))
    });
    let node = Node::lying(moved, hesitant);
    let at = |path: &str| colibri_fetch::Source::new(node.source.url.join(path).parse().unwrap());
    let fetched = fetch(&fetcher(vec![at("/first"), at("/second")]), site::id(&content), Encoding::Raw).await.unwrap();
    assert!(fetched.encoded == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_reset_is_no_proof_of_malice() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let resets = tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { return };
            // Closing with unread bytes resets the connection.
            socket.readable().await.unwrap();
            drop(socket);
        }
    });
    let content = site::content(LENGTH, 1);
    let honest = Node::honest(Site::with(&content, 1));
    let fetcher = fetcher(vec![colibri_fetch::Source::new(url.parse().unwrap()), honest.source()]);
    let fetched = fetch(&fetcher, site::id(&content), Encoding::Raw).await.unwrap();
    assert!(fetched.encoded == content && fetcher.sources().blames().is_empty());
    assert!(fetcher.sources().list()[0].requests() > 0);
    resets.abort();
}

/// The answer to a loop of caches is final: asking again would only feed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_is_not_asked_again_in_haste() {
    let node = Node::lying(Site::default(), Arc::new(|_, _, _| Some(status(StatusCode::LOOP_DETECTED.as_u16()))));
    let error = fetch(&fetcher(vec![node.source()]), site::id(b"x"), Encoding::Raw).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
    assert_eq!(node.asked().len(), 1);
}
