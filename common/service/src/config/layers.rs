//! Reading the layers, without judging what they say.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use figment::providers::{Format, Toml};
use figment::value::{Dict, Tag, Value};

use super::{ConfigError, Source, Sources};
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// What one source sets.
pub(super) struct Layer {
    pub(super) dict: Dict,
    pub(super) text: Option<String>,
    pub(super) source: Source,
}

/// All layers above the defaults, lowest first. Each environment variable is a layer of its own.
pub(super) fn all(
    sources: Sources,
    environment: impl IntoIterator<Item = (String, String)>,
    mistakes: &mut Vec<ConfigError>,
) -> Vec<Layer> {
    let mut layers = Vec::new();
    if let Some(path) = sources.file {
        let read = read_file(&path);
        let source = Source::File(path);
        match read {
            Ok(dict) => layers.push(Layer { dict, text: None, source }),
            Err(reason) => mistakes.push(ConfigError::whole(source, reason)),
        }
    }
    if !sources.environment_prefix.is_empty() {
        let mut variables: Vec<_> = environment.into_iter().collect();
        variables.sort();
        layers
            .extend(variables.into_iter().filter_map(|(name, text)| variable(&sources.environment_prefix, name, text)));
    }
    match Value::serialize(without_nulls(sources.overrides)) {
        Ok(Value::Dict(_, dict)) => layers.push(Layer { dict, text: None, source: Source::Flag }),
        Ok(Value::Empty(..)) => {}
        _ => mistakes.push(ConfigError::whole(Source::Flag, "flags are not an object".to_owned())),
    }
    layers
}

fn read_file(path: &Path) -> Result<Dict, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let read = file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if read.map_err(|error| format!("cannot be read: {error}"))? as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(format!("has more than {CONFIG_FILE_BYTES_MAX} bytes"));
    }
    Toml::from_str(&text)
        .map_err(|error| format!("is not valid TOML: {}", error.to_string().trim_end().replace('\n', " ")))
}

fn variable(prefix: &str, name: String, text: String) -> Option<Layer> {
    let path = name.strip_prefix(prefix)?.to_lowercase();
    let value: Value = text.parse().unwrap_or_else(|_| Value::from(text.clone()));
    let mut keys = path.rsplit("__");
    let mut dict = Dict::from([(keys.next()?.to_owned(), value)]);
    for key in keys {
        dict = Dict::from([(key.to_owned(), Value::Dict(Tag::Default, dict))]);
    }
    Some(Layer { dict, text: Some(text), source: Source::Environment(name) })
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(object) => serde_json::Value::Object(
            object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        other => other,
    }
}
