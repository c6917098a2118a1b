//! [`Class`]: how urgent a fetch is. Under a budget, demand goes before warming, warming before background work.

use colibri_transport::Class as Asked;

/// How urgent a fetch is; the most urgent comes first in the order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Somebody waits for it.
    #[default]
    Demand,
    /// Somebody will likely want it soon.
    Warm,
    /// Nobody waits for it: repairs, checks, prefetching on a whim.
    Background,
}

impl Class {
    /// Times the whole list of sources is tried for one thing.
    pub const fn passes_max(self) -> u32 {
        match self {
            Self::Demand => 3,
            Self::Warm => 2,
            Self::Background => 1,
        }
    }

    /// What a request that somebody else passes on is for us.
    pub const fn of_request(asked: Asked) -> Self {
        match asked {
            Asked::Demand | Asked::ReadAhead => Self::Demand,
            Asked::Background => Self::Background,
            Asked::Warm => Self::Warm,
        }
    }

    /// What requests say of themselves, so that whoever is asked turns them away before others; demand says nothing.
    pub(crate) const fn over_the_wire(self) -> Option<Asked> {
        match self {
            Self::Demand => None,
            Self::Warm => Some(Asked::Warm),
            Self::Background => Some(Asked::Background),
        }
    }

    /// The part of each budget that this class leaves to more urgent ones.
    pub(crate) const fn reserve(self) -> f64 {
        match self {
            Self::Demand => 0.0,
            Self::Warm => 0.25,
            Self::Background => 0.5,
        }
    }

    /// The part of a source's pace for which this class waits for a place in the source's budget.
    pub(crate) const fn wait_divisor(self) -> u32 {
        match self {
            Self::Demand | Self::Warm => 1,
            Self::Background => 4,
        }
    }
}
