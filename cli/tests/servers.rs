//! The servers as processes: the built executable is started, asked over sockets, told to end, and misconfigured.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take. A bound for a test that hangs, not a claim about speed.
const PATIENCE: Duration = Duration::from_secs(120);

const LOCAL: &str = "127.0.0.1:0";

/// The executable, without configuration from the environment of whoever runs the tests.
fn colibri(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_colibri"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COLIBRI_") {
            command.env_remove(name);
        }
    }
    command.current_dir(dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    colibri(dir).args(arguments).output().unwrap()
}

/// Standard output of a verb that must end well.
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server under way; killed when dropped.
struct Server {
    child: Child,
    log: PathBuf,
    ports: Vec<(String, u16)>,
}

impl Server {
    /// Starts a server on free ports and waits until it has said where it answers.
    fn start(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let [log, port_file] = ["log", "ports"].map(|ending| dir.join(format!("{name}.{ending}")));
        let child = colibri(dir)
            .args(arguments)
            .args(["--listen", LOCAL, "--listen-plain", LOCAL, "--listen-admin", LOCAL, "--name", name])
            .args(["--tls-dir", &format!("{name}-tls"), "--port-file"])
            .arg(&port_file)
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { child, log, ports: Vec::new() };
        server.until("writes its ports", |_| port_file.exists());
        let text = fs::read_to_string(&port_file).unwrap();
        let port = |line: &str| line.split_once('=').map(|(name, port)| (name.to_owned(), port.parse().unwrap()));
        server.ports = text.lines().map(|line| port(line).unwrap()).collect();
        server
    }

    /// Waits until `met` says so.
    fn until(&mut self, what: &str, met: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !met(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?} before it {what}: {}", self.said());
            assert!(began.elapsed() < PATIENCE, "it never {what}: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn address(&self, name: &str) -> SocketAddr {
        let port = self.ports.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name} port")).1;
        ([127, 0, 0, 1], port).into()
    }

    fn get(&self, name: &str, path: &str) -> (u16, Vec<u8>) {
        Reply::ask(self.address(name), path).finish()
    }

