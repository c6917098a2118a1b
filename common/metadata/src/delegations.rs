//! [`Delegations`]: to whom a targets role leaves which targets (specification §4.5), and succinct hash bins (TAP 15).

use std::collections::{BTreeMap, BTreeSet};

use colibri_common::hex;
use serde_json::Value;

use crate::envelope::Keyring;
use crate::error::Rule;
use crate::fields::{Fields, malformed};
use crate::key::PublicKey;
use crate::key_id::KeyId;
use crate::limits;
use crate::pattern::{HashPrefix, PathPattern, name_hash};
use crate::role::{RoleKeys, RoleName};
use crate::root::{role_keys, usable_keys};
use crate::target::TargetName;

/// What a targets role delegates.
#[derive(Debug, Clone, PartialEq)]
pub struct Delegations {
    keys: BTreeMap<KeyId, PublicKey>,
    to: Delegates,
}

#[derive(Debug, Clone, PartialEq)]
enum Delegates {
    Roles(Vec<DelegatedRole>),
    Succinct(SuccinctRoles),
}

/// One delegation.
#[derive(Debug, Clone, PartialEq)]
pub struct DelegatedRole {
    /// To whom.
    pub name: RoleName,
    /// Whose signatures make it so.
    pub keys: RoleKeys,
    /// Whether a search ends here: what this role and its delegates do not have, nobody after them may have.
    pub terminating: bool,
    /// Which targets.
    pub covers: Covers,
}

/// Which targets a delegation covers.
#[derive(Debug, Clone, PartialEq)]
pub enum Covers {
    /// Those that one of the patterns matches.
    Paths(Vec<PathPattern>),
    /// Those whose name's hash begins with one of the prefixes.
    HashPrefixes(Vec<HashPrefix>),
}

/// All targets, spread over 2^`bit_length` roles by the hash of their names (TAP 15). Each role is terminating.
#[derive(Debug, Clone, PartialEq)]
pub struct SuccinctRoles {
    /// Whose signatures make each of the roles.
    pub keys: RoleKeys,
    /// Bits of the hash that choose the role, 1 to 32.
    pub bit_length: u32,
    /// What the names of the roles begin with.
    pub name_prefix: String,
}

/// A delegate that covers the wanted target.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Next {
    pub name: RoleName,
    pub terminating: bool,
}

impl DelegatedRole {
    fn covers(&self, name: &TargetName, hash_hex: &str) -> bool {
        match &self.covers {
            Covers::Paths(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
            Covers::HashPrefixes(prefixes) => prefixes.iter().any(|prefix| prefix.matches(hash_hex)),
        }
    }
}

impl SuccinctRoles {
    /// The role that `name` falls to.
    pub fn role_of(&self, name: &TargetName) -> RoleName {
        let [a, b, c, d, ..] = name_hash(name);
        let bin = u32::from_be_bytes([a, b, c, d]) >> (u32::BITS - self.bit_length);
        self.role(bin)
    }

    /// The role with this number.
    fn role(&self, bin: u32) -> RoleName {
        let name = format!("{}-{bin:0digits$x}", self.name_prefix, digits = self.digits());
        // Proven when the prefix was read: all names have one length, and none of the reserved ones ends like this.
        name.parse().unwrap_or_else(|_| unreachable!("a bin's name is a role name"))
    }

    /// Hex digits of the largest number.
    fn digits(&self) -> usize {
        self.bit_length.div_ceil(4) as usize
    }

    /// Whether `name` is one of the roles.
    fn contains(&self, name: &RoleName) -> bool {
        let number = name.as_str().strip_prefix(&self.name_prefix).and_then(|rest| rest.strip_prefix('-'));
        let bin = number.filter(|text| text.len() == self.digits()).and_then(|text| u32::from_str_radix(text, 16).ok());
        bin.is_some_and(|bin| u64::from(bin) < 1 << self.bit_length && self.role(bin) == *name)
    }
}

impl Delegations {
    /// The usable keys by id.
    pub fn keys(&self) -> &BTreeMap<KeyId, PublicKey> {
        &self.keys
    }

    /// The delegations in order of priority; none if there are succinct roles.
    pub fn roles(&self) -> &[DelegatedRole] {
        match &self.to {
            Delegates::Roles(roles) => roles,
            Delegates::Succinct(_) => &[],
        }
    }

    /// The succinct roles, if there are.
    pub fn succinct_roles(&self) -> Option<&SuccinctRoles> {
        match &self.to {
            Delegates::Roles(_) => None,
            Delegates::Succinct(roles) => Some(roles),
        }
    }

    /// Key ids and threshold of the delegate called `name`.
    pub fn role_keys(&self, name: &RoleName) -> Option<&RoleKeys> {
        match &self.to {
            Delegates::Roles(roles) => roles.iter().find(|role| role.name == *name).map(|role| &role.keys),
            Delegates::Succinct(roles) => roles.contains(name).then_some(&roles.keys),
        }
    }

    pub(crate) fn keyring(&self, name: &RoleName) -> Option<Keyring<'_>> {
        Some(Keyring { keys: &self.keys, role: self.role_keys(name)? })
    }

    /// The delegates that cover `name`, in order of priority, up to the first that is terminating.
    pub(crate) fn next(&self, name: &TargetName) -> Vec<Next> {
        let roles = match &self.to {
            Delegates::Succinct(roles) => return vec![Next { name: roles.role_of(name), terminating: true }],
            Delegates::Roles(roles) => roles,
        };
        let hash_hex = hex(&name_hash(name));
        let mut found = Vec::new();
        for role in roles.iter().filter(|role| role.covers(name, &hash_hex)) {
            found.push(Next { name: role.name.clone(), terminating: role.terminating });
            if role.terminating {
                break;
            }
        }
        found
    }

