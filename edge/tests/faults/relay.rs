//! What is relayed: whole, once, uncached; and where it cannot be, no answer at all, for an edge authors none there.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_edge::{Edge, EdgeConfig};
use colibri_service::metrics::Registry;
use colibri_transport::{Body, Client, ClientConfig, Request, Response, Server, ServerConfig, ServerTls, handler};
use http::{HeaderMap, Method, StatusCode};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::site::{build, listen};
use crate::upstream::{loopback, until};

/// Method, path with query, headers and body of a request.
type Seen = (Method, String, HeaderMap, Bytes);

/// How the upstream answers.
#[derive(Clone, Copy)]
enum Manner {
    Well,
    Never,
    /// With more than is relayed.
    Huge,
    /// With half of what it announces.
    Short,
}

struct Desk {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: DropGuard,
}

impl Desk {
    fn start(manner: Manner) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let recording = seen.clone();
        let answering = handler(move |request: Request| {
            let seen: Arc<Mutex<Vec<Seen>>> = recording.clone();
            async move {
                let (head, body) = request.into_parts();
                let path = head.uri.path_and_query().unwrap().to_string();
                let body = body.read_all(1 << 20).await.unwrap_or_default();
                seen.lock().unwrap().push((head.method, path, head.headers, body));
                answer(manner).await
            }
        });
        let server = Server::bind(ServerConfig::plain(loopback(0)), answering).unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        Self { address, seen, _stop: stop.drop_guard() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(manner: Manner) -> Response {
    let body = match manner {
        Manner::Well => Body::full("signed"),
        Manner::Never => std::future::pending().await,
        Manner::Huge => Body::full(vec![7; (4 << 20) + 1]),
        Manner::Short => {
            let (mut sender, body) = Body::channel(Some(1000));
            tokio::spawn(async move { sender.send(Bytes::from_static(&[7; 500])).await });
            body
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(418).unwrap();
    response.headers_mut().insert("x-cup-server-proof", "3044".parse().unwrap());
    response.headers_mut().insert("connection", "x-secret".parse().unwrap());
    response.headers_mut().insert("x-secret", "1".parse().unwrap());
    response
}

fn edge(upstreams: &[String], patience_s: u64) -> Edge {
    let upstreams = upstreams.to_vec();
    build(&EdgeConfig { upstreams, upstream_patience_s: patience_s, ..EdgeConfig::default() })
}

fn client() -> Client {
    Client::new(ClientConfig::default()).unwrap()
}

fn post(base: &str, path: &str, body: impl Into<Bytes>) -> http::Request<Body> {
    let request = http::Request::builder().method(Method::POST).uri(format!("{base}{path}"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = request.header("content-type", "application/json").header("traceparent", trace);
    request.header("connection", "x-private").header("x-private", "1").body(Body::full(body)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_relayed_as_it_is_and_never_cached() {
    let desk = Desk::start(Manner::Well);
    let (address, _guard) = listen(&edge(&[desk.url()], 10));
    for (round, path) in
        [(1, "/devhost/authority?cup2key=1:abc&cup2hreq=ff"), (2, "/devhost/reports"), (3, "/devhost/reports")]
    {
        let response = client().send(post(&format!("http://{address}"), path, "question")).await.unwrap();
        assert_eq!(response.status(), 418);
        assert_eq!(response.headers()["x-cup-server-proof"], "3044");
        assert!(!response.headers().contains_key("x-secret"), "named by Connection");
        assert_eq!(response.headers()["cache-status"], "edge; fwd=method; fwd-status=418");
        assert_eq!(response.into_body().read_all(1000).await.unwrap(), "signed");
        let seen = desk.seen();
        let (method, asked, headers, body) = &seen[round - 1];
        assert_eq!((seen.len(), method, asked.as_str(), &body[..]), (round, &Method::POST, path, &b"question"[..]));
        assert_eq!(headers["content-type"], "application/json");
        assert!(!headers.contains_key("x-private"));
        assert!(headers["cdn-loop"].to_str().unwrap().starts_with("edge;"));
        let trace = headers["traceparent"].to_str().unwrap();
        assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !trace.contains("00f067aa0ba902b7"));
        assert_eq!(headers["host"], desk.address.to_string());
    }
}

/// On every protocol: no status, no body, no answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_relayed_gets_no_answer_on_any_protocol() {
    let nobody = std::net::TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap();
    let edge = edge(&[format!("http://{nobody}")], 10);
    let (plain, _guard) = listen(&edge);
    let dir = tempfile::tempdir().unwrap();
    let tls = ServerTls::load_or_create(dir.path(), &["localhost".to_owned()]).unwrap();
    for quic in [true, false] {
        let config = ServerConfig { quic, ..ServerConfig::secure(loopback(0), tls.clone()) };
        let server = Server::bind(config, edge.handler()).unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        let serving = tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        let client = client();
        let base = format!("https://{address}");
        let failed = client.send(post(&base, "/devhost/authority", "question")).await;
        assert!(failed.is_err(), "{:?}", failed.map(|response| response.status()));
        // The connection goes on where there are streams.
        let request = http::Request::builder().uri(format!("{base}/")).body(Body::empty()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status(), 200);
        stop.cancel();
        serving.await.unwrap();
    }
    let failed = client().send(post(&format!("http://{plain}"), "/devhost/reports", "question")).await;
    assert!(failed.is_err(), "{:?}", failed.map(|response| response.status()));
    assert_eq!(edge.metrics().relay_failures.get(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_huge_and_broken_answers_are_no_answers_and_nobody_else_is_asked() {
    for manner in [Manner::Never, Manner::Huge, Manner::Short] {
        let (bad, good) = (Desk::start(manner), Desk::start(Manner::Well));
        let (address, _guard) = listen(&edge(&[bad.url(), good.url()], 1));
        let began = Instant::now();
        let failed = client().send(post(&format!("http://{address}"), "/devhost/authority", "question")).await;
        assert!(failed.is_err(), "{:?}", failed.map(|response| response.status()));
        assert!(began.elapsed() < Duration::from_secs(25), "it waits for ever");
        assert_eq!((bad.seen().len(), good.seen().len()), (1, 0), "once sent, never sent again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_not_there_is_passed_over() {
    let nobody = std::net::TcpListener::bind(loopback(0)).unwrap().local_addr().unwrap();
    let good = Desk::start(Manner::Well);
    let (address, _guard) = listen(&edge(&[format!("http://{nobody}"), good.url()], 10));
    let response = client().send(post(&format!("http://{address}"), "/devhost/authority", "question")).await.unwrap();
    assert_eq!((response.status().as_u16(), good.seen().len()), (418, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_too_long_reaches_nobody_and_other_posts_are_refused() {
    let desk = Desk::start(Manner::Well);
    let edge = edge(&[desk.url()], 10);
    let (address, _guard) = listen(&edge);
    let base = format!("http://{address}");
    let failed = client().send(post(&base, "/devhost/reports", vec![0; (256 << 10) + 1])).await;
    assert!(failed.is_err(), "{:?}", failed.map(|response| response.status()));
    assert_eq!(desk.seen().len(), 0);
    for path in ["/devhost/authority/x", "/authority", "/blobs/reports", "/devhost/timestamp.json"] {
        let response = client().send(post(&base, path, "question")).await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(desk.seen().len(), 0);
}

/// The access log tells of each request when its body has ended: who asked, what, over what, and where it came from.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_for_each_request() {
    let content = crate::upstream::content(100_000, 31);
    let upstream = crate::upstream::Upstream::with(&[&content]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.json");
    let mut config = crate::site::config(&[&upstream]);
    config.access_log.to = file.to_str().unwrap().to_owned();
    let registry = Registry::new();
    let edge = Edge::build(&config, &registry).unwrap();
    let (address, _guard) = listen(&edge);
    let path = format!("/blobs/{}", crate::upstream::id(&content));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let client = client();
    let get = |path: &str, range: &'static str| {
        let request = http::Request::builder().uri(format!("http://{address}{path}"));
        let request = request.header("range", range).header("traceparent", trace).header("user-agent", "test");
        client.send(request.body(Body::empty()).unwrap())
    };
    for _ in 0..2 {
        let whole = get(&path, "none").await.unwrap().into_body().read_all(1 << 20).await.unwrap();
        assert!(whole == content);
        // The last byte comes before its flight has landed.
        until(|| edge.metrics().memory_bytes.get() > 0).await;
    }
    get(&path, "bytes=5-9").await.unwrap().into_body().read_all(100).await.unwrap();
    let missing = format!("/blobs/{}", "0".repeat(64));
    assert_eq!(get(&missing, "none").await.unwrap().status(), 404);
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    until(|| lines().len() == 4).await;
    let lines = lines();
    for line in &lines {
        assert_eq!(
            (&line["method"], &line["protocol"], &line["user_agent"]),
            (&"GET".into(), &"h1".into(), &"test".into())
        );
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["traceparent"].as_str().unwrap().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{line}");
        assert!(line["time_s"].as_u64().unwrap() > 1_500_000_000 && line["duration_ms"].is_u64());
        assert_eq!(line["complete"], true, "{line}");
    }
    let brief = |line: &serde_json::Value| {
        (
            line["status"].as_u64().unwrap(),
            line["bytes"].as_u64().unwrap(),
            line["tier"].clone(),
            line["source"].clone(),
        )
    };
    assert_eq!(brief(&lines[0]), (200, 100_000, "upstream".into(), upstream.name().into()));
    assert_eq!(brief(&lines[1]), (200, 100_000, "memory".into(), serde_json::Value::Null));
    assert_eq!(brief(&lines[2]), (206, 5, "memory".into(), serde_json::Value::Null));
    assert_eq!((&lines[2]["range"], &lines[2]["path"]), (&"bytes=5-9".into(), &path.into()));
    assert_eq!((&lines[3]["status"], &lines[3]["path"]), (&404.into(), &missing.into()));
    let text = registry.render();
    assert!(text.contains(r#"colibri_edge_answers_total{class="2xx",protocol="h1"} 3"#), "{text}");
    assert!(text.contains(r#"colibri_edge_answers_total{class="4xx",protocol="h1"} 1"#), "{text}");
}
