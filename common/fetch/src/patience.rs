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

impl Default for Patience {
    fn default() -> Self {
        Self {
            with_rivals: Pace {
                head: Duration::from_secs(10),
                window: Duration::from_secs(10),
                window_bytes_min: 16 << 10,
            },
            alone: Pace { head: Duration::from_secs(60), window: Duration::from_secs(30), window_bytes_min: 4 << 10 },
        }
    }
}

impl Patience {
    /// At most `span` for the head of an answer and for each window of its body, whoever else there is.
    #[must_use]
    pub fn within(self, span: Duration) -> Self {
        let within = |pace: Pace| Pace { head: pace.head.min(span), window: pace.window.min(span), ..pace };
        Self { with_rivals: within(self.with_rivals), alone: within(self.alone) }
    }
}
