//! The configuration of a device: defaults < file < environment < flags, as servers have it. Every key of `deploy/config/device.toml`
//! is here, and nothing else is a key.

use std::path::PathBuf;
use std::time::Duration;

use colibri_common::UnixSeconds;
use colibri_device::{DeviceConfig, Preference, Watermarks};
use colibri_fetch::{Patience, Persistence};
use colibri_package::delivery::DeliveryType;
use colibri_service::config::load_with;
use colibri_service::{ConfigErrors, Loaded, Sources};
use colibri_transport::Trust;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::daemon::config::DaemonConfig;
use super::{Args, DeviceVerbError, configuration};

/// Before each variable of the environment that sets a key.
pub(super) const ENVIRONMENT_PREFIX: &str = "COLIBRI_DEVICE_";

/// Variables with that prefix that are no keys, but stand for flags.
const FLAG_VARIABLES: [&str; 4] =
    ["COLIBRI_DEVICE_DIR", "COLIBRI_DEVICE_SOCKET", "COLIBRI_DEVICE_BOARD", "COLIBRI_DEVICE_CONFIG"];

/// The file in a device's folder that is read if no other is named.
pub(super) const SHIPPED_FILE: &str = "config/device.toml";

/// Arguments about configuration.
#[derive(Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// TOML file with the device's configuration; `device config` lists all keys [default: DIR/config/device.toml, if there]
    #[arg(long = "config", global = true, value_name = "FILE", env = "COLIBRI_DEVICE_CONFIG")]
    pub config_file: Option<PathBuf>,
    /// Set any key of the configuration; the value is JSON or plain text (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// A package archive, or a folder of them: the packages of the boot image, as fuchsia-boot:///NAME
    #[arg(long, global = true, value_name = "FILE")]
    pub boot_packages: Option<PathBuf>,
}

/// Splits `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must have the form of two parts with `=` between them".to_owned()),
    }
}

/// All keys, with their defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Settings {
    tls: String,
    http3: bool,
    engineering: bool,
    all_packages_executable: bool,
    boot_packages: Option<PathBuf>,
    upgradable_wait_s: u64,
    metadata: Metadata,
    fetch: Fetch,
    space: Space,
    /// What only the daemon needs; in the same file, so that a device has one.
    #[serde(flatten)]
    pub daemon: DaemonConfig,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    fresh_s: u64,
    timeout_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fetch {
    delivery_blob_type: u32,
    packages_at_once: usize,
    blobs_at_once: usize,
    units_at_once: usize,
    requests_per_mirror: u32,
    bandwidth_bytes_per_s: u64,
    connect_timeout_s: u64,
    header_timeout_s: u64,
    body_timeout_s: u64,
    slow_after_s: u64,
    passes_max: u32,
    attempts_max: u32,
    give_up_after_s: u64,
    pause_max_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Space {
    low_bytes: u64,
    high_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let config = DeviceConfig::default();
        Self {
            tls: config.tls.to_string(),
            http3: config.http3,
            engineering: config.engineering,
            all_packages_executable: config.all_packages_executable,
            boot_packages: config.boot_packages,
            upgradable_wait_s: config.upgradable_wait_s,
            metadata: Metadata { fresh_s: config.metadata_life_s, timeout_s: config.metadata_timeout_s },
            fetch: Fetch {
                delivery_blob_type: match config.preference {
                    Preference::Raw => 0,
                    Preference::Delivery(kind) => kind.number(),
                },
                packages_at_once: config.packages_at_once,
                blobs_at_once: config.blobs_at_once,
                units_at_once: config.units_at_once,
                requests_per_mirror: config.requests_per_mirror,
                bandwidth_bytes_per_s: config.bandwidth_bytes_per_s,
                connect_timeout_s: config.connect_timeout.as_secs(),
                header_timeout_s: config.header_timeout.as_secs(),
                body_timeout_s: config.body_timeout.as_secs(),
                slow_after_s: config.patience.with_rivals.head.as_secs(),
                passes_max: config.persistence.passes_max,
                attempts_max: config.persistence.attempts_max,
                give_up_after_s: config.persistence.time_max.as_secs(),
                pause_max_s: config.persistence.pause_max.as_secs(),
            },
            space: Space { low_bytes: config.space.low_bytes, high_bytes: config.space.high_bytes },
            daemon: DaemonConfig::default(),
        }
    }
}

