//! `device resolve`: fetch and verify what is missing of a package, and lay out its files if asked to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use colibri_device::daemon::wire::{self, Blamed, Event, FetchProgress, Materialised, ResolvedPackage};
use colibri_device::materialise::MaterialiseError;
use serde_json::json;

use super::api::{self, Api};
use super::packages::parse_url;
use super::{Console, DeviceVerbError};
use crate::progress::{Step, bytes, step};

/// Arguments of `device resolve`.
#[derive(Debug, clap::Args)]
pub struct Resolve {
    /// fuchsia-pkg://HOST/NAME, then /VARIANT and ?hash=HASH if wanted
    pub url: String,
    /// Accepted as the real tool accepts them, and without meaning there too
    #[arg(hide = true)]
    pub selectors: Vec<String>,
    /// Lay out the package's files in this new folder, read-only
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Shows how far a fetch is, how fast, and from where.
pub(super) fn show(step: &Step, at: &FetchProgress) {
    if at.blobs > 0 {
        step.progress(at.blobs_done, at.blobs);
    }
    let edges = at.edges.iter().map(|edge| format!("{} {}", edge.source, bytes(edge.body_bytes)));
    let from = edges.collect::<Vec<_>>().join(", ");
    let from = if from.is_empty() { from } else { format!(", from {from}") };
    step.note(&format!("{} at {}/s{from}", bytes(at.content_bytes), bytes(at.bytes_per_s)));
}

/// Names a mirror that served bytes which are provably wrong.
pub(super) fn warn(blamed: &Blamed, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    Ok(writeln!(console.err, "warning: {}: refused, and asked of another mirror", blamed.reason)?)
}

/// Runs the verb.
pub(super) async fn run(
    args: &Resolve,
    dir: &Path,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let url = parse_url(&args.url)?;
    if let Some(path) = args.out.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        // Found before anything is fetched.
        return Err(MaterialiseError::TargetExists { path: path.clone() }.into());
    }
    let api = connect().await?;
    if !console.json {
        writeln!(console.out, "resolving {url}")?;
        console.out.flush()?;
    }
    let fetching = step(&format!("fetching {}", url.path()));
    let mut events = api.events("/resolve", api::json(&wire::Resolve { url: url.to_string() })?).await?;
    let mut blames = Vec::new();
    let resolved = loop {
        match events.next().await {
            Ok(Event::Progress(at)) => show(&fetching, &at),
            Ok(Event::Blamed(blamed)) => {
                warn(&blamed, console)?;
                blames.push(blamed.source);
            }
            Ok(Event::Resolved(resolved)) => break resolved,
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    };
    drop(fetching);
    let laid_out = match &args.out {
        Some(target) => Some((target, lay_out(&api, &resolved, target).await?)),
        None => None,
    };
    if console.json {
        let out =
            laid_out.map(|(target, laid_out)| json!({ "dir": target.display().to_string(), "bytes": laid_out.bytes }));
        let mut said = json!(resolved);
        said["dir"] = dir.display().to_string().into();
        said["blamed"] = json!(blames);
        said["out"] = json!(out);
        console.print_json(&said)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ResolvedPackage { resolved_url, hash, version_by, blobs, fetched, fetched_content_bytes, .. } = &resolved;
    match *resolved_url == resolved.url {
        true => writeln!(console.out, "resolved {url} to {hash} with {version_by}")?,
        false => writeln!(console.out, "resolved {url} as {resolved_url} to {hash} with {version_by}")?,
    }
    let content = bytes(*fetched_content_bytes);
    writeln!(console.out, "{blobs} blobs in {}, {fetched} fetched now ({content})", dir.display())?;
    if resolved.reused_content_bytes > 0 {
        let reused = bytes(resolved.reused_content_bytes);
        writeln!(console.out, "of these, {reused} were not fetched: the version before has them too")?;
    }
    if let Some((target, laid_out)) = laid_out {
        writeln!(console.out, "{} files ({}) in {}", laid_out.files, bytes(laid_out.bytes), target.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the device lay out the package's files in a folder below one that is made here.
async fn lay_out(api: &Api, resolved: &ResolvedPackage, target: &Path) -> Result<Materialised, DeviceVerbError> {
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let failed = |error| DeviceVerbError::Folder { path: parent.to_owned(), error };
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let failed = |error| DeviceVerbError::Folder { path: target.to_owned(), error };
    let dir = std::path::absolute(target).map_err(failed)?;
    api.post("/materialise", &wire::Materialise { hash: resolved.hash, dir }).await
}
