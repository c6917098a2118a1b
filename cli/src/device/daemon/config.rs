//! [`DaemonConfig`]: what can be chosen about a device's daemon. `deploy/config/device.toml` tells of every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use colibri_device::daemon::chores::schedule::Cadence;
use colibri_device::daemon::chores::{Chores, Install};
use colibri_device::daemon::wire::Chore;
use colibri_device::update::{UpdateError, UpdateSource};
use colibri_release::limits::RELEASE_BYTES_MAX;
use colibri_store::Documents;
use colibri_transport::{ServerLimits, UnixServerConfig};
use serde::{Deserialize, Serialize};

use super::super::update::Target;
use super::super::{DeviceVerbError, api};

/// Configuration of a daemon, beside what every device has (`settings`), which also refuses keys that do not exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DaemonConfig {
    /// Where it answers; in the device's folder if nothing is said.
    pub socket: Option<PathBuf>,
    /// Who may connect: mode of the socket, in octal.
    pub socket_mode: String,
    /// Connections at a time.
    pub connections_max: usize,
    /// Address for metrics and health; nowhere if nothing is said.
    pub listen_admin: Option<SocketAddr>,
    /// What is logged.
    pub log: String,
    /// How long what is under way may take after SIGTERM, seconds.
    pub drain_s: u64,
    /// Listen to mirrors that are configured with `subscribe`.
    pub subscribe: bool,
    /// Longest pause before they are listened to again, seconds.
    pub subscribe_again_s: u64,
    /// System updates.
    pub update: UpdateSettings,
    /// What it does by itself.
    pub chores: ChoreSettings,
}

/// How often a daemon does things by itself, seconds; 0 for never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChoreSettings {
    /// Fetches automatic packages.
    pub automatic_every_s: u64,
    /// Verifies what it holds.
    pub verify_every_s: u64,
    /// How fast, bytes per second; 0 for as fast as the disk can.
    pub verify_bytes_per_s: u64,
    /// Looks whether space is short.
    pub space_every_s: u64,
    /// After which what did not get done is tried again.
    pub retry_first_s: u64,
    /// The longest such pause: it doubles.
    pub retry_max_s: u64,
    /// The share of each pause that chance takes away, percent.
    pub spread_percent: u8,
}

impl Default for ChoreSettings {
    fn default() -> Self {
        Self {
            automatic_every_s: 3600,
            verify_every_s: 30 * 86_400,
            verify_bytes_per_s: 4 << 20,
            space_every_s: 60,
            retry_first_s: 60,
            retry_max_s: 3600,
            spread_percent: 10,
        }
    }
}

/// What is done about an update that the daemon finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UpdatePolicy {
    /// It is told of.
    #[default]
    Check,
    /// It is installed. Starting the machine anew, and committing what then runs, is somebody else's.
    Install,
}

/// What updates must know of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpdateSettings {
    /// Where the daemon looks for updates: an update package, or a signed manifest.
    pub source: Option<String>,
    /// How often, seconds; 0 for never.
    pub check_every_s: u64,
    /// What becomes of those that it finds.
    pub policy: UpdatePolicy,
    /// Name of the board.
    pub board: String,
    /// Epoch of the system that came with the device.
    pub epoch: u64,
    /// Let updates write recovery.
    pub writes_recovery: bool,
    /// A name of the time since the machine was started; the system's own if nothing is said.
    pub boot_id: Option<String>,
    /// Ed25519 keys, in hex, that may sign manifests of updates, beside those in the device's folder.
    pub manifest_keys: Vec<String>,
    /// Let a signed manifest bring an older version than the one that runs.
    pub allow_older: bool,
    /// Where images lie, other than in the device's folder.
    pub images: BTreeMap<String, PathBuf>,
}

impl Default for UpdateSettings {
    fn default() -> Self {
        Self {
            source: None,
            check_every_s: 6 * 3600,
            policy: UpdatePolicy::default(),
            board: String::new(),
            epoch: 0,
            writes_recovery: false,
            boot_id: None,
            manifest_keys: Vec::new(),
            allow_older: false,
            images: BTreeMap::new(),
        }
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            socket: None,
            socket_mode: "600".to_owned(),
            connections_max: 256,
            listen_admin: None,
            log: "info".to_owned(),
            drain_s: 10,
            subscribe: true,
            subscribe_again_s: 60,
            update: UpdateSettings::default(),
            chores: ChoreSettings::default(),
        }
    }
}

