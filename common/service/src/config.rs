//! [`load`]: one value made of defaults < TOML file < environment < flags, with every mistake told at once.
//!
//! A key that the defaults do not have is a mistake, wherever it was set. Where a default is empty (a map without entries,
//! a `None`), the type itself judges what stands there; give such types `deny_unknown_fields`.

mod layers;
mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use figment::value::{Dict, Tag, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::CONFIG_MISTAKES_MAX;
use layers::Layer;
pub use report::{ConfigError, ConfigErrors};

/// Exit code of a process whose configuration is bad.
pub const EXIT_BAD_CONFIGURATION: u8 = 64;

/// Where configuration may come from, beside the defaults of its type.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file; it must exist if it is named.
    pub file: Option<PathBuf>,
    /// Prefix of environment variables, such as `COLIBRI_EDGE_`; empty reads none. `COLIBRI_EDGE_LIMITS__STREAMS=9` sets
    /// `limits.streams`.
    pub environment_prefix: String,
    /// An object of the flags that were given; null means not given.
    pub overrides: serde_json::Value,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The program itself.
    Default,
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The command line.
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("command line"),
        }
    }
}

/// A configuration and where each part of it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// Source of every key that is not a default, by dotted path.
    pub sources: BTreeMap<String, Source>,
}

impl<T: Serialize> Loaded<T> {
    /// The effective configuration, one `key = value  # source` a line. Values of keys that end in `token`, `secret` or
    /// `password` are not shown.
    pub fn describe(&self) -> String {
        report::describe(&self.value, &self.sources)
    }
}

/// Reads all layers, with the environment of this process.
///
/// # Errors
/// [`ConfigErrors`] lists every mistake, each with its key, its source and what would be right.
pub fn load<T>(sources: Sources) -> Result<Loaded<T>, ConfigErrors>
where
    T: DeserializeOwned + Serialize + Default,
{
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_with(sources, environment)
}

/// Like [`load`], with another environment.
///
/// # Errors
/// As [`load`].
pub fn load_with<T>(
    sources: Sources,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigErrors>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut mistakes = Vec::new();
    let defaults = match Value::serialize(T::default()) {
        Ok(Value::Dict(_, defaults)) => defaults,
        Ok(_) => Dict::new(),
        Err(error) => return Err(ConfigErrors(vec![ConfigError::whole(Source::Default, error.to_string())])),
    };
    let mut settings = BTreeMap::new();
    for layer in layers::all(sources, environment, &mut mistakes) {
        walk(&mut Vec::new(), &layer.dict, &defaults, &layer, &mut settings, &mut mistakes);
    }
    for (path, setting) in &mut settings {
        if let Err(reason) = setting.settle::<T>(path, &defaults) {
            mistakes.push(ConfigError { key: path.join("."), source: setting.source.clone(), reason });
        }
    }
    if !mistakes.is_empty() {
        mistakes.truncate(CONFIG_MISTAKES_MAX);
        return Err(ConfigErrors(mistakes));
    }
    let mut whole = defaults;
    for (path, setting) in &settings {
        put(&mut whole, path, setting.value.clone());
    }
    let value = Value::Dict(Tag::Default, whole).deserialize::<T>().map_err(|error| {
        let blamed = settings.values().map(|setting| setting.source.clone()).max().unwrap_or(Source::Default);
        ConfigErrors(vec![ConfigError { key: error.path.join("."), source: blamed, reason: error.kind.to_string() }])
    })?;
    let sources = settings.into_iter().map(|(path, setting)| (path.join("."), setting.source)).collect();
    Ok(Loaded { value, sources })
}

/// One key that a layer sets; the last layer wins.
struct Setting {
    value: Value,
    /// The text of an environment variable, should its type turn out to be text.
    text: Option<String>,
    source: Source,
}

impl Setting {
    /// Checks the value alone on top of the defaults, so that each mistake shows by itself.
    fn settle<T: DeserializeOwned>(&mut self, path: &[String], defaults: &Dict) -> Result<(), String> {
        let fits = |value: &Value| {
            let mut alone = defaults.clone();
            put(&mut alone, path, value.clone());
            Value::Dict(Tag::Default, alone).deserialize::<T>().map(drop).map_err(|error| error.kind.to_string())
        };
        let Err(reason) = fits(&self.value) else { return Ok(()) };
        if let Some(text) = self.text.take().map(Value::from)
            && fits(&text).is_ok()
        {
            self.value = text;
            return Ok(());
        }
        Err(reason)
    }
}

/// Sorts the keys of a layer into settings and unknown ones.
fn walk(
    path: &mut Vec<String>,
    dict: &Dict,
    defaults: &Dict,
    layer: &Layer,
    settings: &mut BTreeMap<Vec<String>, Setting>,
    mistakes: &mut Vec<ConfigError>,
) {
    for (key, value) in dict {
        path.push(key.clone());
        match (defaults.get(key), value) {
            (None, _) => mistakes.push(ConfigError::unknown(path, layer.source.clone(), defaults)),
            (Some(Value::Dict(_, inner)), Value::Dict(_, given)) if !inner.is_empty() => {
                walk(path, given, inner, layer, settings, mistakes);
            }
            _ => {
                let value = match (settings.remove(path), value) {
                    (Some(Setting { value: Value::Dict(tag, mut below), .. }), Value::Dict(_, above)) => {
                        merge(&mut below, above);
                        Value::Dict(tag, below)
                    }
                    _ => value.clone(),
                };
                let setting = Setting { value, text: layer.text.clone(), source: layer.source.clone() };
                settings.insert(path.clone(), setting);
            }
        }
        path.pop();
    }
}

fn merge(below: &mut Dict, above: &Dict) {
    for (key, value) in above {
        match (below.get_mut(key), value) {
            (Some(Value::Dict(_, below)), Value::Dict(_, above)) => merge(below, above),
            _ => drop(below.insert(key.clone(), value.clone())),
        }
    }
}

fn put(dict: &mut Dict, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(dict.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let inner = dict.entry(first.clone()).or_insert_with(|| Value::Dict(Tag::Default, Dict::new()));
            if let Value::Dict(_, inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
