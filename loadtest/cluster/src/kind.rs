//! [`FaultKind`]: everything that can be made to go wrong in a test, by name. What does it is in [`crate::fault`], [`crate::trouble`],
//! [`crate::gate`] and [`crate::Node`], and for devices where devices are.

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Blob bodies have a bit flipped.
    Corrupt,
    /// Blob bodies end in the middle, as if that were all.
    Truncate,
    /// The timestamp stays what it was when the fault began.
    Freeze,
    /// Answers wait until the fault ends.
    Stall,
    /// Each answer is delayed by [`crate::trouble::SLOW`].
    Slow,
    /// Everything is answered with 429 and `Retry-After`.
    Refuse,
    /// Everything is answered with 503 and `Retry-After`.
    Error,
    /// The node is killed at once, and started again on the same port when the fault ends.
    Kill,
    /// The node is told to stop: it says goodbye, finishes what it has begun and is gone; it is started again when the fault ends.
    Drain,
    /// Nothing passes between an edge and its upstream, in either direction.
    Partition,
    /// Nothing passes between an edge and devices, in either direction.
    Cut,
    /// The clock of devices is wrong.
    ClockSkew,
    /// Devices have no room for anything new.
    DiskFull,
}

/// What a fault of some kind can be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The origin or an edge.
    Node,
    /// An edge.
    Edge,
    /// All devices.
    Devices,
}

impl FaultKind {
    /// All, in their order, with their names in a scenario.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Corrupt, "corrupt"),
        (Self::Truncate, "truncate"),
        (Self::Freeze, "freeze"),
        (Self::Stall, "stall"),
        (Self::Slow, "slow"),
        (Self::Refuse, "refuse"),
        (Self::Error, "error"),
        (Self::Kill, "kill"),
        (Self::Drain, "drain"),
        (Self::Partition, "partition"),
        (Self::Cut, "cut"),
        (Self::ClockSkew, "clock-skew"),
        (Self::DiskFull, "disk-full"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// What it can be on.
    pub const fn victim(self) -> Victim {
        match self {
            Self::Partition | Self::Cut => Victim::Edge,
            Self::ClockSkew | Self::DiskFull => Victim::Devices,
            _ => Victim::Node,
        }
    }

    /// Whether the node is gone while it lasts.
    pub const fn takes_the_node(self) -> bool {
        matches!(self, Self::Kill | Self::Drain)
    }
}
