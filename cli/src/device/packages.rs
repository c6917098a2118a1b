//! `device get-hash|open|pkg-status|gc`: what is known about a package, and an end of those that nobody needs.

use std::process::ExitCode;

use colibri_common::BlobId;
use colibri_device::DeviceError;
use colibri_device::daemon::wire::{Collected, PackageFiles, PackageHash, PackagePresence};
use colibri_package::url::AbsolutePackageUrl;
use serde_json::json;

use super::api::Api;
use super::{Console, DeviceVerbError};

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

/// A package hash from the command line.
pub(super) fn parse_hash(hash: &str) -> Result<BlobId, DeviceVerbError> {
    hash.parse().map_err(|error| DeviceVerbError::Argument {
        given: hash.to_owned(),
        reason: format!("not a package hash: {error}"),
    })
}

/// `get-hash URL`.
pub(super) async fn get_hash(
    url: &str,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let url = parse_url(url)?.to_string();
    let answer: PackageHash = connect().await?.get_about("/hash", &url).await?;
    if console.json {
        console.print_json(&json!(answer))?;
    } else {
        writeln!(console.out, "{}", answer.hash)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `open HASH`.
pub(super) async fn open(
    hash: &str,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let id = parse_hash(hash)?;
    let api = connect().await?;
    if !console.json {
        writeln!(console.out, "opening {id}")?;
    }
    let PackageFiles { contents, .. } = api.get(&format!("/packages/{id}")).await?;
    if console.json {
        console.print_json(&json!({ "hash": id, "contents": contents }))?;
    } else {
        writeln!(console.out, "package contents:")?;
        for file in contents {
            writeln!(console.out, "/{}", file.path)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `pkg-status URL`: the exit status is the answer.
pub(super) async fn status(
    url: &str,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    // Not a usage error here: its exit status already says "not on the device".
    let url = parse_url(url).map_err(|error| match error {
        DeviceVerbError::Argument { given, reason } => DeviceError::InvalidUrl { url: given, reason }.into(),
        other => other,
    })?;
    let answer: PackagePresence = connect().await?.get_about("/package-status", &url.to_string()).await?;
    let on_disk = answer.on_disk == Some(true);
    if console.json {
        console.print_json(&json!(answer))?;
    } else if let Some(hash) = answer.merkle {
        writeln!(console.out, "Package in registered TUF repo: yes (merkle={hash})")?;
        writeln!(console.out, "Package on disk: {}", if on_disk { "yes" } else { "no" })?;
    } else {
        writeln!(console.out, "Package in registered TUF repo: no")?;
        writeln!(console.out, "Package on disk: unknown (did not check since not in tuf repo)")?;
    }
    Ok(match answer.in_repository {
        true if on_disk => ExitCode::SUCCESS,
        true => ExitCode::from(NOT_ON_DEVICE),
        false => ExitCode::from(NOT_IN_REPOSITORY),
    })
}

/// `gc`.
pub(super) async fn gc(
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let report: Collected = connect().await?.post("/gc", &json!({})).await?;
    if console.json {
        console.print_json(&json!(report))?;
    }
    Ok(ExitCode::SUCCESS)
}
