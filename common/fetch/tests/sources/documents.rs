//! Documents: the fetcher believes nothing of them but their size and, where a name carries a hash, that hash.

use std::sync::Arc;

use bytes::Bytes;
use colibri_api::ETag;
use colibri_common::sha256;
use colibri_fetch::{FetchError, Unverified};
use colibri_transport::{Body, Request};

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
        Unverified::Document { bytes, etag } => (bytes, etag),
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
