//! What a device's owner can choose. Plain values with defaults; nothing here reads a file.

use std::path::PathBuf;
use std::time::Duration;

use colibri_common::UnixSeconds;
use colibri_fetch::{Patience, Persistence};
use colibri_package::delivery::DeliveryType;
use colibri_transport::{ClientConfig, Trust};

/// Configuration of a device.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// Whom to believe on the transport. Integrity rests on signatures and hashes, so the default is nobody in particular.
    pub tls: Trust,
    /// Try HTTP/3.
    pub http3: bool,
    /// Which form of a blob to ask for.
    pub preference: Preference,
    /// Packages fetched at once, each with its subpackages; less urgent ones leave some to the more urgent. One of which nothing
    /// is missing waits for nobody.
    pub packages_at_once: usize,
    /// Blobs fetched at once, by all resolves together; less urgent ones leave some to the more urgent.
    pub blobs_at_once: usize,
    /// Units of one blob fetched at once, from as many sources as there are.
    pub units_at_once: usize,
    /// Requests in flight at one mirror.
    pub requests_per_mirror: u32,
    /// Bytes of blobs per second, from all mirrors together; 0 for as many as come. What somebody waits for, updates, and the
    /// rest get shares of 8, 3 and 1, as long as they want them.
    pub bandwidth_bytes_per_s: u64,
    /// How slow a source of blobs may be before another is asked.
    pub patience: Patience,
    /// How often and how long one unit of a blob is asked for before giving up.
    pub persistence: Persistence,
    /// How long metadata counts as fresh, seconds (reference "Fuchsia device side" §7.2: 5 minutes).
    pub metadata_life_s: u64,
    /// How long one refresh may take with all its mirrors, seconds.
    pub metadata_timeout_s: u64,
    /// Time to make a connection.
    pub connect_timeout: Duration,
    /// Time without progress until the head of an answer.
    pub header_timeout: Duration,
    /// Time without a byte of a body.
    pub body_timeout: Duration,
    /// How long whoever asks for an upgradable package waits, after a start, for the first word of its authority, seconds; 0
    /// where nobody is going to say it: then the version to fall back to is used at once.
    pub upgradable_wait_s: u64,
    /// Whether this is a device for developing: only then overlays count, if the release does not forbid them.
    pub engineering: bool,
    /// A package archive, or a folder of them: the packages that came with the boot image.
    pub boot_packages: Option<PathBuf>,
    /// When this device's software was built: it will not be earlier, whatever its clock says.
    pub built_at: UnixSeconds,
    /// When space is made by collection.
    pub space: Watermarks,
    /// Files of all packages may be executed, not only those of base: for development.
    pub all_packages_executable: bool,
}

impl DeviceConfig {
    /// How the connections of such a device behave.
    pub fn client(&self) -> ClientConfig {
        ClientConfig {
            trust: self.tls.clone(),
            http3: self.http3,
            connect_timeout: self.connect_timeout,
            header_timeout: self.header_timeout,
            body_idle_timeout: self.body_timeout,
            ..ClientConfig::default()
        }
    }
}

/// When space counts as short, and how much collection then tries to have free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// A resolve that finds less than this free collects first, bytes.
    pub low_bytes: u64,
    /// What is then collected for, bytes.
    pub high_bytes: u64,
}

/// Which form of a blob to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// Raw only.
    Raw,
    /// A delivery type, raw where that is not to be had.
    Delivery(DeliveryType),
}

impl Default for DeviceConfig {
    fn default() -> Self {
        Self {
            tls: Trust::None,
            http3: true,
            preference: Preference::Delivery(DeliveryType::Type1),
            packages_at_once: 5,
            blobs_at_once: 8,
            units_at_once: 4,
            requests_per_mirror: 64,
            bandwidth_bytes_per_s: 0,
            patience: Patience::default(),
            persistence: Persistence {
                passes_max: 4,
                attempts_max: 50,
                time_max: Duration::from_secs(120),
                pause_max: Duration::from_secs(32),
            },
            metadata_life_s: 300,
            metadata_timeout_s: 240,
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            upgradable_wait_s: 0,
            engineering: false,
            boot_packages: None,
            built_at: UnixSeconds(0),
            space: Watermarks { low_bytes: 32 << 20, high_bytes: 256 << 20 },
            all_packages_executable: false,
        }
    }
}
