//! A whole system in one process: an origin and edges on loopback, with faults that a test or demo can switch on.
//!
//! The faults are wrappers around the real parts ([`fault`], [`trouble`]) and ports in front of them ([`gate`]); the parts themselves have no such switch. A
//! [`catalogue`] generates content for load tests. Deliberately absent: devices, and any other publishing.

pub mod catalogue;
pub mod fault;
pub mod gate;
mod kind;
pub mod limits;
mod origin_log;
pub mod trouble;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use colibri_common::SystemClock;
use colibri_edge::{Admission, DiskTierConfig, Edge, EdgeConfig, EdgeError};
use colibri_metadata::{RepoConfig, RepoConfigError, Root};
use colibri_origin::{Origin, OriginConfig, OriginError, RepositoryConfig};
use colibri_service::metrics::Registry;
use colibri_transport::{Handler, Server, ServerConfig, ServerTls, TransportError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{PORT_ATTEMPTS_MAX, REVIVAL_ATTEMPTS_MAX};

pub use fault::Lies;
pub use gate::Gate;
pub use kind::{FaultKind, Victim};
pub use origin_log::OriginLog;
pub use trouble::Trouble;

/// How long a revived node waits before it tries its port again.
const REVIVAL_PAUSE: Duration = Duration::from_millis(50);

/// How long a stopping node may take to finish its requests.
const DRAIN: Duration = Duration::from_secs(5);

/// A system to start.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Repositories the origin serves: name and folder.
    pub repositories: Vec<(String, PathBuf)>,
    /// Number of edges.
    pub edges: usize,
    /// Memory tier of each edge, bytes.
    pub edge_memory_bytes: u64,
    /// Disk tier of each edge, bytes; in a folder of its own below `work`.
    pub edge_disk_bytes: u64,
    /// Folder for what the nodes keep.
    pub work: PathBuf,
    /// Bind the UDP port of each node and never answer: HTTP/3 finds nobody.
    pub block_udp: bool,
}

/// Which edges get a [`Gate`], so that they can be cut off; counted from 1.
#[derive(Debug, Clone, Default)]
pub struct Gates {
    /// Between them and the origin.
    pub upstream: Vec<usize>,
    /// Between them and devices.
    pub devices: Vec<usize>,
}

/// Why a system did not start.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The origin.
    #[error("origin: {0}")]
    Origin(#[from] OriginError),
    /// An edge.
    #[error("edge: {0}")]
    Edge(#[from] EdgeError),
    /// A listener.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A repository's name.
    #[error("`{0}` cannot be the name of a repository")]
    Name(String),
    /// A port that can be shut.
    #[error("a gate in front of {target}: {source}")]
    Gate {
        /// What is behind it.
        target: SocketAddr,
        /// Why it cannot be opened.
        source: std::io::Error,
    },
    /// The port that should swallow datagrams.
    #[error("UDP {address}: {source}")]
    Blackhole {
        /// The address.
        address: SocketAddr,
        /// Why it cannot be bound.
        source: std::io::Error,
    },
}

/// A listener under way.
pub struct Node {
    address: SocketAddr,
    handler: Handler,
    config: ServerConfig,
    /// Nothing while it is killed.
    serving: Mutex<Option<Serving>>,
    /// Held while it is being taken away or brought back.
    changing: tokio::sync::Mutex<()>,
    _blackhole: Option<UdpSocket>,
}

#[derive(Debug)]
struct Serving {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Serving {
    fn begin(server: Server) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(server.serve(stop.clone(), DRAIN)), stop }
    }
}

impl Node {
    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Tells this node alone to drain and stop.
    pub fn stop(&self) {
        if let Some(serving) = &*self.serving() {
            serving.stop.cancel();
        }
    }

    /// Lets this node finish what it has begun, and waits until it is gone.
    pub async fn drain(&self) {
        let _changing = self.changing.lock().await;
        let serving = self.serving().take();
        if let Some(Serving { stop, task }) = serving {
            stop.cancel();
            // A panic of the listener has been reported by its task already.
            drop(task.await);
        }
    }

    /// Ends this node's connections and listeners at once, in the middle of whatever they do.
    pub async fn kill(&self) {
        let _changing = self.changing.lock().await;
        let serving = self.serving().take();
        if let Some(Serving { task, .. }) = serving {
            task.abort();
            // It was cancelled: that is what was wanted.
            drop(task.await);
        }
    }

