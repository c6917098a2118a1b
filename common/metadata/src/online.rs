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

    /// What it lists may be thousands of files: they are read without a tree.
    fn read_meta(reader: &mut Reader<'_>) -> Result<BTreeMap<String, FileMeta>, ReadError> {
        if !reader.is_object() {
            return Err(malformed("meta of signed is not an object").into());
        }
        let mut meta = Vec::new();
        reader.object(|reader, key| {
            let name = reader.text(key).into_owned();
            let listed = read_file_meta(reader, &name)?;
            meta.push((name, listed));
            Ok::<_, ReadError>(())
        })?;
        Ok(meta.into_iter().collect())
    }
}

/// METAFILES of one file, §4.4. Most say a version and nothing else.
fn read_file_meta(reader: &mut Reader<'_>, name: &str) -> Result<FileMeta, ReadError> {
    let of = format!("{name} of meta");
    if !reader.is_object() {
        return Err(malformed(format!("{of} is not an object")).into());
    }
    let mut fields = Map::new();
    let mut version = None;
    reader.object(|reader, key| {
        match &*reader.text(key) {
            "version" => version = Some(reader.value()?),
            other => _ = fields.insert(other.to_owned(), reader.value()?),
        }
        Ok::<_, ReadError>(())
    })?;
    let plain = version.as_ref().and_then(|version| u32::try_from(version.as_u64()?).ok()).filter(|number| *number > 0);
    if let Some(version) = plain.filter(|_| fields.is_empty()) {
        return Ok(FileMeta { version, length: None, hashes: None });
    }
    fields.extend(version.map(|version| ("version".to_owned(), version)));
    Ok(Fields { map: &fields, of }.file_meta()?)
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
        let (mut meta, mut rest) = (None, Map::new());
        reader.object(|reader, key| {
            match &*reader.text(key) {
                "meta" => meta = Some(Self::read_meta(reader)?),
                name @ ("_type" | "spec_version" | "version" | "expires" | "custom") => {
                    _ = rest.insert(name.to_owned(), reader.value()?);
                }
                _ => _ = reader.skip()?,
            }
            Ok::<_, ReadError>(())
        })?;
        let Header { version, expires, .. } = header(&rest, Role::Snapshot)?;
        let meta = meta.ok_or_else(|| malformed("signed has no meta"))?;
        if !meta.contains_key(Role::Targets.file()) {
            return Err(malformed("meta has no targets.json").into());
        }
        let custom = rest.remove("custom").unwrap_or(Value::Null);
        Ok(Self { version, expires, meta, custom })
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}
