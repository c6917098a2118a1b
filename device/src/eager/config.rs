//! Which packages are eager: `config/eager_package_config.json`, in the form of the original, as far as a device needs it. What
//! only concerns whoever asks (app id, channels, flavour) is passed over.

use colibri_package::url::UnpinnedPackageUrl;
use colibri_release::ProductVersion;
use colibri_release::cup::CupKeys;
use serde::Deserialize;
use serde_json::Value;

use super::EagerError;
use crate::limits::EAGER_PACKAGES_MAX;
use crate::sets::key;

/// Packages of the platform are updated with the system.
const PLATFORM: &str = "fuchsia.com";

/// One eager package.
#[derive(Debug, Clone)]
pub struct EagerConfig {
    /// Its unpinned URL.
    pub url: UnpinnedPackageUrl,
    /// Who says its version.
    pub keys: CupKeys,
    /// The oldest version that is accepted.
    pub minimum: ProductVersion,
    /// Whether the cache packages of the system image have one to fall back to.
    pub cache_fallback: bool,
}

/// Reads `{"packages":[{"url","public_keys","minimum_required_version","cache_fallback"}]}`.
///
/// # Errors
/// What is wrong; half a list is none.
pub fn parse_configs(json: &[u8]) -> Result<Vec<EagerConfig>, EagerError> {
    #[derive(Deserialize)]
    struct File {
        packages: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        url: String,
        public_keys: Value,
        minimum_required_version: Option<String>,
        #[serde(default)]
        cache_fallback: bool,
    }
    let bad = |reason: String| EagerError::Config(reason);
    let File { packages } = serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
    if packages.len() > EAGER_PACKAGES_MAX {
        return Err(bad(format!("more than {EAGER_PACKAGES_MAX} packages")));
    }
    let mut configs: Vec<EagerConfig> = Vec::with_capacity(packages.len());
    for One { url, public_keys, minimum_required_version, cache_fallback } in packages {
        let of = |reason: String| bad(format!("{url}: {reason}"));
        let parsed: UnpinnedPackageUrl = url.parse().map_err(|error| of(format!("{error}")))?;
        if parsed.repository().host() == PLATFORM {
            return Err(of(format!("packages of {PLATFORM} are updated with the system")));
        }
        if configs.iter().any(|known| key(&known.url) == key(&parsed)) {
            return Err(of("listed twice".to_owned()));
        }
        let keys = CupKeys::parse(public_keys.to_string().as_bytes()).map_err(|error| of(error.to_string()))?;
        let minimum = minimum_required_version.map(|version| version.parse()).transpose();
        let minimum = minimum.map_err(|error| of(format!("minimum_required_version: {error}")))?;
        let minimum = minimum.unwrap_or(ProductVersion::new([0; 4]));
        configs.push(EagerConfig { url: parsed, keys, minimum, cache_fallback });
    }
    Ok(configs)
}
