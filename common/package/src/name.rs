//! Names of packages (reference "Fuchsia formats" §3): name, variant, and the path `NAME/VARIANT`. One grammar for all.

use std::fmt;
use std::str::FromStr;

use crate::limits::NAME_BYTES_MAX;

/// Why a text is not a package name or variant; the names are Fuchsia's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// No characters.
    #[error("it is empty")]
    Empty,
    /// Too many bytes.
    #[error("it has {0} bytes, over the limit of {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// Something other than `a-z`, `0-9`, `-`, `.` and `_`.
    #[error("it has the character '{}'; only a-z, 0-9, '-', '.' and '_' are allowed", .0.escape_debug())]
    InvalidCharacter(char),
    /// It is `.`.
    #[error("'.' is not a name")]
    DotSegment,
    /// It is `..`.
    #[error("'..' is not a name")]
    DotDotSegment,
}

pub(crate) fn check_segment(text: &str) -> Result<(), SegmentError> {
    if text.is_empty() {
        return Err(SegmentError::Empty);
    }
    if text.len() > NAME_BYTES_MAX as usize {
        return Err(SegmentError::TooLong(text.len()));
    }
    if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.' | '_')) {
        return Err(SegmentError::InvalidCharacter(bad));
    }
    match text {
        "." => Err(SegmentError::DotSegment),
        ".." => Err(SegmentError::DotDotSegment),
        _ => Ok(()),
    }
}

/// Defines a text newtype whose only way in is a checked `FromStr`, with text in and out for serde.
macro_rules! checked_text {
    ($(#[$docs:meta])* $name:ident, $check:path, $error:ty) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $error;

            fn try_from(text: String) -> Result<Self, $error> {
                $check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0)
            }
        }
    };
}
pub(crate) use checked_text;

checked_text!(
    /// A package's name: 1 to 255 bytes of `[0-9a-z-._]`, not `.` or `..`.
    PackageName,
    check_segment,
    SegmentError
);

checked_text!(
    /// A package's variant, same grammar as the name. Deprecated upstream: absent means `0`, new packages must use `0`.
    PackageVariant,
    check_segment,
    SegmentError
);

impl PackageVariant {
    /// The variant `0`.
    pub fn zero() -> Self {
        Self("0".to_owned())
    }

    /// True for the variant `0`, the only one that new packages may have.
    pub fn is_zero(&self) -> bool {
        self.0 == "0"
    }
}

impl Default for PackageVariant {
    fn default() -> Self {
        Self::zero()
    }
}

/// `NAME/VARIANT`: how TUF targets and package indexes call a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackagePath {
    /// The name.
    pub name: PackageName,
    /// The variant.
    pub variant: PackageVariant,
}

/// Why a text is not a package path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackagePathError {
    /// It has not exactly one slash.
    #[error("a package path is NAME/VARIANT; this one has {0} segments")]
    Segments(usize),
    /// The name is wrong.
    #[error("package name: {0}")]
    InvalidName(SegmentError),
    /// The variant is wrong.
    #[error("package variant: {0}")]
    InvalidVariant(SegmentError),
}

impl PackagePath {
    /// The path of a name and a variant.
    pub const fn new(name: PackageName, variant: PackageVariant) -> Self {
        Self { name, variant }
    }
}

impl FromStr for PackagePath {
    type Err = PackagePathError;

    fn from_str(text: &str) -> Result<Self, PackagePathError> {
        let Some((name, variant)) = text.split_once('/').filter(|(_, variant)| !variant.contains('/')) else {
            return Err(PackagePathError::Segments(text.split('/').count()));
        };
        Ok(Self {
            name: name.parse().map_err(PackagePathError::InvalidName)?,
            variant: variant.parse().map_err(PackagePathError::InvalidVariant)?,
        })
    }
}

impl fmt::Display for PackagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_names() {
        for good in ["a", "0", "a-b_c.d", "...", ".a", &"x".repeat(255)] {
            assert_eq!(good.parse::<PackageName>().unwrap().as_str(), good);
        }
        let cases = [
            ("", SegmentError::Empty),
            (".", SegmentError::DotSegment),
            ("..", SegmentError::DotDotSegment),
            ("aB", SegmentError::InvalidCharacter('B')),
            ("a/b", SegmentError::InvalidCharacter('/')),
            ("a b", SegmentError::InvalidCharacter(' ')),
            ("é", SegmentError::InvalidCharacter('é')),
        ];
        for (bad, error) in cases {
            assert_eq!(bad.parse::<PackageVariant>(), Err(error), "{bad:?}");
        }
        assert_eq!("x".repeat(256).parse::<PackageName>(), Err(SegmentError::TooLong(256)));
        assert!(serde_json::from_str::<PackageName>("\"A\"").is_err());
    }

    #[test]
    fn package_paths_have_two_segments() {
        let path: PackagePath = "name/0".parse().unwrap();
        assert_eq!((path.to_string().as_str(), path.variant.is_zero()), ("name/0", true));
        assert_eq!("name".parse::<PackagePath>(), Err(PackagePathError::Segments(1)));
        assert_eq!("a/b/c".parse::<PackagePath>(), Err(PackagePathError::Segments(3)));
        assert_eq!("/0".parse::<PackagePath>(), Err(PackagePathError::InvalidName(SegmentError::Empty)));
        assert_eq!("a/..".parse::<PackagePath>(), Err(PackagePathError::InvalidVariant(SegmentError::DotDotSegment)));
    }
}
