//! `device sets|plan|provision` where the device's daemon runs: what `sets` does without one, asked of it. They print the same.

use std::process::ExitCode;

use colibri_device::daemon::wire::{Event, Sets};
use serde_json::{Value, json};

use super::api::Api;
use super::resolve::show;
use super::sets::{DOES_NOT_FIT, Provision, read};
use super::{Console, DeviceVerbError, Verb};
use crate::files;
use crate::progress::{bytes, step};
use crate::table::print_table;

/// Whether a verb is one of those that are here.
pub(super) const fn has(verb: &Verb) -> bool {
    matches!(verb, Verb::Sets | Verb::Plan { .. } | Verb::Provision(_))
}

/// Runs the verb.
pub(super) async fn run(verb: &Verb, api: &Api, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    match verb {
        Verb::Plan { release } => {
            // What is no release is told as if no daemon ran.
            read(release)?;
            plan(&api.post_bytes("/plan", files::read(release)?.into()).await?, console)
        }
        Verb::Provision(args) => provision(args, api, console).await,
        _ => sets(&api.get("/sets").await?, console),
    }
}

fn sets(answer: &Sets, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
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
    Ok(ExitCode::SUCCESS)
}

/// The members of a list, as text.
fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn plan(answer: &Value, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
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

async fn provision(args: &Provision, api: &Api, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    if args.bundle.is_some() {
        let reason = "its daemon runs: stop it first, since nothing else works on a device that is flashed".to_owned();
        return Err(DeviceVerbError::Argument { given: "--bundle".to_owned(), reason });
    }
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
