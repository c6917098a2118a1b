//! `colibri repo publish`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use colibri_common::{Clock, SystemClock, UnixSeconds};
use colibri_package::delivery::DeliveryType;
use colibri_repository::{CopyMode, PublishProgress, PublishReport, keep_blobs_in, sources};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::signing::SigningArgs;
use super::watch::{self, Gathered, Inputs};
use super::{RepoError, versions_json, versions_line};
use crate::files::{self, FilesError};
use crate::package::depfile;
use crate::progress::{bytes, step};

/// The file that makes a folder a product bundle.
const PRODUCT_BUNDLE: &str = "product_bundle.json";

/// Arguments of `repo publish`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  colibri repo publish --package out/package_manifest.json repo\n  \
    colibri repo publish --watch --from-dir hello=app --level 3 repo\n  \
    colibri repo publish --product-bundle pb --copy-mode hard-link repo")]
pub struct Publish {
    /// What to publish
    #[command(flatten)]
    pub inputs: Inputs,
    /// A product bundle, or a repository's folder: every package it offers, under its name (repeatable)
    #[arg(long, value_name = "DIR")]
    pub product_bundle: Vec<PathBuf>,
    /// Stay, and publish again whenever an input changes
    #[arg(long, conflicts_with_all = ["json", "metadata_current_time"])]
    pub watch: bool,
    /// Write a Ninja dependency file: the timestamp depends on every manifest, list and archive
    #[arg(long, value_name = "FILE")]
    pub depfile: Option<PathBuf>,
    /// Write the distinct blobs published as JSON: an array of {source_path, path, merkle, size}, as in a package manifest
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub blob_manifest: Option<PathBuf>,
    /// Keep blobs in this folder, from now on: repository/blobs becomes a link to it. Several repositories may share one;
    /// `repo gc` then refuses, because it cannot know what the others need
    #[arg(long, value_name = "DIR")]
    pub blob_repo_dir: Option<PathBuf>,
    /// Offer only these packages, not those offered so far
    #[arg(long)]
    pub clean: bool,
    /// Sign the root again too
    #[arg(long)]
    pub refresh_root: bool,
    /// Metadata versions are seconds since 1970 instead of the next number
    #[arg(long)]
    pub time_versioning: bool,
    /// The time from which expiry dates count, such as 2026-01-31T00:00:00Z; default is now
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    pub metadata_current_time: Option<UnixSeconds>,
    /// How blobs come in. Only what is a delivery blob of the type already is taken as it is; plain files are compressed
    #[arg(long, value_name = "MODE", default_value = "copy")]
    pub copy_mode: Mode,
    /// Folder of the private keys that the root trusts; what --signing-keys is here, which goes before it
    #[arg(long, value_name = "DIR")]
    pub trusted_keys: Option<PathBuf>,
    /// Root metadata to trust; default is the repository's own oldest root. Metadata not chained to it is an error, and
    /// nothing is published
    #[arg(long, value_name = "FILE")]
    pub trusted_root: Option<PathBuf>,
    /// How blobs are stored: 1 or 2
    #[arg(long, value_name = "N", default_value = "1", value_parser = delivery_type)]
    pub delivery_blob_type: DeliveryType,
    /// zstd level instead of the type's own (14 for type 1, 21 for type 2); a low one is quicker while developing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: Option<i32>,
    /// Sign although blobs of packages offered before are absent or wrong; the signed snapshot tells this reason to all
    #[arg(long, value_name = "REASON")]
    pub unproven_because: Option<String>,
    /// Where keys are, and why
    #[command(flatten)]
    pub signing: SigningArgs,
    /// Store what is new, but sign nothing: write the targets that would offer it to this file, for signers elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub export_targets: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder
    pub repo_path: PathBuf,
}

/// How blobs come in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Copied; what is there already stays as it is
    #[default]
    Copy,
    /// Copied, also over what is there already: to compress again at another level, for instance
    CopyOverwrite,
    /// Another name for the same file, where one file system allows it; else copied
    HardLink,
}

fn moment(text: &str) -> Result<UnixSeconds, String> {
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|error| error.to_string())?;
    u64::try_from(at.unix_timestamp()).map(UnixSeconds).map_err(|_| "it lies before 1970".to_owned())
}

fn delivery_type(text: &str) -> Result<DeliveryType, String> {
    let number: u32 = text.parse().map_err(|error| format!("{error}"))?;
    DeliveryType::try_from(number).map_err(|error| error.to_string())
}

