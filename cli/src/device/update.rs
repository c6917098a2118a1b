//! `device update check|install|commit|history`: another system in the slot that does not run, kept or given up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use colibri_device::Device;
use colibri_device::update::{
    Attempt, AttemptState, BootControl, FileBoot, Images, SlotHealth, UpdateConfig, UpdateProgress, Updater,
};
use colibri_store::{Disk, Documents, Store};
use serde_json::json;

use super::packages::parse_url;
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
    /// A name of the time since the machine was started; what runs is decided anew when it changes
    #[arg(long, global = true, value_name = "ID", env = "COLIBRI_BOOT_ID")]
    pub boot_id: Option<String>,
}

/// What to do about updates.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Says whether the repository lists another system than the one that runs
    Check {
        /// The update package: fuchsia-pkg://HOST/update
        url: String,
    },
    /// Installs a system in the slot that does not run, and makes it the next to start
    ///
    /// The running system is not touched. Start the machine anew afterwards, then `commit` what runs; a system that is not
    /// committed within three starts is given up, and the one before runs again.
    Install {
        /// The update package: fuchsia-pkg://HOST/update
        url: String,
    },
    /// Keeps the running system
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

/// Runs the verb.
pub(super) async fn run(
    args: &Args,
    dir: &Path,
    surroundings: &Surroundings,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let (device, _) = open(Make::Refused)?;
    let updater = updater(&args.target, dir, surroundings, device).await?;
    match &args.verb {
        Verb::Check { url } => check(url, &updater, console).await,
        Verb::Install { url } => install(url, &updater, console).await,
        Verb::Commit { health_check } => commit(health_check, &updater, console).await,
        Verb::History => history(&updater, console),
    }
}

async fn updater(
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
    let config = UpdateConfig {
        board: target.board.clone(),
        epoch: target.epoch,
        writes_recovery: target.writes_recovery,
        ..UpdateConfig::default()
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

async fn check(url: &str, updater: &Updater, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    let url = parse_url(url)?;
    let offered = updater.offered(&url).await?;
    let running = updater.running()?;
    let is_new = running.as_ref().is_none_or(|running| running.update != offered);
    if console.json {
        let running = running.map(|running| json!({ "update": running.update, "version": running.version }));
        console.print_json(&json!({ "offered": offered, "running": running, "update_available": is_new }))?;
    } else if is_new {
        let runs = running.map_or_else(|| "unknown".to_owned(), |running| running.version);
        writeln!(console.out, "update available: {offered} (the running system is {runs})")?;
        writeln!(console.out, "next: colibri device update install {url}")?;
    } else {
        writeln!(console.out, "up to date: {offered}")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn install(url: &str, updater: &Updater, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    let url = parse_url(url)?;
    let latest: Arc<Mutex<Option<UpdateProgress>>> = Arc::default();
    let hear = latest.clone();
    let hear = Arc::new(move |progress| *hear.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress));
    let step = step(&format!("installing {}", url.path()));
    let installing = updater.install(&url, hear);
    let installed = step.watch(installing, || {
        let latest = *latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.map_or((0, 0), |at| {
            step.note(&format!("{}, {} fetched", at.phase.name(), bytes(at.fetched_bytes)));
            (at.image_bytes + at.packages, at.image_bytes_total + at.packages_total)
        })
    });
    let attempt = installed.await?;
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

async fn commit(
    health_check: &[String],
    updater: &Updater,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    updater.commit(healthy(health_check)).await?;
    let running = updater.running()?;
    if console.json {
        console.print_json(&json!({ "committed": true, "version": running.map(|running| running.version) }))?;
    } else {
        let version = running.map_or_else(|| "that came with the device".to_owned(), |running| running.version);
        writeln!(console.out, "committed: the system {version} starts from now on")?;
    }
    Ok(ExitCode::SUCCESS)
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

fn history(updater: &Updater, console: &mut Console<'_>) -> Result<ExitCode, DeviceVerbError> {
    let (running, next) = (updater.boot().running()?, updater.boot().next()?);
    let health = running.slot().map(|slot| updater.boot().health(slot)).transpose()?;
    let is_committed = health == Some(SlotHealth::Healthy);
    let attempts = updater.history();
    let version = updater.running()?.map(|running| running.version);
    if console.json {
        console.print_json(&json!({
            "running": running, "next": next, "committed": is_committed, "version": version, "attempts": attempts,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for attempt in &attempts {
        let Attempt { url, slot, recovery, to_version, state, .. } = attempt;
        let version = if to_version.is_empty() { "version not known" } else { to_version };
        let place = if *recovery { "recovery".to_owned() } else { format!("slot {}", slot.name()) };
        writeln!(console.out, "{url} ({version}) into {place}: {}", said(state))?;
    }
    let committed = if is_committed { "committed" } else { "not committed" };
    writeln!(console.out, "running: {}, {committed}; next: {}", running.name(), next.name())?;
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
