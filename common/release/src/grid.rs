//! The grid of RFC-0212: two questions about a package, *when is it there?* and *who sets its version?*

use std::fmt;

use serde::{Deserialize, Serialize};

/// When a package is on the device (RFC-0212, "Availability").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// In all circumstances.
    Permanent,
    /// Fetched by itself when disk space and network allow.
    Automatic,
    /// Fetched when somebody on the device asks for it.
    OnDemand,
}

/// Who sets a package's version (RFC-0212, "Versioning").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Versioning {
    /// The product release.
    Anchored,
    /// A versioning authority, for this package, within the release's constraints.
    Upgradable,
    /// A versioning authority, for a whole URL domain: the release names no packages.
    Discoverable,
}

/// A cell of the grid that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageSet {
    availability: Availability,
    versioning: Versioning,
}

/// A cell of the grid that does not exist: a device cannot hold by itself what the release does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no {availability} & discoverable package set: a release names no packages there, so they are on demand"
)]
pub struct NotApplicable {
    availability: Availability,
}

impl Availability {
    /// All, the strongest promise first.
    pub const ALL: [Self; 3] = [Self::Permanent, Self::Automatic, Self::OnDemand];
}

impl Versioning {
    /// All, the tightest control first.
    pub const ALL: [Self; 3] = [Self::Anchored, Self::Upgradable, Self::Discoverable];
}

impl PackageSet {
    /// The package set of a cell.
    ///
    /// # Errors
    /// The cell is not applicable: discoverable packages are on demand only.
    pub const fn new(availability: Availability, versioning: Versioning) -> Result<Self, NotApplicable> {
        match (versioning, availability) {
            (Versioning::Discoverable, Availability::Permanent | Availability::Automatic) => {
                Err(NotApplicable { availability })
            }
            _ => Ok(Self { availability, versioning }),
        }
    }

    /// When its packages are there.
    pub const fn availability(self) -> Availability {
        self.availability
    }

    /// Who sets their versions.
    pub const fn versioning(self) -> Versioning {
        self.versioning
    }

    /// The seven package sets that exist.
    pub fn all() -> impl Iterator<Item = Self> {
        let row = |versioning| Availability::ALL.into_iter().filter_map(move |a| Self::new(a, versioning).ok());
        Versioning::ALL.into_iter().flat_map(row)
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent => "permanent",
            Self::Automatic => "automatic",
            Self::OnDemand => "on demand",
        })
    }
}

impl fmt::Display for Versioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anchored => "anchored",
            Self::Upgradable => "upgradable",
            Self::Discoverable => "discoverable",
        })
    }
}

impl fmt::Display for PackageSet {
    /// As RFC-0212 writes it: "automatic & anchored".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} & {}", self.availability, self.versioning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_of_nine_cells_exist() {
        let names: Vec<String> = PackageSet::all().map(|set| set.to_string()).collect();
        assert_eq!(
            names,
            [
                "permanent & anchored",
                "automatic & anchored",
                "on demand & anchored",
                "permanent & upgradable",
                "automatic & upgradable",
                "on demand & upgradable",
                "on demand & discoverable",
            ]
        );
        let said = PackageSet::new(Availability::Permanent, Versioning::Discoverable).unwrap_err().to_string();
        assert!(said.starts_with("there is no permanent & discoverable package set"), "{said}");
    }
}
