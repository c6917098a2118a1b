//! `meta/contents`: which blob each content path of a package is.

use std::collections::BTreeMap;

use colibri_common::BlobId;

use crate::limits::META_CONTENTS_BYTES_MAX;
use crate::resource_path::collision;
use crate::{PackageError, ResourcePath};

/// The content of `meta/contents`: path to blob. Paths obey the grammar, are not in `meta` and do not collide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetaContents(BTreeMap<ResourcePath, BlobId>);

impl MetaContents {
    /// Where it lies in meta.far.
    pub const PATH: &'static str = "meta/contents";

    /// Checks a map of paths.
    pub fn new(contents: BTreeMap<ResourcePath, BlobId>) -> Result<Self, PackageError> {
        if let Some(path) = contents.keys().find(|path| is_in_meta(path.as_str())) {
            return Err(PackageError::PathInMeta(path.to_string()));
        }
        if let Some(path) = collision(contents.keys().map(ResourcePath::as_str)) {
            return Err(PackageError::Collision(path.to_owned()));
        }
        Ok(Self(contents))
    }

    /// Parses the file: one `PATH=HASH` per line, split at the last `=`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PackageError> {
        PackageError::check_size(Self::PATH, bytes.len(), META_CONTENTS_BYTES_MAX)?;
        let not_utf8 = |_| PackageError::NotUtf8 { what: Self::PATH.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(not_utf8)?;
        let mut contents = BTreeMap::new();
        for (index, line) in text.split_terminator('\n').enumerate() {
            let at = |reason: String| PackageError::ContentsLine { line: index + 1, reason };
            let (path, hash) =
                line.trim_end().rsplit_once('=').ok_or_else(|| at("it has no '='; write PATH=HASH".to_owned()))?;
            let path: ResourcePath = path.parse().map_err(|error| at(format!("{error}")))?;
            let hash: BlobId = hash.parse().map_err(|error| at(format!("{error}")))?;
            if contents.insert(path, hash).is_some() {
                return Err(at("its path was listed before".to_owned()));
            }
        }
        Self::new(contents)
    }

    /// The file, sorted by path.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(|(path, hash)| format!("{path}={hash}\n")).collect::<String>().into_bytes()
    }

    /// Path to blob, sorted.
    pub const fn as_map(&self) -> &BTreeMap<ResourcePath, BlobId> {
        &self.0
    }
}

pub(crate) fn is_in_meta(path: &str) -> bool {
    path == "meta" || path.starts_with("meta/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "15ec7bf0b50732b49f8228e07d24365338f9e3ab994b00af08e5a3bffe55fd8b";

    #[test]
    fn lines_are_split_at_the_last_equals_sign() {
        let text = format!("a=b={HASH}\nlib/x.so={HASH}\n");
        let contents = MetaContents::parse(text.as_bytes()).unwrap();
        assert_eq!(contents.as_map().keys().map(ResourcePath::as_str).collect::<Vec<_>>(), ["a=b", "lib/x.so"]);
        assert_eq!(contents.to_bytes(), text.as_bytes());
        assert_eq!(MetaContents::parse(b"").unwrap(), MetaContents::default());
        let loose = format!("lib/x.so={HASH} \r\na=b={HASH}");
        assert_eq!(MetaContents::parse(loose.as_bytes()).unwrap(), contents);
    }

    #[test]
    fn malformed_lines_are_named() {
        let line = |text: &str| match MetaContents::parse(text.as_bytes()).unwrap_err() {
            PackageError::ContentsLine { line, .. } => line,
            other => panic!("{other}"),
        };
        assert_eq!(line(&format!("a={HASH}\n\nb={HASH}\n")), 2);
        assert_eq!(line(&format!("a={HASH}\nb")), 2);
        assert_eq!(line("a=00\n"), 1);
        assert_eq!(line(&format!("a={}\n", HASH.to_uppercase())), 1);
        assert_eq!(line(&format!("a={HASH}\na={HASH}\n")), 2);
        assert_eq!(line(&format!("../a={HASH}\n")), 1);
        assert_eq!(line(&format!("={HASH}\n")), 1);
        let error = |text: String| MetaContents::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error(format!("meta/x={HASH}\n")), PackageError::PathInMeta("meta/x".into()));
        assert_eq!(error(format!("meta={HASH}\n")), PackageError::PathInMeta("meta".into()));
        assert_eq!(error(format!("foo={HASH}\nfoo/bar={HASH}\n")), PackageError::Collision("foo".into()));
        assert!(matches!(MetaContents::parse(b"\xff"), Err(PackageError::NotUtf8 { .. })));
    }
}
