//! What breaks when and where, and its form in a scenario. The kinds are those of `colibri-cluster`, which does most of them.

use std::fmt;

pub use colibri_cluster::FaultKind;
use colibri_cluster::Victim;

use super::keys::Keys;
use crate::limits::DURATION_S_MAX;

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The origin.
    Origin,
    /// One edge, counted from 1.
    Edge(usize),
    /// All devices.
    Devices,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Origin => f.write_str("origin"),
            Self::Edge(number) => write!(f, "edge-{number}"),
            Self::Devices => f.write_str("devices"),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Where.
    pub place: Place,
    /// From when, seconds.
    pub at_s: f64,
    /// For how long, seconds.
    pub for_s: f64,
    /// How far clocks are ahead, seconds; behind, if it is below zero. Zero for all other kinds.
    pub by_s: f64,
}

pub(super) fn read(keys: &mut Keys<'_>) -> Option<Fault> {
    let name = keys.text("kind", true);
    let kind = FaultKind::named(&name);
    if kind.is_none() && !name.is_empty() {
        let known = FaultKind::ALL.map(|(_, name)| name).join(", ");
        keys.mistake("kind", &format!("is `{name}`: it must be one of {known}"));
    }
    let node = keys.text("node", true);
    let edge = node.strip_prefix("edge-").and_then(|number| number.parse().ok()).filter(|number| *number > 0);
    let place = match node.as_str() {
        "origin" => Some(Place::Origin),
        "devices" => Some(Place::Devices),
        _ => edge.map(Place::Edge),
    };
    if place.is_none() && !node.is_empty() {
        keys.mistake("node", &format!("is `{node}`: it must be origin, edge-1, edge-2 … or devices"));
    }
    if let (Some(kind), Some(place)) = (kind, place) {
        let (fits, on) = match kind.victim() {
            Victim::Devices => (place == Place::Devices, "devices"),
            Victim::Edge => (matches!(place, Place::Edge(_)), "an edge"),
            Victim::Node => (place != Place::Devices, "the origin or an edge"),
        };
        if !fits {
            keys.mistake("node", &format!("is `{node}`: the fault {name} is one of {on}"));
        }
    }
    let at_s = keys.number("at_s", None, 0.0, DURATION_S_MAX);
    let for_s = keys.number("for_s", Some(DURATION_S_MAX), 0.001, DURATION_S_MAX);
    let by_s = if kind == Some(FaultKind::ClockSkew) { keys.number("by_s", None, -1e10, 1e10) } else { 0.0 };
    Some(Fault { kind: kind?, place: place?, at_s, for_s, by_s })
}
