//! `device get-hash|open|pkg-status|gc`: what is known about a package, and an end of those that nobody needs.

use std::process::ExitCode;
use std::sync::Arc;

use colibri_common::BlobId;
use colibri_device::{Depth, Device, DeviceError};
use colibri_package::url::AbsolutePackageUrl;
use colibri_store::Store;
use serde_json::json;

use super::{Console, DeviceVerbError, Make};

/// Exit status of `pkg-status`: in the repository, not on the device.
const NOT_ON_DEVICE: u8 = 2;

/// Exit status of `pkg-status`: not in the repository.
const NOT_IN_REPOSITORY: u8 = 3;

/// A package URL from the command line.
pub(super) fn parse_url(url: &str) -> Result<AbsolutePackageUrl, DeviceVerbError> {
    url.parse().map_err(|error| DeviceVerbError::Argument {
        given: url.to_owned(),
        reason: format!("not a package URL (fuchsia-pkg://HOST/NAME): {error}"),
    })
}

/// `get-hash URL`.
pub(super) async fn get_hash(
    url: &str,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let url = parse_url(url)?;
    let (device, _) = open(Make::Refused)?;
    let hash = device.get_hash(&url).await?;
    if console.json {
        console.print_json(&json!({ "url": url.to_string(), "hash": hash }))?;
    } else {
        writeln!(console.out, "{hash}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `open HASH`.
pub(super) async fn open(
    hash: &str,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let id: BlobId = hash.parse().map_err(|error| DeviceVerbError::Argument {
        given: hash.to_owned(),
        reason: format!("not a package hash: {error}"),
    })?;
    let (device, _) = open(Make::Refused)?;
    if !console.json {
        writeln!(console.out, "opening {id}")?;
    }
    let contents = device.open_package(id).await?;
    let blobs = contents.blobs.iter().map(|(path, blob)| (path, Some(blob)));
    let mut entries: Vec<_> = blobs.chain(contents.inline.keys().map(|path| (path, None))).collect();
    entries.sort_unstable();
    if console.json {
        let entry = |(path, blob): &(&String, Option<&BlobId>)| json!({ "path": path, "blob": blob });
        let entries: Vec<_> = entries.iter().map(entry).collect();
        console.print_json(&json!({ "hash": id, "contents": entries }))?;
    } else {
        writeln!(console.out, "package contents:")?;
        for (path, _) in entries {
            writeln!(console.out, "/{path}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `pkg-status URL`: the exit status is the answer.
pub(super) async fn status(
    url: &str,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    // Not a usage error here: its exit status already says "not on the device".
    let url = parse_url(url).map_err(|error| match error {
        DeviceVerbError::Argument { given, reason } => DeviceError::InvalidUrl { url: given, reason }.into(),
        other => other,
    })?;
    let (device, _) = open(Make::Refused)?;
    let status = device.package_status(&url).await?;
    if console.json {
        let on_disk = status.in_repository.map(|_| status.on_disk);
        let in_repository = status.in_repository.is_some();
        console.print_json(&json!({
            "url": url.to_string(),
            "in_repository": in_repository,
            "merkle": status.in_repository,
            "on_disk": on_disk,
        }))?;
    } else if let Some(hash) = status.in_repository {
        writeln!(console.out, "Package in registered TUF repo: yes (merkle={hash})")?;
        writeln!(console.out, "Package on disk: {}", if status.on_disk { "yes" } else { "no" })?;
    } else {
        writeln!(console.out, "Package in registered TUF repo: no")?;
        writeln!(console.out, "Package on disk: unknown (did not check since not in tuf repo)")?;
    }
    Ok(match status.in_repository {
        Some(_) if status.on_disk => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(NOT_ON_DEVICE),
        None => ExitCode::from(NOT_IN_REPOSITORY),
    })
}

/// `gc`.
pub(super) async fn gc(
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let (device, _) = open(Make::Refused)?;
    let report = device.collect(Depth::Unused).await?;
    if console.json {
        console.print_json(&json!({
            "blobs_removed": report.removed,
            "bytes_removed": report.removed_bytes,
            "unfinished_removed": report.partials_removed,
            "packages_evicted": report.evicted.iter().map(|(package, _)| package).collect::<Vec<_>>(),
            "trees_removed": report.trees_removed,
        }))?;
    }
    Ok(ExitCode::SUCCESS)
}