impl Settings {
    /// What they mean.
    fn device(self, built_at: UnixSeconds) -> Result<DeviceConfig, DeviceVerbError> {
        let refuse = |key: &'static str, reason: String| DeviceVerbError::ConfigKey { key, reason };
        let tls: Trust = self.tls.parse().map_err(|error| refuse("tls", format!("{error}")))?;
        let Fetch { delivery_blob_type, blobs_at_once, units_at_once, .. } = self.fetch;
        let preference = match delivery_blob_type {
            0 => Preference::Raw,
            number => DeliveryType::try_from(number).map(Preference::Delivery).map_err(|_| {
                refuse("fetch.delivery_blob_type", format!("{number} is no delivery type: 1, 2, or 0 for raw blobs"))
            })?,
        };
        let at_least_one = [
            ("metadata.timeout_s", self.metadata.timeout_s),
            ("subscribe_again_s", self.daemon.subscribe_again_s),
            ("fetch.packages_at_once", self.fetch.packages_at_once as u64),
            ("fetch.blobs_at_once", blobs_at_once as u64),
            ("fetch.units_at_once", units_at_once as u64),
            ("fetch.requests_per_mirror", self.fetch.requests_per_mirror.into()),
            ("fetch.connect_timeout_s", self.fetch.connect_timeout_s),
            ("fetch.header_timeout_s", self.fetch.header_timeout_s),
            ("fetch.body_timeout_s", self.fetch.body_timeout_s),
            ("fetch.slow_after_s", self.fetch.slow_after_s),
            ("fetch.passes_max", self.fetch.passes_max.into()),
            ("fetch.attempts_max", self.fetch.attempts_max.into()),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|(_, value)| *value == 0) {
            return Err(refuse(key, "it must be at least 1".to_owned()));
        }
        if self.space.low_bytes > self.space.high_bytes {
            return Err(refuse("space.high_bytes", "it must be at least space.low_bytes".to_owned()));
        }
        Ok(DeviceConfig {
            tls,
            http3: self.http3,
            preference,
            packages_at_once: self.fetch.packages_at_once,
            blobs_at_once,
            units_at_once,
            connect_timeout: Duration::from_secs(self.fetch.connect_timeout_s),
            header_timeout: Duration::from_secs(self.fetch.header_timeout_s),
            body_timeout: Duration::from_secs(self.fetch.body_timeout_s),
            metadata_life_s: self.metadata.fresh_s,
            metadata_timeout_s: self.metadata.timeout_s,
            upgradable_wait_s: self.upgradable_wait_s,
            engineering: self.engineering,
            all_packages_executable: self.all_packages_executable,
            boot_packages: self.boot_packages,
            space: Watermarks { low_bytes: self.space.low_bytes, high_bytes: self.space.high_bytes },
            requests_per_mirror: self.fetch.requests_per_mirror,
            bandwidth_bytes_per_s: self.fetch.bandwidth_bytes_per_s,
            patience: Patience::of(Duration::from_secs(self.fetch.slow_after_s)),
            persistence: Persistence {
                passes_max: self.fetch.passes_max,
                attempts_max: self.fetch.attempts_max,
                time_max: Duration::from_secs(self.fetch.give_up_after_s),
                pause_max: Duration::from_secs(self.fetch.pause_max_s),
            },
            built_at,
        })
    }
}

