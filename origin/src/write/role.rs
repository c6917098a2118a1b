//! [`WriteRole`]: what somebody may do over the write API.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What somebody may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteRole {
    /// Ask for the state of a repository.
    Reader,
    /// Upload blobs, submit targets, have online roles signed again.
    Publisher,
    /// Collect blobs that nothing names.
    Admin,
}

impl WriteRole {
    /// All of them, the weakest first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Publisher, Self::Admin];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Publisher => "publisher",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for WriteRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for WriteRole {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or_else(|| format!("{text:?} is no role: use reader, publisher or admin"))
    }
}