    /// Reads `delegations`.
    pub(crate) fn from_json(value: &Value) -> Result<Self, Rule> {
        let fields = Fields::new(value, "delegations")?;
        let keys = usable_keys(&fields)?;
        let to = match (fields.map.contains_key("roles"), fields.map.get("succinct_roles")) {
            (true, None) => Delegates::Roles(read_roles(&fields)?),
            (false, Some(value)) => Delegates::Succinct(read_succinct(&Fields::new(value, "succinct_roles")?)?),
            (true, Some(_)) => return Err(malformed("delegations has both roles and succinct_roles")),
            (false, None) => return Err(malformed("delegations has neither roles nor succinct_roles")),
        };
        Ok(Self { keys, to })
    }
}

fn read_roles(fields: &Fields<'_>) -> Result<Vec<DelegatedRole>, Rule> {
    let listed = fields.get("roles", "a list", Value::as_array)?;
    if listed.len() as u64 > limits::DELEGATIONS_MAX {
        return Err(malformed(format!("more than {} delegations", limits::DELEGATIONS_MAX)));
    }
    let mut names = BTreeSet::new();
    let (mut patterns, mut prefixes) = (0, 0);
    let mut roles = Vec::with_capacity(listed.len());
    for value in listed {
        let role = read_role(value)?;
        match &role.covers {
            Covers::Paths(paths) => patterns += paths.len() as u64,
            Covers::HashPrefixes(list) => prefixes += list.len() as u64,
        }
        if !names.insert(role.name.clone()) {
            return Err(malformed(format!("the role {:?} is delegated to twice", role.name.as_str())));
        }
        roles.push(role);
    }
    if patterns > limits::PATH_PATTERNS_MAX || prefixes > limits::HASH_PREFIXES_MAX {
        return Err(malformed("delegations has too many paths or path_hash_prefixes"));
    }
    Ok(roles)
}

fn read_role(value: &Value) -> Result<DelegatedRole, Rule> {
    let fields = Fields::new(value, "a delegated role")?;
    let text = fields.text("name")?;
    let name = text.parse().map_err(|e| malformed(format!("delegated role {text:?}: {e}")))?;
    let fields = Fields { map: fields.map, of: format!("delegated role {text:?}") };
    let terminating = fields.get("terminating", "true or false", Value::as_bool)?;
    let each = |what: &str| malformed(format!("{} of {} holds what is none, or too long", what, fields.of));
    // §4.5: exactly one of the two.
    let covers = match (fields.texts("paths")?, fields.texts("path_hash_prefixes")?) {
        (Some(paths), None) => {
            let paths: Option<Vec<_>> = paths.into_iter().map(PathPattern::new).collect();
            Covers::Paths(paths.ok_or_else(|| each("paths"))?)
        }
        (None, Some(prefixes)) => {
            let prefixes: Option<Vec<_>> = prefixes.into_iter().map(HashPrefix::new).collect();
            Covers::HashPrefixes(prefixes.ok_or_else(|| each("path_hash_prefixes"))?)
        }
        _ => return Err(malformed(format!("{} has not exactly one of paths and path_hash_prefixes", fields.of))),
    };
    Ok(DelegatedRole { name, keys: role_keys(&fields)?, terminating, covers })
}

fn read_succinct(fields: &Fields<'_>) -> Result<SuccinctRoles, Rule> {
    let bits = |value: &Value| u32::try_from(value.as_u64()?).ok().filter(|bits| (1..=32).contains(bits));
    let bit_length = fields.get("bit_length", "an integer from 1 to 32", bits)?;
    let name_prefix = fields.text("name_prefix")?.to_owned();
    let roles = SuccinctRoles { keys: role_keys(fields)?, bit_length, name_prefix };
    let longest = format!("{}-{}", roles.name_prefix, "0".repeat(roles.digits()));
    longest.parse::<RoleName>().map_err(|e| malformed(format!("name_prefix {:?}: {e}", roles.name_prefix)))?;
    Ok(roles)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn succinct(bit_length: u32) -> SuccinctRoles {
        let value = json!({"keyids": ["a"], "threshold": 1, "bit_length": bit_length, "name_prefix": "bin"});
        read_succinct(&Fields::new(&value, "x").unwrap()).unwrap()
    }

    #[test]
    fn bins_are_named_as_tap_15_has_it() {
        // SHA-256 of "file1.txt" begins with 55ae75d9 = 01010101 10101110….
        let name: TargetName = "file1.txt".parse().unwrap();
        assert_eq!(hex(&name_hash(&name)[..4]), "55ae75d9");
        let role = |bits| succinct(bits).role_of(&name).to_string();
        assert_eq!(
            [1, 2, 4, 5, 8, 10, 11, 32].map(role),
            ["bin-0", "bin-1", "bin-5", "bin-0a", "bin-55", "bin-156", "bin-2ad", "bin-55ae75d9"]
        );
    }

    #[test]
    fn only_bins_are_bins() {
        let roles = succinct(5);
        for good in ["bin-00", "bin-0a", "bin-1f"] {
            assert!(roles.contains(&good.parse().unwrap()), "{good}");
        }
        for bad in ["bin-20", "bin-ff", "bin-0A", "bin-0", "bin-001", "bin-+1", "bin", "bin00", "xbin-00", "-00"] {
            assert!(!roles.contains(&bad.parse().unwrap()), "{bad}");
        }
        assert!(succinct(32).contains(&"bin-ffffffff".parse().unwrap()));
    }
}
