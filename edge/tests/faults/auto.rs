//! `/REPO/auto`: thousands who listen, slow ones among them, and edges that listen to edges.

use std::sync::Arc;
use std::time::Duration;

use colibri_common::{ManualClock, UnixSeconds};
use colibri_edge::{Edge, EdgeConfig};
use colibri_transport::{Body, Server, ServerConfig};
use http::Method;
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk, HOUR_S, NOW, build_at, clock};
use crate::site::{get, listen, request};
use crate::upstream::{Upstream, until};

const AUTO: &str = "/repo/auto";
const TIMESTAMP: &str = "/repo/timestamp.json";

/// Begins to listen.
async fn subscribe(edge: &Edge) -> Body {
    let response = edge.handler()(request(Method::GET, AUTO, &[])).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.into_body()
}

/// The next event's version, whatever comments come in between.
async fn hear(body: &mut Body) -> u64 {
    loop {
        let chunk = body.next().await.expect("the stream goes on").unwrap();
        let text = std::str::from_utf8(&chunk).unwrap();
        if let Some(data) = text.strip_prefix("event: timestamp.json\ndata: ") {
            return data.trim_end().parse().unwrap();
        }
        assert!(text.starts_with(':'), "{text:?}");
    }
}

async fn version(edge: &Edge) -> u64 {
    let json: serde_json::Value = serde_json::from_slice(get(edge, TIMESTAMP, &[]).await.bytes()).unwrap();
    json["signed"]["version"].as_u64().unwrap()
}

/// A repository, its upstream, and an edge that is refreshed by every request.
struct Stage {
    desk: Desk,
    upstream: Upstream,
    time: Arc<ManualClock>,
    hours: u64,
}

impl Stage {
    async fn new() -> Self {
        let (desk, upstream) = (Desk::new(), Upstream::start().await);
        upstream.serves(&desk.site());
        Self { desk, upstream, time: clock(0), hours: 0 }
    }

    fn moves_on(&mut self) {
        self.hours += 1;
        self.upstream.serves(&self.desk.moves_on(self.hours));
        self.time.set(UnixSeconds(NOW.0 + self.hours * HOUR_S));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_tells_ten_thousand_who_listen_and_turns_away_the_next() {
    let mut stage = Stage::new().await;
    let config = EdgeConfig { auto_listeners_max: 10_000, ..stage.desk.followed(&[&stage.upstream]) };
    let edge = build_at(&config, &stage.time);
    let first = version(&edge).await;
    let mut listeners = Vec::new();
    for _ in 0..10_000 {
        listeners.push(subscribe(&edge).await);
    }
    assert_eq!(edge.metrics().auto_listeners.get(), 10_000);
    let refused = get(&edge, AUTO, &[]).await;
    assert_eq!((refused.status, refused.header("retry-after").is_empty()), (429, false), "{refused:?}");
    for body in &mut listeners {
        assert_eq!(hear(body).await, first);
    }
    stage.moves_on();
    let second = version(&edge).await;
    assert_ne!(first, second);
    for body in &mut listeners {
        assert_eq!(hear(body).await, second);
    }
    // Places of those who leave are free again.
    listeners.truncate(9_000);
    until(|| edge.metrics().auto_listeners.get() == 9_000).await;
    assert_eq!(hear(&mut subscribe(&edge).await).await, second);
    drop(listeners);
    until(|| edge.metrics().auto_listeners.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_slow_listeners_lose_what_is_in_between_and_get_the_newest() {
    let mut stage = Stage::new().await;
    let edge = build_at(&stage.desk.followed(&[&stage.upstream]), &stage.time);
    version(&edge).await;
    let (mut slow, mut fast) = (subscribe(&edge).await, subscribe(&edge).await);
    let mut newest = hear(&mut fast).await;
    for _ in 0..12 {
        stage.moves_on();
        newest = version(&edge).await;
        assert_eq!(hear(&mut fast).await, newest, "who reads hears each");
    }
    let mut heard = Vec::new();
    while heard.last() != Some(&newest) {
        heard.push(hear(&mut slow).await);
    }
    assert!(heard.len() < 12 && heard.is_sorted(), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_is_there_for_followed_repositories_only() {
    let stage = Stage::new().await;
    let edge = build_at(&stage.desk.followed(&[&stage.upstream]), &stage.time);
    let got = get(&edge, "/other/auto", &[]).await;
    assert_eq!(got.status, 404);
    let head = crate::site::head(&edge, AUTO).await;
    assert_eq!((head.status, head.bytes().len()), (200, 0));
    assert_eq!(edge.metrics().auto_listeners.get(), 0);
}

/// A child that would ask only in a thousand seconds hears from its parent; also from one that was away in between. When it
/// drains, streams end.
#[tokio::test(flavor = "multi_thread")]
async fn auto_brings_news_to_a_child_at_once_and_again_after_the_parent_was_away() {
    let mut stage = Stage::new().await;
    let parent = build_at(&stage.desk.followed(&[&stage.upstream]), &stage.time);
    version(&parent).await;
    let (address, serving) = listen(&parent);
    let upstreams = vec![format!("http://{address}")];
    let config = EdgeConfig { upstreams, metadata_max_age_s: 1000, ..stage.desk.followed(&[]) };
    let child = build_at(&config, &stage.time);
    let stop = CancellationToken::new();
    let following = tokio::spawn({
        let (child, stop) = (child.clone(), stop.clone());
        async move { child.follow(stop).await }
    });
    let mut body = subscribe(&child).await;
    let first = hear(&mut body).await;
    until(|| parent.metrics().auto_listeners.get() == 1).await;
    stage.moves_on();
    let second = version(&parent).await;
    assert_ne!(first, second);
    assert_eq!(hear(&mut body).await, second);
    drop(serving);
    until(|| parent.metrics().auto_listeners.get() == 0).await;
    stage.moves_on();
    let third = version(&parent).await;
    let mut server = None;
    until(|| {
        server = Server::bind(ServerConfig::plain(address), parent.handler()).ok();
        server.is_some()
    })
    .await;
    let again = CancellationToken::new();
    tokio::spawn(server.unwrap().serve(again.clone(), Duration::ZERO));
    assert_eq!(hear(&mut body).await, third, "it came back, and said what is current");
    assert!(child.metrics().auto_heard.get() >= 2);
    stop.cancel();
    following.await.unwrap();
    while let Some(chunk) = body.next().await {
        assert!(chunk.unwrap().starts_with(b":"), "it ends, and well");
    }
    again.cancel();
}
