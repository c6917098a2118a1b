//! `device update check|install|commit|history`: another system in the slot that does not run, kept or given up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use colibri_device::Device;
use colibri_device::daemon::wire::{
    Automatic, Event, Installing, Status, UpdateCheck, UpdateCommit, UpdateCommitted, UpdateHistory, UpdateInstall,
};
use colibri_device::update::{
    Attempt, AttemptState, BootControl, FileBoot, Images, Phase, UpdateConfig, UpdateError, UpdateSource, Updater, keys,
};
use colibri_metadata::PublicKey;
use colibri_store::{Disk, Documents, Store};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::api::{self, Api};
use super::resolve::show;
use super::{Console, DeviceVerbError, Make, Surroundings};
use crate::files::FilesError;
use crate::progress::{bytes, step};

/// Where Linux says how long the machine has been on, so to speak.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Arguments of `device update`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What this device is
    #[command(flatten)]
    pub target: Target,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What an update must know of the device.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// Name of the board; an update that names another is refused
    #[arg(long, global = true, value_name = "NAME", env = "COLIBRI_DEVICE_BOARD", default_value = "")]
    pub board: String,
    /// Epoch of the system that came with the device; an update of a lower one is refused
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    pub epoch: u64,
    /// Let updates write recovery
    #[arg(long, global = true)]
    pub writes_recovery: bool,
    /// Where an image lies, as a.zbi=/dev/disk/by-partlabel/zircon_a; by default a file in DIR/slots. May be repeated
    #[arg(long, global = true, value_name = "NAME=PATH", value_parser = image)]
    pub image: Vec<(String, PathBuf)>,
    /// An ed25519 key, in hex, that may sign manifests of updates, beside those in DIR/config/update-keys.json. May be repeated
    #[arg(long, global = true, value_name = "HEX", value_delimiter = ',', env = "COLIBRI_UPDATE_KEYS")]
    pub manifest_key: Vec<PublicKey>,
    /// Let a signed manifest bring an older version than the one that runs
    #[arg(long, global = true)]
    pub allow_older: bool,
    /// A name of the time since the machine was started; what runs is decided anew when it changes
    #[arg(long, global = true, value_name = "ID", env = "COLIBRI_BOOT_ID")]
    pub boot_id: Option<String>,
}

/// What to do about updates.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Says whether there is another system than the one that runs, and whether `install` would take it
    ///
    /// An update package is fetched for that, since it says what it is; a signed manifest also says what it would cost.
    ///
    /// Example: colibri device update --board toucan check ./toucan.manifest
    Check {
        /// An update package, fuchsia-pkg://HOST/update, or a signed manifest: https://HOST/PATH or a file
        update: String,
    },
    /// Installs a system in the slot that does not run, and makes it the next to start
    ///
    /// The running system is not touched. Start the machine anew afterwards, then `commit` what runs; a system that is not
    /// committed within three starts is given up, and the one before runs again.
    ///
    /// Example: colibri device update --board toucan install fuchsia-pkg://devhost/update
    Install {
        /// An update package, fuchsia-pkg://HOST/update, or a signed manifest: https://HOST/PATH or a file
        update: String,
    },
    /// Keeps the running system, then fetches the automatic packages of the release that the device follows
    Commit {
        /// A program that says by its exit status whether the system is well, with its arguments
        #[arg(last = true, value_name = "CHECK")]
        health_check: Vec<String>,
    },
    /// Prints attempts, oldest first, and what runs
    History,
}

fn image(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("give NAME=PATH, as b.zbi=/dev/sda3".to_owned()),
    }
}

/// Runs the verb. What an update must know of the device is the daemon's to say, if one runs.
pub(super) async fn run(
    args: &Args,
    device: &super::Args,
    surroundings: &Surroundings,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let connect = async || match api::daemon(device).await? {
        Some(client) => Ok::<_, DeviceVerbError>(Api::Daemon(client)),
        None => {
            let (opened, store) = open(Make::Refused)?;
            let updater = updater(&args.target, &device.dir, surroundings, opened.clone()).await?;
            Ok(Api::here(opened, store, &device.dir, Some(Arc::new(updater))))
        }
    };
    match &args.verb {
        Verb::Check { update } => check(update, connect, console).await,
        Verb::Install { update } => install(update, connect, console).await,
        Verb::Commit { health_check } => commit(health_check, &connect().await?, console).await,
        Verb::History => history(&connect().await?, console).await,
    }
}

