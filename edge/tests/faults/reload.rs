//! Another configuration and another certificate while the edge serves: what is new holds, nothing is lost, and what is bad
//! changes nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use colibri_edge::process::{EdgeProcess, EdgeServerConfig, Reloader, changeable};
use colibri_service::{Reloading, Sources};
use colibri_transport::{Body, Client, ClientConfig, ServerTls, Trust};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::{ALL, PUBLIC};
use crate::upstream::{Fault, Upstream, content, id, until};

/// A running process, its configuration's file, and how to end it.
struct Running {
    dir: TempDir,
    address: SocketAddr,
    plain: SocketAddr,
    admin: SocketAddr,
    reloader: Reloader,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

/// What all of them have: ports of their own, and nothing else that a test must wait for.
const PORTS: &str = "listen = '127.0.0.1:0'\nlisten_plain = '127.0.0.1:0'\nlisten_admin = '127.0.0.1:0'\n";

impl Running {
    /// Starts with the rest of this configuration.
    fn start(rest: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("edge.toml"), rest);
        let overrides = serde_json::json!({ "tls_dir": dir.path().join("tls") });
        let file = Some(dir.path().join("edge.toml"));
        let sources = Sources { file, overrides, ..Sources::default() };
        let config = colibri_service::load::<EdgeServerConfig>(sources.clone()).unwrap().value;
        let process = EdgeProcess::start_from(&config, Some(Reloading { sources, log: None })).unwrap();
        let (address, reloader) = (process.address(), process.reloader().unwrap());
        let (plain, admin) = (process.plain_address().unwrap(), process.admin_address().unwrap());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(process.serve(stop.clone()));
        Self { dir, address, plain, admin, reloader, stop, serving }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("edge.toml")
    }

    /// Names the keys that were taken over, or what is wrong.
    fn reload(&self, rest: &str) -> Result<Vec<String>, String> {
        write(&self.file(), rest);
        self.reloader.reload().map(|changes| changes.applied).map_err(|error| error.to_string())
    }

    fn url(&self, content: &[u8]) -> String {
        format!("https://{}/blobs/{}", self.address, id(content))
    }

