//! A daemon that is killed in the middle of a resolve, and clients that are killed with packages open.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Daemon, PATIENCE, colibri, printed, run};

/// Content of the large blob: twelve units of 2 MiB, of which four are fetched at a time.
const BLOB_BYTES: u64 = 24 << 20;
const IN_FLIGHT_BYTES: u64 = 4 * (2 << 20);

/// Metadata, small blobs, and what hangs in sockets though no device has it.
const SLACK_BYTES: u64 = 1 << 20;

/// So much comes through before the relay holds everything back.
const COMES_BYTES: u64 = 14 << 20;

/// On the way to a server: hands on so many bytes of answers and no more, until more may come.
struct Relay {
    address: String,
    /// Bytes handed on.
    handed: Arc<AtomicU64>,
    most: Arc<AtomicU64>,
}

impl Relay {
    fn start(server: &str, most: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let relay = Self { address, handed: Arc::default(), most: Arc::new(AtomicU64::new(most)) };
        let (server, handed, most) = (server.to_owned(), relay.handed.clone(), relay.most.clone());
        thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(&server) else { continue };
                let (device_in, upstream_in) = (device.try_clone().unwrap(), upstream.try_clone().unwrap());
                let unbounded = Arc::new(AtomicU64::new(u64::MAX));
                thread::spawn(move || hand_on(device_in, upstream, &AtomicU64::new(0), &unbounded));
                let (handed, most) = (handed.clone(), most.clone());
                thread::spawn(move || hand_on(upstream_in, device, &handed, &most));
            }
        });
        relay
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, handed: &AtomicU64, most: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        while handed.load(Ordering::SeqCst) >= most.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(2));
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        handed.fetch_add(read as u64, Ordering::SeqCst);
    }
    // Either end is gone: so is the connection.
    _ = from.shutdown(Shutdown::Both);
    _ = to.shutdown(Shutdown::Both);
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let began = Instant::now();
    while !met() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A repository that is served; its server ends with this.
struct Served<'a>(&'a Path);

impl Served<'_> {
    fn done(&self, line: &[&str]) -> String {
        let output = self.colibri(line);
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn colibri(&self, line: &[&str]) -> Output {
        colibri(self.0).env("COLIBRI_SERVERS_DIR", self.0.join("servers")).args(line).output().unwrap()
    }

    fn publish(&self, name: &str, content: &[u8]) {
        let files = format!("files-{name}");
        fs::create_dir(self.0.join(&files)).unwrap();
        fs::write(self.0.join(&files).join("data"), content).unwrap();
        let from = format!("{name}={files}");
        self.done(&["repo", "publish", "--level", "1", "--from-dir", &from, "repo"]);
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        _ = self.colibri(&["repo", "server", "stop", "--all"]);
    }
}

/// What no compression makes smaller.
fn noise(bytes: u64) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = (0..bytes / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.collect()
}

/// Opens a package by its hash and reads until it is open; it stays so as long as the connection does.
fn hold(dir: &Path, hash: &str) -> UnixStream {
    let mut stream = UnixStream::connect(dir.join("device/daemon.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = format!("{{\"packages\":[\"{hash}\"]}}");
    let length = body.len();
    write!(stream, "POST /open HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"opened\"")));
    stream
}

fn leases(dir: &Path) -> usize {
    let listed: Value = serde_json::from_str(&printed(dir, &["--json", "leases"])).unwrap();
    listed.as_array().unwrap().len()
}

#[test]
fn killed_in_the_middle_of_a_resolve_it_is_gone_on_with_by_the_next_daemon() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let served = Served(dir);
    served.done(&["repo", "create", "--dev", "repo"]);
    served.publish("small", b"a few bytes");
    served.publish("large", &noise(BLOB_BYTES));
    let start = ["repo", "server", "start", "--repo-path", "repo", "-r", "devhost", "--background"];
    served.done(&[&start[..], &["--address", "127.0.0.1:0"]].concat());
    served.done(&["repo", "target", "register", "-r", "devhost", "--device-dir", "device"]);

    let mut daemon = Daemon::start(dir);
    let small = printed(dir, &["get-hash", "fuchsia-pkg://devhost/small"]).trim().to_owned();
    printed(dir, &["resolve", "fuchsia-pkg://devhost/small"]);
    // A client that dies gives back what it had open.
    let client = hold(dir, &small);
    assert_eq!(leases(dir), 1);
    drop(client);
    until("the lease of a dead client ends", || leases(dir) == 0);
    let _client = hold(dir, &small);

    let shown: Value = serde_json::from_str(&printed(dir, &["repo", "show", "fuchsia-pkg://devhost"])).unwrap();
    let mirror = shown["mirrors"][0]["mirror_url"].as_str().unwrap().to_owned();
    let server = mirror.trim_start_matches("http://").split('/').next().unwrap();
    let relay = Relay::start(server, COMES_BYTES);
    let mut config = shown.clone();
    config["mirrors"] = serde_json::json!([{ "mirror_url": mirror.replace(server, &relay.address) }]);
    fs::write(dir.join("relayed.json"), config.to_string()).unwrap();
    printed(dir, &["repo", "add", "file", "relayed.json"]);

    let resolve = ["resolve", "fuchsia-pkg://devhost/large"];
    let asking = colibri(dir).args(["device", "--dir", "device"]).args(resolve).stderr(Stdio::piped()).spawn().unwrap();
    let came = || relay.handed.load(Ordering::SeqCst);
    until("so much came", || came() >= COMES_BYTES);
    daemon.signal("-KILL");
    daemon.ended();
    let told = asking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr);
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("daemon") && said.contains("device status"), "{said}");

    let before = came();
    relay.most.store(u64::MAX, Ordering::SeqCst);
    let _daemon = Daemon::start(dir);
    assert_eq!(leases(dir), 0, "leases are connections");
    let resolved = printed(dir, &resolve);
    let again = came() - before;
    let most = BLOB_BYTES - (COMES_BYTES - IN_FLIGHT_BYTES) + SLACK_BYTES;
    assert!(again <= most, "{again} bytes were fetched after {before}: {resolved}");
    let verified = run(dir, &["--json", "verify", "--only-look"]);
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!(verified["damaged"], serde_json::json!([]), "{verified}");
}