pub(super) async fn updater(
    target: &Target,
    dir: &Path,
    surroundings: &Surroundings,
    device: Device,
) -> Result<Updater, DeviceVerbError> {
    let boot_id = match &target.boot_id {
        Some(given) => given.clone(),
        None => {
            let read = std::fs::read_to_string(BOOT_ID).map_err(FilesError::io("reading", Path::new(BOOT_ID)))?;
            read.trim().to_owned()
        }
    };
    let disk = &surroundings.disk;
    let slots = dir.join("slots");
    make_folder(disk.as_ref(), &slots)?;
    let documents = || Documents::open(disk.clone(), &dir.join("state"));
    let boot: Arc<dyn BootControl> = Arc::new(FileBoot::open(documents()?, &boot_id)?);
    let images = Images::new(disk.clone(), &slots, target.image.iter().cloned().collect::<BTreeMap<_, _>>());
    let mut manifest_keys = keys::read(disk, &dir.join("config"))?;
    manifest_keys.extend(target.manifest_key.iter().cloned());
    let config = UpdateConfig {
        board: target.board.clone(),
        epoch: target.epoch,
        writes_recovery: target.writes_recovery,
        manifest_keys,
        takes_older: target.allow_older,
    };
    Ok(Updater::open(device, boot, images, documents()?, config).await?)
}

fn make_folder(disk: &dyn Disk, path: &Path) -> Result<(), DeviceVerbError> {
    let failed = |error| DeviceVerbError::Folder { path: path.to_owned(), error };
    match disk.create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map_err(failed),
    }?;
    disk.sync_dir(path.parent().unwrap_or(path)).map_err(failed)
}

/// What is meant: a URL, or a file with a signed manifest, as whoever reads it finds it.
fn source(given: &str) -> Result<String, DeviceVerbError> {
    if !given.contains("://") {
        let path = Path::new(given);
        if path.is_file() {
            let absolute = std::path::absolute(path).map_err(FilesError::io("reading", path))?;
            return Ok(format!("file://{}", absolute.display()));
        }
        let reason =
            "neither a URL, as fuchsia-pkg://HOST/update or https://HOST/PATH, nor a file that is here".to_owned();
        return Err(DeviceVerbError::Argument { given: given.to_owned(), reason });
    }
    let parsed: Result<UpdateSource, _> = given.parse();
    parsed.map(|_| given.to_owned()).map_err(|error| match error {
        UpdateError::Source { given, reason } => DeviceVerbError::Argument { given, reason },
        error => error.into(),
    })
}