    /// Whether the port takes no connections any more.
    fn is_closed(&self, name: &str) -> bool {
        TcpStream::connect(self.address(name)).is_err()
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit code, once it has ended.
    fn end(mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// An HTTP/1.1 answer whose head has been read.
struct Reply {
    stream: TcpStream,
    status: u16,
    head: String,
}

impl Reply {
    fn ask(address: SocketAddr, path: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        Self { stream, status, head }
    }

    /// Reads the body, of exactly the announced length.
    fn finish(mut self) -> (u16, Vec<u8>) {
        let length = self.head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = Vec::new();
        self.stream.read_to_end(&mut body).unwrap();
        assert_eq!(body.len(), length.trim().parse::<usize>().unwrap(), "{}", self.head);
        (self.status, body)
    }
}

/// A repository of one package with one large file that does not compress; gives the file's blob id.
fn publish(dir: &Path, content: &[u8]) -> String {
    fs::create_dir_all(dir.join("in/data")).unwrap();
    fs::write(dir.join("in/data/file"), content).unwrap();
    done(dir, &["package", "build", "--from-dir", "in", "--name", "example", "--output", "out"]);
    assert!(done(dir, &["repo", "create", "--dev", "repo"]).contains("root key "));
    let published = done(dir, &["repo", "publish", "--package", "out/package_manifest.json", "--level", "1", "repo"]);
    assert!(published.starts_with("1 package published: 2 blobs, 2 of them new\n"), "{published}");
    let listed = done(dir, &["repo", "package", "list", "--repo-path", "repo"]);
    assert!(listed.contains("example/0"), "{listed}");
    done(dir, &["file-hash", "in/data/file"]).split_whitespace().next().unwrap().to_owned()
}

/// The same bytes each time, that no compressor makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

fn start_origin(dir: &Path) -> Server {
    Server::start(dir, "source", &["origin", "serve", "--repo", "devhost=repo"])
}

fn start_edge(dir: &Path, origin: &Server) -> Server {
    let upstream = format!("https://{}", origin.address("https"));
    Server::start(
        dir,
        "berlin",
        &["edge", "serve", "--upstream", &upstream, "--disk-dir", "tier", "--disk-bytes", "1000000"],
    )
}

#[test]
fn what_is_published_passes_through_origin_and_edge() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let content = noise(3 << 20);
    let id = publish(dir, &content);
    let mut origin = start_origin(dir);
    let mut edge = start_edge(dir, &origin);
    let timestamp = fs::read(dir.join("repo/repository/timestamp.json")).unwrap();
    for server in [&mut origin, &mut edge] {
        assert_eq!(server.get("http", "/devhost/timestamp.json"), (200, timestamp.clone()));
        let (status, body) = server.get("http", &format!("/devhost/blobs/{id}"));
        assert!(status == 200 && body == content, "{status}");
        assert_eq!(server.get("http", "/devhost/no-such.json").0, 404);
        server.until("is ready", |server| server.get("admin", "/readyz").0 == 200);
        let (_, metrics) = server.get("admin", "/metrics");
        assert!(String::from_utf8(metrics).unwrap().contains("# TYPE colibri_"));
    }
    let (title, https, http) = ("edge berlin", edge.address("https"), edge.address("http"));
    for line in [
        format!("{title} listening on https://{https} (h3, h2, h1)"),
        format!("{title} listening on http://{http} (h2, h1)"),
        format!("{title} metrics and health on http://{}", edge.address("admin")),
    ] {
        assert!(edge.said().lines().any(|have| have == line), "{line} is missing in {}", edge.said());
    }
    assert!(origin.said().contains("origin source certificate pin:"), "{}", origin.said());
    for (server, signal) in [(edge, "-TERM"), (origin, "-INT")] {
        server.signal(signal);
        assert_eq!(server.end(), Some(0), "{signal}");
    }
}

#[test]
fn requests_under_way_are_finished_and_readiness_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // More than the buffers of two sockets hold.
    let content = noise(24 << 20);
    let id = publish(dir, &content);
    let origin = start_origin(dir);
    let edge = start_edge(dir, &origin);
    for mut server in [edge, origin] {
        let reply = Reply::ask(server.address("http"), &format!("/blobs/{id}"));
        server.signal("-TERM");
        server.until("stops accepting", |server| server.is_closed("http"));
        assert_eq!(server.get("admin", "/readyz").0, 200, "a load balancer would take the reader away");
        let (status, body) = reply.finish();
        assert!(status == 200 && body == content, "{status}");
        assert_eq!(server.end(), Some(0));
    }
}

/// Starts a server whose configuration's file has `before` in it, on the flags of [`Server::start`].
fn start_configured(dir: &Path, role: &str, before: &str) -> Server {
    fs::write(dir.join("config.toml"), before).unwrap();
    let mut server = Server::start(dir, role, &[role, "serve", "--config", "config.toml"]);
    // Only then does it wait for signals.
    server.until("is ready", |server| server.get("admin", "/readyz").0 == 200);
    server
}

#[test]
fn sighup_has_the_configuration_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["repo", "create", "--dev", "repo"]);
    let edge = "[edge]\nupstreams = ['https://127.0.0.1:1']\n";
    let origin = "[[repositories]]\nname = 'devhost'\npath = 'repo'\n";
    for (role, rest, more) in [("edge", edge, "memory_bytes = 9000000\n"), ("origin", origin, "")] {
        let mut server = start_configured(dir, role, rest);
        let write = |text: &str| fs::write(dir.join("config.toml"), text).unwrap();
        let says = |server: &mut Server, text: &str| {
            server.until(&format!("says {text}"), |server| server.said().contains(text));
        };
        write(&format!("colour = 'red'\nlog = 'debug'\n{rest}"));
        server.signal("-HUP");
        says(&mut server, "the configuration is not usable, and nothing was changed");
        assert!(server.said().contains("colour (file config.toml): unknown key"), "{}", server.said());
        write(&format!("log = 'debug'\ndrain_s = 7\n[listener]\nrequests_per_s = 99\n{rest}{more}"));
        server.signal("-HUP");
        says(&mut server, "listener.requests_per_s, log");
        says(&mut server, "they take effect at the next start");
        let waiting = if more.is_empty() { "keys=\"drain_s\"" } else { "keys=\"drain_s, edge.memory_bytes\"" };
        assert!(server.said().contains(waiting), "{waiting}: {}", server.said());
        let measures = |server: &Server, line: &str| {
            let (_, metrics) = server.get("admin", "/metrics");
            String::from_utf8(metrics).unwrap().lines().any(|have| have == line)
        };
        assert!(measures(&server, &format!("colibri_config_pending_keys {}", waiting.split(',').count())));
        write(&format!("log = 'off'\n{rest}"));
        server.signal("-HUP");
        server.until("is quiet", |server| measures(server, "colibri_config_reloads_total{outcome=\"applied\"} 2"));
        let said = server.said().len();
        write("colour = 'red'\n");
        server.signal("-HUP");
        server.until("counts it", |server| measures(server, "colibri_config_reloads_total{outcome=\"failed\"} 2"));
        assert_eq!(server.said()[said..], *"", "nothing is logged any more");
        server.signal("-TERM");
        assert_eq!(server.end(), Some(0));
    }
}

