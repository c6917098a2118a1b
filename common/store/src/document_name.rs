//! [`DocumentName`]: a relative name that cannot leave its folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::StoreError;
use crate::limits::{DOCUMENT_NAME_BYTES_MAX, DOCUMENT_NAME_PART_BYTES_MAX};

/// The folder of files not yet published, and its lock; no document lies in it.
pub(crate) const TEMP_FOLDER: &str = ".colibri-temp";

/// The name of a document: parts separated by `/`, none of them empty, `.`, `..` or too long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentName(String);

impl DocumentName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, StoreError> {
        let refuse = |reason| Err(StoreError::BadName { name: name.chars().take(100).collect(), reason });
        if name.len() > DOCUMENT_NAME_BYTES_MAX {
            return refuse("it is too long");
        }
        // A backslash is a letter like others to the systems this runs on, and names of TUF targets may have one.
        if name.chars().any(char::is_control) {
            return refuse("it has a control character");
        }
        for part in name.split('/') {
            match part {
                "" => return refuse("a part between slashes is empty"),
                "." | ".." => return refuse("`.` and `..` are not allowed"),
                TEMP_FOLDER => return refuse("this folder holds unfinished files"),
                part if part.len() > DOCUMENT_NAME_PART_BYTES_MAX => {
                    return refuse("a part between slashes is too long");
                }
                _ => {}
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the document lies, below `dir`.
    pub(crate) fn below(&self, dir: &Path) -> PathBuf {
        dir.join(&self.0)
    }
}

impl FromStr for DocumentName {
    type Err = StoreError;

    fn from_str(name: &str) -> Result<Self, StoreError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for DocumentName {
    type Error = StoreError;

    fn try_from(name: &str) -> Result<Self, StoreError> {
        Self::new(name)
    }
}

impl fmt::Display for DocumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traversal_cannot_be_said() {
        for good in ["a", "1.root.json", "targets/pkg/0", "a..b/...", "blobs/1/ab", "ü/ñ", "a\\b", "..\\a"] {
            assert_eq!(DocumentName::new(good).unwrap().as_str(), good);
        }
        let long = "a/".repeat(DOCUMENT_NAME_BYTES_MAX / 2) + "a";
        let wide = "a".repeat(DOCUMENT_NAME_PART_BYTES_MAX + 1);
        for bad in ["", "/", "/etc", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\0b", "a\nb", &long, &wide] {
            assert!(matches!(DocumentName::new(bad), Err(StoreError::BadName { .. })), "{bad:?}");
        }
        assert!(DocumentName::new(".colibri-temp/1").is_err());
    }
}
