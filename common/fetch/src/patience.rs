//! [`Patience`]: how slow a source may be before another is asked. A source that drips is worse than one that is down: it
//! would hold a fetch for ever, and everybody who waits for it.

use std::time::Duration;

/// How slow one attempt may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time to the head of the answer.
    pub head: Duration,
    /// Span over which the body is measured.
    pub window: Duration,
    /// Bytes of the body that must come in each window.
    pub window_bytes_min: u64,
}

/// How slow sources may be. The limits of the connection pool apply besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// While there are others, not blamed and not yet asked in this pass.
    pub with_rivals: Pace,
    /// With nobody else left. Lenient: a slow network makes every source slow.
    pub alone: Pace,
}

/// Slower than this is no more than a trickle, bytes per second.
const TRICKLE_BYTES_PER_S: u64 = 1600;

impl Default for Patience {
    fn default() -> Self {
        Self::of(Duration::from_secs(10))
    }
}

impl Patience {
    /// `span` for the head of an answer and for each window of its body, in which more than a trickle must come; three times
    /// that, and a trickle is enough, with nobody else left.
    pub const fn of(span: Duration) -> Self {
        let whole = span.as_secs().saturating_mul(TRICKLE_BYTES_PER_S);
        let alone = span.saturating_mul(3);
        Self {
            with_rivals: Pace { head: span, window: span, window_bytes_min: whole },
            alone: Pace { head: alone, window: alone, window_bytes_min: whole / 4 },
        }
    }
}