/// Publishes: blobs durable and proven first, signed metadata last.
pub(super) fn run(args: &Publish, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    if args.watch {
        let stop = watch::until_signal()?;
        watch::watch(&args.inputs, &stop, |gathered| Ok(summary(&publish(args, gathered)?)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = publish(args, &args.inputs.gather()?)?;
    if args.json {
        files::print_json(out, &report_json(&report))?;
    } else {
        print(&report, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn publish(args: &Publish, gathered: &Gathered) -> Result<PublishReport, RepoError> {
    if args.repo_path.join(PRODUCT_BUNDLE).exists() {
        let reason = "it is a product bundle, which stays as it was made: publish its packages into another repository \
                      with --product-bundle, or import it with `repo import`";
        return Err(FilesError::Refused { path: args.repo_path.clone(), reason }.into());
    }
    if let Some(root) = &args.trusted_root {
        let root = files::read(root)?;
        sources(&args.repo_path)?.iter().try_for_each(|source| source.check(Some(root.clone())))?;
    }
    if let Some(blobs) = &args.blob_repo_dir {
        // What is not a repository is told as such, and nothing made in it.
        sources(&args.repo_path)?;
        keep_blobs_in(&args.repo_path, blobs)?;
    }
    let keys = args.signing.signing_keys.clone().or_else(|| args.trusted_keys.clone());
    let repository = args.signing.open_with_keys(&args.repo_path, keys)?;
    let step = step(&format!("publishing into {}", args.repo_path.display()));
    let progress = |at: PublishProgress| step.progress(at.bytes_done, at.bytes_total);
    let publish = colibri_repository::Publish {
        manifests: gathered.manifests.clone(),
        package_archives: gathered.archives.clone(),
        product_bundles: args.product_bundle.clone(),
        delivery_type: args.delivery_blob_type,
        compression_level: args.level,
        copy_mode: if args.copy_mode == Mode::HardLink { CopyMode::HardLink } else { CopyMode::Copy },
        overwrite: args.copy_mode == Mode::CopyOverwrite,
        clean: args.clean,
        refresh_root: args.refresh_root,
        time_versioning: args.time_versioning,
        unproven_because: args.unproven_because.clone(),
        progress: Some(&progress),
        ..colibri_repository::Publish::new(args.metadata_current_time.unwrap_or_else(|| SystemClock.now()))
    };
    let report = match &args.export_targets {
        None => repository.publish(&publish)?,
        Some(path) => {
            let (report, targets) = repository.prepare(&publish)?;
            files::write(path, &targets.to_bytes()?)?;
            report
        }
    };
    step.done(&format!("{} blobs are durable and proven", report.blobs));
    if let Some(near) = report.near_cap {
        eprintln!("colibri: warning: {near}");
    }
    if let Some(path) = &args.blob_manifest {
        let failed = |error: serde_json::Error| std::io::Error::other(error.to_string());
        files::write(path, &serde_json::to_vec(&report.taken).map_err(failed)?)?;
    }
    if let Some(path) = &args.depfile {
        let timestamp = repository.served_dir().join("timestamp.json");
        let bundles = args.product_bundle.iter().map(|bundle| bundle.join(PRODUCT_BUNDLE));
        let named: Vec<PathBuf> = gathered.named.iter().cloned().chain(bundles.filter(|path| path.exists())).collect();
        depfile::write(path, &timestamp, &named)?;
    }
    Ok(report)
}

/// One line for whoever watches.
pub(super) fn summary(report: &PublishReport) -> String {
    let PublishReport { packages, blobs_new, versions, .. } = report;
    format!("published {packages} packages, {blobs_new} new blobs: {}", versions_line(*versions))
}

fn print(report: &PublishReport, out: &mut dyn Write) -> std::io::Result<()> {
    let PublishReport {
        packages,
        blobs,
        blobs_new,
        bytes_raw,
        bytes_deduplicated,
        bytes_stored_new,
        versions,
        near_cap: _,
        taken: _,
    } = *report;
    let plural = if packages == 1 { "" } else { "s" };
    writeln!(out, "{packages} package{plural} published: {blobs} blobs, {blobs_new} of them new")?;
    let [raw, deduplicated, stored] = [bytes_raw, bytes_deduplicated, bytes_stored_new].map(bytes);
    writeln!(out, "{raw} of content, {deduplicated} of it deduplicated, {stored} newly stored")?;
    writeln!(out, "now {}", versions_line(versions))
}

fn report_json(report: &PublishReport) -> serde_json::Value {
    json!({
        "packages": report.packages,
        "blobs": report.blobs,
        "blobs_new": report.blobs_new,
        "bytes_raw": report.bytes_raw,
        "bytes_deduplicated": report.bytes_deduplicated,
        "bytes_stored_new": report.bytes_stored_new,
        "versions": versions_json(report.versions),
        "near_cap": report.near_cap.map(|near| {
            json!({ "file": near.role.file(), "bytes": near.bytes, "bytes_max": near.bytes_max })
        }),
    })
}
