//! Verbs on `fuchsia-boot:///NAME`: they need neither the store nor a repository, so they open nothing but the archives.

use std::path::Path;
use std::process::ExitCode;

use colibri_common::BlobId;
use colibri_device::{BootPackages, DeviceConfig, DeviceError, ResolvedBy};
use colibri_package::url::BootUrl;
use serde_json::json;

use super::{Console, DeviceVerbError};
use crate::progress::bytes;

/// Whether a URL is of a boot package, as far as its scheme says.
pub(super) fn is_meant(url: &str) -> bool {
    url.get(..13).is_some_and(|scheme| scheme.eq_ignore_ascii_case("fuchsia-boot:"))
}

fn packages(config: &DeviceConfig, console: &mut Console<'_>) -> Result<BootPackages, DeviceVerbError> {
    let Some(path) = &config.boot_packages else { return Ok(BootPackages::default()) };
    let packages = BootPackages::open(path).map_err(DeviceError::from)?;
    for reason in packages.left_out() {
        writeln!(console.err, "warning: {reason}: left out")?;
    }
    Ok(packages)
}

fn resolved(
    url: &str,
    config: &DeviceConfig,
    console: &mut Console<'_>,
) -> Result<(BootUrl, BootPackages, BlobId), DeviceVerbError> {
    let refused = |error| DeviceVerbError::Argument {
        given: url.to_owned(),
        reason: format!("not the URL of a boot package (fuchsia-boot:///NAME): {error}"),
    };
    let parsed: BootUrl = url.parse().map_err(refused)?;
    let packages = packages(config, console)?;
    let hash = packages.resolve(&parsed).map_err(DeviceError::from)?;
    Ok((parsed, packages, hash))
}

/// `get-hash`.
pub(super) fn get_hash(
    url: &str,
    config: &DeviceConfig,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let (url, _, hash) = resolved(url, config, console)?;
    if console.json {
        console.print_json(&json!({ "url": url.to_string(), "hash": hash }))?;
    } else {
        writeln!(console.out, "{hash}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `resolve`, and `--out`.
pub(super) fn resolve(
    url: &str,
    out: Option<&Path>,
    config: &DeviceConfig,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let (url, packages, hash) = resolved(url, config, console)?;
    let laid_out = match out {
        Some(target) => Some((target, packages.lay_out(hash, target)?)),
        None => None,
    };
    if console.json {
        let out =
            laid_out.map(|(target, report)| json!({ "dir": target.display().to_string(), "bytes": report.bytes }));
        let by = ResolvedBy::Boot.as_str();
        console.print_json(&json!({ "url": url.to_string(), "hash": hash, "version_by": by, "out": out }))?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(console.out, "resolving {url}")?;
    writeln!(console.out, "resolved {url} to {hash} with {}", ResolvedBy::Boot)?;
    if let Some((target, report)) = laid_out {
        writeln!(console.out, "{} files ({}) in {}", report.copied, bytes(report.bytes), target.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `open HASH`, if it is a boot package; nothing if it is none.
pub(super) fn open(
    hash: &str,
    config: &DeviceConfig,
    console: &mut Console<'_>,
) -> Result<Option<ExitCode>, DeviceVerbError> {
    let Ok(hash) = hash.parse::<BlobId>() else { return Ok(None) };
    let Some(contents) = packages(config, console)?.contents(hash) else { return Ok(None) };
    let blobs = contents.blobs.iter().map(|(path, blob)| (path, Some(blob)));
    let mut entries: Vec<_> = blobs.chain(contents.inline.keys().map(|path| (path, None))).collect();
    entries.sort_unstable();
    if console.json {
        let entry = |(path, blob): &(&String, Option<&BlobId>)| json!({ "path": path, "blob": blob });
        let entries: Vec<_> = entries.iter().map(entry).collect();
        console.print_json(&json!({ "hash": hash, "contents": entries }))?;
    } else {
        writeln!(console.out, "opening {hash}\npackage contents:")?;
        for (path, _) in entries {
            writeln!(console.out, "/{path}")?;
        }
    }
    Ok(Some(ExitCode::SUCCESS))
}
