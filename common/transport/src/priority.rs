//! [`Priority`] (RFC 9218): how urgent a request is, and the [`Class`] of work that it stands for.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header field.
pub const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// What a client says about the order of its requests (RFC 9218 §4); in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Priority {
    /// From 0, the most urgent, to 7.
    pub urgency: u8,
    /// Whether a part of the answer is of use by itself. Answers of one urgency share a connection evenly either way.
    pub incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: 3, incremental: false }
    }
}

impl Priority {
    /// Reads a field value. What is not understood is as if it were absent (RFC 9218 §4).
    pub fn parse(text: &str) -> Self {
        let mut priority = Self::default();
        for member in text.split(',') {
            // Parameters of a member are allowed and mean nothing here.
            let member = member.split(';').next().unwrap_or_default().trim();
            match member.split_once('=') {
                Some(("u", value)) => {
                    if let Ok(urgency @ 0..=7) = value.parse() {
                        priority.urgency = urgency;
                    }
                }
                Some(("i", value)) => priority.incremental = value == "?1",
                None if member == "i" => priority.incremental = true,
                _ => {}
            }
        }
        priority
    }

    /// What these header fields say.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.get(PRIORITY).and_then(|value| value.to_str().ok()).map(Self::parse).unwrap_or_default()
    }

    /// The class of work.
    pub fn class(self) -> Class {
        match self.urgency {
            0..=3 => Class::Demand,
            4 | 5 => Class::ReadAhead,
            6 => Class::Background,
            _ => Class::Warm,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "u={}{}", self.urgency, if self.incremental { ", i" } else { "" })
    }
}

/// What a request is for, the most important first. Under load the last is turned away first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for it.
    Demand,
    /// Somebody will soon want it.
    ReadAhead,
    /// Nobody waits.
    Background,
    /// A cache is filled before anybody asks.
    Warm,
}

impl Class {
    /// All of them, the most important first.
    pub const ALL: [Self; 4] = [Self::Demand, Self::ReadAhead, Self::Background, Self::Warm];

    /// Short name for logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::ReadAhead => "read-ahead",
            Self::Background => "background",
            Self::Warm => "warm",
        }
    }

    /// The `Priority` field that requests of this class carry.
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Demand => "u=3",
            Self::ReadAhead => "u=5",
            Self::Background => "u=6",
            Self::Warm => "u=7",
        })
    }

    /// The part of every bound, in percent, that is kept free for what is more important.
    pub(crate) const fn reserve_percent(self) -> u64 {
        match self {
            Self::Demand => 0,
            Self::ReadAhead => 15,
            Self::Background => 30,
            Self::Warm => 50,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let default = Priority::default();
        for (text, urgency, incremental) in [
            ("", 3, false),
            ("u=0", 0, false),
            ("u=7, i", 7, true),
            ("i,u=5", 5, true),
            ("i=?0", 3, false),
            ("i=?1, u=2;x=1", 2, true),
            ("u=1, u=6", 6, false),
        ] {
            assert_eq!(Priority::parse(text), Priority { urgency, incremental }, "{text}");
        }
        for text in ["u=8", "u=-1", "u", "u=", "u=x", "x=1", "U=1", ",,;=", "u=99999999999999999999"] {
            assert_eq!(Priority::parse(text), default, "{text}");
        }
    }

    #[test]
    fn classes_say_what_they_are_understood_as() {
        for class in Class::ALL {
            assert_eq!(Priority::parse(class.header().to_str().unwrap()).class(), class);
        }
        assert!(Class::ALL.is_sorted());
        assert!(Class::ALL.is_sorted_by_key(|class| class.reserve_percent()));
        assert_eq!(Priority { urgency: 1, incremental: true }.to_string(), "u=1, i");
    }
}
