//! [`PathPattern`] and [`HashPrefix`]: which targets a delegation covers (specification §4.5).

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

use crate::limits;
use crate::target::TargetName;

/// A PATHPATTERN: `*` stands for any characters and `?` for one, neither for `/`; everything else for itself. Case counts.
#[derive(Clone, PartialEq, Eq)]
pub struct PathPattern(String);

impl PathPattern {
    /// A pattern; nothing if it is too long.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() as u64 <= limits::PATH_PATTERN_BYTES_MAX).then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it covers `name`.
    pub fn matches(&self, name: &TargetName) -> bool {
        let (mut patterns, mut names) = (self.0.split('/'), name.as_str().split('/'));
        loop {
            match (patterns.next(), names.next()) {
                (None, None) => return true,
                (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathPattern({:?})", self.0)
    }
}

/// Matches one segment. When characters differ, the last star takes one more: earlier stars never need to be tried again,
/// so this takes at most the product of both lengths.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let (mut pattern, mut segment) = (pattern.chars(), segment.chars());
    // Behind the last star, and what it has left over.
    let mut star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let before = (pattern.clone(), segment.clone());
        match (pattern.next(), segment.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                segment = before.1;
                star = Some((pattern.clone(), segment.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            (_, _) => {
                let Some((after_star, left)) = &mut star else { return false };
                if left.next().is_none() {
                    return false;
                }
                (pattern, segment) = (after_star.clone(), left.clone());
            }
        }
    }
}

/// A PATH_HASH_PREFIX: covers the targets whose name's SHA-256 begins so in lower-case hex.
#[derive(Clone, PartialEq, Eq)]
pub struct HashPrefix(String);

impl HashPrefix {
    /// A prefix of up to 64 lower-case hex digits; the empty one covers everything.
    pub fn new(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (digits && text.len() <= 64).then(|| Self(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it covers the target whose name has this hash, see [`name_hash`], in hex.
    pub fn matches(&self, name_hash_hex: &str) -> bool {
        name_hash_hex.starts_with(&self.0)
    }
}

impl fmt::Debug for HashPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashPrefix({})", self.0)
    }
}

/// SHA-256 of a target's name: what hash prefixes and hash bins go by.
pub fn name_hash(name: &TargetName) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, name.as_str().as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        PathPattern::new(pattern).unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (pattern, name, expected) in [
            ("targets/*.tgz", "targets/foo.tgz", true),
            ("targets/*.tgz", "targets/bar.tgz", true),
            ("targets/*.tgz", "targets/foo.txt", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("foo-version-?.tgz", "foo-version-a.tgz", true),
            ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
            ("*.tgz", "foo.tgz", true),
            ("*.tgz", "targets/foo.tgz", false),
            ("foo.tgz", "foo.tgz", true),
            ("foo.tgz", "targets/foo.tgz", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn edges_of_patterns() {
        for (pattern, name) in [
            ("*", "a"),
            ("**", "a"),
            ("*/*", "a/b"),
            ("a*b*c", "abbbcc"),
            ("*ab", "aab"),
            ("a*", "a"),
            ("?", "é"),
            ("[a]", "[a]"),
            ("a\\b", "a\\b"),
            ("rollout/*", "rollout/x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("*", "a/b"),
            ("?", "ab"),
            ("a?", "a"),
            ("a*b", "acbd"),
            ("*ab", "aba"),
            ("a", "A"),
            ("[a]", "a"),
            ("/*", "a"),
            ("*/", "a"),
            ("a?b", "a/b"),
            ("a*b", "a/b"),
            ("rollout/*", "rollout"),
            ("rollout/*", "rollout/x/y"),
            ("rollout/*", "rollouts/x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    /// Against a matcher that is slow and obvious.
    #[test]
    fn agrees_with_a_plain_matcher() {
        fn plain(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.split_first(), name.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) => {
                    plain(rest, name) || (!name.is_empty() && name[0] != b'/' && plain(pattern, &name[1..]))
                }
                (Some((b'?', rest)), Some((byte, names))) => *byte != b'/' && plain(rest, names),
                (Some((wanted, rest)), Some((byte, names))) => wanted == byte && plain(rest, names),
                _ => false,
            }
        }
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..20_000 {
            let mut text = |letters: &[u8], max: usize| -> String {
                (0..random.usize(1..max)).map(|_| char::from(letters[random.usize(..letters.len())])).collect()
            };
            let (pattern, name) = (text(b"ab/*?*", 8), text(b"ab/ab", 10));
            if name.parse::<TargetName>().is_ok() {
                assert_eq!(matches(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn hash_prefixes() {
        let whole = colibri_common::hex(&name_hash(&"file1.txt".parse().unwrap()));
        for good in ["", &whole[..1], &whole[..7], &whole] {
            assert!(HashPrefix::new(good).unwrap().matches(&whole));
        }
        assert!(!HashPrefix::new(&whole[1..]).unwrap().matches(&whole));
        for bad in ["A", "g", " ", &"0".repeat(65)] {
            assert!(HashPrefix::new(bad).is_none());
        }
    }
}
