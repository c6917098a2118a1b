//! `device resolve`: fetch and verify what is missing of a package, and lay out its files if asked to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use colibri_device::materialise::{MaterialiseError, MaterialiseReport, materialise};
use colibri_device::{Device, Event, Observer, Resolved};
use colibri_package::url::AbsolutePackageUrl;
use colibri_store::Store;
use serde_json::json;

use super::packages::parse_url;
use super::{Console, DeviceVerbError, Make};
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

/// How far a resolve is: blobs known and done, and bytes of content that were verified.
#[derive(Debug, Default)]
pub(super) struct Counts {
    known: AtomicU64,
    done: AtomicU64,
    verified_bytes: AtomicU64,
}

impl Counts {
    pub(super) fn observer(self: &Arc<Self>) -> Observer {
        let counts = self.clone();
        Arc::new(move |event| {
            match event {
                Event::Announced { blobs } => counts.known.fetch_add(blobs as u64, Ordering::Relaxed),
                Event::Present { .. } | Event::Kept { .. } => counts.done.fetch_add(1, Ordering::Relaxed),
                Event::Verified { content_bytes, .. } => {
                    counts.verified_bytes.fetch_add(content_bytes, Ordering::Relaxed)
                }
            };
        })
    }

    pub(super) fn show(&self, step: &Step) -> (u64, u64) {
        step.note(&bytes(self.verified_bytes.load(Ordering::Relaxed)));
        (self.done.load(Ordering::Relaxed), self.known.load(Ordering::Relaxed))
    }
}

/// Runs the verb.
pub(super) async fn run(
    args: &Resolve,
    dir: &Path,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let url = parse_url(&args.url)?;
    if let Some(path) = args.out.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        // Found before anything is fetched.
        return Err(MaterialiseError::TargetExists { path: path.clone() }.into());
    }
    let (device, store) = open(Make::Refused)?;
    if !console.json {
        writeln!(console.out, "resolving {url}")?;
        console.out.flush()?;
    }
    let resolved = fetch(&device, &url).await;
    let blamed = tell_blames(&device, &device.rules().rewrite(&url), console)?;
    let resolved = resolved?;
    let laid_out = match &args.out {
        Some(target) => Some((target, lay_out(&device, store, &resolved, target).await?)),
        None => None,
    };
    let report = &resolved.report;
    if console.json {
        let out =
            laid_out.map(|(target, report)| json!({ "dir": target.display().to_string(), "bytes": report.bytes }));
        console.print_json(&json!({
            "url": url.to_string(),
            "resolved_url": resolved.url.to_string(),
            "hash": resolved.hash,
            "version_by": resolved.by.as_str(),
            "dir": dir.display().to_string(),
            "packages": report.packages,
            "blobs": report.blobs,
            "fetched": report.fetched,
            "fetched_content_bytes": report.content_bytes,
            "blamed": blamed,
            "out": out,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    match resolved.url == url {
        true => writeln!(console.out, "resolved {url} to {} with {}", resolved.hash, resolved.by)?,
        false => writeln!(console.out, "resolved {url} as {} to {} with {}", resolved.url, resolved.hash, resolved.by)?,
    }
    let (blobs, fetched, content) = (report.blobs, report.fetched, bytes(report.content_bytes));
    writeln!(console.out, "{blobs} blobs in {}, {fetched} fetched now ({content})", dir.display())?;
    if let Some((target, report)) = laid_out {
        let files = report.reflinked + report.hard_linked + report.copied;
        writeln!(console.out, "{files} files ({}) in {}", bytes(report.bytes), target.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch(device: &Device, url: &AbsolutePackageUrl) -> Result<Resolved, DeviceVerbError> {
    let counts = Arc::new(Counts::default());
    let step = step(&format!("fetching {}", url.path()));
    Ok(step.watch(device.resolve(url, counts.observer()), || counts.show(&step)).await?)
}

/// Names mirrors that served bytes which are provably wrong; their addresses.
fn tell_blames(
    device: &Device,
    url: &AbsolutePackageUrl,
    console: &mut Console<'_>,
) -> Result<Vec<String>, DeviceVerbError> {
    let Ok(repository) = device.repositories().get(url.repository().host()) else { return Ok(Vec::new()) };
    let mut first = BTreeMap::new();
    for blame in repository.sources().blames() {
        first.entry(blame.source.clone()).or_insert(blame);
    }
    for blame in first.values() {
        writeln!(console.err, "warning: {blame}: refused, and asked of another mirror")?;
    }
    Ok(first.into_keys().collect())
}

async fn lay_out(
    device: &Device,
    store: Arc<Store>,
    resolved: &Resolved,
    target: &Path,
) -> Result<MaterialiseReport, DeviceVerbError> {
    let contents = device.open_package(resolved.hash).await?;
    let target = target.to_owned();
    let built = tokio::task::spawn_blocking(move || {
        if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let failed = |error| DeviceVerbError::Folder { path: parent.to_owned(), error };
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        Ok::<_, DeviceVerbError>(materialise(&store, &contents.blobs, &contents.inline, &target)?)
    });
    built.await?
}
