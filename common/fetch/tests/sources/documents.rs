//! Documents: the fetcher believes nothing of them but their size and, where a name carries a hash, that hash.

use std::sync::Arc;

use bytes::Bytes;
use colibri_api::{Coding, ETag};
use colibri_common::sha256;
use colibri_fetch::{FetchError, Unverified};
use colibri_transport::{Body, Request, coding};

use crate::fetcher;
use crate::site::{Lie, Node, Site, Stage, status};

const PATH: &str = "/repo/1.root.json";

fn site(text: &str) -> Site {
    let mut site = Site::default();
    site.put(PATH, text.into(), Some(ETag::metadata(&sha256(text.as_bytes()))));
    site
}

fn document(answer: Unverified) -> (Bytes, Option<String>) {
    match answer {
        Unverified::Document { bytes, etag, .. } => (bytes, etag),
        Unverified::NotModified => panic!("not modified"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fetched_once_then_revalidated() {
    let node = Node::honest(site("{}"));
    let fetcher = fetcher(vec![node.source()]);
    let (bytes, etag) = document(fetcher.document(PATH, 100, None).await.unwrap());
    assert_eq!(&bytes[..], b"{}");
    assert_eq!(fetcher.document(PATH, 100, etag.as_deref()).await.unwrap(), Unverified::NotModified);
    assert_eq!(document(fetcher.document(PATH, 100, Some("\"other\"")).await.unwrap()).0, bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_too_long_is_taken_from_another_source() {
    let endless: Lie = Arc::new(|_, asked, _: &Request| {
        assert_eq!(asked.stage, Stage::Document);
        let (mut sender, body) = Body::channel(None);
        tokio::spawn(async move { while sender.send(Bytes::from_static(&[b' '; 4096])).await.is_ok() {} });
        Some(http::Response::new(body))
    });
    for liar in [Node::honest(site(&" ".repeat(101))), Node::lying(site("{}"), endless)] {
        let honest = Node::honest(site("{}"));
        let fetcher = fetcher(vec![liar.source(), honest.source()]);
        assert_eq!(&document(fetcher.document(PATH, 100, None).await.unwrap()).0[..], b"{}");
        assert!(!liar.asked().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_with_the_wrong_hash_is_taken_from_another_source() {
    let (liar, honest) = (Node::honest(site("{\"bad\":1}")), Node::honest(site("{}")));
    let fetcher = fetcher(vec![liar.source(), honest.source()]);
    let check = |bytes: &[u8]| if bytes == b"{}" { Ok(()) } else { Err("hash differs".to_owned()) };
    assert_eq!(&document(fetcher.document_checked(PATH, 100, None, &check).await.unwrap()).0[..], b"{}");
    let nobody = |_: &[u8]| Err("hash differs".to_owned());
    let error = fetcher.document_checked(PATH, 100, None, &nobody).await.unwrap_err();
    assert!(matches!(error, FetchError::AllFailed { bad_bytes: true, .. }), "{error}");
    assert!(error.to_string().contains("hash differs"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_only_if_every_source_says_so() {
    let (empty, failing) =
        (Node::honest(Site::default()), Node::lying(Site::default(), Arc::new(|_, _, _| Some(status(500)))));
    let error = fetcher(vec![empty.source()]).document(PATH, 100, None).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    let error = fetcher(vec![empty.source(), failing.source()]).document(PATH, 100, None).await.unwrap_err();
    assert!(matches!(error, FetchError::AllFailed { absent_somewhere: true, .. }), "{error}");
    // The one that said no is not asked again; the one that failed is.
    assert_eq!((empty.asked().len(), failing.asked().len()), (2, 3));
}

/// An answer in a coding, whatever is accepted.
fn coded(coding: Coding, form: Bytes) -> Lie {
    Arc::new(move |_, _, request: &Request| {
        assert_eq!(request.headers()["accept-encoding"], "zstd, gzip");
        let mut answer = http::Response::new(Body::full(form.clone()));
        let encoding = coding.content_encoding().unwrap_or(http::HeaderValue::from_static("br"));
        answer.headers_mut().insert("content-encoding", encoding);
        Some(answer)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coded_one_is_decoded_and_its_form_kept() {
    // The long one decodes to much more than it has itself.
    for text in ["{}".to_owned(), "{\"hummingbird\":1} ".repeat(20_000)] {
        for (name, form) in
            [(Coding::Zstd, coding::zstd(text.as_bytes())), (Coding::Gzip, coding::gzip(text.as_bytes()))]
        {
            let form = form.unwrap();
            let node = Node::lying(site("{}"), coded(name, form.clone()));
            let document = fetcher(vec![node.source()]).document(PATH, text.len() as u64, None).await.unwrap();
            let expected = Unverified::Document { bytes: text.clone().into(), coded: Some((name, form)), etag: None };
            assert!(document == expected, "{name:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_and_a_broken_form_are_refused_by_name() {
    let zeroes = vec![0; 1 << 20];
    let (zstd, gzip) = (coding::zstd(&zeroes).unwrap(), coding::gzip(&zeroes).unwrap());
    for (name, form, words) in [
        (Coding::Zstd, zstd.clone(), "the zstd body decodes to more than the 1048575 bytes allowed"),
        (Coding::Gzip, gzip.clone(), "the gzip body decodes to more than the 1048575 bytes allowed"),
        (Coding::Zstd, zstd.slice(..zstd.len() - 1), "the zstd body cannot be decoded"),
        (Coding::Gzip, gzip.slice(..gzip.len() - 1), "the gzip body cannot be decoded"),
        (Coding::Zstd, gzip, "the zstd body cannot be decoded"),
        (Coding::Identity, Bytes::from_static(b"{}"), "coded as `br`"),
    ] {
        let node = Node::lying(site("{}"), coded(name, form));
        let cap = if words.contains("more than") { (1 << 20) - 1 } else { 1 << 20 };
        let error = fetcher(vec![node.source()]).document(PATH, cap, None).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(node.source.url.authority()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_not_taken_coded() {
    let lie: Lie = Arc::new(|site: &Site, _, request: &Request| {
        assert!(!request.headers().contains_key("accept-encoding"));
        let mut answer = site.honest(request);
        answer.headers_mut().insert("content-encoding", http::HeaderValue::from_static("zstd"));
        Some(answer)
    });
    let content = crate::site::content(20_000, 1);
    let (liar, honest) = (Node::lying(Site::with(&content, 1), lie), Node::honest(Site::with(&content, 1)));
    let fetcher = fetcher(vec![liar.source(), honest.source()]);
    crate::fetch(&fetcher, crate::site::id(&content), colibri_package::delivery::Encoding::Raw).await.unwrap();
    assert!(!liar.asked().is_empty() && fetcher.sources().blames().is_empty());
}
