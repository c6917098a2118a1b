//! One session of one device: it wakes with what it had, does what a device does, and goes idle again.
//!
//! Everything that decides is the code of `colibri-device`; here it is called step by step with a watch in hand.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use colibri_common::{BlobId, Clock};
use colibri_device::{Device, DeviceConfig, DeviceError, Keep, Repositories};
use colibri_metadata::{RepoConfig, Role, TrustedSet};
use colibri_package::package::MetaFar;
use colibri_package::url::AbsolutePackageUrl;
use colibri_transport::Client;

use super::state::Blobs;
use super::ways::{Ailments, Ways};
use crate::plan::PlannedWake;
use crate::record::{Outcome, Step};
use crate::tally::{Audit, MetaFars, TallyKeep};

/// What all sessions of a run share.
pub(crate) struct Shared {
    pub repository: RepoConfig,
    pub packages: Vec<AbsolutePackageUrl>,
    pub device: DeviceConfig,
    pub clock: Arc<dyn Clock>,
    pub meta_fars: Arc<MetaFars>,
    pub audit: Arc<Audit>,
    pub ways: Ways,
    pub ailments: Arc<Ailments>,
}

/// A device that wakes.
#[derive(Debug)]
pub(crate) struct Waking {
    pub planned: PlannedWake,
    /// Its edge, an index into the mirrors.
    pub edge: usize,
    pub trusted: Option<Arc<TrustedSet>>,
    pub held: Vec<BlobId>,
    pub blobs: Vec<Blobs>,
    /// The release it has; one of `held`.
    pub release: Option<BlobId>,
    /// Connections that it kept.
    pub client: Option<Client>,
    /// Whether what it fetches is kept whole and hashed once more.
    pub is_audited: bool,
}

/// What it did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Its connections as they are now.
    pub client: Option<Client>,
    pub planned: Option<PlannedWake>,
    pub started_us: u64,
    pub ended_us: u64,
    pub steps: Vec<(Step, Outcome, u64)>,
    pub failures: Vec<String>,
    pub trusted: Option<Arc<TrustedSet>>,
    /// Metadata that it believes now is older than what it believed before.
    pub went_back: bool,
    /// Packages it has now and wanted: number in the catalogue, hash, blobs.
    pub got: Vec<(u16, BlobId, Blobs)>,
    pub blobs: u64,
    pub content_bytes: u64,
    /// Blobs and bytes of what new packages replaced.
    pub let_go: (u64, u64),
    pub received_bytes: u64,
    pub requests: colibri_transport::RequestCounts,
    /// Bad bytes by the address they came from.
    pub blames: Vec<(String, u64)>,
}

/// A watch: microseconds since the start of the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch(pub Instant);