    /// Starts a node that was killed or drained again, on the same port and with all that it kept. One that runs goes on running.
    ///
    /// # Errors
    /// Somebody else has taken the port.
    pub async fn revive(&self) -> Result<(), ClusterError> {
        let _changing = self.changing.lock().await;
        if self.serving().is_some() {
            return Ok(());
        }
        let mut attempt = 1;
        let server = loop {
            match Server::bind(self.config.clone(), self.handler.clone()) {
                Ok(server) => break server,
                // Its own sockets are closed by tasks that may still be on their way.
                Err(_) if attempt < REVIVAL_ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(REVIVAL_PAUSE).await;
        };
        *self.serving() = Some(Serving::begin(server));
        Ok(())
    }

    /// Stops this node and waits until its listeners are gone.
    async fn stopped(self) {
        let serving = self.serving.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some(Serving { stop, task }) = serving else { return };
        stop.cancel();
        // A panic of the listener has been reported by its task already.
        drop(task.await);
    }

    fn serving(&self) -> MutexGuard<'_, Option<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One edge and its switches.
#[derive(Debug)]
pub struct EdgeNode {
    /// Where it listens.
    pub node: Node,
    /// The edge.
    pub edge: Edge,
    /// Switch of the byte-flipping wrapper around its blob bodies.
    pub lies: Lies,
    /// Its other troubles.
    pub trouble: Trouble,
    /// Between it and the origin, if it was asked for.
    pub upstream_gate: Option<Gate>,
    /// Between it and devices, if it was asked for.
    pub device_gate: Option<Gate>,
}

impl EdgeNode {
    /// Where devices find it, as `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.device_gate.as_ref().map_or_else(|| self.node.url(), |gate| format!("https://{}", gate.address()))
    }
}

/// A running system.
#[derive(Debug)]
pub struct Cluster {
    /// The origin's listener.
    pub origin: Node,
    /// Switch of the byte-flipping wrapper around the origin's blob bodies.
    pub origin_lies: Lies,
    /// The origin's other troubles.
    pub origin_trouble: Trouble,
    /// What the origin was asked.
    pub origin_log: Arc<OriginLog>,
    /// The edges.
    pub edges: Vec<EdgeNode>,
    tasks: TaskTracker,
}

impl Cluster {
    /// Starts the origin, then the edges in front of it.
    pub fn start(config: &ClusterConfig) -> Result<Self, ClusterError> {
        Self::start_with(config, &Gates::default())
    }

    /// The same with gates.
    pub fn start_with(config: &ClusterConfig, gates: &Gates) -> Result<Self, ClusterError> {
        let tasks = TaskTracker::new();
        let origin_log = Arc::new(OriginLog::default());
        let repositories = config.repositories.iter().map(|(name, path)| {
            let name = name.parse().map_err(|_| ClusterError::Name(name.clone()))?;
            Ok(RepositoryConfig::new(name, path))
        });
        let repositories = repositories.collect::<Result<_, ClusterError>>()?;
        let origin_config = OriginConfig { repositories, ..OriginConfig::default() };
        let origin = Origin::open(origin_config, Arc::new(SystemClock))?.with_observer(origin_log.clone());
        let (origin_lies, origin_trouble) = (Lies::default(), Trouble::default());
        let handler = fault::lying(origin.handler(), origin_lies.clone(), tasks.clone());
        let handler = trouble::troubled(handler, origin_trouble.clone(), tasks.clone());
        let origin = listen(&handler, config.block_udp)?;
        let edges = (1..=config.edges).map(|number| start_edge(number, &origin, (config, gates), &tasks));
        let edges = edges.collect::<Result<_, _>>()?;
        Ok(Self { origin, origin_lies, origin_trouble, origin_log, edges, tasks })
    }

    /// The device-side configuration of a repository with all edges as mirrors, trusting `root`.
    pub fn device_config(&self, repository: &str, root: &Root) -> Result<RepoConfig, RepoConfigError> {
        let mirrors: Vec<_> = self.edges.iter().map(|edge| format!("{}/{repository}", edge.url())).collect();
        let first = mirrors.first().cloned().unwrap_or_else(|| format!("{}/{repository}", self.origin.url()));
        let mut config = RepoConfig::from_root(repository, root, &first)?;
        let template = config.mirrors[0].clone();
        config.mirrors.extend(mirrors.into_iter().skip(1).map(|mirror_url| {
            let mut mirror = template.clone();
            mirror.mirror_url = mirror_url;
            mirror
        }));
        Ok(config)
    }

