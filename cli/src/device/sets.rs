//! `device provision|sets|plan`: a product release on a device: taking one, what of its package sets is here, what one would
//! cost.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use colibri_device::sets::{AutomaticReport, Chosen, Cost, Plan, SetRow};
use colibri_device::{Device, DeviceError};
use colibri_release::Release;
use colibri_store::Store;
use serde_json::{Value, json};

use super::overlay;
use super::resolve::Counts;
use super::{Console, DeviceVerbError, Make};
use crate::files;
use crate::progress::{bytes, step};
use crate::table::print_table;

/// Exit status of `plan`: the release does not fit.
pub(super) const DOES_NOT_FIT: u8 = 3;

/// Arguments of `device provision`.
#[derive(Debug, clap::Args)]
pub struct Provision {
    /// The release document, as `release create` writes it
    #[arg(long, value_name = "FILE")]
    pub release: PathBuf,
    /// Take the permanent packages from this bundle of the release, as `release bundle` writes it, and use no network
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// `provision --bundle`.
async fn provision_offline(
    release: Release,
    bundle: &Path,
    device: &Device,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let name = format!("{} {}", release.product(), release.version());
    let counts = Arc::new(Counts::default());
    let step = step(&format!("taking the permanent packages of {name} from {}", bundle.display()));
    let provision = device.provision_from_bundle(release, bundle, counts.observer());
    let report = step.watch(provision, || counts.show(&step)).await?;
    drop(step);
    if console.json {
        console.print_json(&json!({
            "release": name,
            "permanent": { "packages": report.packages, "blobs": report.blobs, "taken": report.fetched,
                "taken_content_bytes": report.content_bytes },
        }))?;
    } else {
        let (packages, taken) = (report.packages, bytes(report.content_bytes));
        writeln!(console.out, "running {name}: {packages} permanent packages here, {taken} taken from the bundle")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks a release document.
pub(super) fn read(path: &Path) -> Result<Release, DeviceVerbError> {
    let refused = |error| DeviceVerbError::ReleaseFile { path: path.to_owned(), error };
    Release::parse(&files::read(path)?).map_err(refused)
}

/// `provision`.
pub(super) async fn provision(
    args: &Provision,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let release = read(&args.release)?;
    if let Some(bundle) = &args.bundle {
        // A device that is flashed is made by that.
        let (device, _) = open(Make::Allowed)?;
        return provision_offline(release, bundle, &device, console).await;
    }
    let name = format!("{} {}", release.product(), release.version());
    let (device, _) = open(Make::Refused)?;
    let counts = Arc::new(Counts::default());
    let permanent = step(&format!("fetching the permanent packages of {name}"));
    let fetch = device.fetch_before_commit(&release, counts.observer());
    let report = permanent.watch(fetch, || counts.show(&permanent)).await?;
    drop(permanent);
    device.set_release(release).await?;
    device.retain([], []).await?;
    let counts = Arc::new(Counts::default());
    let automatic = step(&format!("fetching the automatic packages of {name}"));
    let after = automatic.watch(device.fetch_automatic(counts.observer()), || counts.show(&automatic)).await?;
    drop(automatic);
    let AutomaticReport { delivered, deferred, failed } = after;
    for (package, error) in &failed {
        writeln!(console.err, "warning: automatic package {package} is not here yet: {error}")?;
    }
    if console.json {
        console.print_json(&json!({
            "release": name,
            "permanent": { "packages": report.packages, "blobs": report.blobs, "fetched": report.fetched,
                "fetched_content_bytes": report.content_bytes },
            "automatic": { "delivered": delivered, "deferred": deferred,
                "failed": failed.iter().map(|(package, _)| package).collect::<Vec<_>>() },
        }))?;
    } else {
        let (packages, fetched) = (report.packages, bytes(report.content_bytes));
        writeln!(console.out, "running {name}: {packages} permanent packages here, {fetched} fetched now")?;
        let (here, deferred, failed) = (delivered.len(), deferred.len(), failed.len());
        writeln!(
            console.out,
            "automatic packages: {here} here, {deferred} wait for space, {failed} to be tried again"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `sets`.
pub(super) async fn sets(
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let (device, _) = open(Make::Refused)?;
    let rows = device.sets().await?;
    if console.json {
        let row = |row: &SetRow| {
            json!({
                "set": row.set.to_string(),
                "eligible": row.packages.len(),
                "delivered": row.packages.iter().filter(|package| package.is_delivered).count(),
                "domains": row.domains,
                "packages": row.packages.iter().map(|package| json!({
                    "url": package.url,
                    "hash": package.chosen.hash(),
                    "version_by": version_by(package.chosen),
                    "delivered": package.is_delivered,
                })).collect::<Vec<_>>(),
            })
        };
        let mut shown = json!({ "sets": rows.iter().map(row).collect::<Vec<_>>() });
        let boot = device.boot_packages().list();
        let boot: Vec<_> =
            boot.map(|(name, hash)| json!({ "url": format!("fuchsia-boot:///{name}"), "hash": hash })).collect();
        if !boot.is_empty() {
            shown["boot"] = boot.into();
        }
        if !device.overlay().is_empty() {
            shown["overlay"] = overlay::described(&device);
        }
        console.print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    for row in rows {
        let delivered = row.packages.iter().filter(|package| package.is_delivered).count();
        writeln!(console.out, "{}: {delivered} of {} delivered", row.set, row.packages.len())?;
        let cells = row.packages.iter().map(|package| {
            let hash = package.chosen.hash().map_or_else(|| "-".to_owned(), |hash| hash.short());
            let here = if package.is_delivered { "here" } else { "not here" };
            vec![format!("  {}", package.url), hash, version_by(package.chosen).to_owned(), here.to_owned()]
        });
        print_table(console.out, &cells.collect::<Vec<_>>())?;
        for domain in row.domains {
            writeln!(console.out, "  any package of {domain}")?;
        }
    }
    let boot: Vec<_> = device.boot_packages().list().collect();
    if !boot.is_empty() {
        writeln!(console.out, "boot packages: {}, read-only", boot.len())?;
        let cells = boot.iter().map(|(name, hash)| vec![format!("  fuchsia-boot:///{name}"), hash.short()]);
        print_table(console.out, &cells.collect::<Vec<_>>())?;
    }
    if !device.overlay().is_empty() {
        writeln!(console.out, "developer overlay, before all of these:")?;
        overlay::describe(&device, console)?;
    }
    Ok(ExitCode::SUCCESS)
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

/// `plan`.
pub(super) async fn plan(
    release: &Path,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let release = read(release)?;
    let (device, _) = open(Make::Refused)?;
    match device.plan(&release).await {
        Ok(plan) => {
            if console.json {
                console.print_json(&plan_json(&plan))?;
            } else {
                print_plan(&plan, console)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(DeviceError::CannotFit(why)) => {
            if console.json {
                console.print_json(&json!({
                    "fits": false,
                    "stored_bytes": why.stored_bytes,
                    "margin_bytes": why.margin_bytes,
                    "free_bytes": why.free_bytes,
                    "freeable_bytes": why.freeable_bytes,
                    "kept_bytes": why.kept_bytes,
                    "short_bytes": why.short_bytes,
                }))?;
            } else {
                writeln!(console.out, "{why}")?;
            }
            Ok(ExitCode::from(DOES_NOT_FIT))
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn cost_json(cost: &Cost) -> Value {
    json!({
        "blobs": cost.blobs,
        "fetched_bytes": cost.fetched_bytes,
        "stored_bytes": cost.stored_bytes,
        "margin_bytes": cost.margin_bytes,
    })
}

fn plan_json(plan: &Plan) -> Value {
    json!({
        "fits": true,
        "before_commit": cost_json(&plan.before_commit),
        "after_commit": cost_json(&plan.after_commit),
        "evicted": plan.evicted.iter().map(|(package, _)| package).collect::<Vec<_>>(),
        "freed_bytes": plan.freed_bytes,
        "peak_bytes": plan.peak_bytes,
        "stored_after_bytes": plan.stored_after_bytes,
        "deferred": plan.deferred,
    })
}

fn print_plan(plan: &Plan, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    let cost = |when: &str, cost: &Cost| {
        let (fetched, stored, margin) = (cost.fetched_bytes, cost.stored_bytes, cost.margin_bytes);
        let blobs = cost.blobs;
        format!("{when}: {blobs} blobs, {fetched} bytes to fetch, {stored} to store (margin {margin})")
    };
    writeln!(console.out, "{}", cost("before the commit", &plan.before_commit))?;
    writeln!(console.out, "{}", cost("after the commit", &plan.after_commit))?;
    writeln!(console.out, "peak before the commit: {} stored bytes", plan.peak_bytes)?;
    writeln!(console.out, "in the end: {} stored bytes", plan.stored_after_bytes)?;
    if plan.freed_bytes > 0 {
        writeln!(console.out, "to be freed first: {} bytes", plan.freed_bytes)?;
    }
    for (package, rank) in &plan.evicted {
        let rank = match rank {
            colibri_device::Rank::OnDemand => "on demand",
            colibri_device::Rank::Automatic => "automatic",
        };
        writeln!(console.out, "to be given up: {package} ({rank})")?;
    }
    for package in &plan.deferred {
        writeln!(console.out, "no space in the end: {package} (automatic)")?;
    }
    Ok(())
}
