//! `colibri repo push`: packages to a running origin, over its write API.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use colibri_common::{Clock, SystemClock};
use colibri_package::PackagePath;
use colibri_repository::remote::{Push as Pushed, PushProgress, PushReport, Remote, RemoteConfig};
use colibri_transport::{ClientIdentity, Trust};
use serde_json::json;

use super::watch::Inputs;
use super::{RepoError, versions_json, versions_line};
use crate::files;
use crate::progress::{bytes, step};

/// Arguments of `repo push`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: colibri repo push --to https://origin.example:8444/fleet.example --ca ca.pem \
                        --token-file ci.token --from-dir hello=app")]
pub struct Push {
    /// The repository: https://HOST:PORT/NAME, of the origin's write API (plain http to this machine only)
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// File with the token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of the authority that vouches for the origin; default are those of this system
    #[arg(long, value_name = "FILE", conflicts_with = "pin")]
    pub ca: Option<PathBuf>,
    /// SHA-256 of the origin's public key, as it prints at its start
    #[arg(long, value_name = "HEX")]
    pub pin: Option<String>,
    /// Client certificate, PEM, instead of a token
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// What to publish
    #[command(flatten)]
    pub inputs: Inputs,
    /// A product bundle, or a repository's folder: every package it offers, under its name (repeatable)
    #[arg(long, value_name = "DIR")]
    pub product_bundle: Vec<PathBuf>,
    /// A package no longer to offer, as NAME/VARIANT (repeatable)
    #[arg(long, value_name = "NAME/VARIANT")]
    pub remove: Vec<PackagePath>,
    /// Offer only these packages, not those offered so far
    #[arg(long)]
    pub clean: bool,
    /// Do not wait for the edges the origin waits for, and why; takes an admin, and stands in the signed snapshot
    #[arg(long, value_name = "REASON")]
    pub past_gate: Option<String>,
    /// Blobs uploaded at a time
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub uploads: usize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl Push {
    fn trust(&self) -> Result<Trust, RepoError> {
        Ok(match (&self.ca, &self.pin) {
            (Some(path), _) => Trust::CaFile(path.clone()),
            (None, Some(pin)) => format!("pin:{}", pin.trim_start_matches("pin:")).parse()?,
            (None, None) => Trust::System,
        })
    }

    fn remote(&self) -> Result<Remote, RepoError> {
        let token = self.token_file.as_deref().map(files::read).transpose()?;
        let token = token.map(|token| String::from_utf8_lossy(&token).trim().to_owned());
        let identity = self.cert.clone().zip(self.key.clone());
        let identity = identity.map(|(certificate, key)| ClientIdentity { certificate, key });
        let config = RemoteConfig { url: self.to.clone(), token, trust: self.trust()?, identity };
        Ok(Remote::new(config)?)
    }
}

/// Publishes: missing blobs travel, then the names.
pub(super) fn run(args: &Push, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let gathered = args.inputs.gather()?;
    let remote = args.remote()?;
    let progress = Arc::new(PushProgress::default());
    let push = Pushed {
        packages: colibri_repository::Publish {
            manifests: gathered.manifests.clone(),
            package_archives: gathered.archives.clone(),
            product_bundles: args.product_bundle.clone(),
            clean: args.clean,
            ..colibri_repository::Publish::new(SystemClock.now())
        },
        remove: args.remove.clone(),
        uploads_at_a_time: args.uploads,
        past_gate_because: args.past_gate.clone(),
        progress: progress.clone(),
    };
    let step = step(&format!("publishing to {}", args.to));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(step.watch(remote.push(&push), || progress.at()))?;
    step.done(&format!("{} blobs, {} of them sent", report.blobs, report.blobs_sent));
    if args.json {
        files::print_json(out, &report_json(&report))?;
    } else {
        print(&report, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &PushReport, out: &mut dyn Write) -> std::io::Result<()> {
    let PushReport { packages, removed, blobs, blobs_sent, bytes_sent, resumed, versions } = *report;
    let plural = if packages == 1 { "" } else { "s" };
    writeln!(out, "{packages} package{plural} published, {removed} removed: {blobs} blobs, {blobs_sent} of them new")?;
    let resumed = if resumed > 0 { format!(", {resumed} uploads resumed") } else { String::new() };
    writeln!(out, "{} sent{resumed}", bytes(bytes_sent))?;
    writeln!(out, "now {}", versions_line(versions))
}

fn report_json(report: &PushReport) -> serde_json::Value {
    json!({
        "packages": report.packages,
        "removed": report.removed,
        "blobs": report.blobs,
        "blobs_sent": report.blobs_sent,
        "bytes_sent": report.bytes_sent,
        "uploads_resumed": report.resumed,
        "versions": versions_json(report.versions),
    })
}
