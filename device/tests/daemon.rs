//! The daemon as a library: who may do what, what becomes of work whose asker goes, and news that mirrors tell of.

mod scene;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_common::SystemClock;
use colibri_device::daemon::wire::{Event, LeaseEntry, Problem, Status};
use colibri_device::daemon::{Daemon, DaemonParts, Subscribing};
use colibri_device::{Device, DeviceConfig};
use colibri_fetch::listen::Pauses;
use colibri_transport::{Body, Response, UnixConnection, UnixPeer};
use http::Method;
use scene::{HOST, Scene, noise};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const OWNER: u32 = 1000;
const OTHER: u32 = 1001;

/// How long anything may take. A bound for a test that hangs.
const PATIENCE: Duration = Duration::from_secs(120);

struct Asker {
    daemon: Daemon,
    uid: u32,
    gone: CancellationToken,
}

impl Asker {
    fn of(daemon: &Daemon, uid: u32) -> Self {
        Self { daemon: daemon.clone(), uid, gone: CancellationToken::new() }
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> Response {
        let mut request = http::Request::new(Body::full(Bytes::from(body.to_owned())));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        let peer = UnixPeer { pid: Some(7), uid: self.uid, gid: self.uid };
        request.extensions_mut().insert(UnixConnection::within(9, peer, self.gone.clone()));
        (self.daemon.handler())(request).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> T {
        read(self.ask(Method::GET, path, "").await).await
    }
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> T {
    let text = response.into_body().read_all(1 << 20).await.unwrap();
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// All lines of an answer that comes to its end.
async fn events(response: Response) -> Vec<Event> {
    let text = response.into_body().read_all(1 << 20).await.unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn daemon_of(scene: &Scene, device: Device, store: Arc<colibri_store::Store>) -> Daemon {
    let dir = scene.path("device");
    Daemon::new(DaemonParts { device, store, dir, updater: None, owner: OWNER, process: None })
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !met().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_the_owner_looks_and_opens() {
    let scene = Scene::new();
    let hash = scene.release("hello", &[("bin/app", b"#!hello")]);
    let cluster = scene.serve(1);
    let (device, store) = scene.device("device", DeviceConfig::default(), scene.config(&cluster, HOST));
    let daemon = daemon_of(&scene, device, store);
    let [owner, other, root] = [OWNER, OTHER, 0].map(|uid| Asker::of(&daemon, uid));
    let resolve = format!("{{\"url\":\"fuchsia-pkg://{HOST}/hello\"}}");
    let told = events(owner.ask(Method::POST, "/resolve", &resolve).await).await;
    let Some(Event::Resolved(resolved)) = told.last() else { panic!("{told:?}") };
    assert_eq!((resolved.hash, resolved.blobs, &*resolved.version_by), (hash, 2, "TUF"));
    let Some(Event::Progress(last)) = told.iter().rev().find(|event| matches!(event, Event::Progress(_))) else {
        panic!("{told:?}")
    };
    assert_eq!((last.blobs, last.blobs_done, last.edges.len()), (2, 2, 1), "{last:?}");

    let changes = [
        (Method::POST, "/resolve", &*resolve),
        (Method::POST, "/gc", ""),
        (Method::POST, "/verify", ""),
        (Method::POST, "/materialise", "{}"),
        (Method::POST, "/repositories", "{}"),
        (Method::DELETE, "/repositories/devhost", ""),
        (Method::PUT, "/rules", "{}"),
        (Method::POST, "/provision", "{}"),
        (Method::GET, "/update/check?update=fuchsia-pkg://devhost/update", ""),
        (Method::POST, "/update/install", "{}"),
        (Method::POST, "/update/commit", "{}"),
        (Method::POST, "/open", &*resolve),
    ];
    for (method, path, body) in changes {
        let refused: Problem = read(other.ask(method.clone(), path, body).await).await;
        assert_eq!((refused.status, &*refused.kind), (403, "AccessDenied"), "{method} {path}");
    }
    let status: Status = other.get("/status").await;
    assert_eq!((status.repositories, status.blobs), (1, 2));
    for path in ["/repositories", "/rules", "/leases", &format!("/packages/{hash}"), &format!("/blobs/{hash}")] {
        assert_eq!(other.ask(Method::GET, path, "").await.status(), 200, "{path}");
    }
    assert_eq!(root.ask(Method::PUT, "/rules", r#"{"version":"1","content":[]}"#).await.status(), 200);

    // One that is not here cannot be opened; one that is, so often and no more.
    let absent = format!("{{\"packages\":[\"{}\"]}}", "5".repeat(64));
    let refused: Problem = read(other.ask(Method::POST, "/open", &absent).await).await;
    assert_eq!((refused.status, &*refused.kind), (404, "BlobNotFound"));
    let many = format!("{{\"packages\":[{}]}}", vec![format!("\"{hash}\""); 256].join(","));
    let held = other.ask(Method::POST, "/open", &many).await;
    assert_eq!(held.status(), 200);
    let one = format!("{{\"packages\":[\"{hash}\"]}}");
    let refused: Problem = read(other.ask(Method::POST, "/open", &one).await).await;
    assert_eq!((refused.status, &*refused.kind), (429, "TooMuch"));
    let of_owner = owner.ask(Method::POST, "/open", &one).await;
    assert_eq!(of_owner.status(), 200);
    let leases: Vec<LeaseEntry> = owner.get("/leases").await;
    assert_eq!(leases.len(), 257);
    assert_eq!((leases[0].uid, leases[0].pid, leases[256].uid), (Some(OTHER), Some(7), Some(OWNER)));
    // The connection ends: so do its leases, read or not.
    other.gone.cancel();
    drop(of_owner);
    until("leases end", async || owner.get::<Vec<LeaseEntry>>("/leases").await.is_empty()).await;
    drop(held);
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_no_request_is_told() {
    let scene = Scene::new();
    let (device, store) = Device::open(&scene.path("device"), DeviceConfig::default(), Arc::new(SystemClock)).unwrap();
    let asker = Asker::of(&daemon_of(&scene, device, store), OWNER);
    let cases = [
        (Method::GET, "/", "", 404, "NoSuchRequest"),
        (Method::GET, "/nothing", "", 404, "NoSuchRequest"),
        (Method::DELETE, "/status", "", 404, "NoSuchRequest"),
        (Method::GET, "/hash", "", 400, "BadRequest"),
        (Method::GET, "/hash?url=nonsense", "", 400, "InvalidUrl"),
        (Method::GET, "/hash?url=fuchsia-pkg://elsewhere/hello", "", 404, "RepoNotFound"),
        (Method::GET, "/packages/5", "", 400, "BadRequest"),
        (Method::GET, "/blobs/../etc", "", 400, "BadRequest"),
        (Method::POST, "/resolve", "", 400, "BadRequest"),
        (Method::POST, "/resolve", "{\"url\":\"x\"}", 400, "InvalidUrl"),
        (Method::POST, "/resolve", "{\"url\":\"x\",\"colour\":\"red\"}", 400, "BadRequest"),
        (Method::POST, "/open", "{}", 400, "BadRequest"),
        (Method::POST, "/materialise", "{}", 400, "BadRequest"),
        (Method::PUT, "/rules", "{", 400, "BadRequest"),
        (Method::GET, "/sets", "", 409, "Internal"),
        (Method::GET, "/update/history", "", 409, "Conflict"),
        (Method::DELETE, "/repositories/elsewhere", "", 404, "RepoNotFound"),
    ];
    for (method, path, body, status, kind) in cases {
        let response = asker.ask(method.clone(), path, body).await;
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{method} {path}");
        let problem: Problem = read(response).await;
        assert_eq!((problem.status, &*problem.kind), (status, kind), "{method} {path} {body}: {problem:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolve_whose_asker_goes_is_stopped_and_the_next_one_finishes() {
    let scene = Scene::new();
    let hash = scene.release("hello", &[("data/large", &noise(1, 3_000_000))]);
    let cluster = scene.serve(1);
    let good = scene.config(&cluster, HOST);
    // A mirror that takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = good.clone();
    config.mirrors[0].blob_mirror_url = Some(format!("http://{}/blobs", silent.local_addr().unwrap()));
    let (device, store) = scene.device("device", DeviceConfig::default(), config);
    let daemon = daemon_of(&scene, device.clone(), store);
    let asker = Asker::of(&daemon, OWNER);
    let resolve = format!("{{\"url\":\"fuchsia-pkg://{HOST}/hello\"}}");
    let under_way = asker.ask(Method::POST, "/resolve", &resolve).await;
    let (_connection, _) = silent.accept().await.unwrap();
    assert_eq!(asker.get::<Status>("/status").await.operations, 1);
    drop(under_way);
    until("it is stopped", async || asker.get::<Status>("/status").await.operations == 0).await;
    assert!(!device.is_on_device(hash).await.unwrap());
    // Nothing of it is in the way.
    device.repositories().add(good).unwrap();
    assert_eq!(asker.ask(Method::POST, "/gc", "").await.status(), 200);
    let told = events(asker.ask(Method::POST, "/resolve", &resolve).await).await;
    assert!(matches!(told.last(), Some(Event::Resolved(_))), "{told:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribed_repository_is_refreshed_when_its_mirror_tells_of_news() {
    let scene = Scene::new();
    scene.release("hello", &[("bin/app", b"one")]);
    let cluster = scene.serve(0);
    let mut config = scene.config(&cluster, HOST);
    let mirror = format!("{}/{HOST}", cluster.origin.url());
    config.mirrors.truncate(1);
    config.mirrors[0].mirror_url = mirror;
    config.mirrors[0].blob_mirror_url = None;
    let (device, store) = scene.device("device", DeviceConfig::default(), config.clone());
    let daemon = daemon_of(&scene, device.clone(), store);
    let quick = Duration::from_millis(50);
    let pauses = Pauses { away_max: quick, absent_max: quick };
    daemon.subscribe(Subscribing { pauses, silence: Duration::from_secs(60), news_pause: quick });
    let asker = Asker::of(&daemon, OWNER);
    let version = || {
        let repository = device.repositories().get(HOST).unwrap();
        repository.trusted().and_then(|set| set.version(colibri_metadata::Role::Timestamp))
    };
    let newest = || {
        let metadata = scene.repository.metadata().unwrap();
        metadata.version(colibri_metadata::Role::Timestamp)
    };
    // Without the flag nobody listens.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(version(), None);
    config.mirrors[0].subscribe = true;
    let added = asker.ask(Method::POST, "/repositories", &serde_json::to_string(&config).unwrap()).await;
    assert_eq!(added.status(), 200);
    until("the first news", async || version() == newest()).await;
    for content in [b"two", b"six"] {
        scene.release("hello", &[("bin/app", content)]);
        until("more news", async || version() == newest()).await;
    }
    // Who is removed is not listened to any more, and the end does not wait for mirrors.
    assert_eq!(asker.ask(Method::DELETE, &format!("/repositories/{HOST}"), "").await.status(), 200);
    daemon.end();
    daemon.ended().await;
    cluster.stop().await;
}
