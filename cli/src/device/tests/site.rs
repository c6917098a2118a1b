//! A publisher, an origin and edges on loopback, for tests of verbs that talk to servers.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use colibri_cluster::{Cluster, ClusterConfig};
use colibri_common::{BlobId, Clock, SystemClock};
use colibri_metadata::RepoConfig;
use colibri_repository::{CreateOptions, Publish, Repository};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

use super::super::*;
use crate::package::{self, Build};

/// Name of the repository.
const NAME: &str = "devhost";

pub(crate) struct Site {
    pub dir: TempDir,
    pub repository: Repository,
    pub cluster: Cluster,
    runtime: Runtime,
}

/// What a verb did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; of the error, if it ended with one.
    pub code: ExitCode,
    pub out: String,
    pub err: String,
    /// The one line on standard error, if it failed.
    pub error: String,
}

impl Ran {
    /// The result, which must be a success.
    pub fn ok(self) -> String {
        assert_eq!((self.code, &*self.error), (ExitCode::SUCCESS, ""), "{self:?}");
        self.out
    }

    /// The error line of a verb that must fail with this exit code.
    pub fn failed(self, code: u8) -> String {
        assert_eq!(self.code, ExitCode::from(code), "{self:?}");
        assert!(!self.error.is_empty() && !self.error.contains('\n'), "one clear line: {self:?}");
        self.error
    }

    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

impl Site {
    /// A repository with the packages `hello` and `other`, behind this many edges.
    pub fn start(edges: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::create(&dir.path().join("repository"), CreateOptions::new(SystemClock.now()));
        let repository = repository.unwrap();
        let runtime = Runtime::new().unwrap();
        let config = ClusterConfig {
            repositories: vec![(NAME.to_owned(), dir.path().join("repository"))],
            edges,
            edge_memory_bytes: 64 << 20,
            edge_disk_bytes: 64 << 20,
            work: dir.path().join("edges"),
            block_udp: false,
        };
        let cluster = {
            let _inside = runtime.enter();
            Cluster::start(&config).unwrap()
        };
        let site = Self { dir, repository, cluster, runtime };
        site.publish("hello", &[("bin/app", b"#!hello"), ("data/empty", b""), ("data/text", &text(3_000_000))]);
        site.publish("other", &[("bin/app", b"#!other")]);
        site
    }

    /// Publishes a package; its hash.
    pub fn publish(&self, name: &str, files: &[(&str, &[u8])]) -> BlobId {
        let from = self.dir.path().join("files").join(name);
        for (path, content) in files {
            let path = from.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let built = package::build(&Build {
            from_dir: Some(from),
            name: Some(name.to_owned()),
            output: self.dir.path().join("built").join(name),
            ..Build::default()
        });
        let built = built.unwrap();
        let manifests = vec![built.package_manifest.clone()];
        let publish = Publish { manifests, compression_level: Some(1), ..Publish::new(SystemClock.now()) };
        self.repository.publish(&publish).unwrap();
        built.hash()
    }

    /// The configuration with all edges as mirrors.
    pub fn config(&self) -> RepoConfig {
        self.cluster.device_config(NAME, self.repository.metadata().unwrap().root()).unwrap()
    }

    /// A file with this configuration.
    pub fn file_of(&self, config: &RepoConfig) -> String {
        let path = self.path("repo.config");
        std::fs::write(&path, serde_json::to_vec(config).unwrap()).unwrap();
        path.display().to_string()
    }

    /// Where edge number `edge` hands out the configuration.
    pub fn config_url(&self, edge: usize) -> String {
        format!("{}/{NAME}/repo.config", self.cluster.edges[edge].node.url())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a `device` command line on the device of this site.
    pub fn device(&self, line: &[&str]) -> Ran {
        self.device_in(&Surroundings::machine(), line)
    }

    /// The same with another disk or clock.
    pub fn device_in(&self, surroundings: &Surroundings, line: &[&str]) -> Ran {
        let dir = self.path("device").display().to_string();
        run_line(&[&["--dir", &dir], line].concat(), surroundings, std::future::pending())
    }

    /// The device, with the configuration of all edges added.
    pub fn ready(self) -> Self {
        let file = self.file_of(&self.config());
        self.device(&["repo", "add", "file", &file]).ok();
        self
    }

    /// Ends the servers; what they kept stays, and nobody answers at the ports of the edges: a server of another test could
    /// be given one of them.
    pub fn stop_servers(self) -> Stopped {
        let edges = self.cluster.edges.iter().map(|edge| edge.node.authority().parse().unwrap());
        let edges: Vec<SocketAddr> = edges.collect();
        self.runtime.block_on(self.cluster.stop());
        Stopped { _dir: self.dir, _ports: edges.into_iter().map(keep_silent).collect() }
    }
}

/// What is left of a site whose servers have ended.
pub(crate) struct Stopped {
    _dir: TempDir,
    _ports: Vec<TcpSocket>,
}

/// Holds a port without listening, so that connections are refused.
fn keep_silent(address: SocketAddr) -> TcpSocket {
    let began = Instant::now();
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        match socket.bind(address) {
            Ok(()) => return socket,
            // The server may still be closing it.
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The arguments of a `device` command line.
pub(crate) fn args_of(line: &[&str]) -> Args {
    Line::try_parse_from([&["device"], line].concat()).unwrap_or_else(|error| panic!("{error}")).args
}

/// Runs a `device` command line as `main` does, until `stop`.
pub(crate) fn run_line(line: &[&str], surroundings: &Surroundings, stop: impl Future<Output = ()>) -> Ran {
    let parsed = Line::try_parse_from([&["device"], line].concat()).unwrap_or_else(|error| panic!("{error}"));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let console = Console { out: &mut out as &mut dyn Write, err: &mut err, json: parsed.args.json };
    let outcome = run_until(&parsed.args, surroundings, stop, console);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (code, error) = match outcome {
        Ok(code) => (code, String::new()),
        Err(error) => (error.exit_code(), error.to_string()),
    };
    Ran { code, out: text(out), err: text(err), error }
}

/// Numbered lines.
pub(crate) fn text(bytes: usize) -> Vec<u8> {
    let mut text: Vec<u8> = (0..bytes / 8).flat_map(|line| format!("line {line}\n").into_bytes()).collect();
    text.truncate(bytes);
    text
}
