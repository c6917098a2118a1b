//! `/REPO/auto`: who listens hears of every new timestamp, and listeners are bounded.

mod fixture;

use colibri_origin::limits::AUTO_LISTENERS_MAX;
use colibri_transport::{Body, Handler};
use fixture::{Folder, ask, get, open, replace, send, vectors};
use http::{Method, StatusCode};

/// Replaces the timestamp by one that says it has this version; nobody verifies it here.
fn timestamp(folder: &Folder, version: u32) {
    let sample = std::fs::read_to_string(vectors().join("tuf-repo/timestamp.json")).unwrap();
    let text = sample.replace("\"version\":1}}", &format!("\"version\":{version}}}}}"));
    assert!(version == 1 || text != sample);
    replace(&folder.metadata().join("timestamp.json"), text.as_bytes());
}

/// Begins to listen.
async fn listen(handler: &Handler) -> Body {
    let response = send(handler, Method::GET, "/devhost/auto", &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.into_body()
}

/// The next event, comments aside; nothing at the end.
async fn event(body: &mut Body) -> Option<String> {
    loop {
        let next = String::from_utf8(body.next().await?.unwrap().to_vec()).unwrap();
        if !next.starts_with(':') {
            return Some(next);
        }
    }
}

fn version(number: u32) -> Option<String> {
    Some(format!("event: timestamp.json\ndata: {number}\n\n"))
}

#[tokio::test]
async fn every_listener_hears_the_current_version_and_each_new_one() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    let mut first = listen(&handler).await;
    assert_eq!(event(&mut first).await, version(1));
    timestamp(&folder, 5);
    assert_eq!(event(&mut first).await, version(5));
    let mut second = listen(&handler).await;
    assert_eq!(event(&mut second).await, version(5));
    // A tool that writes in place is caught half-way and told when it is done.
    std::fs::write(folder.metadata().join("timestamp.json"), "{\"signed\":").unwrap();
    timestamp(&folder, 6);
    assert_eq!((event(&mut first).await, event(&mut second).await), (version(6), version(6)));
    // Nobody listens for a while.
    drop((first, second));
    timestamp(&folder, 7);
    let mut third = listen(&handler).await;
    let mut heard = event(&mut third).await;
    if heard == version(6) {
        // It came before anybody looked again.
        heard = event(&mut third).await;
    }
    assert_eq!(heard, version(7));
}

#[tokio::test]
async fn what_cannot_be_listened_to() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    let head = ask(&handler, Method::HEAD, "/devhost/auto", &[]).await;
    assert_eq!((head.status, head.header("content-type"), head.body.len()), (StatusCode::OK, "text/event-stream", 0));
    assert_eq!(get(&handler, "/other/auto", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask(&handler, Method::POST, "/devhost/auto", &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn listeners_are_bounded_and_make_room_when_they_leave() {
    let folder = Folder::new();
    let handler = folder.origin().handler();
    let mut listeners = Vec::new();
    for _ in 0..AUTO_LISTENERS_MAX {
        listeners.push(listen(&handler).await);
    }
    let refused = get(&handler, "/devhost/auto", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "30"));
    // Everything else is answered as ever.
    assert_eq!(get(&handler, "/devhost/timestamp.json", &[]).await.status, StatusCode::OK);
    listeners.pop();
    while send(&handler, Method::GET, "/devhost/auto", &[]).await.status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_ends_the_streams() {
    let folder = Folder::new();
    let origin = folder.origin();
    let handler = origin.handler();
    let mut listener = listen(&handler).await;
    assert_eq!(event(&mut listener).await, version(1));
    origin.end_events();
    assert_eq!(event(&mut listener).await, None);
}

#[tokio::test]
async fn devices_are_told_to_listen_where_that_is_wanted() {
    let folder = Folder::new();
    for subscribe in [false, true] {
        let handler = open(colibri_origin::OriginConfig { subscribe, ..folder.config("devhost") }).handler();
        let config = get(&handler, "/devhost/repo.config", &[]).await.json();
        assert_eq!(config["mirrors"][0]["subscribe"], subscribe);
    }
}
