//! [`Targets`]: what exists, and to whom more is delegated (specification §4.5).
//!
//! A repository may list a hundred thousand targets. They are checked in the one pass over the file, and then kept as places in
//! its bytes, 16 bytes each; a description is decoded when it is asked for.

use std::fmt;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use serde_json::{Map, Value};

use crate::delegations::Delegations;
use crate::error::Rule;
use crate::fields::{Header, header, malformed};
use crate::json::{Reader, Span, content_at};
use crate::role::{Document, ReadError, Role};
use crate::target::{RawTarget, TargetDescription, TargetName};

/// A targets role, at the top or delegated.
#[derive(Clone)]
pub struct Targets {
    version: u32,
    expires: UnixSeconds,
    file: Bytes,
    /// In order of names.
    index: Box<[Entry]>,
    delegations: Option<Delegations>,
    custom: Value,
}

/// Where one target lies in the file: the inside of the name's quotes, and the description.
#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Span,
    description: Span,
}

impl Targets {
    /// Version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// When it expires.
    pub fn expires(&self) -> UnixSeconds {
        self.expires
    }

    /// How many targets this role itself lists.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether this role itself lists none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What this role itself says about `name`.
    pub fn get(&self, name: &TargetName) -> Option<TargetDescription> {
        let found = self.index.binary_search_by(|entry| (*content_at(&self.file, entry.name)).cmp(name.as_str()));
        found.ok().and_then(|at| self.describe(self.index[at]))
    }

    /// The targets that this role itself lists, in order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (TargetName, TargetDescription)> + '_ {
        self.index.iter().map(|entry| {
            let decoded = content_at(&self.file, entry.name).parse().ok().zip(self.describe(*entry));
            decoded.unwrap_or_else(|| unreachable!("every target was checked when the file was read"))
        })
    }

    /// Whom this role entrusts with more.
    pub fn delegations(&self) -> Option<&Delegations> {
        self.delegations.as_ref()
    }

    /// `custom`, as signed; null if absent. Not of the specification, but signed like the rest.
    pub fn custom(&self) -> &Value {
        &self.custom
    }

    fn describe(&self, entry: Entry) -> Option<TargetDescription> {
        let mut reader = Reader::new(&self.file[entry.description.range()]).ok()?;
        let raw = RawTarget::read(&mut reader).ok()?;
        raw.decode(&reader).ok()
    }

    fn read_index(reader: &mut Reader<'_>, file: &Bytes) -> Result<Box<[Entry]>, ReadError> {
        if !reader.is_object() {
            return Err(malformed("targets of signed is not an object").into());
        }
        let mut index = Vec::new();
        let in_order = reader.object(|reader, key| {
            let name = reader.text(key);
            if let Err(reason) = TargetName::check(&name) {
                return Err(Rule::TargetName { name: name.into_owned(), reason }.into());
            }
            let start = reader.at();
            RawTarget::read(reader).map_err(|error| match error {
                ReadError::Rule(Rule::Malformed(text)) => malformed(format!("target {name}: {text}")).into(),
                other => other,
            })?;
            let description = Span { start, end: reader.at() };
            index.push(Entry { name: Span { start: key.start, end: key.end }, description });
            Ok::<_, ReadError>(())
        })?;
        if !in_order {
            index.sort_by(|left: &Entry, right| content_at(file, left.name).cmp(&content_at(file, right.name)));
        }
        Ok(index.into_boxed_slice())
    }
}

impl Document for Targets {
    const ROLE: Role = Role::Targets;

    fn read(reader: &mut Reader<'_>, file: &Bytes) -> Result<Self, ReadError> {
        let (mut index, mut rest) = (None, Map::new());
        reader.object(|reader, key| {
            match &*reader.text(key) {
                "targets" => index = Some(Self::read_index(reader, file)?),
                name @ ("_type" | "spec_version" | "version" | "expires" | "delegations" | "custom") => {
                    _ = rest.insert(name.to_owned(), reader.value()?);
                }
                _ => _ = reader.skip()?,
            }
            Ok::<_, ReadError>(())
        })?;
        let Header { version, expires, .. } = header(&rest, Role::Targets)?;
        let index = index.ok_or_else(|| malformed("signed has no targets"))?;
        let delegations = rest.get("delegations").map(Delegations::from_json).transpose()?;
        let custom = rest.remove("custom").unwrap_or(Value::Null);
        Ok(Self { version, expires, file: file.clone(), index, delegations, custom })
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn expires(&self) -> UnixSeconds {
        self.expires
    }
}

impl fmt::Debug for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Targets");
        shown.field("version", &self.version).field("expires", &self.expires).field("targets", &self.len());
        shown.field("delegations", &self.delegations).finish_non_exhaustive()
    }
}
