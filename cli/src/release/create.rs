//! `colibri release create`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::BlobId;
use colibri_package::PackageName;
use colibri_package::url::{RepositoryUrl, UnpinnedPackageUrl};
use colibri_release::{Missing, Release, ReleaseBuilder, ReleasePackage, fetched_bytes};
use colibri_repository::{Repository, RepositoryError};
use serde_json::json;

use super::description::{Description, repository_url};
use super::{ReleaseVerbError, package};
use crate::files;
use crate::progress::{bytes, step};

const EXAMPLE: &str = "\
A product description names packages and their cell of the grid, in TOML or JSON:

  product = \"kiosk\"
  version = \"1.4\"
  forbids_overlay = true                 # optional: no developer overlays, also not in engineering mode
  discoverable = [\"apps.example\"]        # any package of this host, on demand

  [[package]]
  url = \"fuchsia-pkg://example.com/shell\"
  availability = \"permanent\"             # or automatic, on_demand
  versioning = \"anchored\"                # or upgradable

  [[package]]
  url = \"fuchsia-pkg://example.com/clock\"
  availability = \"automatic\"
  versioning = \"upgradable\"
  minimum_version = \"2.1\"                # optional
  fallback = true                        # optional: fall back to what is offered now

  [[boot]]                               # comes with the boot image, as fuchsia-boot:///loader
  url = \"fuchsia-pkg://example.com/loader\"

  [[cache]]                              # deprecated: there from the start, and any version of its repository after that;
  url = \"fuchsia-pkg://example.com/tool\" # use permanent and upgradable instead

Example: write the release, and a package that carries it, and publish that:

  colibri release create kiosk.toml --repo example.com=repo --repo apps.example=apps -o release.json --package out
  colibri repo publish repo --package out/package_manifest.json";

/// Arguments of `release create`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Create {
    /// The product description, a .toml or .json file
    pub description: PathBuf,
    /// A repository that the product trusts: the host of its packages, and its folder (repeatable)
    #[arg(long, required = true, value_name = "HOST=DIR", value_parser = host_and_dir)]
    pub repo: Vec<(RepositoryUrl, PathBuf)>,
    /// Where to write the release
    #[arg(short, long, value_name = "FILE", default_value = "release.json")]
    pub output: PathBuf,
    /// Also build a package that carries the release, into this folder
    #[arg(long, value_name = "DIR")]
    pub package: Option<PathBuf>,
    /// Name of that package; default is PRODUCT-release
    #[arg(long, value_name = "NAME", requires = "package")]
    pub package_name: Option<PackageName>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn host_and_dir(text: &str) -> Result<(RepositoryUrl, PathBuf), String> {
    let (host, dir) = text.split_once('=').ok_or("it is not HOST=DIR")?;
    Ok((repository_url(host)?, dir.into()))
}

/// Creates.
pub(super) fn run(args: &Create, out: &mut dyn Write) -> Result<ExitCode, ReleaseVerbError> {
    let description = Description::read(&args.description)?;
    // Wrong arguments are found before any work.
    let name = args.package.as_ref().map(|_| package_name(args, &description.product)).transpose()?;
    let release = build(args, &description)?;
    let document = release.to_bytes().map_err(ReleaseVerbError::release(&args.description))?;
    files::write(&args.output, &document)?;
    let built = match (&args.package, name) {
        (Some(dir), Some(name)) => Some(package::build(dir, name, &document)?),
        _ => None,
    };
    let (packages, blobs) = (release.packages().len(), release.blobs().len());
    if args.json {
        let package = built.as_ref().map(
            |built| json!({ "name": built.name, "hash": built.hash, "manifest": built.manifest.display().to_string() }),
        );
        let report = json!({
            "release": args.output.display().to_string(),
            "product": release.product(),
            "version": release.version(),
            "packages": packages,
            "boot": release.boot().len(),
            "cache": release.cache().len(),
            "blobs": blobs,
            "package": package,
        });
        files::print_json(out, &report)?;
    } else {
        writeln!(out, "{}: {} {}", args.output.display(), release.product(), release.version())?;
        writeln!(out, "{packages} packages, {blobs} blobs, {} to fetch", bytes(fetched_bytes(release.blobs())))?;
        if !release.boot().is_empty() {
            writeln!(out, "{} boot packages besides", release.boot().len())?;
        }
        if !release.cache().is_empty() {
            let count = release.cache().len();
            writeln!(out, "{count} packages in the cache set, which is deprecated: use permanent and upgradable")?;
        }
        if let Some(built) = built {
            writeln!(out, "{}  {}", built.hash, built.name)?;
            writeln!(out, "{}", built.manifest.display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn package_name(args: &Create, product: &str) -> Result<PackageName, ReleaseVerbError> {
    if let Some(name) = &args.package_name {
        return Ok(name.clone());
    }
    format!("{product}-release").parse().map_err(|_| {
        ReleaseVerbError::Usage(format!("{product:?} cannot be part of a package's name: give --package-name"))
    })
}

/// Asks the repositories for all that the release says.
fn build(args: &Create, description: &Description) -> Result<Release, ReleaseVerbError> {
    let wrong = |reason: String| ReleaseVerbError::Description { path: args.description.clone(), reason };
    let mut repositories = BTreeMap::new();
    for (url, dir) in &args.repo {
        if repositories.insert(url.clone(), Repository::open(dir)?).is_some() {
            return Err(ReleaseVerbError::Usage(format!("two repositories for {url}: a host has one")));
        }
    }
    let mut builder = ReleaseBuilder::new(&description.product, description.version);
    if description.forbids_overlay {
        builder.forbid_overlay();
    }
    for (url, repository) in &repositories {
        let root = repository.trusted_root_bytes()?;
        let root = String::from_utf8(root.to_vec()).map_err(|_| wrong(format!("the root of {url} is not text")))?;
        builder.repository(url.clone(), root);
    }
    for host in &description.discoverable {
        builder.discoverable(repository_url(host).map_err(wrong)?);
    }
    for package in &description.packages {
        let url = package.url().map_err(wrong)?;
        let hash = match package.has_hash().map_err(wrong)? {
            true => Some(offered(&repositories, &url)?),
            false => None,
        };
        let (availability, versioning) = (package.availability, package.versioning);
        let minimum_version = package.minimum_version;
        builder.package(ReleasePackage { url, availability, versioning, hash, minimum_version });
    }
    for package in &description.boot {
        let url = package.url().map_err(wrong)?;
        let hash = offered(&repositories, &url)?;
        builder.boot(url.name().clone(), hash);
    }
    for package in &description.cache {
        let url = package.url().map_err(wrong)?;
        let hash = offered(&repositories, &url)?;
        builder.cache(url, hash);
    }
    answer(&mut builder, &repositories)?;
    builder.finish().map_err(ReleaseVerbError::release(&args.description))
}

/// The package hash that a repository offers now.
fn offered(
    repositories: &BTreeMap<RepositoryUrl, Repository>,
    url: &UnpinnedPackageUrl,
) -> Result<BlobId, ReleaseVerbError> {
    let Some(repository) = repositories.get(url.repository()) else {
        let host = url.repository().host();
        return Err(ReleaseVerbError::Usage(format!("{url}: give its repository, as --repo {host}=DIR")));
    };
    match repository.package(&url.path().to_string()) {
        Ok(entry) => Ok(entry.hash),
        Err(RepositoryError::UnknownPackage(name)) => {
            let dir = repository.dir().display();
            Err(ReleaseVerbError::Usage(format!("{url}: the repository {dir} has no package {name}: publish it first")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Answers all that the builder asks, from whichever repository knows.
fn answer(
    builder: &mut ReleaseBuilder,
    repositories: &BTreeMap<RepositoryUrl, Repository>,
) -> Result<(), ReleaseVerbError> {
    let step = step("looking at packages and blobs");
    while let Some(missing) = builder.missing() {
        match missing {
            Missing::Contents(id) => {
                let contents = first(repositories, |repository| repository.release_contents(id))?;
                builder.contents(contents.ok_or(ReleaseVerbError::Missing { what: "package hash", id })?);
            }
            Missing::Blob(id) => {
                let blob = first(repositories, |repository| repository.release_blob(id))?;
                builder.blob(blob.ok_or(ReleaseVerbError::Missing { what: "blob", id })?);
            }
        }
        let (known, needed) = builder.progress();
        step.progress(known as u64, needed as u64);
    }
    step.done(&format!("{} blobs are known", builder.progress().0));
    Ok(())
}

fn first<T>(
    repositories: &BTreeMap<RepositoryUrl, Repository>,
    ask: impl Fn(&Repository) -> Result<Option<T>, RepositoryError>,
) -> Result<Option<T>, ReleaseVerbError> {
    for repository in repositories.values() {
        if let Some(found) = ask(repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
