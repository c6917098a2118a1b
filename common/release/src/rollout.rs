//! [`Rollout`]: a `rollout/*` target, and [`check_references`], the one check of what it refers to.
//!
//! The delegated role `rollout` has an online key. Whoever steals it may choose among the releases that targets lists, and
//! nothing else: device and origin both ask this function before they believe a rollout. Deliberately absent:
//! what the other fields mean, and whether the role signed the document (that is TUF's business).

use std::collections::HashMap;

use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{TargetName, Targets, TrustedSet, canonical};
use serde_json::{Map, Value};

use crate::limits::{ROLLOUT_BYTES_MAX, ROLLOUT_RELEASES_MAX};

/// The field that refers to releases.
const RELEASES: &str = "releases";

/// A rollout document whose references were checked. Made by [`check_references`] only.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    releases: Vec<BlobId>,
    rest: Map<String, Value>,
}

/// Why a rollout must not be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// Longer than the limit.
    #[error("a rollout has at most {ROLLOUT_BYTES_MAX} bytes; this one has {0}")]
    TooLarge(u64),
    /// Not strict JSON, or `releases` is not a list of package hashes.
    #[error("rollout: {0}")]
    Malformed(String),
    /// More references than the limit.
    #[error("a rollout refers to at most {ROLLOUT_RELEASES_MAX} releases; this one to {0}")]
    TooMany(u64),
    /// One release is listed twice.
    #[error("rollout: release {0} is listed twice")]
    Duplicate(BlobId),
    /// It refers to something that targets does not list.
    #[error("rollout: release {0} is not listed by targets: only the keys of targets can introduce a release")]
    NotListed(BlobId),
}

impl Rollout {
    /// Package hashes of the releases that it refers to, in its order.
    pub fn releases(&self) -> &[BlobId] {
        &self.releases
    }

    /// All other fields, which this version does not look into.
    pub const fn rest(&self) -> &Map<String, Value> {
        &self.rest
    }
}

/// Reads a `rollout/*` target and checks that `is_listed` holds for every release that it refers to. `is_listed` must say
/// whether targets, verified, lists a package of this hash ([`ListedPackages`] does): what a role of other keys lists does not
/// count, the rollout role's own entries least of all.
///
/// # Errors
/// Not a rollout, or the first hash at fault.
pub fn check_references(document: &[u8], mut is_listed: impl FnMut(BlobId) -> bool) -> Result<Rollout, RolloutError> {
    if document.len() as u64 > ROLLOUT_BYTES_MAX {
        return Err(RolloutError::TooLarge(document.len() as u64));
    }
    let malformed = |reason: &str| RolloutError::Malformed(reason.to_owned());
    // Strict: with two fields of one name, two readers could follow two rollouts.
    let value = canonical::parse(document).map_err(|error| RolloutError::Malformed(error.to_string()))?;
    let Value::Object(mut rest) = value else { return Err(malformed("it is not a JSON object")) };
    let listed = match rest.remove(RELEASES) {
        Some(Value::Array(listed)) => listed,
        Some(_) => return Err(malformed("`releases` is not a list")),
        None => return Err(malformed("it has no `releases`")),
    };
    if listed.len() as u64 > ROLLOUT_RELEASES_MAX {
        return Err(RolloutError::TooMany(listed.len() as u64));
    }
    let mut releases = Vec::with_capacity(listed.len());
    for item in listed {
        let hash: BlobId = match item.as_str().map(str::parse) {
            Some(Ok(hash)) => hash,
            Some(Err(error)) => return Err(RolloutError::Malformed(format!("`releases` has {item}: {error}"))),
            None => return Err(RolloutError::Malformed(format!("`releases` has {item}, not a package hash"))),
        };
        if releases.contains(&hash) {
            return Err(RolloutError::Duplicate(hash));
        }
        if !is_listed(hash) {
            return Err(RolloutError::NotListed(hash));
        }
        releases.push(hash);
    }
    Ok(Rollout { releases, rest })
}

/// What targets lists, for [`check_references`]: each package hash with a name under which it is listed.
#[derive(Debug, Clone, Default)]
pub struct ListedPackages(HashMap<BlobId, TargetName>);

