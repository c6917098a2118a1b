//! `device provision|sets|plan`: a product release on a device: taking one, what of its package sets is here, what one would
//! cost.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use colibri_device::FetchCounts;
use colibri_device::daemon::wire::{Event, Sets};
use colibri_release::Release;
use serde_json::{Value, json};

use super::api::Api;
use super::resolve::show;
use super::{Args, Console, DeviceVerbError, Make, Surroundings, api, open, overlay};
use crate::files;
use crate::progress::{bytes, step};
use crate::table::print_table;

/// Exit status of `plan`: the release does not fit.
const DOES_NOT_FIT: u8 = 3;

/// Arguments of `device provision`.
#[derive(Debug, clap::Args)]
pub struct Provision {
    /// The release document, as `release create` writes it
    #[arg(long, value_name = "FILE")]
    pub release: PathBuf,
    /// Take boot packages, permanent packages and the cache set from this bundle of the release, as `release bundle` writes it, and use no network
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// `provision`.
pub(super) async fn provision(
    verb: &Provision,
    args: &Args,
    surroundings: &Surroundings,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let client = api::daemon(args).await?;
    match (&verb.bundle, client) {
        (Some(_), Some(_)) => {
            let reason = "its daemon runs: stop it first, since nothing else works on a device that is flashed";
            Err(DeviceVerbError::Argument { given: "--bundle".to_owned(), reason: reason.to_owned() })
        }
        (Some(bundle), None) => {
            // A device that is flashed is made by that.
            let release = read(&verb.release)?;
            let (device, _) = open(args, surroundings, Make::Allowed)?;
            provision_offline(release, bundle, &device, console).await
        }
        (None, Some(client)) => provision_online(verb, &Api::Daemon(client), console).await,
        (None, None) => {
            read(&verb.release)?;
            let (device, store) = open(args, surroundings, Make::Refused)?;
            provision_online(verb, &Api::here(device, store, &args.dir, None), console).await
        }
    }
}

/// `provision --bundle`.
async fn provision_offline(
    release: Release,
    bundle: &Path,
    device: &colibri_device::Device,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let name = format!("{} {}", release.product(), release.version());
    let boot = release.boot().len();
    let counts = Arc::new(FetchCounts::default());
    let step = step(&format!("taking the permanent packages of {name} from {}", bundle.display()));
    let provision = device.provision_from_bundle(release, bundle, counts.observer());
    let far = || {
        step.note(&bytes(counts.content_bytes()));
        (counts.done(), counts.known())
    };
    let report = step.watch(provision, far).await?;
    drop(step);
    if console.json {
        console.print_json(&json!({
            "release": name,
            "boot": { "packages": boot },
            "permanent": { "packages": report.packages, "blobs": report.blobs, "taken": report.fetched,
                "taken_content_bytes": report.content_bytes },
        }))?;
    } else {
        let (packages, taken) = (report.packages, bytes(report.content_bytes));
        writeln!(console.out, "running {name}: {packages} permanent packages here, {taken} taken from the bundle")?;
        if boot > 0 {
            writeln!(console.out, "boot packages: {boot} here, from the next start on")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn provision_online(args: &Provision, api: &Api, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    let release = read(&args.release)?;
    let name = format!("{} {}", release.product(), release.version());
    let mut fetching = step(&format!("fetching the permanent packages of {name}"));
    let mut events = api.events("/provision", files::read(&args.release)?.into()).await?;
    let done = loop {
        match events.next().await? {
            Event::Progress(at) => show(&fetching, &at),
            Event::Running { .. } => fetching = step(&format!("fetching the automatic packages of {name}")),
            Event::Provisioned(done) => break done,
            _ => {}
        }
    };
    drop(fetching);
    let (permanent, automatic) = (&done.permanent, &done.automatic);
    for (package, error) in &automatic.failed {
        writeln!(console.err, "warning: automatic package {package} is not here yet: {error}")?;
    }
    if console.json {
        let failed: Vec<_> = automatic.failed.iter().map(|(package, _)| package).collect();
        console.print_json(&json!({
            "release": name,
            "permanent": permanent,
            "automatic": { "delivered": automatic.delivered, "deferred": automatic.deferred, "failed": failed },
        }))?;
    } else {
        let (packages, fetched) = (permanent.packages, bytes(permanent.fetched_content_bytes));
        writeln!(console.out, "running {name}: {packages} permanent packages here, {fetched} fetched now")?;
        let [here, deferred, failed] = [automatic.delivered.len(), automatic.deferred.len(), automatic.failed.len()];
        writeln!(
            console.out,
            "automatic packages: {here} here, {deferred} wait for space, {failed} to be tried again"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads and checks a release document.
fn read(path: &Path) -> Result<Release, DeviceVerbError> {
    let refused = |error| DeviceVerbError::ReleaseFile { path: path.to_owned(), error };
    Release::parse(&files::read(path)?).map_err(refused)
}

/// `sets`.
pub(super) async fn sets(
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let answer: Sets = connect().await?.get("/sets").await?;
    if console.json {
        console.print_json(&json!(answer))?;
        return Ok(ExitCode::SUCCESS);
    }
    for row in &answer.sets {
        writeln!(console.out, "{}: {} of {} delivered", row.set, row.delivered, row.eligible)?;
        let cells = row.packages.iter().map(|package| {
            let hash = package.hash.map_or_else(|| "-".to_owned(), |hash| hash.short());
            let here = if package.delivered { "here" } else { "not here" };
            vec![format!("  {}", package.url), hash, package.version_by.clone(), here.to_owned()]
        });
        print_table(console.out, &cells.collect::<Vec<_>>())?;
        for domain in &row.domains {
            writeln!(console.out, "  any package of {domain}")?;
        }
    }
    if let Some(cache) = &answer.cache {
        let (delivered, eligible) = (cache.delivered, cache.eligible);
        writeln!(console.out, "cache (deprecated: use permanent & upgradable): {delivered} of {eligible} delivered")?;
        let cells = cache.packages.iter().map(|package| {
            let hash = package.hash.map_or_else(|| "-".to_owned(), |hash| hash.short());
            let here = if package.delivered { "here" } else { "not here" };
            vec![format!("  {}", package.url), hash, "its repository, else the release".to_owned(), here.to_owned()]
        });
        print_table(console.out, &cells.collect::<Vec<_>>())?;
    }
    if !answer.boot.is_empty() {
        let delivered = answer.boot.iter().filter(|package| package.delivered).count();
        match answer.boot.iter().filter(|package| package.eligible).count() {
            0 => writeln!(console.out, "boot packages: {delivered}, read-only")?,
            eligible => writeln!(console.out, "boot: {delivered} here, {eligible} in the release, read-only")?,
        }
        let cells = answer.boot.iter().map(|package| {
            let here = match package.delivered {
                true => "here",
                false => "not here: it comes with the boot image, or with provision --bundle",
            };
            vec![format!("  {}", package.url), package.hash.short(), here.to_owned()]
        });
        print_table(console.out, &cells.collect::<Vec<_>>())?;
    }
    if let Some(overlay) = &answer.overlay {
        writeln!(console.out, "developer overlay, before all of these:")?;
        overlay::describe(overlay, console)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `plan`.
pub(super) async fn plan(
    release: &Path,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    // What is no release is told before a device is looked for.
    read(release)?;
    let answer: Value = connect().await?.post_bytes("/plan", files::read(release)?.into()).await?;
    print_plan(&answer, console)
}

/// The members of a list, as text.
fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn print_plan(answer: &Value, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    let evicted: Vec<_> = answer["evicted"].as_array().into_iter().flatten().collect();
    let fits = answer["fits"] == true;
    let code = if fits { ExitCode::SUCCESS } else { ExitCode::from(DOES_NOT_FIT) };
    if console.json {
        let mut shown = answer.clone();
        if fits {
            shown["evicted"] = evicted.iter().map(|evicted| evicted["package"].clone()).collect();
        } else if let Some(members) = shown.as_object_mut() {
            members.remove("reason");
        }
        console.print_json(&shown)?;
        return Ok(code);
    }
    if !fits {
        writeln!(console.out, "{}", answer["reason"].as_str().unwrap_or_default())?;
        return Ok(code);
    }
    for (when, cost) in [("before", &answer["before_commit"]), ("after", &answer["after_commit"])] {
        let (blobs, fetched) = (&cost["blobs"], &cost["fetched_bytes"]);
        let (stored, margin) = (&cost["stored_bytes"], &cost["margin_bytes"]);
        writeln!(
            console.out,
            "{when} the commit: {blobs} blobs, {fetched} bytes to fetch, {stored} to store (margin {margin})"
        )?;
    }
    writeln!(console.out, "peak before the commit: {} stored bytes", answer["peak_bytes"])?;
    writeln!(console.out, "in the end: {} stored bytes", answer["stored_after_bytes"])?;
    if answer["freed_bytes"] != 0 {
        writeln!(console.out, "to be freed first: {} bytes", answer["freed_bytes"])?;
    }
    for evicted in evicted {
        let [package, rank] = ["package", "rank"].map(|name| evicted[name].as_str().unwrap_or_default());
        writeln!(console.out, "to be given up: {package} ({rank})")?;
    }
    for package in texts(&answer["deferred"]) {
        writeln!(console.out, "no space in the end: {package} (automatic)")?;
    }
    Ok(code)
}