async fn check(
    given: &str,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let source = source(given)?;
    let asked = format!("/update/check?update={}", utf8_percent_encode(&source, NON_ALPHANUMERIC));
    let UpdateCheck { offered, version, running, update_available, plan } = connect().await?.get(&asked).await?;
    let evicted: Vec<Value> = plan
        .iter()
        .flat_map(|plan| plan["evicted"].as_array().into_iter().flatten())
        .map(|evicted| evicted["package"].clone())
        .collect();
    if console.json {
        let cost = plan.map(|plan| {
            json!({ "to_fetch_at_most": plan["before_commit"], "peak_bytes": plan["peak_bytes"], "evicted": evicted })
        });
        console.print_json(&json!({
            "offered": offered, "version": version, "running": running, "update_available": update_available,
            "cost": cost,
        }))?;
    } else if !update_available {
        writeln!(console.out, "up to date: {offered}")?;
    } else {
        let runs = running.map_or_else(|| "unknown".to_owned(), |running| running.version);
        writeln!(console.out, "update available: {offered}, version {version} (the running system is {runs})")?;
        if let Some(plan) = plan {
            let cost = &plan["before_commit"];
            writeln!(console.out, "{} blobs, at most {} bytes to fetch", cost["blobs"], cost["fetched_bytes"])?;
            writeln!(console.out, "peak before the commit: {} stored bytes", plan["peak_bytes"])?;
            for package in evicted {
                writeln!(console.out, "to be given up: {}", package.as_str().unwrap_or_default())?;
            }
        }
        writeln!(console.out, "next: colibri device update install {given}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How far an installation is, in words, and as bytes or packages of how many.
fn shown(at: &Installing) -> (String, u64, u64) {
    let (phase, fetched) = (at.phase.name(), bytes(at.fetched_bytes));
    let done = at.image_bytes + at.content_bytes;
    match at.phase {
        Phase::Stage => (format!("{phase}, {fetched} fetched, bytes of images"), at.image_bytes, at.image_bytes_total),
        _ if at.content_bytes_total > 0 => {
            (format!("{phase}, {fetched} fetched, bytes"), done, at.image_bytes_total + at.content_bytes_total)
        }
        _ => (format!("{phase}, {fetched} fetched, packages"), at.packages, at.packages_total),
    }
}

async fn install(
    given: &str,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let update = source(given)?;
    let api = connect().await?;
    let step = step(&format!("installing {given}"));
    let mut events = api.events("/update/install", api::json(&UpdateInstall { update })?).await?;
    let attempt = loop {
        match events.next().await? {
            Event::Installing(at) => {
                let (note, done, total) = shown(&at);
                step.note(&note);
                if total > 0 {
                    step.progress(done, total);
                }
            }
            Event::Installed(attempt) => break attempt,
            _ => {}
        }
    };
    drop(step);
    if console.json {
        console.print_json(&json!(attempt))?;
    } else {
        let Attempt { to_version, slot, recovery, .. } = &attempt;
        if *recovery {
            writeln!(console.out, "installed version {to_version} as recovery: it starts next")?;
            writeln!(console.out, "next: start the machine anew")?;
        } else {
            writeln!(console.out, "installed version {to_version} in slot {}: it starts next", slot.name())?;
            writeln!(console.out, "next: start the machine anew, then colibri device update commit")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn commit(health_check: &[String], api: &Api, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    // What is committed already is not asked whether it is well.
    let before: UpdateHistory = api.get("/update/history").await?;
    let unhealthy = if before.committed { None } else { healthy(health_check).await.err() };
    let committed: UpdateCommitted = api.post("/update/commit", &UpdateCommit { unhealthy }).await?;
    if !console.json {
        let version = committed.version.as_deref().unwrap_or("that came with the device");
        writeln!(console.out, "committed: the system {version} starts from now on")?;
    }
    let automatic = automatic(api, console).await;
    if console.json {
        let automatic = automatic.map(|report| {
            let failed: Vec<_> = report.failed.iter().map(|(package, _)| package).collect();
            json!({ "delivered": report.delivered, "deferred": report.deferred, "failed": failed })
        });
        console.print_json(&json!({ "committed": true, "version": committed.version, "automatic": automatic }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fetches automatic packages now that they may come. The system is committed, whatever becomes of them.
async fn automatic(api: &Api, console: &mut Console<'_>) -> Option<Automatic> {
    api.get::<Status>("/status").await.ok()?.release?;
    let step = step("fetching automatic packages");
    let fetched = async {
        let mut events = api.events("/automatic", api::json(&json!({}))?).await?;
        loop {
            match events.next().await? {
                Event::Progress(at) => show(&step, &at),
                Event::Automatic(report) => break Ok::<_, DeviceVerbError>(report),
                _ => {}
            }
        }
    };
    let fetched = fetched.await;
    drop(step);
    match fetched {
        Ok(report) => {
            for (package, error) in &report.failed {
                _ = writeln!(console.err, "warning: automatic package {package} is not here yet: {error}");
            }
            Some(report)
        }
        Err(error) => {
            _ = writeln!(console.err, "warning: automatic packages are not here yet: {error}");
            None
        }
    }
}

/// What the health check says; without one whoever commits knows.
async fn healthy(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let ran = tokio::task::spawn_blocking(move || command.status()).await.map_err(|error| error.to_string())?;
    match ran {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}")),
        Err(error) => Err(format!("{program} could not be started: {error}")),
    }
}

async fn history(api: &Api, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    let history: UpdateHistory = api.get("/update/history").await?;
    if console.json {
        console.print_json(&json!(history))?;
        return Ok(ExitCode::SUCCESS);
    }
    for attempt in &history.attempts {
        let Attempt { url, slot, recovery, to_version, state, .. } = attempt;
        let version = if to_version.is_empty() { "version not known" } else { to_version };
        let place = if *recovery { "recovery".to_owned() } else { format!("slot {}", slot.name()) };
        writeln!(console.out, "{url} ({version}) into {place}: {}", said(state))?;
    }
    let committed = if history.committed { "committed" } else { "not committed" };
    writeln!(console.out, "running: {}, {committed}; next: {}", history.running.name(), history.next.name())?;
    Ok(ExitCode::SUCCESS)
}

fn said(state: &AttemptState) -> String {
    match state {
        AttemptState::Running(phase) => format!("under way, phase {}", phase.name()),
        AttemptState::WaitToReboot => "installed, waits for a start of the machine".to_owned(),
        AttemptState::Rebooted => "started, not committed yet".to_owned(),
        AttemptState::Complete => "complete".to_owned(),
        AttemptState::FellBack => "given up: the system before runs again".to_owned(),
        AttemptState::Failed { phase, reason } => format!("failed in phase {}: {reason}", phase.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_in_bytes_where_sizes_are_known() {
        let at = |phase, content_bytes_total| Installing {
            phase,
            fetched_bytes: 1_500_000,
            image_bytes: 700,
            image_bytes_total: 700,
            content_bytes: 30,
            content_bytes_total,
            packages: 1,
            packages_total: 2,
        };
        assert_eq!(shown(&at(Phase::Stage, 0)), ("stage, 1.5 MB fetched, bytes of images".to_owned(), 700, 700));
        assert_eq!(shown(&at(Phase::Fetch, 90)), ("fetch, 1.5 MB fetched, bytes".to_owned(), 730, 790));
        assert_eq!(shown(&at(Phase::Fetch, 0)), ("fetch, 1.5 MB fetched, packages".to_owned(), 1, 2));
    }
}
