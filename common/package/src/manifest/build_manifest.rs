//! Build manifests: which host file becomes which path of a package, as `dst=src` lines or as JSON.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::limits::MANIFEST_BYTES_MAX;
use crate::unique_map::unique_map;
use crate::{MetaPackage, PackageError};

const WHAT: &str = "build manifest";

/// Package path to host path. Paths are checked when the package is built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildManifest {
    /// Files inside meta.far; keys begin with `meta/`. [`MetaPackage::PATH`] is among them if the manifest has it.
    pub meta: BTreeMap<String, String>,
    /// Content blobs.
    pub contents: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: String,
    content: Content,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(rename = "/", default, deserialize_with = "unique_map")]
    contents: BTreeMap<String, String>,
    #[serde(rename = "/meta/", default, deserialize_with = "unique_map")]
    meta: BTreeMap<String, String>,
}

impl BuildManifest {
    /// Parses either form: text whose first visible character is `{` is JSON. `same_content` says whether two host files
    /// have the same bytes; it is asked about destinations that lines give twice.
    pub fn parse(bytes: &[u8], same_content: impl FnMut(&str, &str) -> bool) -> Result<Self, PackageError> {
        PackageError::check_size(WHAT, bytes.len(), MANIFEST_BYTES_MAX)?;
        let text = std::str::from_utf8(bytes).map_err(|_| PackageError::NotUtf8 { what: WHAT.to_owned() })?;
        if text.trim_start().starts_with('{') { Self::parse_json(text) } else { Self::parse_lines(text, same_content) }
    }

    /// `PKG_PATH=HOST_PATH` per line, split at the first `=`, both sides trimmed; lines without `=` are ignored.
    fn parse_lines(text: &str, mut same_content: impl FnMut(&str, &str) -> bool) -> Result<Self, PackageError> {
        let mut manifest = Self::default();
        for (path, source) in text.lines().filter_map(|line| line.split_once('=')) {
            let (path, source) = (path.trim(), source.trim());
            let map = if path.starts_with("meta/") { &mut manifest.meta } else { &mut manifest.contents };
            match map.get(path) {
                Some(known) if known != source && !same_content(known, source) => {
                    return Err(PackageError::DuplicatePath(path.to_owned()));
                }
                Some(_) => {}
                None => {
                    map.insert(path.to_owned(), source.to_owned());
                }
            }
        }
        Ok(manifest)
    }

    fn parse_json(text: &str) -> Result<Self, PackageError> {
        let wire: Wire = serde_json::from_str(text).map_err(PackageError::json(WHAT))?;
        if wire.version != "1" {
            return Err(PackageError::Version { what: WHAT, found: wire.version });
        }
        let meta = wire.content.meta.into_iter().map(|(path, source)| (format!("meta/{path}"), source)).collect();
        Ok(Self { meta, contents: wire.content.contents })
    }

    /// Takes out the host path of `meta/package`, from which a build reads the package's name.
    pub fn take_meta_package(&mut self) -> Result<String, PackageError> {
        self.meta.remove(MetaPackage::PATH).ok_or(PackageError::MissingFile(MetaPackage::PATH))
    }
}
