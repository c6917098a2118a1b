//! The story of the demo, act by act. Reading [`play`] top to bottom is reading what the system does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use colibri_cluster::{Cluster, ClusterConfig, ClusterError};
use colibri_common::{Clock, SystemClock};
use colibri_device::materialise::{MaterialiseError, Rights, materialise};
use colibri_device::{Device, DeviceConfig, DeviceError, Event};
use colibri_loadtest::{FleetConfig, FleetReport};
use colibri_metadata::{RepoConfig, RepoConfigError};
use colibri_package::url::AbsolutePackageUrl;
use colibri_repository::{CreateOptions, Publish, PublishReport, Repository, RepositoryError};
use colibri_store::{Store, StoreError};

use super::Args;
use super::inputs::{self, HELD_BACK, Staged};
use super::report::DemoReport;
use crate::files::FilesError;
use crate::package;
use crate::progress::{bytes, step};

/// Name of the repository, and host of its URLs.
const REPOSITORY: &str = "devhost";

/// Mean arrivals per second in the fleet.
const ARRIVALS_PER_S: f64 = 20.0;

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The asynchronous runtime could not start.
    #[error("the runtime could not start: {0}")]
    Runtime(std::io::Error),
    /// The result could not be printed.
    #[error("printing failed: {0}")]
    Output(std::io::Error),
    /// Files could not be staged.
    #[error("staging files: {0}")]
    Staging(#[from] std::io::Error),
    /// A package could not be built.
    #[error("building a package: {0}")]
    Build(#[from] FilesError),
    /// Publishing.
    #[error("publishing: {0}")]
    Publish(#[from] RepositoryError),
    /// Starting servers.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The repository's device-side configuration.
    #[error(transparent)]
    RepoConfig(#[from] RepoConfigError),
    /// The device.
    #[error("device: {0}")]
    Device(#[from] DeviceError),
    /// The device's store.
    #[error("device: {0}")]
    Store(#[from] StoreError),
    /// Laying out a package's files.
    #[error("device: {0}")]
    Materialise(#[from] MaterialiseError),
    /// A name that is no package's.
    #[error("package `{0}`: {1}")]
    Name(String, String),
    /// A task was lost.
    #[error("an internal task stopped: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A person pressed Ctrl-C.
    #[error("interrupted: servers are stopped; temporary files go as soon as the write under way ends")]
    Interrupted,
}

/// Plays the story; Ctrl-C ends it early and cleanly.
pub(super) async fn play(args: &Args, work: &Path) -> Result<DemoReport, DemoError> {
    tokio::select! {
        report = acts(args, work.to_owned()) => report,
        _ = tokio::signal::ctrl_c() => Err(DemoError::Interrupted),
    }
}

async fn acts(args: &Args, work: PathBuf) -> Result<DemoReport, DemoError> {
    let start = Instant::now();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut report = DemoReport::default();

    let publisher = Publisher::create(&work, args.level, &clock)?;
    let release_1 = inputs::release_1(&work, &args.from)?;
    let published = publisher.release("release 1", release_1.clone()).await?;
    report.blobs = published.blobs;
    report.bytes_published = published.bytes_raw;
    report.bytes_deduplicated = published.bytes_deduplicated;
    report.bytes_stored = published.bytes_stored_new;

    let cluster = start_cluster(&work, args.block_udp)?;
    let config = cluster.device_config(REPOSITORY, publisher.repository.metadata()?.root())?;
    let (device, store) = Device::open(&work.join("device"), DeviceConfig::default(), clock.clone())?;
    device.repositories().add(config.clone())?;
    let mut owner = Owner { device, store, work: work.clone() };

    let names: Vec<_> = release_1.iter().map(|package| package.name.clone()).collect();
    let verified_1 = owner.install("release 1", &names).await?;
    report.release1_bytes_fetched = owner.body_bytes()?;

    let release_2 = publisher.release("release 2", inputs::release_2(&work)?).await?;
    report.packages = names.len() + 1;
    owner.refresh().await?;
    let verified_2 = owner.install("release 2", &names).await?;
    report.release2_bytes_fetched = owner.body_bytes()? - report.release1_bytes_fetched;
    tracing::debug!(?release_2, "release 2 is out");

    let fleet = run_fleet(args, config, &names, clock).await?;
    report.fleet_devices = fleet.devices;
    report.fleet_failures = fleet.failures;
    (report.fleet_p50_ms, report.fleet_p99_ms) = (fleet.p50_ms, fleet.p99_ms);

    let caught = owner.meet_a_liar(&cluster, &mut report).await?;
    report.packages_verified = verified_1.min(verified_2) + usize::from(caught);
    report.unverified_bytes_accepted = owner.unverified_bytes().await?;

    measure_hops(&mut report, &cluster, &owner, &fleet)?;
    cluster.stop().await;
    report.duration_s = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Whoever holds the keys.
struct Publisher {
    repository: Arc<Repository>,
    work: PathBuf,
    level: i32,
    clock: Arc<dyn Clock>,
}

impl Publisher {
    fn create(work: &Path, level: i32, clock: &Arc<dyn Clock>) -> Result<Self, DemoError> {
        let repository = Repository::create(&work.join("repository"), CreateOptions::new(clock.now()))?;
        Ok(Self { repository: Arc::new(repository), work: work.to_owned(), level, clock: clock.clone() })
    }

    /// Builds the staged packages and publishes them: blobs first, proven, then the signed metadata.
    async fn release(&self, title: &str, staged: Vec<Staged>) -> Result<PublishReport, DemoError> {
        let step = step(&format!("building and publishing {title}"));
        let (repository, out) = (self.repository.clone(), self.work.join("built").join(title.replace(' ', "-")));
        let (level, now) = (self.level, self.clock.now());
        let (step, published) = tokio::task::spawn_blocking(move || {
            let manifests = staged.iter().map(|package| build(package, &out)).collect::<Result<_, _>>()?;
            let progress = |at: colibri_repository::PublishProgress| step.progress(at.bytes_done, at.bytes_total);
            let publish =
                Publish { manifests, compression_level: Some(level), progress: Some(&progress), ..Publish::new(now) };
            let published = repository.publish(&publish)?;
            Ok::<_, DemoError>((step, published))
        })
        .await??;
        step.done(&format!(
            "{title} published: {} packages, {} blobs, {} raw, {} newly stored",
            published.packages,
            published.blobs,
            bytes(published.bytes_raw),
            bytes(published.bytes_stored_new),
        ));
        Ok(published)
    }
}

fn build(staged: &Staged, out: &Path) -> Result<PathBuf, DemoError> {
    let output = out.join(&staged.name);
    std::fs::create_dir_all(&output)?;
    let arguments = package::Build {
        from_dir: Some(staged.dir.clone()),
        name: Some(staged.name.clone()),
        output,
        ..package::Build::default()
    };
    Ok(package::build(&arguments)?.package_manifest)
}

fn start_cluster(work: &Path, block_udp: bool) -> Result<Cluster, DemoError> {
    let step = step("starting an origin and two edges");
    let cluster = Cluster::start(&ClusterConfig {
        repositories: vec![(REPOSITORY.to_owned(), work.join("repository"))],
        edges: 2,
        edge_memory_bytes: 256 << 20,
        edge_disk_bytes: 1 << 30,
        work: work.join("edges"),
        block_udp,
    })?;
    let edges: Vec<_> = cluster.edges.iter().map(|edge| edge.node.authority()).collect();
    step.done(&format!("origin at {}, edges at {}", cluster.origin.authority(), edges.join(" and ")));
    Ok(cluster)
}

/// Whoever owns the device.
struct Owner {
    device: Device,
    store: Arc<Store>,
    work: PathBuf,
}

impl Owner {
    fn sources(&self) -> Result<Arc<colibri_fetch::Sources>, DemoError> {
        Ok(self.device.repositories().get(REPOSITORY)?.sources().clone())
    }

    /// Body bytes the device has received so far, metadata included.
    fn body_bytes(&self) -> Result<u64, DemoError> {
        Ok(self.sources()?.list().iter().map(|source| source.body_bytes()).sum())
    }

    async fn refresh(&self) -> Result<(), DemoError> {
        self.device.refresh(REPOSITORY, true).await?;
        Ok(())
    }

    /// Resolves packages, lays out their files and re-hashes each; how many were whole.
    async fn install(&mut self, title: &str, names: &[String]) -> Result<usize, DemoError> {
        let step = step(&format!("device: resolving {title}"));
        let (mut verified, mut fetched, mut content) = (0, 0, 0);
        for name in names {
            let resolved = self.device.resolve(&url(name)?, Arc::new(|_: Event| ())).await?;
            fetched += resolved.report.fetched;
            content += resolved.report.content_bytes;
            verified += usize::from(self.lay_out_and_check(title, name, resolved.hash).await?);
            step.progress(verified as u64, names.len() as u64);
        }
        let total = bytes(content);
        step.done(&format!("device has {title}: {verified} packages verified, {fetched} blobs ({total}) were new"));
        Ok(verified)
    }

    /// Materialises a package and hashes every file again, from the tree a program would read.
    async fn lay_out_and_check(
        &self,
        title: &str,
        name: &str,
        hash: colibri_common::BlobId,
    ) -> Result<bool, DemoError> {
        let contents = self.device.open_package(hash).await?;
        let target = self.work.join("installed").join(title.replace(' ', "-")).join(name);
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            materialise(&store, &contents.blobs, &contents.inline, &target, Rights::Read)?;
            for (path, id) in &contents.blobs {
                if crate::files::tree_of(&target.join(path))?.id != *id {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?
    }

    /// One edge starts to flip bits. The device meets it while resolving a package it does not hold yet.
    async fn meet_a_liar(&mut self, cluster: &Cluster, report: &mut DemoReport) -> Result<bool, DemoError> {
        let step = step("one edge lies; the device resolves a package it does not hold");
        let held_back = url(HELD_BACK)?;
        let hash = self.device.get_hash(&held_back).await?;
        let sources = self.sources()?;
        // The liar is the edge that the device asks first for this package.
        let favourite = sources.candidates(Some(&hash), 0)[0].url.authority().to_owned();
        let liar = cluster.edges.iter().find(|edge| edge.node.authority() == favourite).unwrap_or(&cluster.edges[0]);
        report.lying_edge = liar.node.authority();
        let blames_before = sources.blames().len();
        liar.lies.set(true);
        let resolved = self.device.resolve(&held_back, Arc::new(|_: Event| ())).await?;
        let whole = self.lay_out_and_check("release 2", HELD_BACK, resolved.hash).await?;
        liar.lies.set(false);
        let blames = sources.blames().split_off(blames_before);
        report.blame = blames.first().map(ToString::to_string);
        report.corrupt_edge_named = blames.first().map(|blame| blame.source.clone());
        let named = report.corrupt_edge_named.as_deref().unwrap_or("nobody").to_owned();
        step.done(&format!(
            "{} spoiled answers; the device refused them, named {named}, and finished",
            liar.lies.told()
        ));
        Ok(whole)
    }

    /// Re-hashes everything the store holds; bytes of blobs that are not what their name says.
    async fn unverified_bytes(&self) -> Result<u64, DemoError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let mut unverified = 0;
            for id in store.ids()? {
                let tree = crate::files::tree_of(&store.path(id))?;
                unverified += if tree.id == id { 0 } else { tree.length.bytes() };
            }
            Ok(unverified)
        })
        .await?
    }
}

async fn run_fleet(
    args: &Args,
    repository: RepoConfig,
    names: &[String],
    clock: Arc<dyn Clock>,
) -> Result<FleetReport, DemoError> {
    let step = step(&format!("{} synthetic devices resolve what they choose", args.devices));
    let packages = names.iter().map(|name| url(name)).collect::<Result<_, _>>()?;
    let config = FleetConfig {
        repository,
        packages,
        device: DeviceConfig::default(),
        devices: args.devices,
        arrivals_per_s: ARRIVALS_PER_S,
        packages_per_device: 1,
        seed: args.seed,
    };
    let done = Arc::new(AtomicU64::new(0));
    let run = colibri_loadtest::run(config, clock, done.clone());
    tokio::pin!(run);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let fleet = loop {
        tokio::select! {
            fleet = &mut run => break fleet,
            _ = tick.tick() => step.progress(done.load(Ordering::Relaxed), u64::from(args.devices)),
        }
    };
    let (content, failures) = (bytes(fleet.content_bytes), fleet.failures);
    step.done(&format!("fleet: {} devices verified {content}, {failures} failures", fleet.devices));
    for text in &fleet.failure_texts {
        eprintln!("  {text}");
    }
    Ok(fleet)
}

/// What crossed each hop, from the counters of those who sent or received it.
fn measure_hops(
    report: &mut DemoReport,
    cluster: &Cluster,
    owner: &Owner,
    fleet: &FleetReport,
) -> Result<(), DemoError> {
    report.origin_bytes_sent = cluster.origin_log.body_bytes();
    report.max_origin_fetches_per_unit_and_edge = cluster.origin_log.fetches_per_unit_max();
    report.edge_bytes_sent = owner.body_bytes()? + fleet.received_bytes;
    let per_edge = cluster.edges.iter().map(|edge| edge.edge.metrics().hits_and_asked());
    let (hits, asked) = per_edge.fold((0, 0), |sum, edge| (sum.0 + edge.0, sum.1 + edge.1));
    report.edge_hit_ratio = if asked == 0 { 0.0 } else { hits as f64 / asked as f64 };
    let device = owner.device.client().counts();
    report.h3_requests = device.h3_requests + fleet.h3_requests;
    report.h2_requests = device.h2_requests + fleet.h2_requests;
    report.h1_requests = device.h1_requests + fleet.h1_requests;
    Ok(())
}

fn url(name: &str) -> Result<AbsolutePackageUrl, DemoError> {
    let url = format!("fuchsia-pkg://{REPOSITORY}/{name}").parse();
    url.map_err(|error| DemoError::Name(name.to_owned(), format!("{error}")))
}
