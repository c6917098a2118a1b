//! The processes: an origin, two edges before it, two edges before those. Each comes back on the ports it had.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::Failure;
use crate::site::{REPOSITORY, Site};
use crate::upstream::Upstream;

/// Budget of each edge's memory tier, bytes: less than what is asked for.
pub const MEMORY_BYTES: u64 = 24 << 20;

/// Budget of each edge's disk tier, bytes.
pub const DISK_BYTES: u64 = 48 << 20;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Ports of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// HTTP/3, and HTTP/2 with TLS.
    pub https: u16,
    /// HTTP/1.1 without TLS.
    pub http: u16,
    /// Metrics.
    pub admin: u16,
}

/// One process that can be ended and started again.
#[derive(Debug)]
pub struct Node {
    /// What it is called.
    pub name: &'static str,
    /// Folder of its disk tier.
    pub disk: PathBuf,
    colibri: PathBuf,
    dir: PathBuf,
    words: Vec<String>,
    ports: Mutex<Ports>,
    child: Mutex<Option<Child>>,
}

impl Node {
    async fn start(colibri: &Path, dir: &Path, name: &'static str, words: Vec<String>) -> Result<Self, Failure> {
        let node = Self {
            name,
            disk: dir.join(format!("{name}.disk")),
            colibri: colibri.to_owned(),
            dir: dir.to_owned(),
            words,
            ports: Mutex::default(),
            child: Mutex::default(),
        };
        node.begin().await?;
        Ok(node)
    }

    /// Starts it, and waits until it answers.
    pub async fn begin(&self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.name);
        let file = self.dir.join(format!("{}.ports", self.name));
        _ = fs::remove_file(&file);
        let log = File::options().append(true).create(true).open(self.dir.join(format!("{}.log", self.name)));
        let Ports { https, http, admin } = self.ports();
        let mut command = Command::new(&self.colibri);
        command.args(&self.words).arg("--port-file").arg(&file);
        for (flag, port) in [("--listen", https), ("--listen-plain", http), ("--listen-admin", admin)] {
            command.arg(flag).arg(format!("127.0.0.1:{port}"));
        }
        command.arg("--tls-dir").arg(self.dir.join(format!("{}.tls", self.name)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.map_err(failed)?);
        *self.child() = Some(command.spawn().map_err(failed)?);
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Err(format!("{} ended with {status} while it started: see {}.log", self.name, self.name));
            }
            let text = fs::read_to_string(&file).unwrap_or_default();
            let port = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
            if let (Some(https), Some(http), Some(admin)) = (port("https="), port("http="), port("admin=")) {
                *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = Ports { https, http, admin };
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{} did not start within {} s", self.name, PATIENCE.as_secs()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills it.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            _ = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
        }
    }

    /// Waits until it has ended by itself; how it did.
    pub async fn end(&self) -> Result<ExitStatus, Failure> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                *self.child() = None;
                return Ok(status);
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{} did not end within {} s", self.name, PATIENCE.as_secs()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn ended(&self) -> Result<Option<ExitStatus>, Failure> {
        match &mut *self.child() {
            Some(child) => child.try_wait().map_err(|error| format!("{}: {error}", self.name)),
            None => Ok(None),
        }
    }

    /// Its process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Where it listens.
    pub fn ports(&self) -> Ports {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of them.
#[derive(Debug)]
pub struct System {
    /// The origin.
    pub origin: Node,
    /// The tier before it: the first is never ended, the second is killed.
    pub shields: [Node; 2],
    /// The tier that readers ask: the first is never ended, the second is drained.
    pub edges: [Node; 2],
}

impl System {
    /// Starts everything below `dir`.
    pub async fn start(colibri: &Path, dir: &Path, site: &Site) -> Result<(Upstream, Self), Failure> {
        let repository = format!("{REPOSITORY}={}", site.repository.display());
        let words = ["origin", "serve", "--repo", &repository].map(str::to_owned);
        let origin = Node::start(colibri, dir, "origin", words.to_vec()).await?;
        let url = |node: &Node| format!("https://127.0.0.1:{}", node.ports().https);
        let (upstream, faulty) = Upstream::start(&url(&origin))?;
        let edge = async |name: &'static str, upstreams: [String; 2]| {
            let mut words = ["edge", "serve", "--name", name].map(str::to_owned).to_vec();
            words.extend(upstreams.into_iter().flat_map(|url| ["--upstream".to_owned(), url]));
            words.extend(["--memory-bytes".to_owned(), MEMORY_BYTES.to_string()]);
            words.extend(["--disk-dir".to_owned(), dir.join(format!("{name}.disk")).display().to_string()]);
            words.extend(["--disk-bytes".to_owned(), DISK_BYTES.to_string()]);
            // Readers are cut off neither here nor by the upstream's patience; a drain is over before ours is.
            words.extend(["--set".to_owned(), "drain_s=20".to_owned()]);
            words.extend(["--set".to_owned(), "edge.upstream_patience_s=2".to_owned()]);
            Node::start(colibri, dir, name, words).await
        };
        let shields =
            [edge("shield-1", [faulty.clone(), url(&origin)]).await?, edge("shield-2", [url(&origin), faulty]).await?];
        let parents = [url(&shields[0]), url(&shields[1])];
        let others = [parents[1].clone(), parents[0].clone()];
        let edges = [edge("edge-1", parents).await?, edge("edge-2", others).await?];
        Ok((upstream, Self { origin, shields, edges }))
    }

    /// Edges of both tiers.
    pub fn caches(&self) -> impl Iterator<Item = &Node> {
        self.shields.iter().chain(&self.edges)
    }

    /// Where readers go.
    pub fn readers_see(&self) -> Result<Vec<Ports>, Failure> {
        Ok(self.edges.iter().map(Node::ports).collect())
    }
}
