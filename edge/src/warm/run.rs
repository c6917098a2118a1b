//! The life of a [`Warmer`]: walk the newest set, then fetch what is missing of it, until there is a newer one.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use colibri_common::BlobId;
use colibri_fetch::FetchError;
use colibri_metadata::{Role, Targets};
use colibri_transport::Backoff;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::contents::{Library, Package};
use super::pins::Pin;
use super::plan::{Item, Plan, PlanBuilder, Shape, in_set_order};
use super::{Shared, Warmer};
use crate::config::WarmConfig;
use crate::limits::{WARM_AGAIN_MS, WARM_AGAIN_MS_MAX, WARM_PACKAGES_MAX};
use crate::metadata::Published;

/// What ended the work on a plan.
enum Ended {
    /// Everything that can be here is here.
    Done,
    /// Some of it could not be had, or the disk did not keep up.
    Later,
    /// Its time has not come.
    Closed,
}

/// What a walk found.
struct Walk {
    plan: Plan,
    /// Every blob that the set and the pins reach.
    reached: BTreeSet<BlobId>,
    /// Whether all was read.
    whole: bool,
}

impl Warmer {
    /// Warms until `stop`.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut versions = self.followed.versions();
        let mut failures = 0;
        loop {
            versions.mark_unchanged();
            let work = async {
                match self.followed.current().filter(|_| self.is_active()) {
                    Some(published) => self.warm(&published).await,
                    None => Ended::Done,
                }
            };
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = work => ended,
                changed = versions.changed() => match changed {
                    Ok(()) => {
                        failures = 0;
                        continue;
                    }
                    Err(_) => return,
                },
                () = self.again.notified() => continue,
            };
            failures = if matches!(ended, Ended::Later) { failures + 1 } else { 0 };
            let again = async {
                match ended {
                    Ended::Done => std::future::pending().await,
                    Ended::Closed => tokio::time::sleep(Duration::from_millis(WARM_AGAIN_MS)).await,
                    Ended::Later => tokio::time::sleep(pause(failures)).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = versions.changed() => if changed.is_err() { return },
                () = self.again.notified() => {}
                () = again => {}
            }
        }
    }

    async fn warm(&self, published: &Published) -> Ended {
        let Walk { plan, reached, whole } = self.walk(published).await;
        if let (true, Some(snapshot)) = (whole, published.snapshot_hash()) {
            self.reach.walked(snapshot, reached.iter().copied());
        }
        let plan = Arc::new(plan);
        self.prefer(&plan);
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan.clone());
        let fetched = match &self.shared.config {
            Some(config) => self.fetch(&plan, config).await,
            None => Ended::Done,
        };
        match fetched {
            Ended::Done if !whole => Ended::Later,
            fetched => fetched,
        }
    }

    fn library(&self) -> Library<'_> {
        let Shared { cache, fetcher, .. } = &*self.shared;
        Library { cache, fetcher, place: self.followed.place() }
    }

    /// Finds out what the set and the pins reach.
    async fn walk(&self, published: &Published) -> Walk {
        let (listed, mut whole) = self.listed(published).await;
        let pins = self.pins.list();
        let (mut plan, mut reached, mut packages) = (PlanBuilder::default(), BTreeSet::new(), BTreeSet::new());
        for Pin { release, hash } in &pins {
            whole &= self.add(&mut plan, &mut reached, &mut packages, release, *hash, true).await.is_some();
        }
        let (mut releases, mut rest) = (Vec::new(), Vec::new());
        for (name, hash) in listed {
            match self.contents.closure(&self.library(), hash).await {
                Ok(closure) if is_release(&closure, hash) => releases.push((name, hash)),
                Ok(closure) => {
                    for (hash, package) in closure {
                        packages.insert(hash);
                        rest.push(hash);
                        rest.extend(&package.blobs);
                    }
                }
                Err(error) => {
                    tracing::warn!(package = %name, %hash, %error, "what this package needs cannot be found out");
                    rest.push(hash);
                    whole = false;
                }
            }
        }
        for (name, hash) in releases {
            if !pins.iter().any(|pin| pin.hash == hash) {
                whole &= self.add(&mut plan, &mut reached, &mut packages, &name, hash, false).await.is_some();
            }
        }
        reached.extend(&rest);
        plan.group("packages".to_owned(), false, rest.into_iter().map(|id| (id, None)));
        self.contents.keep_only(&packages);
        let plan = plan.finish(published.version(Role::Timestamp), self.shared.space_bytes);
        Walk { plan, reached, whole }
    }

    /// Adds a release to a plan; nothing if it cannot be read.
    async fn add(
        &self,
        plan: &mut PlanBuilder,
        reached: &mut BTreeSet<BlobId>,
        packages: &mut BTreeSet<BlobId>,
        name: &str,
        hash: BlobId,
        pinned: bool,
    ) -> Option<()> {
        reached.insert(hash);
        let read = async {
            let closure = self.contents.closure(&self.library(), hash).await?;
            let document = closure.first().and_then(|(_, package)| package.release);
            let none = || FetchError::Local(format!("package {hash} carries no release"));
            let document = document.ok_or_else(none)?;
            Ok::<_, FetchError>((document, self.library().release(document).await?))
        };
        let (document, release) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(release = %name, %hash, %error, "the release cannot be read");
                return None;
            }
        };
        packages.insert(hash);
        let first = [(hash, None), (document, None)];
        let blobs: Vec<_> = first.into_iter().chain(in_set_order(&release)).collect();
        reached.extend(blobs.iter().map(|(id, _)| *id));
        plan.group(format!("{name} ({} {})", release.product(), release.version()), pinned, blobs);
        Some(())
    }

    /// Every package that the set lists, delegated roles included, and whether all roles could be read.
    async fn listed(&self, published: &Published) -> (Vec<(String, BlobId)>, bool) {
        let (mut listed, mut whole) = (Vec::new(), true);
        let mut take = |targets: &Targets| {
            let packages =
                targets.iter().filter_map(|(name, target)| Some((name.as_str().to_owned(), target.merkle()?)));
            listed.extend(packages.take(WARM_PACKAGES_MAX));
        };
        let set = published.set();
        set.targets().iter().for_each(|targets| take(targets));
        for name in set.delegated_names() {
            match self.followed.delegated(published, &name).await {
                Ok(Some(targets)) => take(&targets),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(role = name.as_str(), %error, "a delegated role cannot be read");
                    whole = false;
                }
            }
        }
        whole &= listed.len() <= WARM_PACKAGES_MAX;
        listed.truncate(WARM_PACKAGES_MAX);
        (listed, whole)
    }

    /// What the plan holds stays on disk longest.
    fn prefer(&self, plan: &Plan) {
        let Some(disk) = &self.shared.disk else { return };
        let own: HashSet<BlobId> = plan.groups.iter().flat_map(|group| &group.items).map(|item| item.id).collect();
        let mut preferred = self.shared.preferred.lock().unwrap_or_else(PoisonError::into_inner);
        preferred.insert(self.followed.name().clone(), Arc::new(own));
        disk.prefer(preferred.values().flat_map(|blobs| blobs.iter().copied()).collect());
    }

    /// Fetches what is missing of a plan, unit by unit, as long as its time, rate and space allow.
    async fn fetch(&self, plan: &Plan, config: &WarmConfig) -> Ended {
        let (mut ended, mut bytes, mut done) = (Ended::Done, 0, Vec::new());
        for item in plan.in_order() {
            if !self.shared.windows.are_open(self.shared.clock.now()) {
                return Ended::Closed;
            }
            match self.fetch_item(&item, plan.space_bytes.saturating_sub(bytes), config).await {
                Ok(Some(length)) => {
                    bytes += length;
                    done.push(item);
                }
                Ok(None) => {
                    tracing::info!(repository = %self.followed.name(), "the space for warming is used up");
                    break;
                }
                Err(error) => {
                    tracing::debug!(blob = %item.id, %error, "a blob could not be warmed");
                    self.shared.metrics.warm_failures.inc();
                    ended = Ended::Later;
                }
            }
        }
        // What goes to a disk may be dropped on the way; what memory has let go was wanted less than the rest.
        let is_here = |item: &Arc<Item>| item.is_here(|key| self.shared.cache.has(key));
        match &self.shared.disk {
            Some(_) if !done.iter().all(is_here) => Ended::Later,
            _ => ended,
        }
    }

    /// Fetches what is missing of a blob; its length, or nothing if there is no room for it.
    async fn fetch_item(&self, item: &Item, room: u64, config: &WarmConfig) -> Result<Option<u64>, FetchError> {
        if item.listed_bytes.is_some_and(|bytes| bytes > room) {
            return Ok(None);
        }
        let (library, Shared { cache, fetcher, metrics, .. }) = (self.library(), &*self.shared);
        let opened = library.open(item.id).await?;
        let shape = item.shape.get_or_init(|| Shape::of(&opened.layout));
        if shape.bytes() > room {
            return Ok(None);
        }
        for unit in 0..opened.layout.unit_count() {
            let key = crate::unit::UnitKey::of(&opened.layout, unit);
            let bytes = opened.layout.unit_range(unit).len();
            if bytes == 0 || cache.has(&key) {
                continue;
            }
            let began = Instant::now();
            cache.warm(fetcher, library.place, &opened, unit).await?;
            metrics.warmed_bytes.inc_by(bytes);
            if let Some(millis) = bytes.saturating_mul(1000).checked_div(config.bytes_per_s) {
                tokio::time::sleep_until(began + Duration::from_millis(millis)).await;
            }
        }
        Ok(Some(shape.bytes()))
    }
}

/// How long to wait before what could not be warmed is tried again: longer each time.
fn pause(failures: u32) -> Duration {
    let (base, ceiling) = (Duration::from_millis(WARM_AGAIN_MS), Duration::from_millis(WARM_AGAIN_MS_MAX));
    Backoff { base, ceiling }.delay(failures.saturating_sub(1), fastrand::f64())
}

/// Whether the first package of a closure carries a release.
fn is_release(closure: &[(BlobId, Arc<Package>)], hash: BlobId) -> bool {
    closure.first().is_some_and(|(first, package)| *first == hash && package.release.is_some())
}