    /// Begins or ends a fault of an edge, counted from 1, or of the origin. What is not about nodes, and edges that there are not,
    /// change nothing.
    ///
    /// # Errors
    /// A node could not be started again.
    pub async fn set(&self, edge: Option<usize>, kind: FaultKind, on: bool) -> Result<(), ClusterError> {
        let edge = match edge {
            None => None,
            Some(number) => match number.checked_sub(1).and_then(|index| self.edges.get(index)) {
                Some(edge) => Some(edge),
                None => return Ok(()),
            },
        };
        let node = edge.map_or(&self.origin, |edge| &edge.node);
        let gate = |gate: fn(&EdgeNode) -> &Option<Gate>| {
            if let Some(gate) = edge.and_then(|edge| gate(edge).as_ref()) {
                gate.set_shut(on);
            }
        };
        match kind {
            FaultKind::Kill | FaultKind::Drain if !on => node.revive().await?,
            FaultKind::Kill => node.kill().await,
            FaultKind::Drain => node.drain().await,
            FaultKind::Partition => gate(|edge| &edge.upstream_gate),
            FaultKind::Cut => gate(|edge| &edge.device_gate),
            FaultKind::Corrupt => edge.map_or(&self.origin_lies, |edge| &edge.lies).set(on),
            _ => edge.map_or(&self.origin_trouble, |edge| &edge.trouble).set(kind, on),
        }
        Ok(())
    }

    /// Stops everything, edges first, and waits.
    pub async fn stop(self) {
        self.edges.iter().for_each(|edge| edge.node.stop());
        for EdgeNode { node, edge, .. } in self.edges {
            node.stopped().await;
            edge.finish().await;
        }
        self.origin.stopped().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn start_edge(
    number: usize,
    origin: &Node,
    (config, gates): (&ClusterConfig, &Gates),
    tasks: &TaskTracker,
) -> Result<EdgeNode, ClusterError> {
    let gate = |wanted: &[usize], target: SocketAddr| {
        let gate = wanted.contains(&number).then(|| Gate::open(target)).transpose();
        gate.map_err(|source| ClusterError::Gate { target, source })
    };
    let upstream_gate = gate(&gates.upstream, origin.address)?;
    let upstream = upstream_gate.as_ref().map_or_else(|| origin.url(), |gate| format!("https://{}", gate.address()));
    let name = format!("edge-{number}");
    let dir = config.work.join(&name);
    let edge_config = EdgeConfig {
        upstreams: vec![upstream],
        memory_bytes: config.edge_memory_bytes,
        disk: Some(DiskTierConfig { admission: Admission::Always, ..DiskTierConfig::new(dir, config.edge_disk_bytes) }),
        name,
        ..EdgeConfig::default()
    };
    let edge = Edge::build(&edge_config, &Registry::new())?;
    let lies = Lies::default();
    let handler = fault::lying(edge.handler(), lies.clone(), tasks.clone());
    let trouble = Trouble::default();
    let handler = trouble::troubled(handler, trouble.clone(), tasks.clone());
    let node = listen(&handler, config.block_udp)?;
    let device_gate = gate(&gates.devices, node.address)?;
    Ok(EdgeNode { node, edge, lies, trouble, upstream_gate, device_gate })
}

fn listen(handler: &Handler, block_udp: bool) -> Result<Node, ClusterError> {
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let tls = ServerTls::self_signed(&["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()])?;
    let config = ServerConfig { quic: !block_udp, ..ServerConfig::secure(loopback, tls) };
    let mut attempt = 1;
    let (server, blackhole) = loop {
        let server = Server::bind(config.clone(), handler.clone())?;
        let address = server.address();
        match block_udp.then(|| UdpSocket::bind(address)).transpose() {
            Ok(blackhole) => break (server, blackhole),
            // Somebody else has the UDP port of that number.
            Err(_) if attempt < PORT_ATTEMPTS_MAX => attempt += 1,
            Err(source) => return Err(ClusterError::Blackhole { address, source }),
        }
    };
    let address = server.address();
    let (handler, config) = (handler.clone(), ServerConfig { address, ..config });
    let serving = Mutex::new(Some(Serving::begin(server)));
    let changing = tokio::sync::Mutex::default();
    Ok(Node { address, handler, config, serving, changing, _blackhole: blackhole })
}
