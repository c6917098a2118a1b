//! [`Spawned`]: the system that a run starts for itself: a generated repository, an origin and edges on loopback.
//!
//! It publishes when the scenario says so and goes wrong when the scenario says so; the parts themselves have no such switch.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use colibri_cluster::catalogue::{Catalogue, CatalogueConfig, CatalogueError, Published, RELEASE, REPOSITORY};
use colibri_cluster::{Cluster, ClusterConfig, ClusterError, FaultKind, Gates};
use colibri_common::Clock;
use colibri_metadata::{RepoConfig, RepoConfigError};
use colibri_package::url::AbsolutePackageUrl;

use crate::limits::SPAWNED_EDGES_MAX;
use crate::scenario::{Fault, Place, Scenario};

/// Where devices go and what there is.
#[derive(Debug, Clone)]
pub struct Target {
    /// Repository and mirrors.
    pub repository: RepoConfig,
    /// Its packages: the release first, then the others by popularity.
    pub packages: Vec<AbsolutePackageUrl>,
}

/// Why a system could not be started or used.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its content.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// Its servers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Its device-side configuration.
    #[error(transparent)]
    RepoConfig(#[from] RepoConfigError),
    /// A generated name.
    #[error("the generated package `{name}` has no URL: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// More than one machine should start.
    #[error(
        "the scenario has {0} edges: at most {SPAWNED_EDGES_MAX} can be started here; simulate it, or name servers that run"
    )]
    TooManyEdges(usize),
    /// A task was lost.
    #[error("an internal task stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A system of this run.
pub struct Spawned {
    cluster: Cluster,
    catalogue: Arc<Catalogue>,
    clock: Arc<dyn Clock>,
    published: Mutex<Vec<Published>>,
}

impl Spawned {
    /// Publishes the first release below `work` and starts the servers.
    pub async fn start(scenario: &Scenario, work: &Path, clock: Arc<dyn Clock>) -> Result<Self, SpawnError> {
        let system = &scenario.system;
        if system.edges > SPAWNED_EDGES_MAX {
            return Err(SpawnError::TooManyEdges(system.edges));
        }
        let config = CatalogueConfig {
            seed: scenario.seed,
            packages: system.packages,
            release_files: system.release_files,
            release_file_bytes: system.release_file_bytes,
            changed: system.changed,
            package_bytes: system.package_bytes,
        };
        let (dir, now) = (work.to_owned(), clock.now());
        let made = tokio::task::spawn_blocking(move || {
            let catalogue = Catalogue::create(&dir, config, now)?;
            let first = catalogue.publish(1, now)?;
            Ok::<_, CatalogueError>((catalogue, first))
        });
        let (catalogue, first) = made.await??;
        let config = ClusterConfig {
            repositories: vec![(REPOSITORY.to_owned(), catalogue.dir().to_owned())],
            edges: system.edges,
            edge_memory_bytes: system.edge_cache_bytes,
            edge_disk_bytes: system.edge_cache_bytes,
            work: work.join("edges"),
            block_udp: false,
        };
        let cluster = Cluster::start_with(&config, &gates(scenario))?;
        Ok(Self { cluster, catalogue: Arc::new(catalogue), clock, published: Mutex::new(vec![first]) })
    }

    /// What devices are to be told.
    pub fn target(&self) -> Result<Target, SpawnError> {
        let root = self.catalogue.metadata()?;
        let repository = self.cluster.device_config(REPOSITORY, root.root())?;
        let names = std::iter::once(RELEASE.to_owned()).chain(self.catalogue.package_names());
        let url = |name: String| {
            let url = format!("fuchsia-pkg://{REPOSITORY}/{name}").parse();
            url.map_err(|error| SpawnError::Name { name, reason: format!("{error}") })
        };
        Ok(Target { repository, packages: names.map(url).collect::<Result<_, _>>()? })
    }

    /// Publishes the next release.
    pub async fn publish(&self) -> Result<Published, SpawnError> {
        let (catalogue, now) = (self.catalogue.clone(), self.clock.now());
        let next = self.newest().release + 1;
        let published = tokio::task::spawn_blocking(move || catalogue.publish(next, now)).await??;
        self.published().push(published);
        Ok(published)
    }

    /// The newest release.
    pub fn newest(&self) -> Published {
        // The first one was published before this was made.
        self.published().last().copied().expect("a system begins with a release")
    }

    /// Releases published so far.
    pub fn releases(&self) -> Vec<Published> {
        self.published().clone()
    }

    /// Body bytes that left the origin.
    pub fn origin_bytes(&self) -> u64 {
        self.cluster.origin_log.body_bytes()
    }

    /// Units that edges served without a fill of their own, and units they were asked for.
    pub fn hits_and_asked(&self) -> (u64, u64) {
        let per_edge = self.cluster.edges.iter().map(|edge| edge.edge.metrics().hits_and_asked());
        per_edge.fold((0, 0), |sum, edge| (sum.0 + edge.0, sum.1 + edge.1))
    }

    /// Units of all edges by where they came from: memory, disk, somebody else's fill, a fill.
    pub fn tiers(&self) -> [u64; 4] {
        let per_edge = self.cluster.edges.iter().map(|edge| edge.edge.metrics().tiers());
        per_edge.fold([0; 4], |sum, edge| std::array::from_fn(|tier| sum[tier] + edge[tier]))
    }

    /// Address of an edge, counted from 1.
    pub fn edge_url(&self, number: usize) -> Option<String> {
        Some(self.cluster.edges.get(number.checked_sub(1)?)?.url())
    }

    /// Begins or ends a fault.
    pub async fn set(&self, fault: &Fault, on: bool) -> Result<(), SpawnError> {
        let edge = match fault.place {
            Place::Origin => None,
            Place::Edge(number) => Some(number),
            Place::Devices => return Ok(()),
        };
        Ok(self.cluster.set(edge, fault.kind, on).await?)
    }

    /// Stops everything.
    pub async fn stop(self) {
        self.cluster.stop().await;
    }

    fn published(&self) -> std::sync::MutexGuard<'_, Vec<Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The edges that a scenario cuts off.
fn gates(scenario: &Scenario) -> Gates {
    let of = |kind| {
        let edges = scenario.faults.iter().filter(|fault| fault.kind == kind).map(|fault| fault.place);
        edges.filter_map(|place| if let Place::Edge(number) = place { Some(number) } else { None }).collect()
    };
    Gates { upstream: of(FaultKind::Partition), devices: of(FaultKind::Cut) }
}
