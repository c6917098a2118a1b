//! The versioning authority: who gets what when. Channels and their rollouts; the Omaha endpoint, `advance` and the audit
//! log are built on these types.
//!
//! Deliberately absent: signing of releases (an authority chooses among what targets already lists), serving, a clock.

pub mod limits;

use std::fmt;
use std::str::FromStr;

use colibri_release::ProductVersion;
use limits::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name of 1 to {NAME_BYTES_MAX} characters a-z, 0-9, `-`, `_` and `.` that starts with a letter")]
pub struct NameError(String);

fn check(text: &str) -> Result<(), NameError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let starts = text.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && text.len() as u64 <= NAME_BYTES_MAX && text.bytes().all(allowed) {
        return Ok(());
    }
    Err(NameError(text.chars().take(80).collect()))
}

/// Name of a channel, such as `stable`: what a device's cohort hint asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(String);

/// Name of a rollout policy: the growing offer of one release in one channel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RolloutPolicyId(String);

macro_rules! checked_name {
    ($name:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_name!(ChannelName);
checked_name!(RolloutPolicyId);

/// What a channel offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// The release that every device of the channel may have.
    pub current: ProductVersion,
    /// The policy by which a newer release is being offered, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPolicyId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["stable", "beta-2", "a", "x.y_z", &"a".repeat(64)] {
            assert_eq!(good.parse::<ChannelName>().unwrap().as_str(), good);
        }
        for bad in ["", "Stable", "1st", "-a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(bad.parse::<ChannelName>().is_err(), "{bad:?}");
            assert!(bad.parse::<RolloutPolicyId>().unwrap_err().to_string().contains("is not a name"));
        }
    }

    #[test]
    fn channels_go_round_and_are_strict() {
        let text = r#"{"name":"stable","current":"8.1.0.0","rollout":"spring"}"#;
        let channel: Channel = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&channel).unwrap(), text);
        for bad in [
            r#"{"name":"Stable","current":"8.1"}"#,
            r#"{"name":"stable","current":"8.x"}"#,
            r#"{"name":"stable","current":"8","share":5}"#,
            r#"{"name":"stable"}"#,
        ] {
            assert!(serde_json::from_str::<Channel>(bad).is_err(), "{bad}");
        }
    }
}