impl DaemonConfig {
    /// Checks what the types of its keys cannot.
    pub fn check(&self) -> Result<(), DeviceVerbError> {
        self.mode()?;
        self.target()?;
        self.update_source()?;
        if self.chores.spread_percent > 100 {
            let reason = format!("{} percent of a pause cannot be taken away", self.chores.spread_percent);
            return Err(DeviceVerbError::ConfigKey { key: "chores.spread_percent", reason });
        }
        if self.chores.retry_first_s == 0 {
            let reason = "what failed cannot be tried again without a pause: give seconds".to_owned();
            return Err(DeviceVerbError::ConfigKey { key: "chores.retry_first_s", reason });
        }
        Ok(())
    }

    fn update_source(&self) -> Result<Option<UpdateSource>, DeviceVerbError> {
        let refused =
            |error: UpdateError| DeviceVerbError::ConfigKey { key: "update.source", reason: error.to_string() };
        self.update.source.as_deref().map(str::parse).transpose().map_err(refused)
    }

    /// What it does by itself.
    pub fn chores(&self, documents: Documents) -> Result<Chores, DeviceVerbError> {
        let ChoreSettings { automatic_every_s, verify_every_s, space_every_s, .. } = self.chores;
        let update = self.update_source()?;
        let check_every_s = if update.is_some() { self.update.check_every_s } else { 0 };
        let every = [
            (Chore::UpdateCheck, check_every_s),
            (Chore::Automatic, automatic_every_s),
            (Chore::Verify, verify_every_s),
            (Chore::Space, space_every_s),
        ];
        let ChoreSettings { retry_first_s, retry_max_s, spread_percent, .. } = self.chores;
        let cadence = |every_s| Cadence { every_s, retry_first_s, retry_max_s, spread_percent };
        let done = every.into_iter().filter(|(_, every_s)| *every_s > 0);
        Ok(Chores {
            cadences: done.map(|(chore, every_s)| (chore, cadence(every_s))).collect(),
            update,
            install: match self.update.policy {
                UpdatePolicy::Check => Install::WhenAsked,
                UpdatePolicy::Install => Install::ByItself,
            },
            verify_bytes_per_s: NonZeroU64::new(self.chores.verify_bytes_per_s),
            ..Chores::none(documents)
        })
    }

    fn mode(&self) -> Result<u32, DeviceVerbError> {
        let mode = u32::from_str_radix(&self.socket_mode, 8).ok().filter(|mode| *mode <= 0o777);
        mode.ok_or_else(|| DeviceVerbError::ConfigKey {
            key: "socket_mode",
            reason: format!("{:?} is no mode such as 600 or 660", self.socket_mode),
        })
    }

    /// What updates must know.
    pub fn target(&self) -> Result<Target, DeviceVerbError> {
        let UpdateSettings { board, epoch, writes_recovery, boot_id, manifest_keys, allow_older, images, .. } =
            self.update.clone();
        let key = |hex: &String| {
            let refused = |error: colibri_metadata::KeyError| DeviceVerbError::ConfigKey {
                key: "update.manifest_keys",
                reason: format!("{hex:?}: {error}"),
            };
            hex.parse().map_err(refused)
        };
        let manifest_key = manifest_keys.iter().map(key).collect::<Result<_, _>>()?;
        let image = images.into_iter().collect();
        Ok(Target { board, epoch, writes_recovery, image, manifest_key, allow_older, boot_id })
    }

    /// The socket.
    pub fn server(&self, dir: &Path) -> Result<UnixServerConfig, DeviceVerbError> {
        let path = self.socket.clone().unwrap_or_else(|| dir.join(api::SOCKET));
        let limits = ServerLimits {
            connections_max: self.connections_max,
            request_body_bytes_max: RELEASE_BYTES_MAX,
            ..ServerLimits::default()
        };
        Ok(UnixServerConfig { mode: self.mode()?, limits, ..UnixServerConfig::new(path) })
    }
}
