//! [`ResourcePath`]: the path of a file inside a package, safe to join to a directory, and collisions between such paths.

use std::fmt;
use std::str::FromStr;

use crate::limits::RESOURCE_SEGMENT_BYTES_MAX;
use crate::name::checked_text;

/// Why a text is not a resource path; the names are Fuchsia's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourcePathError {
    /// No characters.
    #[error("the path is empty")]
    PathIsEmpty,
    /// It begins with `/`.
    #[error("the path begins with '/'")]
    PathStartsWithSlash,
    /// It ends with `/`.
    #[error("the path ends with '/'")]
    PathEndsWithSlash,
    /// Two slashes in a row.
    #[error("a segment of the path is empty")]
    NameEmpty,
    /// A segment has too many bytes.
    #[error("a segment of the path is over the limit of {RESOURCE_SEGMENT_BYTES_MAX} bytes")]
    NameTooLong,
    /// A zero byte.
    #[error("the path has a zero byte")]
    NameContainsNull,
    /// The segment `.`.
    #[error("a segment of the path is '.'")]
    NameIsDot,
    /// The segment `..`.
    #[error("a segment of the path is '..'")]
    NameIsDotDot,
    /// A line feed, which `meta/contents` cannot express.
    #[error("the path has a line feed")]
    NameContainsNewline,
}

/// Checks a resource path: relative, no empty, `.` or `..` segment, no zero byte, no line feed, segments up to 255 bytes.
pub fn check_resource_path(path: &str) -> Result<(), ResourcePathError> {
    if path.is_empty() {
        return Err(ResourcePathError::PathIsEmpty);
    }
    if path.starts_with('/') {
        return Err(ResourcePathError::PathStartsWithSlash);
    }
    if path.ends_with('/') {
        return Err(ResourcePathError::PathEndsWithSlash);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(ResourcePathError::NameEmpty),
            "." => return Err(ResourcePathError::NameIsDot),
            ".." => return Err(ResourcePathError::NameIsDotDot),
            long if long.len() > RESOURCE_SEGMENT_BYTES_MAX as usize => return Err(ResourcePathError::NameTooLong),
            null if null.contains('\0') => return Err(ResourcePathError::NameContainsNull),
            line if line.contains('\n') => return Err(ResourcePathError::NameContainsNewline),
            _ => {}
        }
    }
    Ok(())
}

checked_text!(
    /// The path of a file inside a package.
    ResourcePath,
    check_resource_path,
    ResourcePathError
);

/// The first path that is also a directory of another one in the sorted list, e.g. `foo` with `foo/bar`.
pub(crate) fn collision<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let files: std::collections::BTreeSet<&str> = paths.clone().collect();
    paths
        .flat_map(|path| path.match_indices('/').map(move |(at, _)| &path[..at]))
        .find(|directory| files.contains(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_resource_paths() {
        for good in ["a", "a/b", "meta/x.cm", " ", "☺", &"x".repeat(255), "x/".repeat(2000).trim_end_matches('/')] {
            assert!(good.parse::<ResourcePath>().is_ok(), "{good:?}");
        }
        let cases = [
            ("", ResourcePathError::PathIsEmpty),
            ("/a", ResourcePathError::PathStartsWithSlash),
            ("a/", ResourcePathError::PathEndsWithSlash),
            ("a//b", ResourcePathError::NameEmpty),
            ("./a", ResourcePathError::NameIsDot),
            ("a/../b", ResourcePathError::NameIsDotDot),
            ("a\0", ResourcePathError::NameContainsNull),
            ("a\nb", ResourcePathError::NameContainsNewline),
        ];
        for (bad, error) in cases {
            assert_eq!(bad.parse::<ResourcePath>(), Err(error), "{bad:?}");
        }
        assert_eq!("x".repeat(256).parse::<ResourcePath>(), Err(ResourcePathError::NameTooLong));
    }

    #[test]
    fn a_file_is_not_a_directory() {
        assert_eq!(collision(["foo", "foo-bar", "foo/bar"].into_iter()), Some("foo"));
        assert_eq!(collision(["a/b/c/d", "a/b"].into_iter()), Some("a/b"));
        assert_eq!(collision(["a/b", "a/c", "ab"].into_iter()), None);
    }
}
