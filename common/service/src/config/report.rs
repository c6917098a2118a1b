//! Telling people about configuration: all mistakes, or all effective values.

use std::collections::BTreeMap;
use std::fmt;

use figment::value::Dict;
use serde::Serialize;

use super::Source;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Dotted path of the key; empty if the whole source is at fault.
    pub key: String,
    /// Where the mistake was made.
    pub source: Source,
    /// What is wrong and, where it helps, what would be right.
    pub reason: String,
}

impl ConfigError {
    pub(super) fn whole(source: Source, reason: String) -> Self {
        Self { key: String::new(), source, reason }
    }

    pub(super) fn unknown(path: &[String], source: Source, known: &Dict) -> Self {
        let known: Vec<&str> = known.keys().map(String::as_str).collect();
        Self { key: path.join("."), source, reason: format!("unknown key; known here: {}", known.join(", ")) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.reason),
            key => write!(f, "{key} ({}): {}", self.source, self.reason),
        }
    }
}

/// Every mistake of a configuration; never empty. Exit with [`super::EXIT_BAD_CONFIGURATION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "bad configuration: {one}"),
            many => {
                write!(f, "bad configuration, {} mistakes:", many.len())?;
                many.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// See [`super::Loaded::describe`].
pub(super) fn describe(value: &impl Serialize, sources: &BTreeMap<String, Source>) -> String {
    let mut lines = Vec::new();
    match serde_json::to_value(value) {
        Ok(value) => flatten("", &value, sources, &Source::Default, &mut lines),
        Err(error) => lines.push(format!("# cannot be shown: {error}")),
    }
    lines.push(String::new());
    lines.join("\n")
}

fn flatten(
    path: &str,
    value: &serde_json::Value,
    sources: &BTreeMap<String, Source>,
    above: &Source,
    lines: &mut Vec<String>,
) {
    let source = sources.get(path).unwrap_or(above);
    match value {
        serde_json::Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, sources, source, lines);
            }
        }
        _ if ["token", "secret", "password"].iter().any(|ending| path.ends_with(ending)) && !value.is_null() => {
            lines.push(format!("{path} = (not shown)  # {source}"));
        }
        serde_json::Value::Null => lines.push(format!("{path} is not set  # {source}")),
        value => lines.push(format!("{path} = {value}  # {source}")),
    }
}