#[test]
fn an_edge_is_told_to_reload_and_answers_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let edge = start_configured(dir, "edge", "[edge]\nupstreams = ['https://127.0.0.1:1']\n");
    let admin = format!("http://{}", edge.address("admin"));
    let reload = ["edge", "reload", "--admin", &admin];
    assert_eq!(done(dir, &reload), "nothing that can change at run time is new\n");
    fs::write(dir.join("config.toml"), "http3 = false\n[edge]\nupstreams = ['https://127.0.0.1:2']\n").unwrap();
    assert_eq!(done(dir, &reload), "new from now on: edge.upstreams\nnew from the next start on: http3\n");
    let again: Value = serde_json::from_str(&done(dir, &[&reload[..], &["--json"]].concat())).unwrap();
    assert_eq!(again, serde_json::json!({ "applied": [], "at_next_start": ["http3"] }));
    fs::write(dir.join("config.toml"), "[edge]\nupstreams = []\n").unwrap();
    fs::write(dir.join("edge-tls/tls.key"), "none").unwrap();
    let refused = run(dir, &reload);
    let said = stderr(&refused);
    assert!(refused.status.code() == Some(1) && said.contains("upstream") && said.contains("certificate"), "{said}");
}

#[test]
fn mistakes_of_all_layers_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("bad.toml"), "colour = 1\n").unwrap();
    for (role, variable) in [("edge", "COLIBRI_EDGE_SHAPE"), ("origin", "COLIBRI_ORIGIN_SHAPE")] {
        let flags = ["--config", "bad.toml", "--set", "size=3", "--listen", "nowhere"];
        let output = colibri(dir).args([role, "serve"]).args(flags).env(variable, "round").output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.starts_with("colibri: bad configuration, 4 mistakes:\n"), "{said}");
        let starts =
            ["colour (file bad.toml): unknown key", "size (command line): unknown key", "listen (command line): "];
        let variable = format!("shape (environment {variable}): unknown key");
        for start in starts.iter().copied().chain([variable.as_str()]) {
            assert!(said.lines().any(|line| line.trim_start().starts_with(start)), "{start:?} is missing in {said}");
        }
        let alone = run(dir, &[role, "serve", "--set", "size=3"]);
        assert_eq!(alone.status.code(), Some(64));
        assert!(stderr(&alone).starts_with("colibri: bad configuration: size (command line)"), "{}", stderr(&alone));
        assert_eq!(run(dir, &[role, "serve", "--size=3"]).status.code(), Some(2), "no such flag");
        let missing = run(dir, &[role, "serve", "--config", "no.toml"]);
        assert!(missing.status.code() == Some(64) && stderr(&missing).contains("no.toml"), "{}", stderr(&missing));
        // What no layer says is bad configuration too: an edge without upstream, an origin without repository.
        assert_eq!(run(dir, &[role, "serve"]).status.code(), Some(64));
        let filter = run(dir, &[role, "serve", "--log", "a=b=c"]);
        assert!(filter.status.code() == Some(64) && stderr(&filter).contains("a=b=c"), "{}", stderr(&filter));
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "nothing was written");
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["repo", "create", "--dev", "repo"]);
    let taken = TcpListener::bind(LOCAL).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for role in [["edge", "serve", "--upstream", "https://localhost:1"], ["origin", "serve", "--repo", "devhost=repo"]]
    {
        for position in 0..3 {
            let mut addresses = [LOCAL; 3];
            addresses[position] = &taken;
            let [secure, plain, admin] = addresses;
            let listen = ["--listen", secure, "--listen-plain", plain, "--listen-admin", admin, "--port-file", "ports"];
            let output = colibri(dir).args(role).args(listen).output().unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains(&taken) && said.contains("already in use") && said.contains("port 0"), "{said}");
            assert!(!dir.join("ports").exists(), "whoever waits for the file must not be misled");
        }
    }
}

