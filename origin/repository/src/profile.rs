//! [`Profile`]: the two forms of a repository's metadata, and how much room the stock client leaves for the first.
//!
//! Which one a repository has is read from its signed targets role, so it cannot get lost or be mixed up.

use std::fmt;
use std::str::FromStr;

use colibri_metadata::{Role, TrustedSet};

use crate::bins::Bins;
use crate::error::RepositoryError;
use crate::limits::{STOCK_SNAPSHOT_BYTES_MAX, STOCK_TARGETS_BYTES_MAX};

/// The form of a repository's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// All targets in one file, as the real tools write it and real devices read it.
    #[default]
    Compat,
    /// Targets in hash bins, and a snapshot that lists versions only: for many packages and frequent publishing.
    Scale,
}

impl Profile {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Compat, Self::Scale];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compat => "compat",
            Self::Scale => "scale",
        }
    }

    /// The profile of a repository with this metadata.
    pub fn of(set: &TrustedSet) -> Self {
        if bins_of(set).is_some() { Self::Scale } else { Self::Compat }
    }
}

/// The bins of a repository with this metadata.
pub(crate) fn bins_of(set: &TrustedSet) -> Option<Bins> {
    Bins::of(set.targets()?.delegations()?)
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no profile: compat (what real devices read) or scale (hash bins, for many packages)")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| UnknownProfile(text.chars().take(40).collect()))
    }
}

/// A file of a `compat` repository that the stock client will soon refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NearCap {
    /// Which file.
    pub role: Role,
    /// Its length in bytes.
    pub bytes: u64,
    /// The largest that the stock client reads, in bytes.
    pub bytes_max: u64,
}

impl fmt::Display for NearCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, bytes, bytes_max } = self;
        let percent = bytes * 100 / bytes_max;
        write!(
            f,
            "{} has {bytes} bytes, {percent} % of what devices with the stock client read ({bytes_max}); a new repository \
             with the profile scale has room for more",
            role.file()
        )
    }
}

/// Largest file of `role` that the stock client reads, in bytes.
const fn cap(role: Role) -> Option<u64> {
    match role {
        Role::Targets => Some(STOCK_TARGETS_BYTES_MAX),
        Role::Snapshot => Some(STOCK_SNAPSHOT_BYTES_MAX),
        Role::Root | Role::Timestamp => None,
    }
}

/// Whether a file of a `compat` repository is at 80 % of its cap or more.
///
/// # Errors
/// It is over the cap: the stock client would refuse it.
pub(crate) fn check_room(role: Role, bytes: u64) -> Result<Option<NearCap>, RepositoryError> {
    let Some(bytes_max) = cap(role) else { return Ok(None) };
    if bytes > bytes_max {
        return Err(RepositoryError::OverCap { role, bytes, bytes_max });
    }
    Ok((bytes * 5 >= bytes_max * 4).then_some(NearCap { role, bytes, bytes_max }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_in_a_file() {
        for (role, cap) in [(Role::Targets, 5_000_000), (Role::Snapshot, 2_000_000)] {
            assert_eq!(check_room(role, cap / 5 * 4 - 1).unwrap(), None);
            let near = check_room(role, cap / 5 * 4).unwrap().unwrap();
            assert!(near.to_string().contains("80 %") && near.to_string().contains("scale"), "{near}");
            assert!(check_room(role, cap).unwrap().is_some());
            let over = check_room(role, cap + 1).unwrap_err().to_string();
            assert!(over.contains("scale") && over.contains(&(cap + 1).to_string()), "{over}");
        }
        assert_eq!(check_room(Role::Root, 1 << 30).unwrap(), None);
    }

    #[test]
    fn names() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("flat".parse::<Profile>().unwrap_err().to_string().contains("compat"));
    }
}
