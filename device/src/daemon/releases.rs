//! Package sets, what a release would cost, and taking one. Taking one goes on when whoever asked for it is gone: a device
//! stays between two releases for as short as possible.

use std::sync::{Arc, Mutex, PoisonError};

use colibri_release::Release;
use colibri_release::limits::RELEASE_BYTES_MAX;
use colibri_transport::{Body, Response};
use serde_json::{Value, json as value};

use super::Daemon;
use super::answer::{Without, json, read_bytes};
use super::resolve::tell_end;
use super::wire::{
    Automatic, BootEntry, CacheEntry, Event, Fetched, Problem, Provisioned, SetEntry, SetPackageEntry, Sets,
};
use crate::error::DeviceError;
use crate::sets::{AutomaticReport, Chosen, Cost, Plan, SetRow};

async fn release(body: Body) -> Result<Release, Problem> {
    let text = read_bytes(body, RELEASE_BYTES_MAX).await?;
    Release::parse(&text).map_err(|error| Problem::bad_request(error.to_string()))
}

/// Who set a version.
const fn version_by(chosen: Chosen) -> &'static str {
    match chosen {
        Chosen::Anchored(_) => "release",
        Chosen::Upgraded(_) => "authority",
        Chosen::Fallback(_) => "release, to fall back to",
        Chosen::Nothing => "nobody yet",
    }
}

fn set_package(package: crate::sets::SetPackage) -> SetPackageEntry {
    SetPackageEntry {
        hash: package.chosen.hash(),
        version_by: version_by(package.chosen).to_owned(),
        delivered: package.is_delivered,
        url: package.url,
    }
}

fn row(row: SetRow) -> SetEntry {
    SetEntry {
        set: row.set.to_string(),
        eligible: row.packages.len(),
        delivered: row.packages.iter().filter(|package| package.is_delivered).count(),
        domains: row.domains,
        packages: row.packages.into_iter().map(set_package).collect(),
    }
}

fn cost(cost: &Cost) -> Value {
    value!({
        "blobs": cost.blobs,
        "fetched_bytes": cost.fetched_bytes,
        "stored_bytes": cost.stored_bytes,
        "margin_bytes": cost.margin_bytes,
    })
}

pub(super) fn plan_of(plan: &Plan) -> Value {
    let evicted = plan.evicted.iter().map(|(package, rank)| {
        let rank = match rank {
            crate::cache::Rank::OnDemand => "on demand",
            crate::cache::Rank::Automatic => "automatic",
        };
        value!({ "package": package, "rank": rank })
    });
    value!({
        "fits": true,
        "before_commit": cost(&plan.before_commit),
        "after_commit": cost(&plan.after_commit),
        "evicted": evicted.collect::<Vec<_>>(),
        "freed_bytes": plan.freed_bytes,
        "peak_bytes": plan.peak_bytes,
        "stored_after_bytes": plan.stored_after_bytes,
        "deferred": plan.deferred,
    })
}

fn automatic_of(report: AutomaticReport) -> Automatic {
    Automatic {
        delivered: report.delivered,
        deferred: report.deferred,
        failed: report.failed.into_iter().map(|(hash, why)| (hash, why.to_string())).collect(),
    }
}

impl Daemon {
    /// Fetches the automatic packages of the running release that are not here yet.
    pub(super) fn automatic(&self) -> Result<Response, Problem> {
        let place = self.operation()?;
        let mut watch = self.watch_all();
        let (device, observer) = (self.device().clone(), watch.counts.observer());
        let working = self.work(Without::GoesOn, async move {
            let _place = place;
            Ok(automatic_of(device.fetch_automatic(observer).await?))
        });
        Ok(self.lines(|mut lines| async move {
            let progress = || Some(Event::Progress(watch.progress()));
            let Some(fetched) = working.watched(&mut lines, progress).await else { return };
            let last = fetched.map_or_else(Event::Failed, Event::Automatic);
            if tell_end(&mut lines, &mut watch, last).await {
                lines.finish();
            }
        }))
    }

    pub(super) async fn sets(&self) -> Result<Response, Problem> {
        let rows = self.device().sets().await?;
        let entry = |name: &str, hash, delivered, eligible| {
            let url = format!("fuchsia-boot:///{name}");
            BootEntry { url, hash, delivered, eligible }
        };
        let of_release = self.device().boot_set();
        let known = |hash| of_release.iter().any(|(_, of_release, _)| *of_release == hash);
        let others = self.device().boot_packages().list().filter(|(_, hash)| !known(*hash));
        let others: Vec<_> = others.map(|(name, hash)| entry(name.as_str(), hash, true, false)).collect();
        let boot = of_release.iter().map(|(name, hash, here)| entry(name, *hash, *here, true)).chain(others).collect();
        let cache = self.device().cache_set().await?;
        let cache = (!cache.is_empty()).then(|| CacheEntry {
            deprecated: true,
            eligible: cache.len(),
            delivered: cache.iter().filter(|package| package.is_delivered).count(),
            packages: cache.into_iter().map(set_package).collect(),
        });
        let overlay = (!self.device().overlay().is_empty()).then(|| self.overlay());
        Ok(json(&Sets { sets: rows.into_iter().map(row).collect(), boot, cache, overlay }))
    }

    pub(super) async fn plan(&self, body: Body) -> Result<Response, Problem> {
        match self.device().plan(&release(body).await?).await {
            Ok(plan) => Ok(json(&plan_of(&plan))),
            Err(DeviceError::CannotFit(why)) => Ok(json(&value!({
                "fits": false,
                "reason": why.to_string(),
                "stored_bytes": why.stored_bytes,
                "margin_bytes": why.margin_bytes,
                "free_bytes": why.free_bytes,
                "freeable_bytes": why.freeable_bytes,
                "kept_bytes": why.kept_bytes,
                "short_bytes": why.short_bytes,
            }))),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn provision(&self, body: Body) -> Result<Response, Problem> {
        let release = release(body).await?;
        let place = self.operation()?;
        let mut watch = self.watch_all();
        let runs: Arc<Mutex<Option<String>>> = Arc::default();
        let (device, observer, told) = (self.device().clone(), watch.counts.observer(), runs.clone());
        let working = self.work(Without::GoesOn, async move {
            let _place = place;
            let name = format!("{} {}", release.product(), release.version());
            let report = device.fetch_before_commit(&release, observer.clone()).await?;
            device.set_release(release).await?;
            device.retain([], []).await?;
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
            let automatic = device.fetch_automatic(observer).await?;
            Ok(Provisioned {
                release: name,
                permanent: Fetched {
                    packages: report.packages,
                    blobs: report.blobs,
                    fetched: report.fetched,
                    fetched_content_bytes: report.content_bytes,
                },
                automatic: automatic_of(automatic),
            })
        });
        Ok(self.lines(|mut lines| async move {
            let progress = || {
                let runs = runs.lock().unwrap_or_else(PoisonError::into_inner).take();
                Some(runs.map_or_else(|| Event::Progress(watch.progress()), |release| Event::Running { release }))
            };
            let Some(provisioned) = working.watched(&mut lines, progress).await else { return };
            let last = provisioned.map_or_else(Event::Failed, Event::Provisioned);
            if tell_end(&mut lines, &mut watch, last).await {
                lines.finish();
            }
        }))
    }
}
