//! Ending well: [`shutdown_signal`] says when, [`Drain`] tells everybody and waits for them, for a while.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Exit code when a second signal ends the process without waiting.
const EXIT_IMMEDIATE: i32 = 1;

/// The token that tells tasks to end, and the tracker that knows who has not yet.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// Every tracked task has ended.
    Clean,
    /// The deadline passed before these many tasks ended.
    TimedOut {
        /// Tasks that still run.
        tasks: usize,
    },
}

impl Drain {
    /// Nothing to wait for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the drain begins.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Spawn what must be waited for on this.
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// Tells everybody to end, without waiting.
    pub fn begin(&self) {
        self.token.cancel();
        self.tracker.close();
    }

    /// Tells everybody to end and waits for them, at most for `deadline`.
    pub async fn wait(&self, deadline: Duration) -> Drained {
        self.begin();
        match timeout(deadline, self.tracker.wait()).await {
            Ok(()) => Drained::Clean,
            Err(_) => Drained::TimedOut { tasks: self.tracker.len() },
        }
    }
}

/// Completes at the first SIGTERM or SIGINT, with its name. From then on a second one ends the process at once.
///
/// The handlers are in place when this is first polled. Should the system refuse them, that is logged and the future never
/// completes: the default action of the signal then ends the process.
pub async fn shutdown_signal() -> &'static str {
    let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be waited for");
            return std::future::pending().await;
        }
    };
    let first = either(&mut terminate, &mut interrupt).await;
    tokio::spawn(async move {
        let second = either(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = second, "second signal: ending without waiting");
        std::process::exit(EXIT_IMMEDIATE);
    });
    first
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_tasks_that_listen() {
        let drain = Drain::new();
        let token = drain.token();
        drain.tracker().spawn(async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        assert_eq!(drain.wait(Duration::from_secs(3)).await, Drained::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_at_the_deadline_and_says_who_is_left() {
        let drain = Drain::new();
        drain.tracker().spawn(std::future::pending::<()>());
        drain.tracker().spawn(std::future::ready(()));
        assert_eq!(drain.wait(Duration::from_secs(3)).await, Drained::TimedOut { tasks: 1 });
    }
}
