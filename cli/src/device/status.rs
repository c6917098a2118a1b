//! `device status|leases`: what there is on a device and who runs it; who has packages open.

use std::process::ExitCode;

use colibri_common::UnixSeconds;
use colibri_device::daemon::wire::{ChoreEntry, LaggingEntry, LeaseEntry, Status, Went};
use serde_json::json;

use super::api::Api;
use super::{Console, DeviceVerbError};
use crate::progress::bytes;
use crate::table::print_table;

/// `status`.
pub(super) async fn status(
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let status: Status = connect().await?.get("/status").await?;
    if console.json {
        console.print_json(&json!(status))?;
        return Ok(ExitCode::SUCCESS);
    }
    let daemon = status.daemon.map_or_else(
        || "none runs".to_owned(),
        |daemon| format!("process {}, version {}, since {}", daemon.pid, daemon.version, time(daemon.since)),
    );
    let committed = if status.committed { "" } else { ", not committed" };
    let release = status.release.unwrap_or_else(|| "none".to_owned());
    let (blobs, unfinished) = (status.blobs, status.unfinished_blobs);
    let rows = [
        ("device", status.dir),
        ("daemon", daemon),
        ("release", format!("{release}{committed}")),
        ("repositories", status.repositories.to_string()),
        ("blobs", format!("{blobs} ({}), {unfinished} unfinished", bytes(status.blob_bytes))),
        ("free", bytes(status.free_bytes)),
        ("open packages", status.leases.to_string()),
        ("under way", status.operations.to_string()),
    ];
    let chores = status.chores.iter().map(|entry| (entry.chore.name(), chore(entry)));
    for (name, value) in rows.into_iter().chain(chores) {
        writeln!(console.out, "{name:<14}{value}")?;
    }
    for mirror in &status.lagging {
        let since = since(&mirror.lagging);
        writeln!(console.out, "lagging       {} of {}, since {since}", mirror.source, mirror.repository)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn time(at: UnixSeconds) -> String {
    colibri_metadata::utc::format(at).unwrap_or_default()
}

/// How one of the things went that the daemon does by itself, when, and when it is done next.
fn chore(entry: &ChoreEntry) -> String {
    let said = entry.said.as_deref().unwrap_or_default();
    let went = match entry.went {
        None => "not yet".to_owned(),
        Some(Went::Failed) => format!("failed: {said}"),
        Some(Went::Incomplete) => format!("not done: {said}"),
        Some(Went::Done) => said.to_owned(),
    };
    let last = entry.ended.map(|at| format!(" ({})", time(at))).unwrap_or_default();
    let next = match (entry.running_since, entry.next) {
        (Some(since), _) => format!("under way since {}", time(since)),
        (None, Some(next)) => format!("next {}", time(next)),
        (None, None) => "never by itself".to_owned(),
    };
    format!("{went}{last}; {next}")
}

/// Since when a mirror lags behind, and how.
pub(super) fn since(lagging: &LaggingEntry) -> String {
    format!("{}: {}", time(lagging.since), lagging.what)
}

/// `leases`.
pub(super) async fn leases(
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let leases: Vec<LeaseEntry> = connect().await?.get("/leases").await?;
    if console.json {
        console.print_json(&json!(leases))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |lease: &LeaseEntry| vec![lease.package.to_string(), time(lease.since), lease.holder.clone()];
    print_table(console.out, &leases.iter().map(row).collect::<Vec<_>>())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use colibri_device::daemon::wire::Chore;

    use super::*;

    #[test]
    fn what_a_daemon_does_by_itself_is_told_in_a_line() {
        let never = ChoreEntry {
            chore: Chore::Verify,
            running_since: None,
            ended: None,
            went: None,
            said: None,
            failures: 0,
            next: None,
        };
        assert_eq!(chore(&never), "not yet; never by itself");
        let due = ChoreEntry { next: Some(UnixSeconds(1_800_000_000)), ..never.clone() };
        assert_eq!(chore(&due), "not yet; next 2027-01-15T08:00:00Z");
        let said = Some("no mirror answers".to_owned());
        let ended = Some(UnixSeconds(1_799_999_940));
        let failed = ChoreEntry { went: Some(Went::Failed), said, ended, failures: 1, ..due };
        assert_eq!(chore(&failed), "failed: no mirror answers (2027-01-15T07:59:00Z); next 2027-01-15T08:00:00Z");
        let running_since = Some(UnixSeconds(1_800_000_000));
        let running = ChoreEntry { running_since, went: Some(Went::Done), next: None, ..failed };
        assert_eq!(chore(&running), "no mirror answers (2027-01-15T07:59:00Z); under way since 2027-01-15T08:00:00Z");
    }
}
