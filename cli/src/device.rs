//! `colibri device`: what a person asks of a device: its repositories, resolving packages, looking at them (reference
//! "Fuchsia command lines" §11.1, `pkgctl`).
//!
//! A device is a folder, owned by one process at a time: its daemon if one runs, which verbs then ask, else the verb itself.
//! What the verbs do is in `colibri-device`; here are arguments, output lines and exit codes. Called as `pkgctl`, the program
//! has these verbs alone.

mod api;
mod boot;
pub(crate) mod configuration;
mod daemon;
mod error;
mod export;
mod log;
mod overlay;
mod packages;
#[cfg(feature = "repo")]
pub(crate) mod registrations;
mod repo;
mod resolve;
mod rule;
mod sets;
mod settings;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod update;
mod verify;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use colibri_common::{Clock, SystemClock};
use colibri_device::{Device, DeviceError};
use colibri_store::{Disk, OsDisk, Store, StoreError};

use api::Api;
use configuration::Connection;
pub use error::DeviceVerbError;

/// Resolves packages and looks at them, on a device that is a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device's folder: its blobs, repositories and trusted metadata
    #[arg(long, global = true, value_name = "DIR", env = "COLIBRI_DEVICE_DIR", default_value = "./colibri-device")]
    pub dir: PathBuf,
    /// The socket of the device's daemon, which verbs ask if it runs [default: DIR/daemon.sock]
    #[arg(long, global = true, value_name = "PATH", env = "COLIBRI_DEVICE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// How it connects
    #[command(flatten)]
    pub connection: Connection,
    /// How it is configured
    #[command(flatten)]
    pub settings: settings::ConfigArgs,
    /// Print JSON on standard output instead of lines
    #[arg(long, global = true)]
    pub json: bool,
    /// Print on standard error, as a real device logs it, what is resolved as what; warnings are printed in any case. If the
    /// device's daemon runs, its log has both
    #[arg(long, global = true)]
    pub log: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to ask of a device.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Prints, adds and removes repositories
    Repo(repo::Args),
    /// Prints and replaces rewrite rules
    Rule(rule::Args),
    /// Puts packages of developers in the place of the device's own, in engineering mode
    Overlay(overlay::Args),
    /// Prints the effective configuration, and where each value comes from
    Config,
    /// Resolves a package: fetches and verifies what is missing
    Resolve(resolve::Resolve),
    /// Prints the hash that a repository lists for a package, without fetching it
    GetHash {
        /// fuchsia-pkg://HOST/NAME, then /VARIANT and ?hash=HASH if wanted
        url: String,
    },
    /// Lists the contents of a package that is on the device
    Open {
        /// The package hash
        hash: String,
        /// Accepted as the real tool accepts them, and without meaning there too
        #[arg(hide = true)]
        selectors: Vec<String>,
    },
    /// Removes packages that nothing keeps here and nobody has open
    ///
    /// Packages that were resolved and belong to no set of the running release go too: they are fetched again when somebody
    /// wants them. Prints nothing; --json says what went.
    Gc,
    /// Makes a product release the running one: fetches its permanent packages, then the automatic ones
    ///
    /// From then on the release says what is kept here and what may be resolved.
    ///
    /// Example: colibri device provision --release release.json
    Provision(sets::Provision),
    /// Shows the package sets of the running release: what may be here, and what is
    Sets,
    /// Says what taking a release would cost: bytes to fetch, peak space, what would be given up, or why it cannot fit
    ///
    /// Sizes are stored logical bytes; what a file system adds is the margin. Nothing is changed.
    ///
    /// Exit status: 0 it fits; 3 it does not; 1 any other failure.
    Plan {
        /// The release document, as `release create` writes it
        release: PathBuf,
    },
    /// Reads and verifies every blob that is here, and fetches again what is damaged
    ///
    /// Exit status: 0 all is well, or well again; 1 something is damaged and was not repaired.
    Verify(verify::Verify),
    /// Installs, commits and lists systems: updates into two slots
    Update(update::Args),
    /// Runs the device's daemon: the one owner of its store, which verbs and other programs then ask
    Daemon(daemon::Daemon),
    /// Shows what is on the device, and who runs it
    Status,
    /// Lists packages that are open: who has them open, and since when
    ///
    /// Only a daemon knows of other processes; without one nothing is open.
    Leases,
    /// Writes a package that is on the device as a folder of files, or as a package archive
    Export(export::Export),
    /// Says whether a package is in its repository and on the device
    ///
    /// Exit status: 0 in the repository and on the device; 2 in the repository, not on the device; 3 not in the repository;
    /// 1 any other failure.
    PkgStatus {
        /// fuchsia-pkg://HOST/NAME, then /VARIANT and ?hash=HASH if wanted
        url: String,
    },
}

/// What a verb takes from the machine it runs on.
pub(crate) struct Surroundings {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
}

impl Surroundings {
    fn machine() -> Self {
        Self { disk: Arc::new(OsDisk), clock: Arc::new(SystemClock) }
    }
}

