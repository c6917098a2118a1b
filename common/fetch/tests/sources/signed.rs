//! What is signed about the size of a blob: who sends more is stopped and blamed; who publishes a contradiction is told.

use colibri_fetch::{FetchError, SignedSize};
use colibri_package::delivery::Encoding;

use crate::lies::never_ends_leaves;
use crate::site::{self, Node, Site, TYPE};
use crate::{LENGTH, fetch, fetcher};

#[tokio::test(flavor = "multi_thread")]
async fn more_than_was_signed_is_a_lie() {
    let content = site::content(LENGTH, 7);
    let (id, site) = (site::id(&content), Site::with(&content, 1));
    let right = site.files[&format!("/blobs/1/{id}")].0.clone();
    let signed = |encoded_bytes| SignedSize { content_bytes: LENGTH as u64, encoded_bytes };
    // A list of leaves without end, which is read no further than it may be long.
    let (liar, honest) = (Node::lying(site.clone(), never_ends_leaves()), Node::honest(site.clone()));
    let fetches = fetcher(vec![liar.source(), honest.source()]).with_signed_size(Some(signed(None)));
    assert!(fetch(&fetches, id, Encoding::Delivery(TYPE)).await.unwrap().encoded == right);
    let given: Vec<_> = fetches.sources().list().iter().map(|source| (source.blames(), source.body_bytes())).collect();
    assert!(given[0].0 == 1 && given[0].1 < 300_000 && given[1].0 == 0, "{given:?}");
    // A larger form than the signed one, though it is one of this blob.
    let other = Site::with(&content, 19);
    let forms = [&site, &other].map(|site| site.files[&format!("/blobs/1/{id}")].0.len() as u64);
    let (large, small) = if forms[0] > forms[1] { (site.clone(), other) } else { (other, site.clone()) };
    let (liar, honest) = (Node::honest(large), Node::honest(small));
    let signed_bytes = forms[0].min(forms[1]);
    let fetches = fetcher(vec![liar.source(), honest.source()]).with_signed_size(Some(signed(Some(signed_bytes))));
    let fetched = fetch(&fetches, id, Encoding::Delivery(TYPE)).await.unwrap();
    assert_eq!(fetched.encoded.len() as u64, signed_bytes);
    assert_eq!(fetches.sources().list().iter().map(|source| source.blames()).collect::<Vec<_>>(), [1, 0]);
    // From a server without leaves no more is taken into memory than was signed.
    let (liar, honest) = (Node::honest(Site::with(&content, 1).without_leaves()), Node::honest(site.clone()));
    let shorter = SignedSize { content_bytes: 8193, encoded_bytes: None };
    let fetches = fetcher(vec![liar.source(), honest.source()]).with_signed_size(Some(shorter));
    let refused = fetches.open("", id, Encoding::Raw).await.unwrap_err();
    assert!(matches!(refused, FetchError::AllFailed { bad_bytes: true, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signed_lengths_that_differ_are_nobodys_lie() {
    let content = site::content(100_000, 7);
    let node = Node::honest(Site::with(&content, 1));
    let wrong = SignedSize { content_bytes: 100_001, encoded_bytes: None };
    let fetches = fetcher(vec![node.source()]).with_signed_size(Some(wrong));
    let refused = fetches.open("", site::id(&content), Encoding::Raw).await.unwrap_err();
    let told = "has 100000 bytes by its hash, and was signed as one of 100001";
    assert!(matches!(refused, FetchError::SignedSize { .. }) && refused.to_string().contains(told), "{refused}");
    assert_eq!(fetches.sources().blames(), []);
}
