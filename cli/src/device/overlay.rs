//! `device overlay`: what developers put in the place of the package sets of a device.

use std::process::ExitCode;

use colibri_device::daemon::wire::{OverlayAdd, OverlayEntry};
use colibri_package::url::RepositoryUrl;
use serde_json::{Value, json};

use super::api::Api;
use super::packages::parse_url;
use super::{Console, DeviceVerbError};

/// Arguments of `device overlay`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only for devices in engineering mode (`engineering = true` in their configuration), and not where the running \
    release forbids it. An overlay goes before every package set, base included, and stays until it is cleared. A URL that pins \
    a version is not overridden.\n\n\
    Example: every package that the desk's repository lists, in the place of the product's\n  \
    colibri device overlay add --repo devhost\n  \
    colibri device overlay clear"
)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with the overlay.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Adds a package, or every package of a repository
    Add {
        /// fuchsia-pkg://HOST/NAME: as its repository lists it, or with ?hash=HASH that version
        #[arg(required_unless_present = "repo", conflicts_with = "repo")]
        url: Option<String>,
        /// Host of a configured repository: whatever package it lists
        #[arg(long, value_name = "NAME")]
        repo: Option<String>,
    },
    /// Lists the overlay, and says whether it counts
    List,
    /// Ends it
    Clear,
}

/// Runs the verb.
pub(super) async fn run(
    args: &Args,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    match &args.verb {
        Verb::Add { url, repo } => {
            let overlaid = overlaid(url.as_deref(), repo.as_deref())?;
            let added: Value = connect().await?.post("/overlay", &overlaid).await?;
            match &overlaid {
                _ if console.json => console.print_json(&added)?,
                OverlayAdd::Package(url) | OverlayAdd::Repository(url) => writeln!(console.out, "added {url}")?,
            }
        }
        Verb::List => {
            let overlay: OverlayEntry = connect().await?.get("/overlay").await?;
            if console.json {
                console.print_json(&json!(overlay))?;
            } else if overlay.packages.is_empty() && overlay.repositories.is_empty() {
                writeln!(console.out, "there is no overlay")?;
            } else {
                writeln!(console.out, "overlay:")?;
                describe(&overlay, console)?;
            }
        }
        Verb::Clear => {
            connect().await?.delete("/overlay").await?;
            if console.json {
                console.print_json(&json!({ "cleared": true }))?;
            } else {
                writeln!(console.out, "cleared")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn overlaid(url: Option<&str>, repo: Option<&str>) -> Result<OverlayAdd, DeviceVerbError> {
    match (url, repo) {
        (Some(url), _) => Ok(OverlayAdd::Package(parse_url(url)?.to_string())),
        (None, repo) => {
            let given = repo.unwrap_or_default();
            let host = given.strip_prefix("fuchsia-pkg://").unwrap_or(given);
            let refused = |error| DeviceVerbError::Argument { given: given.to_owned(), reason: format!("{error}") };
            Ok(OverlayAdd::Repository(RepositoryUrl::from_host(host).map_err(refused)?.to_string()))
        }
    }
}

/// The overlay as lines, a line of its own for why it does not count.
pub(super) fn describe(overlay: &OverlayEntry, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    for url in &overlay.packages {
        writeln!(console.out, "  {url}")?;
    }
    for url in &overlay.repositories {
        writeln!(console.out, "  any package of {url}")?;
    }
    if let Some(why) = &overlay.refused {
        writeln!(console.out, "  not in force: {why}")?;
    }
    Ok(())
}