#[test]
fn the_effective_configuration_is_shown_with_its_sources() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["repo", "create", "--dev", "repo"]);
    fs::write(dir.join("edge.toml"), "drain_s = 3\n[edge]\nname = \"file\"\nmemory_bytes = 5\n").unwrap();
    fs::write(dir.join("origin.toml"), "drain_s = 3\n[[repositories]]\nname = \"devhost\"\npath = \"repo\"\n").unwrap();
    let taken = TcpListener::bind(LOCAL).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let before = fs::read_dir(dir).unwrap().count();

    let edge =
        ["edge", "serve", "--check-config", "--config", "edge.toml", "--upstream", "https://a", "--listen", &taken];
    let output = colibri(dir).args(edge).env("COLIBRI_EDGE_EDGE__NAME", "environment").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "drain_s = 3  # file edge.toml",
        "edge.memory_bytes = 5  # file edge.toml",
        "edge.name = \"environment\"  # environment COLIBRI_EDGE_EDGE__NAME",
        "edge.upstreams = [\"https://a\"]  # command line",
        "listen_plain is not set  # default",
        &format!("listen = \"{taken}\"  # command line"),
    ] {
        assert!(text.lines().any(|have| have == line), "{line:?} is missing in {text}");
    }
    let text = done(dir, &["origin", "serve", "--check-config", "--config", "origin.toml", "--name", "x"]);
    for line in [
        "drain_s = 3  # file origin.toml",
        "cache_name = \"x\"  # command line",
        r#"repositories = [{"name":"devhost","path":"repo"}]  # file origin.toml"#,
    ] {
        assert!(text.lines().any(|have| have == line), "{line:?} is missing in {text}");
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), before, "looking writes nothing");
}

#[test]
fn logs_can_be_objects_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["repo", "create", "--dev", "repo"]);
    let origin = Server::start(dir, "o", &["origin", "serve", "--repo", "devhost=repo", "--log-format", "json"]);
    origin.signal("-TERM");
    let log = origin.log.clone();
    assert_eq!(origin.end(), Some(0));
    let text = fs::read_to_string(log).unwrap();
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |part: &str| objects.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains(part)));
    assert!(said("origin o listening on https://127.0.0.1:") && said("finishing what is under way"), "{text}");
}

