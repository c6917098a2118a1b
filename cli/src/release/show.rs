//! `colibri release show`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::BlobId;
use colibri_metadata::TrustedSet;
use colibri_release::{Release, ReleasePackage, TrustedRepository, fetched_bytes, raw_bytes};
use serde_json::{Value, json};

use super::{ReleaseVerbError, read, short};
use crate::files;
use crate::progress::bytes;
use crate::table::print_table;

/// Arguments of `release show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri release show release.json")]
pub struct Show {
    /// The release document
    pub release: PathBuf,
    /// Print one JSON object; sizes are bytes, those of a package with its subpackages
    #[arg(long)]
    pub json: bool,
}

/// Blobs and bytes of one package, subpackages included.
struct Weight {
    blobs: usize,
    raw_bytes: u64,
    fetched_bytes: u64,
}

impl Weight {
    fn of(release: &Release, hash: Option<BlobId>) -> Self {
        let needed = release.blobs_needed(hash);
        let blobs: Vec<_> = needed.into_iter().filter_map(|id| release.blob(id)).collect();
        let (raw_bytes, fetched_bytes) = (raw_bytes(blobs.iter().copied()), fetched_bytes(blobs.iter().copied()));
        Self { blobs: blobs.len(), raw_bytes, fetched_bytes }
    }
}

/// Version of the root that a release trusts a repository by; it was checked when the release was read.
fn root_version(repository: &TrustedRepository) -> Option<u32> {
    let set = TrustedSet::from_root_file(&repository.root.clone().into()).ok()?;
    Some(set.root().version())
}

/// Shows.
pub(super) fn run(args: &Show, out: &mut dyn Write) -> Result<ExitCode, ReleaseVerbError> {
    let release = read(&args.release)?;
    if args.json {
        files::print_json(out, &to_json(&release))?;
    } else {
        print(&release, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn to_json(release: &Release) -> Value {
    let package = |package: &ReleasePackage| {
        let Weight { blobs, raw_bytes, fetched_bytes } = Weight::of(release, package.hash);
        json!({
            "url": package.url.to_string(),
            "availability": package.availability,
            "versioning": package.versioning,
            "hash": package.hash,
            "minimum_version": package.minimum_version,
            "blobs": blobs,
            "raw_bytes": raw_bytes,
            "fetched_bytes": fetched_bytes,
        })
    };
    let repository = |repository: &TrustedRepository| json!({ "url": repository.url.to_string(), "root_version": root_version(repository) });
    json!({
        "product": release.product(),
        "version": release.version(),
        "forbids_overlay": release.forbids_overlay(),
        "repositories": release.repositories().iter().map(repository).collect::<Value>(),
        "packages": release.packages().iter().map(package).collect::<Value>(),
        "boot": release.boot(),
        "cache": release.cache(),
        "discoverable": release.discoverable().iter().map(|domain| domain.url.to_string()).collect::<Value>(),
        "blobs": release.blobs().len(),
        "raw_bytes": raw_bytes(release.blobs()),
        "fetched_bytes": fetched_bytes(release.blobs()),
    })
}

fn print(release: &Release, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{} {}", release.product(), release.version())?;
    if release.forbids_overlay() {
        writeln!(out, "forbids developer overlays")?;
    }
    for repository in release.repositories() {
        let version = root_version(repository).map_or_else(|| "?".to_owned(), |version| version.to_string());
        writeln!(out, "trusts {} from root {version} on", repository.url)?;
    }
    let heads = ["PACKAGE SET", "PACKAGE", "VERSION", "BLOBS", "CONTENT", "TO FETCH"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    for package in release.packages() {
        let weight = Weight::of(release, package.hash);
        let version = match (package.hash, package.minimum_version) {
            (None, Some(least)) => format!(">= {least}"),
            (Some(_), Some(least)) => format!("{} (>= {least})", short(package.hash)),
            (hash, None) => short(hash),
        };
        let set = format!("{} & {}", package.availability, package.versioning);
        let [raw, fetched] = [weight.raw_bytes, weight.fetched_bytes].map(bytes);
        rows.push(vec![set, package.url.to_string(), version, weight.blobs.to_string(), raw, fetched]);
    }
    for domain in release.discoverable() {
        rows.push(vec!["on demand & discoverable".to_owned(), domain.url.to_string(), "-".to_owned()]);
    }
    let beside =
        release.boot().iter().map(|package| ("boot", format!("fuchsia-boot:///{}", package.name), package.hash));
    let cache = release.cache().iter().map(|package| ("cache (deprecated)", package.url.to_string(), package.hash));
    for (set, url, hash) in beside.chain(cache) {
        let weight = Weight::of(release, Some(hash));
        let [raw, fetched] = [weight.raw_bytes, weight.fetched_bytes].map(bytes);
        rows.push(vec![set.to_owned(), url, short(Some(hash)), weight.blobs.to_string(), raw, fetched]);
    }
    print_table(out, &rows)?;
    let [raw, fetched] = [raw_bytes(release.blobs()), fetched_bytes(release.blobs())].map(bytes);
    writeln!(out, "{} blobs in all: {raw} of content, {fetched} to fetch", release.blobs().len())
}