    /// A metric's value.
    async fn metric(&self, name: &str) -> u64 {
        let text = get(&client(false), &format!("http://{}/metrics", self.admin), &[]).await.1;
        let text = String::from_utf8(text).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is missing in\n{text}")).parse().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

/// As those do who know that it may be read at any time.
fn write(file: &Path, rest: &str) {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{PORTS}{rest}")).unwrap();
    std::fs::rename(next, file).unwrap();
}

fn client(http3: bool) -> Client {
    let http3_head_start = Duration::from_secs(5);
    let config = ClientConfig { http3, http3_head_start, trust: Trust::None, ..ClientConfig::default() };
    Client::new(config).unwrap()
}

async fn get(client: &Client, url: &str, fields: &[(&str, &str)]) -> (u16, Vec<u8>) {
    let mut request = http::Request::get(url);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(Body::empty()).unwrap()).await.expect("no request is lost");
    let status = response.status().as_u16();
    (status, response.into_body().read_all(u64::MAX).await.expect("no body is broken off").to_vec())
}

/// A GET over HTTP/1.1, on a connection of its own.
fn get_http1(address: SocketAddr, path: &str, token: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{:?}", String::from_utf8_lossy(&answer[..end]));
    answer.split_off(end + 4)
}

/// Reads all blobs over and over, in one way, until it is done; counts the answers, all of which must be right.
struct Load {
    done: Arc<AtomicBool>,
    answers: Vec<Arc<AtomicU64>>,
    readers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(edge: &Running, blobs: &Arc<Vec<Vec<u8>>>) -> Self {
        let mut load = Self { done: Arc::default(), answers: Vec::new(), readers: Vec::new() };
        // Over HTTP/3 and 2, on one connection and on a new one for each request.
        for (http3, fresh) in [(true, true), (true, false), (false, true), (false, false)] {
            let (blobs, done, answers) = (blobs.clone(), load.done.clone(), load.counter());
            let urls: Vec<_> = blobs.iter().map(|blob| edge.url(blob)).collect();
            load.readers.push(tokio::spawn(async move {
                let mut own = client(http3);
                for at in (0..blobs.len()).cycle().take_while(|_| !done.load(Ordering::SeqCst)) {
                    if fresh {
                        own = client(http3);
                    }
                    let bearer = format!("Bearer {ALL}");
                    let (status, got) = get(&own, &urls[at], &[("authorization", &bearer)]).await;
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&got));
                    assert!(got == blobs[at], "other bytes");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        let (blobs, done, answers, plain) = (blobs.clone(), load.done.clone(), load.counter(), edge.plain);
        load.readers.push(tokio::task::spawn_blocking(move || {
            for blob in blobs.iter().cycle().take_while(|_| !done.load(Ordering::SeqCst)) {
                assert!(get_http1(plain, &format!("/blobs/{}", id(blob)), ALL) == *blob, "other bytes");
                answers.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
        load
    }

    fn counter(&mut self) -> Arc<AtomicU64> {
        self.answers.push(Arc::default());
        self.answers[self.answers.len() - 1].clone()
    }

    fn answers(&self) -> Vec<u64> {
        self.answers.iter().map(|answers| answers.load(Ordering::SeqCst)).collect()
    }

    /// Until each reader had so many answers.
    async fn comes_to(&self, answers: u64) {
        until(|| {
            let ended = self.readers.iter().any(JoinHandle::is_finished);
            ended || self.answers().iter().all(|have| *have >= answers)
        })
        .await;
        assert!(!self.readers.iter().any(JoinHandle::is_finished), "a reader lost something");
    }

    async fn end(self) {
        self.done.store(true, Ordering::SeqCst);
        for reader in self.readers {
            reader.await.unwrap();
        }
    }
}

/// Two configurations that differ in everything that can change and is of use to this load, and two certificates.
struct Pair {
    configurations: [String; 2],
    certificates: [TempDir; 2],
}

impl Pair {
    fn new(upstreams: [&Upstream; 2]) -> Self {
        let [a, b] = upstreams.map(Upstream::url);
        let edge = "[edge]\nunknown_blob_s = 0\nmemory_bytes = 4194304\n";
        // Read when this test says so: it replaces certificate and key one after the other.
        let listener = "[listener]\ntls_reload_s = 0\n";
        let tokens = format!("[edge.tokens.keys]\nops = '{PUBLIC}'\n");
        let configurations = [
            format!("{listener}{edge}upstreams = ['{a}', '{b}']\n{tokens}"),
            format!(
                "log = 'warn'\n{listener}connections_max = 500\nclient_connections_max = 400\nrequests_max = 300\n\
                 client_requests_per_s = 1000000\nclient_bytes_per_s = 1000000000\nrequests_per_s = 2000000\n\
                 {edge}upstreams = ['{b}']\nupstream_order = 'quickest'\nupstream_in_flight_max = 100\n\
                 origin_requests_per_s = 100000\norigin_bytes_per_s = 1000000000\nupstream_hedge_percent = 1\n\
                 {tokens}more = '{PUBLIC}'\n"
            ),
        ];
        let certificates = [(); 2].map(|()| {
            let dir = tempfile::tempdir().unwrap();
            ServerTls::load_or_create(dir.path(), &["localhost".to_owned()]).unwrap();
            dir
        });
        Self { configurations, certificates }
    }

    /// Puts one of both where the edge reads them.
    fn put(&self, which: usize, edge: &Running) {
        write(&edge.file(), &self.configurations[which]);
        let tls = edge.dir.path().join("tls");
        let from = ServerTls::files(self.certificates[which].path());
        for (from, to) in from.iter().zip(ServerTls::files(&tls)) {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Each of them brings both another configuration and another certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_under_load_lose_no_handshake_and_no_request() {
    const RELOADS: u64 = 1000;
    // More than memory keeps: units are fetched all the while.
    let blobs: Arc<Vec<Vec<u8>>> = Arc::new((0..64).map(|seed| content(80_000, seed)).collect());
    let contents: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let upstreams = [Upstream::with(&contents).await, Upstream::with(&contents).await];
    let pair = Pair::new([&upstreams[0], &upstreams[1]]);
    let edge = Running::start(&pair.configurations[0]);
    let load = Load::start(&edge, &blobs);
    load.comes_to(1).await;
    for number in 1..=RELOADS {
        pair.put(number as usize % 2, &edge);
        let reloader = edge.reloader.clone();
        let reload = move || (reloader.reload_certificates(), reloader.reload());
        let (renewed, changes) = tokio::task::spawn_blocking(reload).await.unwrap();
        assert!(renewed && changes.unwrap().applied.len() >= 12);
        if number % 20 == 0 {
            load.comes_to(number / 20).await;
        }
    }
    let answers = load.answers();
    assert!(answers.iter().all(|answers| *answers >= RELOADS / 20), "{answers:?}");
    load.end().await;
    assert!(edge.metric("colibri_tls_reloads_total{outcome=\"new\"}").await >= RELOADS);
    for (name, expected) in [
        ("colibri_config_reloads_total{outcome=\"applied\"}", RELOADS),
        ("colibri_config_reloads_total{outcome=\"failed\"}", 0),
        ("colibri_tls_reloads_total{outcome=\"failed\"}", 0),
        ("colibri_listener_shed_total{class=\"demand\"}", 0),
        ("colibri_listener_refused_total{reason=\"client\"}", 0),
        ("colibri_listener_refused_total{reason=\"full\"}", 0),
        ("colibri_listener_handshake_failures_total{transport=\"quic\"}", 0),
        ("colibri_listener_handshake_failures_total{transport=\"tls\"}", 0),
        ("colibri_edge_fill_failures_total", 0),
    ] {
        assert_eq!(edge.metric(name).await, expected, "{name}");
    }
    assert!(upstreams.iter().all(|upstream| upstream.requests() > 0), "both were asked");
    edge.end().await;
}

fn over(upstream: &Upstream) -> String {
    format!("[edge]\nunknown_blob_s = 0\nupstreams = ['{}']\n", upstream.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_swapped_by_a_reload_is_asked_and_fetches_under_way_end() {
    let [early, late, later] = [1, 2, 3].map(|seed| content(300_000, seed));
    let old = Upstream::with(&[&early, &late]).await;
    let new = Upstream::with(&[&early, &late, &later]).await;
    let edge = Running::start(&over(&old));
    let gate = Arc::new(Semaphore::new(0));
    let gated = gate.clone();
    old.faults(move |_, _| Some(Fault::Gate(gated.clone())));
    let (url, reader) = (edge.url(&early), client(true));
    let flight = tokio::spawn(async move { get(&reader, &url, &[]).await });
    until(|| old.requests() > 0).await;
    let asked = old.requests();
    assert_eq!(edge.reload(&over(&new)).unwrap(), ["edge.upstreams"]);
    let client = client(true);
    for blob in [&late, &later] {
        assert!(get(&client, &edge.url(blob), &[]).await == (200, blob.clone()));
    }
    assert!(!new.asked().keys().any(|(path, _)| path.ends_with(&id(&early).to_string())), "the old one still has it");
    gate.add_permits(1000);
    assert!(flight.await.unwrap() == (200, early.clone()));
    assert_eq!(old.requests(), asked, "nothing more was asked of it");
    let metrics = String::from_utf8(get(&client, &format!("http://{}/metrics", edge.admin), &[]).await.1).unwrap();
    let exported = |upstream: &Upstream| metrics.contains(&format!("source=\"{}\"", upstream.url()));
    assert!(exported(&new) && !exported(&old), "{metrics}");
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_by_a_reload() {
    let blobs: Vec<_> = (0..20).map(|seed| content(10_000, seed)).collect();
    let upstream = Upstream::with(&blobs.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
    let edge = Running::start(&over(&upstream));
    let (client, other) = (client(false), "[edge]\nupstreams = ['http://127.0.0.1:1']\n");
    let mut asked = blobs.iter();
    let bad = [
        (format!("{other}colour = 1\n"), "edge.colour"),
        (format!("{other}upstream_order = 'best'\n"), "edge.upstream_order"),
        (format!("{other}origins = ['http://127.0.0.1:2']\n"), "origins: `http://127.0.0.1:2`"),
        (format!("{other}[edge.tokens.keys]\nops = 'x'\n"), "tokens.keys.ops"),
        (format!("log = 'a=b=c'\n{other}"), "a=b=c"),
        (format!("{other}[listener]\nshared_tickets = true\n"), "listener.shared_tickets"),
        (format!("{other}[listener]\nclient_ca_file = 'ca.pem'\n"), "listener.client_ca_file"),
        ("[edge]\nupstreams = ['gopher://hole']\n".to_owned(), "gopher"),
        ("[edge]\nupstreams = []\n".to_owned(), "upstream"),
        // Not for now, but the next start would fail.
        (format!("{other}upstream_tls = 'everybody'\n"), "everybody"),
        (format!("{other}[edge.warm]\nwindows = ['night']\n"), "warm.windows"),
        (format!("{other}[edge.peers]\nmembers = ['a:1']\n"), "own"),
        (format!("{other}name = \"cut off"), "edge.toml"),
    ];
    let count = bad.len() as u64;
    for (text, named) in bad {
        let error = edge.reload(&text).unwrap_err();
        assert!(error.contains(named), "{named}: {error}");
        let blob = asked.next().unwrap();
        assert!(get(&client, &edge.url(blob), &[]).await == (200, blob.clone()), "{named}");
    }
    std::fs::remove_file(edge.file()).unwrap();
    assert!(edge.reloader.reload().unwrap_err().to_string().contains("edge.toml"));
    assert_eq!(edge.metric("colibri_config_reloads_total{outcome=\"failed\"}").await, count + 1);
    assert_eq!(edge.metric("colibri_config_reload_failures").await, 1);
    let blob = asked.next().unwrap();
    assert!(get(&client, &edge.url(blob), &[]).await == (200, blob.clone()));
    assert_eq!(edge.reload(&over(&upstream)), Ok(Vec::new()), "it is as it was");
    assert_eq!(edge.metric("colibri_config_reload_failures").await, 0);
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_tokens_of_a_reload_hold_on_connections_that_were_there() {
    let blob = content(10_000, 1);
    let upstream = Upstream::with(&[&blob]).await;
    let edge = Running::start(&over(&upstream));
    let (url, bearer) = (edge.url(&blob), format!("Bearer {ALL}"));
    for http3 in [true, false] {
        let client = client(http3);
        let statuses = async |fields: &[(&str, &str)]| {
            let mut statuses = Vec::new();
            for _ in 0..8 {
                statuses.push(get(&client, &url, fields).await.0);
            }
            statuses.sort_unstable();
            statuses.dedup();
            statuses
        };
        assert_eq!(statuses(&[]).await, [200]);
        // Four at once, then one a second.
        let limited = format!("[listener]\nclient_requests_per_s = 1\n{}", over(&upstream));
        assert_eq!(edge.reload(&limited).unwrap(), ["listener.client_requests_per_s"]);
        assert_eq!(statuses(&[]).await, [200, 429]);
        let keys = format!("{}[edge.tokens.keys]\nops = '{PUBLIC}'\n", over(&upstream));
        assert_eq!(edge.reload(&keys).unwrap(), ["edge.tokens.keys.ops", "listener.client_requests_per_s"]);
        assert_eq!(statuses(&[]).await, [401]);
        assert_eq!(statuses(&[("authorization", &bearer)]).await, [200]);
        assert_eq!(edge.reload(&over(&upstream)).map(|keys| keys.len()), Ok(1));
        assert_eq!(statuses(&[]).await, [200]);
    }
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_reload_cannot_change_are_named() {
    let upstream = Upstream::start().await;
    let edge = Running::start(&over(&upstream));
    let changed =
        format!("[listener]\nquic_sockets = 2\nrequests_max = 9\n{}memory_bytes = 1000000\n", over(&upstream));
    write(&edge.file(), &changed);
    let changes = edge.reloader.reload().unwrap();
    assert_eq!(changes.applied, ["listener.requests_max"]);
    assert_eq!(changes.at_next_start, ["edge.memory_bytes", "listener.quic_sockets"]);
    assert_eq!(edge.metric("colibri_config_pending_keys").await, 2);
    let joins = format!("{changed}[edge.peers]\nown = 'a:1'\nmembers = ['b:1']\n");
    write(&edge.file(), &joins);
    let changes = edge.reloader.reload().unwrap();
    assert_eq!(changes.applied, [""; 0]);
    assert_eq!(changes.at_next_start, ["edge.memory_bytes", "edge.peers", "listener.quic_sockets"]);
    assert_eq!(edge.reload(&over(&upstream)).unwrap(), ["listener.requests_max"]);
    assert_eq!(edge.metric("colibri_config_pending_keys").await, 0);
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_the_region_change_with_a_reload() {
    let upstream = Upstream::start().await;
    let region = |members: &str| format!("{}[edge.peers]\nown = 'a:1'\n{members}\n", over(&upstream));
    let edge = Running::start(&region("members = ['b:1']"));
    assert_eq!(edge.metric("colibri_edge_peers").await, 1);
    assert_eq!(edge.reload(&region("members = ['a:1', 'b:1', 'c:1']")).unwrap(), ["edge.peers.members"]);
    assert_eq!(edge.metric("colibri_edge_peers").await, 2);
    for (bad, named) in [
        ("members = ['d:1', 'no port']", "no port"),
        ("members = ['d:1']\ndns = 'e:1'\n[edge.peers.endpoint_slices]\nservice = 'f'", "cannot both"),
    ] {
        let error = edge.reload(&region(bad)).unwrap_err();
        assert!(error.contains(named), "{error}");
        assert_eq!(edge.metric("colibri_edge_peers").await, 2);
    }
    edge.reload(&region("members = []")).unwrap();
    assert_eq!(edge.metric("colibri_edge_peers").await, 0);
    edge.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_answers_are_believed_changes_with_a_reload() {
    let upstream = Upstream::start().await;
    upstream.put("/repo/timestamp.json", "first");
    let ages = |max_age_s: u64, unknown_s: u64| {
        let ages = format!("metadata_max_age_s = {max_age_s}\nunknown_blob_s = {unknown_s}\n");
        over(&upstream).replace("unknown_blob_s = 0\n", &ages)
    };
    let edge = Running::start(&ages(1000, 1000));
    let (client, blob) = (client(false), content(1000, 1));
    let url = format!("https://{}/repo/timestamp.json", edge.address);
    assert_eq!(get(&client, &url, &[]).await, (200, b"first".to_vec()));
    assert_eq!(get(&client, &edge.url(&blob), &[]).await.0, 404);
    upstream.put("/repo/timestamp.json", "second");
    upstream.add(&blob);
    assert_eq!(get(&client, &url, &[]).await.1, b"first");
    assert_eq!(get(&client, &edge.url(&blob), &[]).await.0, 404);
    assert_eq!(edge.reload(&ages(0, 0)).unwrap(), ["edge.metadata_max_age_s", "edge.unknown_blob_s"]);
    assert_eq!(get(&client, &url, &[]).await.1, b"second");
    assert!(get(&client, &edge.url(&blob), &[]).await == (200, blob));
    edge.end().await;
}

/// Whoever runs an edge finds each of these keys in the page's table of what changes at once, and no other.
#[test]
fn the_operators_page_lists_the_keys_that_a_reload_changes() {
    let page = include_str!("../../../docs/operating-an-edge.md");
    let (_, table) = page.split_once("| key | what holds from the next reload on |").expect("the table of keys");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut listed: Vec<&str> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2)).collect();
    let mut keys = changeable();
    listed.sort_unstable();
    keys.sort_unstable();
    assert_eq!(listed, keys);
}
