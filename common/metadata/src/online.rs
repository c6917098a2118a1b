//! [`Timestamp`] and [`Snapshot`], the roles that a server signs often (specification §4.4, §4.6).

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use serde_json::{Map, Value};

use crate::error::Rule;
use crate::fields::{Fields, Header, header, malformed};
use crate::json::Reader;
use crate::role::{Document, FileMeta, ReadError, Role, read_tree};

/// The timestamp role.
#[derive(Debug, Clone, PartialEq)]
pub struct Timestamp {
    version: u32,
    expires: UnixSeconds,
    snapshot: FileMeta,
}

/// The snapshot role.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    version: u32,
    expires: UnixSeconds,
    meta: BTreeMap<String, FileMeta>,
    custom: Value,
}

impl Timestamp {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// What it says about `snapshot.json`.
    pub fn snapshot(&self) -> &FileMeta {
        &self.snapshot
    }

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let Header { fields, version, expires } = header(signed, Role::Timestamp)?;
        let snapshot = fields.object("meta")?.object(Role::Snapshot.file())?.file_meta()?;
        Ok(Self { version, expires, snapshot })
    }
}

impl Snapshot {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// What it says about each targets file, by unnumbered file name; a delegated role under
    /// [`crate::RoleName::listed_as`].
    pub fn meta(&self) -> &BTreeMap<String, FileMeta> {
        &self.meta
    }

    /// `custom`, as signed; null if absent. Not of the specification, but signed like the rest.
    pub fn custom(&self) -> &Value {
        &self.custom
    }

    fn from_signed(signed: &Map<String, Value>) -> Result<Self, Rule> {
        let Header { fields, version, expires } = header(signed, Role::Snapshot)?;
        let listed = fields.object("meta")?;
        let mut meta = BTreeMap::new();
        for (name, value) in listed.map {
            meta.insert(name.clone(), Fields::new(value, format!("{name} of meta"))?.file_meta()?);
        }
        if !meta.contains_key(Role::Targets.file()) {
            return Err(malformed("meta has no targets.json"));
        }
        let custom = signed.get("custom").cloned().unwrap_or(Value::Null);
        Ok(Self { version, expires, meta, custom })
    }
}

impl Document for Timestamp {
    const ROLE: Role = Role::Timestamp;

    fn read(reader: &mut Reader<'_>, _: &Bytes) -> Result<Self, ReadError> {
        read_tree(reader, Self::from_signed)
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

impl Document for Snapshot {
    const ROLE: Role = Role::Snapshot;

    fn read(reader: &mut Reader<'_>, _: &Bytes) -> Result<Self, ReadError> {
        read_tree(reader, Self::from_signed)
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}
