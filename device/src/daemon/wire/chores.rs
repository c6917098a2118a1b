//! What a daemon does by itself, as it is spoken of over the socket.

use colibri_common::UnixSeconds;
use serde::{Deserialize, Serialize};

/// Something that a daemon does without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chore {
    /// Looks whether there is another system, and installs it if that is wanted.
    UpdateCheck,
    /// Fetches automatic packages of the running release that are not here yet.
    Automatic,
    /// Hashes everything again, and repairs what is damaged.
    Verify,
    /// Collects when space is short.
    Space,
}

impl Chore {
    /// All.
    pub const ALL: [Self; 4] = [Self::UpdateCheck, Self::Automatic, Self::Verify, Self::Space];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpdateCheck => "update check",
            Self::Automatic => "automatic",
            Self::Verify => "verification",
            Self::Space => "space",
        }
    }
}

/// How a chore went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Went {
    /// All that there was to do is done.
    Done,
    /// Something is left; it is tried again after a pause that grows.
    Incomplete,
    /// It came to nothing; likewise.
    Failed,
}

/// One chore, in `GET /status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChoreEntry {
    /// Which.
    pub chore: Chore,
    /// It is being done, since when.
    pub running_since: Option<UnixSeconds>,
    /// When it ended last; nothing if it never did.
    pub ended: Option<UnixSeconds>,
    /// How it went then.
    pub went: Option<Went>,
    /// What came of it, for people.
    pub said: Option<String>,
    /// Times in a row that it did not get done.
    pub failures: u32,
    /// When it is done next; nothing if it never is, or is being done.
    pub next: Option<UnixSeconds>,
}
