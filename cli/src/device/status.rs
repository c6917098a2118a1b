//! `device status|leases`: what there is on a device and who runs it; who has packages open.

use std::process::ExitCode;

use colibri_device::daemon::wire::{LeaseEntry, Status};
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
        |daemon| {
            let since = colibri_metadata::utc::format(daemon.since).unwrap_or_default();
            format!("process {}, version {}, since {since}", daemon.pid, daemon.version)
        },
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
    for (name, value) in rows {
        writeln!(console.out, "{name:<14}{value}")?;
    }
    Ok(ExitCode::SUCCESS)
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
    let row = |lease: &LeaseEntry| {
        let since = colibri_metadata::utc::format(lease.since).unwrap_or_default();
        vec![lease.package.to_string(), since, lease.holder.clone()]
    };
    print_table(console.out, &leases.iter().map(row).collect::<Vec<_>>())?;
    Ok(ExitCode::SUCCESS)
}