impl ListedPackages {
    /// All packages that targets lists in a verified set: at the top, and in the delegated roles that it signs itself, as far
    /// as the set holds them and they have not expired at `now` ([`TrustedSet::own_targets`]). Roles of other keys do not
    /// count, whatever they list. Each description is decoded once.
    pub fn of(set: &TrustedSet, now: UnixSeconds) -> Self {
        let targets = set.own_targets(now).into_iter().flat_map(Targets::iter);
        Self(targets.filter_map(|(name, target)| Some((target.merkle()?, name))).collect())
    }

    /// Whether a package of this hash is listed.
    pub fn contains(&self, hash: BlobId) -> bool {
        self.0.contains_key(&hash)
    }

    /// A name under which it is listed.
    pub fn name_of(&self, hash: BlobId) -> Option<&TargetName> {
        self.0.get(&hash)
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::merkle;
    use serde_json::json;

    use super::*;

    fn id(text: &str) -> BlobId {
        merkle::build(text.as_bytes()).id
    }

    fn check(document: &Value) -> Result<Rollout, RolloutError> {
        let known = [id("one"), id("two")];
        check_references(&serde_json::to_vec(document).unwrap(), |hash| known.contains(&hash))
    }

    #[test]
    fn a_rollout_chooses_among_what_targets_lists() {
        let rollout = check(&json!({"releases": [id("two"), id("one")], "policy": {"permille": 10}})).unwrap();
        assert_eq!(rollout.releases(), [id("two"), id("one")]);
        assert_eq!(Value::Object(rollout.rest().clone()), json!({"policy": {"permille": 10}}));
        assert_eq!(check(&json!({"releases": []})).unwrap().releases(), []);
    }

    #[test]
    fn a_stolen_rollout_key_cannot_introduce_a_hash() {
        let foreign = id("three");
        for releases in [json!([foreign]), json!([id("one"), foreign]), json!([foreign, foreign])] {
            assert_eq!(check(&json!({"releases": releases})), Err(RolloutError::NotListed(foreign)), "{releases}");
        }
        // Said where it is not looked for: opaque, and therefore no reference.
        let hidden = json!({"releases": [id("one")], "Releases": [foreign], "next": {"releases": [foreign]}});
        assert_eq!(check(&hidden).unwrap().releases(), [id("one")]);
        // Said twice: another reader could take the other one.
        let twice = format!(r#"{{"releases":["{}"],"releases":["{foreign}"]}}"#, id("one"));
        assert!(matches!(check_references(twice.as_bytes(), |_| true), Err(RolloutError::Malformed(_))));
        let escaped = format!(r#"{{"releases":["{}"],"\u0072eleases":["{foreign}"]}}"#, id("one"));
        assert!(matches!(check_references(escaped.as_bytes(), |_| true), Err(RolloutError::Malformed(_))));
    }

    #[test]
    fn what_is_no_rollout_is_refused() {
        let upper = id("one").to_string().to_uppercase();
        let bad = [json!([]), json!({}), json!({"releases": id("one")}), json!({"releases": [1]})];
        for document in bad.into_iter().chain([json!({"releases": [upper]}), json!({"releases": [""]})]) {
            assert!(matches!(check(&document), Err(RolloutError::Malformed(_))), "{document}");
        }
        assert!(matches!(check_references(b"{", |_| true), Err(RolloutError::Malformed(_))));
        let one = id("one");
        assert_eq!(check(&json!({"releases": [one, one]})), Err(RolloutError::Duplicate(one)));
    }

    #[test]
    fn size_and_count_are_bounded() {
        let many: Vec<_> = (0..=ROLLOUT_RELEASES_MAX).map(|number| id(&number.to_string())).collect();
        let document = serde_json::to_vec(&json!({"releases": many})).unwrap();
        let mut asked = 0;
        let outcome = check_references(&document, |_| {
            asked += 1;
            true
        });
        assert_eq!((outcome, asked), (Err(RolloutError::TooMany(ROLLOUT_RELEASES_MAX + 1)), 0));
        let document = serde_json::to_vec(&json!({"releases": many[1..]})).unwrap();
        assert_eq!(check_references(&document, |_| true).unwrap().releases(), &many[1..]);
        let mut long = br#"{"releases":[]}"#.to_vec();
        long.resize(usize::try_from(ROLLOUT_BYTES_MAX).unwrap(), b' ');
        assert!(check_references(&long, |_| true).is_ok());
        long.push(b' ');
        assert_eq!(check_references(&long, |_| true), Err(RolloutError::TooLarge(ROLLOUT_BYTES_MAX + 1)));
    }
}
