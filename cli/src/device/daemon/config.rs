//! [`DaemonConfig`]: what can be chosen about a device's daemon. `deploy/config/device.toml` tells of every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use colibri_release::limits::RELEASE_BYTES_MAX;
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
    /// System updates.
    pub update: UpdateSettings,
}

/// What updates must know of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UpdateSettings {
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
            update: UpdateSettings::default(),
        }
    }
}

impl DaemonConfig {
    /// Checks what the types of its keys cannot.
    pub fn check(&self) -> Result<(), DeviceVerbError> {
        self.mode()?;
        self.target()?;
        Ok(())
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
        let UpdateSettings { board, epoch, writes_recovery, boot_id, manifest_keys, allow_older, images } =
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
