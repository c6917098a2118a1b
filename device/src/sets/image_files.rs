//! The lists of packages that the real tools put into a system image: `data/static_packages`, `data/cache_packages.json` and
//! `data/anchored_packages.json` (reference "Fuchsia device side" §8.4 and §9). Read only.

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::BlobId;
use colibri_package::PackagePath;
use colibri_package::url::{PinnedPackageUrl, UnpinnedPackageUrl};
use colibri_release::Availability;
use serde::Deserialize;

use super::table::key;
use crate::limits::IMAGE_FILE_BYTES_MAX;

/// What a system image says about packages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageSets {
    /// Permanent & anchored, from `static_packages`.
    pub base: BTreeMap<String, BlobId>,
    /// The cache set, from `cache_packages.json`. Deprecated by RFC-0212 in favour of permanent & upgradable packages.
    pub cache: Vec<PinnedPackageUrl>,
    /// Anchored packages by availability, from `anchored_packages.json`.
    pub anchored: BTreeMap<Availability, BTreeMap<UnpinnedPackageUrl, BlobId>>,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct ImageFileError {
    /// Which list.
    pub file: &'static str,
    /// What is wrong, and where.
    pub reason: String,
}

fn refused(file: &'static str, reason: impl Into<String>) -> ImageFileError {
    ImageFileError { file, reason: reason.into() }
}

fn text<'a>(file: &'static str, bytes: &'a [u8]) -> Result<&'a str, ImageFileError> {
    if bytes.len() as u64 > IMAGE_FILE_BYTES_MAX {
        return Err(refused(file, format!("it has more than {IMAGE_FILE_BYTES_MAX} bytes")));
    }
    std::str::from_utf8(bytes).map_err(|error| refused(file, error.to_string()))
}

impl ImageSets {
    /// Reads `static_packages`: lines of `NAME/VARIANT=HASH`.
    ///
    /// # Errors
    /// The first line at fault, or a package that is listed twice.
    pub fn read_static_packages(&mut self, bytes: &[u8]) -> Result<(), ImageFileError> {
        const FILE: &str = "static_packages";
        let mut base = BTreeMap::new();
        for (number, line) in text(FILE, bytes)?.lines().enumerate() {
            let bad = |reason: String| refused(FILE, format!("line {}: {reason}", number + 1));
            let (path, hash) = line.split_once('=').ok_or_else(|| bad("it is not NAME/VARIANT=HASH".to_owned()))?;
            let path: PackagePath = path.parse().map_err(|error| bad(format!("{path:?}: {error}")))?;
            let hash: BlobId = hash.parse().map_err(|error| bad(format!("{hash:?}: {error}")))?;
            if base.insert(path.to_string(), hash).is_some() {
                return Err(bad(format!("{path} is listed twice")));
            }
        }
        self.base = base;
        Ok(())
    }

    /// Reads `cache_packages.json`: version `"1"` and pinned URLs. An empty file lists nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_cache_packages(&mut self, bytes: &[u8]) -> Result<(), ImageFileError> {
        #[derive(Deserialize)]
        struct File {
            version: String,
            content: Vec<String>,
        }
        const FILE: &str = "cache_packages.json";
        let text = text(FILE, bytes)?;
        self.cache.clear();
        if text.is_empty() {
            return Ok(());
        }
        let file: File = serde_json::from_str(text).map_err(|error| refused(FILE, error.to_string()))?;
        if file.version != "1" {
            return Err(refused(FILE, format!("it has version {:?}; this program reads \"1\"", file.version)));
        }
        let urls =
            file.content.iter().map(|url| url.parse().map_err(|error| refused(FILE, format!("{url:?}: {error}"))));
        self.cache = urls.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Reads `anchored_packages.json`: sets of unpinned URLs with hashes. An empty file lists nothing; what else a package
    /// says is passed over.
    ///
    /// # Errors
    /// An unknown set, a URL that is pinned or listed twice, or what else is wrong.
    pub fn read_anchored_packages(&mut self, bytes: &[u8]) -> Result<(), ImageFileError> {
        #[derive(Deserialize)]
        struct Package {
            hash: BlobId,
        }
        const FILE: &str = "anchored_packages.json";
        let text = text(FILE, bytes)?;
        self.anchored.clear();
        if text.is_empty() {
            return Ok(());
        }
        let sets: UniqueMap<UniqueMap<Package>> =
            serde_json::from_str(text).map_err(|error| refused(FILE, error.to_string()))?;
        let mut seen = BTreeSet::new();
        for (name, packages) in sets.0 {
            let availability = match &*name {
                "anchored_permanent" => Availability::Permanent,
                "anchored_automatic" => Availability::Automatic,
                "anchored_on_demand" => Availability::OnDemand,
                other => return Err(refused(FILE, format!("there is no anchored package set {other:?}"))),
            };
            for (text, Package { hash }) in packages.0 {
                let url: UnpinnedPackageUrl =
                    text.parse().map_err(|error| refused(FILE, format!("{text:?}: {error}")))?;
                if !seen.insert((availability, key(&url))) {
                    return Err(refused(FILE, format!("{text} is listed twice")));
                }
                self.anchored.entry(availability).or_default().insert(url, hash);
            }
        }
        Ok(())
    }
}

/// An object in which no name comes twice, which JSON readers would pass over.
struct UniqueMap<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = UniqueMap<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut seen, mut items) = (BTreeSet::new(), Vec::new());
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    if !seen.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format_args!("{name:?} is listed twice")));
                    }
                    items.push((name, value));
                }
                Ok(UniqueMap(items))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}
