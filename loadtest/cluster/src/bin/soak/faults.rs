//! The schedule of faults: one after the other, which and for how long by the seed.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::load::Load;
use crate::nodes::{Node, System};
use crate::upstream::Upstream;

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    OriginKilled,
    ShieldKilled,
    UpstreamLies,
    UpstreamStalls,
    DiskWiped,
    DiskBroken,
    Reload,
    Drain,
}

/// In the first round in this order, so that a short run has each; then by chance.
const ALL: [Fault; 8] = [
    // Before anything else has made that upstream the last to be asked.
    Fault::UpstreamLies,
    Fault::OriginKilled,
    Fault::DiskWiped,
    Fault::Drain,
    Fault::UpstreamStalls,
    Fault::DiskBroken,
    Fault::ShieldKilled,
    Fault::Reload,
];

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::OriginKilled => "origin killed and restarted",
            Self::ShieldKilled => "upstream edge killed and restarted",
            Self::UpstreamLies => "upstream flips bits",
            Self::UpstreamStalls => "upstream stalls",
            Self::DiskWiped => "disk folder wiped",
            Self::DiskBroken => "disk refuses everything",
            Self::Reload => "reload",
            Self::Drain => "edge drained and restarted",
        }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub struct Happened {
    /// How often, by name.
    pub faults: BTreeMap<&'static str, u32>,
    /// What should not have: an edge that drained and ended badly, a process that did not come back.
    pub mishaps: Vec<String>,
    /// Bodies that the upstream spoiled.
    pub lies: u64,
}

/// Lets them happen.
#[derive(Debug)]
pub struct Faults {
    random: fastrand::Rng,
    system: Arc<System>,
    upstream: Upstream,
    load: Arc<Load>,
    happened: Happened,
}

impl Faults {
    /// Faults of `system` by `seed`.
    pub fn new(seed: u64, system: Arc<System>, upstream: Upstream, load: Arc<Load>) -> Self {
        let random = fastrand::Rng::with_seed(seed.rotate_left(17));
        Self { random, system, upstream, load, happened: Happened::default() }
    }

    /// One after the other until then; after that there is calm.
    pub async fn until(mut self, then: Instant) -> Happened {
        let mut first = ALL.into_iter();
        loop {
            let pause = Duration::from_millis(self.random.u64(2_000..6_000));
            if Instant::now() + pause + Duration::from_secs(12) > then {
                break;
            }
            sleep(pause).await;
            let fault = first.next().unwrap_or_else(|| ALL[self.random.usize(..ALL.len())]);
            println!("         {}", fault.name());
            *self.happened.faults.entry(fault.name()).or_default() += 1;
            if let Err(mishap) = self.happen(fault).await {
                println!("         MISHAP: {mishap}");
                self.happened.mishaps.push(mishap);
            }
        }
        sleep(then.saturating_duration_since(Instant::now())).await;
        println!("         calm");
        self.load.calm.store(true, Ordering::SeqCst);
        self.happened.lies = self.upstream.lies.told();
        self.happened
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), String> {
        let system = self.system.clone();
        let [edge, drained] = &system.edges;
        let moment = Duration::from_millis(self.random.u64(1_000..8_000));
        match fault {
            Fault::OriginKilled => restarted(&system.origin, moment).await,
            Fault::ShieldKilled => restarted(&system.shields[1], moment).await,
            Fault::UpstreamLies => {
                let told = self.upstream.lies.told();
                self.upstream.lies.set(true);
                sleep(moment).await;
                // Who failed lately is asked last: it may take a while until anybody asks.
                for _ in 0..10 {
                    if self.upstream.lies.told() > told {
                        break;
                    }
                    sleep(Duration::from_secs(1)).await;
                }
                self.upstream.lies.set(false);
                Ok(())
            }
            Fault::UpstreamStalls => {
                self.upstream.stalls.store(true, Ordering::SeqCst);
                sleep(moment).await;
                self.upstream.stalls.store(false, Ordering::SeqCst);
                Ok(())
            }
            Fault::DiskWiped => {
                let node = if self.random.bool() { edge } else { &system.shields[0] };
                // What is written meanwhile may be in its way; half a wipe is one too.
                _ = fs::remove_dir_all(&node.disk);
                Ok(())
            }
            Fault::DiskBroken => broken(edge, moment).await,
            Fault::Reload => {
                for _ in 0..5 {
                    edge.signal("HUP");
                    system.shields[0].signal("HUP");
                    sleep(Duration::from_millis(200)).await;
                }
                Ok(())
            }
            Fault::Drain => {
                drained.signal("TERM");
                let status = drained.end().await?;
                drained.begin().await?;
                if status.success() { Ok(()) } else { Err(format!("{} drained and ended with {status}", drained.name)) }
            }
        }
    }
}

async fn restarted(node: &Node, moment: Duration) -> Result<(), String> {
    node.kill();
    sleep(moment).await;
    node.begin().await
}

/// A file lies where the folder was: everything below it fails, also for those who may do anything.
async fn broken(node: &Node, moment: Duration) -> Result<(), String> {
    let away = node.disk.with_extension("away");
    _ = fs::remove_dir_all(&away);
    _ = fs::rename(&node.disk, &away);
    _ = fs::write(&node.disk, "not a folder");
    sleep(moment).await;
    _ = fs::remove_file(&node.disk);
    _ = fs::remove_dir_all(&away);
    Ok(())
}
