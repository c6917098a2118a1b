//! `colibri repo recover`: an origin restored from an older backup takes back what edges have seen since.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use colibri_common::{Clock, SystemClock};
use colibri_fetch::{BlobFetcher, Source, SourceOrder, SourceUrl, Sources};
use colibri_repository::{Recover as How, RecoverReport, Repository, Testimony, Witness};
use serde_json::json;

use super::{RepoError, versions_json, versions_line};
use crate::device::configuration::Connection;
use crate::files;
use crate::progress::step;

/// Arguments of `repo recover`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Run it before the restored origin answers again: edges that can ask it would follow it back.\n\n\
                        Example: colibri repo recover --edge https://berlin.example:8443/fleet.example \
                        --edge https://tokyo.example:8443/fleet.example /var/lib/colibri/repositories/fleet.example"
)]
pub struct Recover {
    /// Address of the repository at an edge (repeatable): the more, the newer what is found
    #[arg(long, value_name = "URL", required = true)]
    pub edge: Vec<SourceUrl>,
    /// How it connects
    #[command(flatten)]
    pub connection: Connection,
    /// Offer what is taken back although nobody has all its blobs, and why; the signed snapshot says it to everybody
    #[arg(long, value_name = "REASON")]
    pub accept_missing: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The repository's folder, as restored
    pub repo_path: PathBuf,
}

/// Recovers.
pub(super) fn run(args: &Recover, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let repository = Repository::open(&args.repo_path)?;
    let client = args.connection.client()?;
    let witness = |url: &SourceUrl| {
        let sources = Sources::new(vec![Source::new(url.clone())], SourceOrder::Listed);
        let agent = concat!("colibri/", env!("CARGO_PKG_VERSION"));
        Witness { name: url.to_string(), fetcher: BlobFetcher::new(client.clone(), Arc::new(sources), agent) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let witnesses: Vec<Witness> = args.edge.iter().map(witness).collect();
    let how = How { now: SystemClock.now(), unproven_because: args.accept_missing.clone() };
    let step = step(&format!("asking {} edges what was released", witnesses.len()));
    let report = runtime.block_on(repository.recover(&witnesses, &how))?;
    step.done(&format!("{} packages taken back, {} blobs fetched", report.packages.len(), report.blobs_fetched));
    if args.json {
        files::print_json(out, &report_json(&report))?;
    } else {
        print(&report, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &RecoverReport, out: &mut dyn Write) -> std::io::Result<()> {
    for Testimony { name, versions, fault } in &report.witnesses {
        let shown = versions.map_or("nothing valid".to_owned(), versions_line);
        let fault = fault.as_ref().map(|fault| format!(" ({fault})")).unwrap_or_default();
        writeln!(out, "{name}: {shown}{fault}")?;
    }
    for package in &report.packages {
        writeln!(out, "back: {package}")?;
    }
    if report.blobs_missing > 0 {
        writeln!(out, "{} blobs are missing: `repo verify` names them", report.blobs_missing)?;
    }
    writeln!(out, "was {}", versions_line(report.before))?;
    writeln!(out, "now {}", versions_line(report.versions))
}

fn report_json(report: &RecoverReport) -> serde_json::Value {
    let witness =
        |of: &Testimony| json!({"edge": of.name, "versions": of.versions.map(versions_json), "fault": of.fault});
    json!({
        "edges": report.witnesses.iter().map(witness).collect::<Vec<_>>(),
        "packages": report.packages,
        "blobs_fetched": report.blobs_fetched,
        "blobs_missing": report.blobs_missing,
        "before": versions_json(report.before),
        "versions": versions_json(report.versions),
    })
}
