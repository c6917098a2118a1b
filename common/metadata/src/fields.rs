//! Reading the fields of small JSON objects, with errors that name the field and what it belongs to.

use colibri_common::UnixSeconds;
use serde_json::{Map, Value};

use crate::error::Rule;
use crate::role::{FileMeta, Role};
use crate::target::Hashes;
use crate::utc;

pub(crate) fn malformed(text: impl Into<String>) -> Rule {
    Rule::Malformed(text.into())
}

/// One object and how to call it in an error.
pub(crate) struct Fields<'a> {
    pub map: &'a Map<String, Value>,
    pub of: String,
}

impl<'a> Fields<'a> {
    pub fn new(value: &'a Value, of: impl Into<String>) -> Result<Self, Rule> {
        let of = of.into();
        match value.as_object() {
            Some(map) => Ok(Self { map, of }),
            None => Err(malformed(format!("{of} is not an object"))),
        }
    }

    pub fn get<T>(&self, name: &str, what: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, Rule> {
        let value = self.map.get(name).ok_or_else(|| malformed(format!("{} has no {name}", self.of)))?;
        read(value).ok_or_else(|| malformed(format!("{name} of {} is not {what}", self.of)))
    }

    pub fn object(&self, name: &str) -> Result<Fields<'a>, Rule> {
        let map = self.get(name, "an object", Value::as_object)?;
        Ok(Fields { map, of: format!("{name} of {}", self.of) })
    }

    pub fn text(&self, name: &str) -> Result<&'a str, Rule> {
        self.get(name, "a string", Value::as_str)
    }

    /// A list of strings, or nothing if the field is absent.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, Rule> {
        if !self.map.contains_key(name) {
            return Ok(None);
        }
        let list = |value: &'a Value| value.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
        self.get(name, "a list of strings", list).map(Some)
    }

    pub fn at_least_one(&self, name: &str, what: &str) -> Result<u32, Rule> {
        let read = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|number| *number > 0);
        self.get(name, what, read)
    }

    fn version(&self) -> Result<u32, Rule> {
        self.at_least_one("version", "an integer from 1 to 4294967295")
    }

    /// METAFILES, §4.4.
    pub fn file_meta(&self) -> Result<FileMeta, Rule> {
        let optional_length = match self.map.get("length") {
            None => None,
            Some(_) => Some(self.get("length", "a length in bytes", Value::as_u64)?),
        };
        let hashes = self.map.get("hashes").map(Hashes::from_json).transpose();
        let hashes = hashes.map_err(|e| malformed(format!("{}: {e}", self.of)))?;
        Ok(FileMeta { version: self.version()?, length: optional_length, hashes })
    }
}

/// What every role begins with, §4.2.
pub(crate) struct Header<'a> {
    pub fields: Fields<'a>,
    pub version: u32,
    pub expires: UnixSeconds,
}

/// Checks `_type` and `spec_version`; gives the fields with version and expiry.
pub(crate) fn header(signed: &Map<String, Value>, role: Role) -> Result<Header<'_>, Rule> {
    let fields = Fields { map: signed, of: "signed".into() };
    let kind = fields.text("_type")?;
    if kind != role.name() {
        return Err(Rule::WrongType(kind.to_owned()));
    }
    let spec = fields.text("spec_version")?;
    let mut parts = spec.split('.');
    let numeric = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
    if parts.next() != Some("1") || !parts.clone().all(numeric) || parts.count() > 2 {
        return Err(Rule::SpecVersion(spec.to_owned()));
    }
    let version = fields.version()?;
    let expires = fields.get("expires", "a date like 2026-01-31T00:00:00Z", |v| utc::parse(v.as_str()?))?;
    Ok(Header { fields, version, expires })
}