#[test]
fn a_package_is_pushed_to_a_running_origin_by_whoever_has_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["repo", "create", "--dev", "repo"]);
    fs::create_dir(dir.join("files")).unwrap();
    fs::write(dir.join("files/hello"), "hello").unwrap();
    done(dir, &["package", "build", "--from-dir", "files", "-o", "out", "--name", "greeting", "--api-level", "20"]);
    let token =
        done(dir, &["origin", "token", "create", "--token-file", "tokens", "--name", "ci", "--role", "publisher"]);
    fs::write(dir.join("ci.token"), token).unwrap();
    let serve = ["origin", "serve", "--repo", "devhost=repo", "--token-file", "tokens", "--write-listen", LOCAL];
    let mut origin = Server::start(dir, "o", &serve);
    let to = format!("https://{}/devhost", origin.address("write"));
    let said = origin.said();
    let pin = said.lines().find_map(|line| line.split_once("certificate pin:")).unwrap().1.to_owned();
    let push = ["repo", "push", "--to", &to, "--pin", &pin, "--package", "out/package_manifest.json"];
    let nobody = run(dir, &push);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("401"), "{}", stderr(&nobody));
    let report = done(dir, &[&push[..], &["--token-file", "ci.token", "--json"]].concat());
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["packages"], &report["blobs_sent"]), (&1.into(), &2.into()), "{report}");
    assert!(done(dir, &["repo", "package", "list", "--repo-path", "repo"]).contains("greeting"));
    // A folder is built on the way; a whole repository is taken as it is.
    done(dir, &["repo", "create", "--dev", "other"]);
    done(dir, &["repo", "publish", "--level", "1", "--from-dir", "theirs=files", "other"]);
    let more = ["repo", "push", "--to", &to, "--pin", &pin, "--token-file", "ci.token", "--json"];
    let more = done(dir, &[&more[..], &["--from-dir", "built=files", "--product-bundle", "other"]].concat());
    let more: Value = serde_json::from_str(&more).unwrap();
    assert_eq!((&more["packages"], &more["blobs_sent"]), (&2.into(), &2.into()), "only meta.fars are new: {more}");
    let offered = done(dir, &["repo", "package", "list", "--repo-path", "repo"]);
    assert!(["built/0", "greeting/0", "theirs/0"].iter().all(|name| offered.contains(name)), "{offered}");
    done(dir, &["origin", "token", "revoke", "ci", "--token-file", "tokens"]);
    let revoked = run(dir, &[&push[..], &["--token-file", "ci.token"]].concat());
    assert!(!revoked.status.success() && stderr(&revoked).contains("revoked"), "{}", stderr(&revoked));
    origin.until("records acts", |origin| origin.said().contains("colibri::audit"));
}

#[test]
fn a_running_edge_tells_how_far_it_is_warmed_and_takes_orders() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    publish(dir, &noise(100_000));
    let origin = start_origin(dir);
    let upstream = format!("https://{}", origin.address("https"));
    let mut edge = Server::start(
        dir,
        "warm",
        &[
            ["edge", "serve", "--upstream", &upstream, "--disk-dir", "tier", "--disk-bytes", "10000000"].as_slice(),
            &["--follow", "devhost=repo/repository/1.root.json", "--set", "edge.warm.bytes_per_s=0"],
        ]
        .concat(),
    );
    let admin = format!("http://{}", edge.address("admin"));
    let status = || {
        let text = done(dir, &["edge", "warm", "status", "--json", "--admin", &admin]);
        serde_json::from_str::<Value>(&text).unwrap()["repositories"][0].take()
    };
    edge.until("has warmed what is listed", |_| {
        let status = status();
        status["releases"][0]["blobs"] == 2 && status["releases"][0]["blobs_missing"] == 0
    });
    let shown = done(dir, &["edge", "warm", "status", "--admin", &admin]);
    assert!(shown.starts_with("REPOSITORY") && shown.contains("devhost") && shown.contains("packages"), "{shown}");
    let hash = done(dir, &["repo", "package", "list", "--json", "--repo-path", "repo"]);
    let hash: Value = serde_json::from_str(&hash).unwrap();
    let pinned = done(dir, &["edge", "pin", "devhost", "example", "--admin", &admin]);
    assert!(
        pinned.starts_with("example is pinned: package ")
            && hash.to_string().contains(pinned.trim().rsplit(' ').next().unwrap()),
        "{pinned} {hash}"
    );
    assert_eq!(status()["pins"][0]["release"], "example");
    done(dir, &["edge", "unpin", "devhost", "example", "--admin", &admin]);
    for (arguments, said) in [
        (&["edge", "pin", "devhost", "nobody"][..], "lists no package nobody/0"),
        (&["edge", "unpin", "devhost", "example"], "no release `example` is pinned"),
        (&["edge", "pin", "nowhere", "example"], "does not follow repository nowhere"),
        (&["edge", "import", "--repository", "devhost", "in/data/file"], "bundle: "),
    ] {
        let output = run(dir, &[arguments, &["--admin", &admin]].concat());
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
    let output = run(dir, &["edge", "warm", "status", "--admin", "http://127.0.0.1:1"]);
    assert!(output.status.code() == Some(1) && stderr(&output).contains("--admin"), "{}", stderr(&output));
}