/// All layers; `more` are flags of one verb.
pub(super) fn load(
    device: &Args,
    more: Vec<(&'static str, Value)>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<Settings>, ConfigErrors> {
    let (args, connection) = (&device.settings, &device.connection);
    let mut flags = Map::new();
    for (key, value) in &args.set {
        put(&mut flags, key, serde_json::from_str(value).unwrap_or_else(|_| json!(value)));
    }
    if let Some(trust) = &connection.tls {
        put(&mut flags, "tls", json!(trust.to_string()));
    }
    if connection.no_http3 {
        put(&mut flags, "http3", json!(false));
    }
    if let Some(path) = &args.boot_packages {
        put(&mut flags, "boot_packages", json!(path));
    }
    if let Some(path) = &device.socket {
        put(&mut flags, "socket", json!(path));
    }
    for (key, value) in more {
        put(&mut flags, key, value);
    }
    let shipped = device.dir.join(SHIPPED_FILE);
    let file = args.config_file.clone().or_else(|| shipped.exists().then_some(shipped));
    let sources = Sources { file, environment_prefix: ENVIRONMENT_PREFIX.to_owned(), overrides: Value::Object(flags) };
    load_with(sources, environment.into_iter().filter(|(name, _)| !FLAG_VARIABLES.contains(&&**name)))
}

/// What the device is to do.
pub(super) fn device_config(device: &Args) -> Result<DeviceConfig, DeviceVerbError> {
    let config = load(device, Vec::new(), environment())?.value.device(configuration::defaults().built_at)?;
    // Where provisioning puts them: verbs on boot packages need no device to be opened.
    let boot_packages = colibri_device::boot_packages_of(&device.dir, config.boot_packages.as_deref());
    Ok(DeviceConfig { boot_packages, ..config })
}

/// Checks what the types of keys cannot.
pub(super) fn check(loaded: &Loaded<Settings>) -> Result<(), DeviceVerbError> {
    loaded.value.clone().device(configuration::defaults().built_at).map(drop)
}

/// `device config`: the effective configuration, and where each value comes from.
pub(super) fn describe(device: &Args) -> Result<String, DeviceVerbError> {
    let loaded = load(device, Vec::new(), environment())?;
    check(&loaded)?;
    Ok(loaded.describe())
}

/// Variables of this process.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Sets a dotted key.
fn put(object: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(object.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let below = object.entry(first).or_insert_with(|| json!({}));
            if !below.is_object() {
                *below = json!({});
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::tests::site::args_of;
    use super::*;

    fn loaded(environment: &[(&str, &str)]) -> Result<DeviceConfig, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = load(&args_of(&["--dir", "/nowhere", "config"]), Vec::new(), environment);
        let settings = loaded.map_err(|errors| errors.to_string())?.value;
        settings.device(UnixSeconds(0)).map_err(|error| error.to_string())
    }

    /// Each key, a value that is not the default, and what it means.
    #[allow(clippy::type_complexity, reason = "a table")]
    const KEYS: &[(&str, &str, fn(&DeviceConfig) -> String, &str)] = &[
        ("tls", "system", |config| config.tls.to_string(), "system"),
        ("http3", "false", |config| config.http3.to_string(), "false"),
        ("engineering", "true", |config| config.engineering.to_string(), "true"),
        ("all_packages_executable", "true", |config| config.all_packages_executable.to_string(), "true"),
        ("boot_packages", "/boot", |config| format!("{:?}", config.boot_packages), "Some(\"/boot\")"),
        ("upgradable_wait_s", "7", |config| config.upgradable_wait_s.to_string(), "7"),
        ("metadata.fresh_s", "8", |config| config.metadata_life_s.to_string(), "8"),
        ("metadata.timeout_s", "9", |config| config.metadata_timeout_s.to_string(), "9"),
        ("fetch.delivery_blob_type", "0", |config| format!("{:?}", config.preference), "Raw"),
        ("fetch.packages_at_once", "28", |config| config.packages_at_once.to_string(), "28"),
        ("fetch.blobs_at_once", "11", |config| config.blobs_at_once.to_string(), "11"),
        ("fetch.units_at_once", "12", |config| config.units_at_once.to_string(), "12"),
        ("fetch.requests_per_mirror", "26", |config| config.requests_per_mirror.to_string(), "26"),
        ("fetch.bandwidth_bytes_per_s", "27", |config| config.bandwidth_bytes_per_s.to_string(), "27"),
        ("fetch.connect_timeout_s", "13", |config| format!("{:?}", config.connect_timeout), "13s"),
        ("fetch.header_timeout_s", "14", |config| format!("{:?}", config.header_timeout), "14s"),
        ("fetch.body_timeout_s", "15", |config| format!("{:?}", config.body_timeout), "15s"),
        ("fetch.slow_after_s", "21", |config| format!("{:?}", config.patience.with_rivals.window), "21s"),
        ("fetch.passes_max", "22", |config| config.persistence.passes_max.to_string(), "22"),
        ("fetch.attempts_max", "23", |config| config.persistence.attempts_max.to_string(), "23"),
        ("fetch.give_up_after_s", "24", |config| format!("{:?}", config.persistence.time_max), "24s"),
        ("fetch.pause_max_s", "25", |config| format!("{:?}", config.persistence.pause_max), "25s"),
        ("space.low_bytes", "16", |config| config.space.low_bytes.to_string(), "16"),
        ("space.high_bytes", "33554433", |config| config.space.high_bytes.to_string(), "33554433"),
    ];

    #[test]
    fn every_key_takes_effect() {
        let defaults = loaded(&[]).unwrap();
        for (key, value, shown, expected) in KEYS {
            let variable = format!("{ENVIRONMENT_PREFIX}{}", key.to_uppercase().replace('.', "__"));
            let config = loaded(&[(&variable, value)]).unwrap();
            assert_eq!(shown(&config), *expected, "{key}");
            assert_ne!(shown(&config), shown(&defaults), "{key} says nothing by its default");
        }
    }

    #[test]
    fn the_sample_names_every_key_and_is_valid() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/device.toml");
        let args = args_of(&["--dir", "/nowhere", "--config", sample.to_str().unwrap(), "config"]);
        let of_sample = load(&args, Vec::new(), []).unwrap();
        let text = fs::read_to_string(sample).unwrap();
        let all = of_sample.describe();
        let keys: Vec<_> = all.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
        for key in &keys {
            let name = key.rsplit('.').next().unwrap();
            let stands = |line: &str| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{name} = ")) || line == format!("[{key}]")
            };
            assert!(text.lines().any(stands), "{key}");
            let is_of_daemon = json!(DaemonConfig::default()).get(key.split('.').next().unwrap()).is_some();
            assert!(is_of_daemon || KEYS.iter().any(|(known, ..)| known == key), "{key} is not tested above");
        }
        assert!(KEYS.iter().all(|(key, ..)| text.contains(key.rsplit('.').next().unwrap())));
        // It says what holds without it.
        let (written, default) = (json!(of_sample.value), json!(Settings::default()));
        assert_eq!(written, default);
    }

    #[test]
    fn the_later_layer_wins_and_mistakes_are_told_together() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("config")).unwrap();
        fs::write(dir.path().join(SHIPPED_FILE), "http3 = false\n[metadata]\nfresh_s = 1\ntimeout_s = 2\n").unwrap();
        let of = |flags: &[&str], environment: &[(&str, &str)]| {
            let args = args_of(&[&["--dir", dir.path().to_str().unwrap()], flags, &["config"]].concat());
            let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            load(&args, Vec::new(), environment).map(|loaded| loaded.value.device(UnixSeconds(0)).unwrap())
        };
        let config = of(&[], &[]).unwrap();
        assert_eq!((config.http3, config.metadata_life_s), (false, 1), "what it was shipped with");
        let flags = ["--set", "metadata.fresh_s=4"];
        let variables = [("COLIBRI_DEVICE_METADATA__FRESH_S", "3"), ("COLIBRI_DEVICE_METADATA__TIMEOUT_S", "5")];
        let config = of(&flags, &variables).unwrap();
        assert_eq!((config.metadata_life_s, config.metadata_timeout_s), (4, 5));
        // The folder itself is no key.
        assert!(of(&[], &[("COLIBRI_DEVICE_DIR", "/x"), ("COLIBRI_DEVICE_SOCKET", "/y")]).is_ok());
        let wrong = of(&["--set", "colour=red", "--set", "fetch.speed=9"], &[("COLIBRI_DEVICE_HTTP3", "maybe")]);
        let wrong = wrong.unwrap_err().to_string();
        for key in ["colour", "fetch.speed", "http3 (environment COLIBRI_DEVICE_HTTP3)"] {
            assert!(wrong.contains(key), "{key}: {wrong}");
        }
    }

    #[test]
    fn what_no_value_means_is_refused() {
        for (variable, value, key) in [
            ("COLIBRI_DEVICE_TLS", "perhaps", "tls"),
            ("COLIBRI_DEVICE_FETCH__DELIVERY_BLOB_TYPE", "9", "fetch.delivery_blob_type"),
            ("COLIBRI_DEVICE_FETCH__HEADER_TIMEOUT_S", "0", "fetch.header_timeout_s"),
            ("COLIBRI_DEVICE_SPACE__HIGH_BYTES", "1", "space.high_bytes"),
        ] {
            let refused = loaded(&[(variable, value)]).unwrap_err();
            assert!(refused.contains(key), "{refused}");
        }
    }
}
