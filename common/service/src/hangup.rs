//! [`on_hangup`]: what a process does at SIGHUP besides reading its certificates again.

use tokio::signal::unix::{SignalKind, signal};

/// Calls `act` at each SIGHUP, for as long as it is polled. Never completes.
pub async fn on_hangup(mut act: impl FnMut()) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be waited for");
            return std::future::pending::<()>().await;
        }
    };
    while hangups.recv().await.is_some() {
        act();
    }
    std::future::pending::<()>().await;
}