/// Where a verb prints: results, and what is said about them.
struct Console<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    json: bool,
}

impl Console<'_> {
    fn print_json(&mut self, value: &serde_json::Value) -> Result<(), DeviceVerbError> {
        Ok(writeln!(self.out, "{value}")?)
    }
}

/// Runs the verb; Ctrl-C ends it and loses nothing that was verified.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, DeviceVerbError> {
    if let Verb::Daemon(verb) = &args.verb {
        return daemon::run(verb, args, &Surroundings::machine(), out);
    }
    log::start(args.log);
    let console = Console { out, err: &mut std::io::stderr(), json: args.json };
    run_until(args, &Surroundings::machine(), interrupt(), console)
}

/// Runs the verb until it is done, or `stop` is.
fn run_until(
    args: &Args,
    surroundings: &Surroundings,
    stop: impl Future<Output = ()>,
    mut console: Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(DeviceVerbError::Runtime)?;
    // After an interrupt the runtime's end waits for writers: what was verified reaches the disk.
    runtime.block_on(async {
        tokio::select! {
            outcome = Box::pin(verb(args, surroundings, &mut console)) => outcome,
            () = stop => Err(DeviceVerbError::Interrupted),
        }
    })
}

/// Resolves when a person presses Ctrl-C.
pub(crate) async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process anyway.
        std::future::pending::<()>().await;
    }
}

async fn verb(
    args: &Args,
    surroundings: &Surroundings,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    if let Some(code) = boot_verb(args, console)? {
        return Ok(code);
    }
    let open = |make| open(args, surroundings, make);
    let connect = async |make| connect(args, surroundings, make).await;
    let there = async || connect(Make::Refused).await;
    match &args.verb {
        Verb::Repo(verb) => repo::run(verb, args, connect, console).await,
        Verb::Rule(verb) => rule::run(verb, connect, console).await,
        Verb::Overlay(verb) => overlay::run(verb, there, console).await,
        Verb::Config => {
            write!(console.out, "{}", settings::describe(args)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Gc => packages::gc(there, console).await,
        Verb::Provision(verb) => sets::provision(verb, args, surroundings, console).await,
        Verb::Sets => sets::sets(there, console).await,
        Verb::Plan { release } => sets::plan(release, there, console).await,
        Verb::Verify(verb) => verify::run(verb, there, console).await,
        // On the heap: these are by far the largest of them.
        Verb::Resolve(verb) => Box::pin(resolve::run(verb, &args.dir, there, console)).await,
        Verb::Update(verb) => Box::pin(update::run(verb, args, surroundings, open, console)).await,
        Verb::GetHash { url } => packages::get_hash(url, there, console).await,
        Verb::Open { hash, selectors: _ } => packages::open(hash, there, console).await,
        Verb::PkgStatus { url } => packages::status(url, there, console).await,
        Verb::Status => status::status(there, console).await,
        Verb::Leases => status::leases(there, console).await,
        Verb::Export(verb) => export::run(verb, there, console).await,
        Verb::Daemon(_) => Err(DeviceVerbError::Daemon("it is started before anything is asked of it".to_owned())),
    }
}

/// The device's daemon if one runs, else the device itself.
async fn connect(args: &Args, surroundings: &Surroundings, make: Make) -> Result<Api, DeviceVerbError> {
    if let Some(client) = api::daemon(args).await? {
        return Ok(Api::Daemon(client));
    }
    let (device, store) = open(args, surroundings, make)?;
    Ok(Api::here(device, store, &args.dir, None))
}

/// What boot packages answer, with no need of the device.
fn boot_verb(args: &Args, console: &mut Console<'_>) -> Result<Option<ExitCode>, DeviceVerbError> {
    let config = || settings::device_config(args);
    match &args.verb {
        Verb::Resolve(verb) if boot::is_meant(&verb.url) => {
            boot::resolve(&verb.url, verb.out.as_deref(), &config()?, console).map(Some)
        }
        Verb::GetHash { url } if boot::is_meant(url) => boot::get_hash(url, &config()?, console).map(Some),
        Verb::Open { hash, .. } => boot::open(hash, &config()?, console),
        _ => Ok(None),
    }
}

fn in_use(error: DeviceError, dir: &std::path::Path) -> DeviceVerbError {
    match error {
        DeviceError::Store(StoreError::InUse { .. }) => DeviceVerbError::InUse { dir: dir.to_owned() },
        error => error.into(),
    }
}

/// Whether a device may be made where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Allowed,
    Refused,
}

fn open(args: &Args, surroundings: &Surroundings, make: Make) -> Result<(Device, Arc<Store>), DeviceVerbError> {
    let absent = surroundings.disk.list_dir(&args.dir.join("store")).is_err();
    if make == Make::Refused && absent {
        return Err(DeviceVerbError::NoDevice { dir: args.dir.clone() });
    }
    let config = settings::device_config(args)?;
    let opened = Device::open_on(&surroundings.disk, &args.dir, config, surroundings.clock.clone());
    opened.map_err(|error| in_use(error, &args.dir))
}