impl Watch {
    pub fn now_us(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Runs a session to its end.
pub(crate) async fn run(shared: Arc<Shared>, waking: Waking, watch: Watch) -> Done {
    let mut done = Done { started_us: watch.now_us(), trusted: waking.trusted.clone(), ..Done::default() };
    let intended_us = waking.planned.wake.at_us;
    let audit = waking.is_audited.then(|| shared.audit.clone());
    let keep =
        TallyKeep::holding(shared.meta_fars.clone(), &waking.blobs, audit).full_while(shared.ailments.disk_full());
    let before = waking.client.as_ref().map(Client::counts).unwrap_or_default();
    let (held_blobs, held_bytes) = keep.totals();
    match boot(&shared, &waking, keep.clone()) {
        Err(error) => done.fail(Step::Boot, watch.now_us().saturating_sub(intended_us), &error.to_string()),
        Ok(device) => {
            done.steps.push((Step::Boot, Outcome::Ok, watch.now_us().saturating_sub(intended_us)));
            if let Err(error) = at_work(&shared, &waking, &device, &keep, watch, &mut done).await {
                done.failures.push(error.to_string());
            }
            done.requests = device.client().counts().since(&before);
            done.client = Some(device.client().clone());
            let sources = device.repositories().list();
            for source in sources.iter().flat_map(|repository| repository.sources().list()) {
                done.received_bytes += source.body_bytes();
                if source.blames() > 0 {
                    done.blames.push((source.url.as_str().to_owned(), source.blames()));
                }
            }
        }
    }
    let (blobs, bytes) = keep.totals();
    done.blobs = (blobs + done.let_go.0).saturating_sub(held_blobs);
    done.content_bytes = (bytes + done.let_go.1).saturating_sub(held_bytes);
    done.ended_us = watch.now_us();
    let outcome = if done.failures.is_empty() { Outcome::Ok } else { Outcome::Failed };
    done.steps.push((Step::Session, outcome, done.ended_us.saturating_sub(intended_us)));
    done.planned = Some(waking.planned);
    done
}

fn boot(shared: &Shared, waking: &Waking, keep: TallyKeep) -> Result<Device, DeviceError> {
    let mut repository = shared.repository.clone();
    let mirrors = repository.mirrors.len().max(1);
    repository.mirrors.rotate_left(waking.edge % mirrors);
    let trusted = waking.trusted.as_deref().cloned();
    let repositories = Repositories::resuming(repository, trusted)?;
    let client = match &waking.client {
        Some(client) => client.clone(),
        None => shared.ways.client(&waking.planned)?,
    };
    Device::with_client(Arc::new(keep), repositories, shared.device.clone(), client, shared.clock.clone())
}

async fn at_work(
    shared: &Shared,
    waking: &Waking,
    device: &Device,
    keep: &TallyKeep,
    watch: Watch,
    done: &mut Done,
) -> Result<(), DeviceError> {
    check(shared, waking, device, watch, done).await?;
    let mut is_new = false;
    for (number, url) in
        waking.planned.wants.iter().filter_map(|number| Some((*number, shared.packages.get(usize::from(*number))?)))
    {
        let since_us = watch.now_us();
        let hash = timed(Step::Resolve, since_us, watch, done, device.get_hash(url).await)?;
        if waking.held.contains(&hash) {
            done.got.push((number, hash, Arc::default()));
            continue;
        }
        let since_us = watch.now_us();
        let resolved = timed(Step::Fetch, since_us, watch, done, device.resolve(url, Arc::new(|_| ())).await)?;
        done.got.push((number, resolved.hash, blobs_of(keep, resolved.hash)?));
        is_new = true;
    }
    if is_new {
        install(waking, device, keep, watch, done).await?;
    }
    Ok(())
}

/// Proves that what was fetched is whole, then lets go of what it replaces.
async fn install(
    waking: &Waking,
    device: &Device,
    keep: &TallyKeep,
    watch: Watch,
    done: &mut Done,
) -> Result<(), DeviceError> {
    let since_us = watch.now_us();
    for (_, hash, _) in &done.got {
        if !waking.held.contains(hash) && !device.is_on_device(*hash).await? {
            done.fail(Step::Verify, watch.now_us() - since_us, &format!("package {hash} is not whole"));
            return Ok(());
        }
    }
    let verified_us = watch.now_us();
    done.steps.push((Step::Verify, Outcome::Ok, verified_us - since_us));
    let is_replaced = |hash: &BlobId| {
        waking.release == Some(*hash) && done.got.iter().any(|(number, new, _)| *number == 0 && new != hash)
    };
    let stays = waking.held.iter().zip(&waking.blobs).filter(|(hash, _)| !is_replaced(hash)).map(|(_, blobs)| blobs);
    let stays = stays.chain(done.got.iter().map(|(.., blobs)| blobs));
    let stays: HashSet<BlobId> = stays.flat_map(|blobs| blobs.iter().map(|(id, _)| *id)).collect();
    done.let_go = keep.let_go(&stays);
    done.steps.push((Step::Install, Outcome::Ok, watch.now_us() - verified_us));
    Ok(())
}

/// The update check: a timestamp, and all metadata if that is new.
async fn check(
    shared: &Shared,
    waking: &Waking,
    device: &Device,
    watch: Watch,
    done: &mut Done,
) -> Result<(), DeviceError> {
    let host = shared.repository.host();
    let refreshed = device.refresh(host, true).await;
    let repository = device.repositories().get(host)?;
    let now = repository.trusted();
    // What was proven stays proven, also when the refresh came to nothing.
    let version = |set: &Option<Arc<TrustedSet>>, role| set.as_ref().and_then(|set| set.version(role));
    done.went_back = [Role::Timestamp, Role::Snapshot, Role::Targets]
        .into_iter()
        .any(|role| version(&now, role).zip(version(&waking.trusted, role)).is_some_and(|(now, before)| now < before));
    let is_same = now.as_ref().zip(waking.trusted.as_ref()).is_some_and(|(now, before)| now.files().eq(before.files()));
    if !is_same && now.is_some() {
        done.trusted = now;
    }
    let took_us = watch.now_us().saturating_sub(waking.planned.wake.at_us);
    let step = if is_same { Step::Timestamp } else { Step::Refresh };
    match refreshed {
        // A device goes on with what it has when no mirror answers; its check has failed all the same.
        Ok(_) if repository.checked_at().is_none() => {
            done.fail(step, took_us, "no mirror answered the update check");
            Ok(())
        }
        Ok(_) => {
            done.steps.push((step, Outcome::Ok, took_us));
            Ok(())
        }
        Err(error) => {
            done.steps.push((step, Outcome::Failed, took_us));
            Err(error)
        }
    }
}

fn timed<T>(
    step: Step,
    since_us: u64,
    watch: Watch,
    done: &mut Done,
    result: Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Failed };
    done.steps.push((step, outcome, watch.now_us().saturating_sub(since_us)));
    result
}

/// Every blob of a package that is here, with its length.
fn blobs_of(keep: &TallyKeep, hash: BlobId) -> Result<Blobs, DeviceError> {
    let bad = |error: &dyn std::fmt::Display| DeviceError::BadPackage { hash, reason: error.to_string() };
    let (mut packages, mut ids) = (vec![hash], std::collections::BTreeSet::from([hash]));
    while let Some(package) = packages.pop() {
        let meta_far = MetaFar::parse(keep.read(&package, u64::MAX)?).map_err(|error| bad(&error))?;
        ids.extend(meta_far.contents().values());
        packages.extend(meta_far.subpackages().values().copied().filter(|id| ids.insert(*id)));
    }
    let length = |id: BlobId| Ok((id, Keep::length(keep, &id)?.unwrap_or(0)));
    ids.into_iter().map(length).collect::<Result<Vec<_>, DeviceError>>().map(Into::into)
}

impl Done {
    fn fail(&mut self, step: Step, took_us: u64, text: &str) {
        self.steps.push((step, Outcome::Failed, took_us));
        self.failures.push(text.to_owned());
    }
}
