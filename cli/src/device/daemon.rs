//! `device daemon`: the process of a device's daemon: configuration, the socket, readiness, signals, logs. What it answers is
//! in `colibri-device`.

pub(super) mod config;
#[cfg(test)]
pub(crate) mod tests;

use std::convert::Infallible;
use std::io::Write;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use colibri_device::DeviceError;
use colibri_device::daemon::wire::DaemonStatus;
use colibri_device::daemon::{self as library, DaemonParts, Subscribing};
use colibri_device::update::Updater;
use colibri_service::telemetry::{self, Filter, Format};
use colibri_service::{Admin, Health, Readiness, Registry, register_counters, shutdown_signal, sign_of_life_every};
use colibri_store::Documents;
use colibri_transport::UnixServer;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Args, DeviceVerbError, Make, Surroundings, settings, update};
use config::DaemonConfig;

/// How much longer than the drain things may take that were stopped.
const GRACE: Duration = Duration::from_secs(2);

/// Arguments of `device daemon`.
#[derive(Debug, Default, clap::Args)]
#[command(
    after_help = "While it runs, it alone works on the device's folder, and the other verbs ask it. Who may connect is what the \
    socket's mode says; only root and the user that it runs as may change things.\n\n\
    Later layers win: defaults, --config FILE, environment (COLIBRI_DEVICE_DRAIN_S=5 sets drain_s), flags.\n\n\
    Example:\n  \
    colibri device --dir /var/lib/colibri-device daemon --set update.board=toucan"
)]
pub struct Daemon {
    /// Print the effective configuration with the source of each value, check it, and exit
    #[arg(long)]
    pub check_config: bool,
    /// How log lines look: human or json
    #[arg(long, value_name = "FORMAT", env = "COLIBRI_LOG_FORMAT", default_value = "human")]
    pub log_format: Format,
    /// What is logged, such as info (the default) or colibri_device=debug,warn
    #[arg(long, value_name = "FILTER", env = "COLIBRI_LOG")]
    pub log_filter: Option<String>,
}

impl Daemon {
    /// What the flags of this verb say.
    fn flags(&self) -> Vec<(&'static str, Value)> {
        self.log_filter.iter().map(|filter| ("log", filter.as_str().into())).collect()
    }
}

/// Runs the daemon until SIGTERM or SIGINT.
pub(super) fn run(
    args: &Daemon,
    device: &Args,
    surroundings: &Surroundings,
    out: &mut dyn Write,
) -> Result<ExitCode, DeviceVerbError> {
    let loaded = settings::load(device, args.flags(), settings::environment())?;
    settings::check(&loaded)?;
    let config = loaded.value.daemon.clone();
    if args.check_config {
        write!(out, "{}", loaded.describe())?;
        config.log.parse::<Filter>()?;
        config.check()?;
        return Ok(ExitCode::SUCCESS);
    }
    config.check()?;
    let _telemetry = telemetry::init(args.log_format, &config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(DeviceVerbError::Runtime)?;
    let readiness = Readiness::from_environment()?;
    runtime.block_on(async {
        let mut signal = pin!(shutdown_signal());
        // One poll puts the handlers in place, before anybody is told that the process is ready.
        tokio::select! { biased; _ = &mut signal => return Ok(()), () = std::future::ready(()) => {} }
        let running = Running::start(&config, device, surroundings).await?;
        let socket = running.server.path().display().to_string();
        let title = format!("device {} answers at {socket}", device.dir.display());
        match args.log_format {
            Format::Human => eprintln!("{title}"),
            Format::Json => tracing::info!("{title}"),
        }
        readiness.ready(&title);
        let stop = CancellationToken::new();
        let ending = async {
            let signal = tokio::select! {
                signal = signal => signal,
                never = give_signs_of_life(&readiness) => match never {},
            };
            tracing::info!(signal, "finishing what is under way; a second signal ends it at once");
            readiness.stopping();
            stop.cancel();
        };
        tokio::join!(running.serve(stop.clone(), Duration::from_secs(config.drain_s)), ending);
        Ok::<_, DeviceVerbError>(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the service manager, as often as it wants that, that tasks are run and threads for the disk are to be had.
async fn give_signs_of_life(readiness: &Readiness) -> Infallible {
    let Some(every) = sign_of_life_every() else { return std::future::pending().await };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if tokio::spawn(async { tokio::task::spawn_blocking(|| ()).await }).await.is_ok_and(|ran| ran.is_ok()) {
            readiness.alive();
        }
    }
}

/// A daemon whose socket is there.
pub(crate) struct Running {
    daemon: library::Daemon,
    server: UnixServer,
    _admin: Option<Admin>,
}

impl Running {
    /// Opens the device, and the socket after it: who finds one that nobody answers at was not the last owner of the store.
    async fn start(config: &DaemonConfig, args: &Args, surroundings: &Surroundings) -> Result<Self, DeviceVerbError> {
        let (device, store) = super::open(args, surroundings, Make::Allowed)?;
        let updater = update::updater(&config.target()?, &args.dir, surroundings, device.clone()).await?;
        let updater: Option<Arc<Updater>> = Some(Arc::new(updater));
        let process = DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: surroundings.clock.now(),
        };
        let owner = rustix::process::geteuid().as_raw();
        let parts = DaemonParts { device, store, dir: args.dir.clone(), updater, owner, process: Some(process) };
        let daemon = library::Daemon::new(parts);
        let socket = config.server(&args.dir)?;
        let counters = socket.counters.clone();
        let server = UnixServer::bind(socket, daemon.handler())?;
        let admin = match config.listen_admin {
            Some(address) => {
                let (registry, health) = (Registry::new(), Health::new());
                register_counters(&registry, counters).map_err(colibri_service::ServiceError::from)?;
                health.set_ready(true);
                Some(Admin::start(address, registry, health)?)
            }
            None => None,
        };
        if config.subscribe {
            daemon.subscribe(Subscribing::again_after(Duration::from_secs(config.subscribe_again_s)));
        }
        let documents = Documents::open(surroundings.disk.clone(), &args.dir.join("state"));
        daemon.do_chores(config.chores(documents.map_err(DeviceError::from)?)?)?;
        Ok(Self { daemon, server, _admin: admin })
    }

    /// Answers until `stop`, and then ends what is under way within `drain`.
    async fn serve(self, stop: CancellationToken, drain: Duration) {
        let Self { daemon, server, _admin } = self;
        let ending = async {
            stop.cancelled().await;
            daemon.end();
        };
        tokio::join!(server.serve(stop.clone(), drain), ending);
        if tokio::time::timeout(GRACE, daemon.ended()).await.is_err() {
            tracing::warn!("something is still under way: it is cut off, and taken up at the next start");
        }
    }
}
