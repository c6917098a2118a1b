//! `device overlay`: what developers put in the place of the package sets of a device.

use std::process::ExitCode;
use std::sync::Arc;

use colibri_device::{Device, Overlaid};
use colibri_package::url::RepositoryUrl;
use colibri_store::Store;
use serde_json::{Value, json};

use super::packages::parse_url;
use super::{Console, DeviceVerbError, Make};

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
pub(super) fn run(
    args: &Args,
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    match &args.verb {
        Verb::Add { url, repo } => {
            let overlaid = overlaid(url.as_deref(), repo.as_deref())?;
            open(Make::Refused)?.0.overlay_add(overlaid.clone())?;
            let shown = match &overlaid {
                Overlaid::Package(url) => url.to_string(),
                Overlaid::Repository(url) => url.to_string(),
            };
            if console.json {
                console.print_json(&json!({ "added": shown }))?;
            } else {
                writeln!(console.out, "added {shown}")?;
            }
        }
        Verb::List => list(&open(Make::Refused)?.0, console)?,
        Verb::Clear => {
            open(Make::Refused)?.0.overlay_clear()?;
            if console.json {
                console.print_json(&json!({ "cleared": true }))?;
            } else {
                writeln!(console.out, "cleared")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn overlaid(url: Option<&str>, repo: Option<&str>) -> Result<Overlaid, DeviceVerbError> {
    match (url, repo) {
        (Some(url), _) => Ok(Overlaid::Package(parse_url(url)?)),
        (None, repo) => {
            let given = repo.unwrap_or_default();
            let host = given.strip_prefix("fuchsia-pkg://").unwrap_or(given);
            let refused = |error| DeviceVerbError::Argument { given: given.to_owned(), reason: format!("{error}") };
            Ok(Overlaid::Repository(RepositoryUrl::from_host(host).map_err(refused)?))
        }
    }
}

/// The overlay as JSON.
pub(super) fn described(device: &Device) -> Value {
    let (overlay, permitted) = (device.overlay(), device.overlay_permitted());
    json!({
        "packages": overlay.packages.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "repositories": overlay.repositories.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "in_force": permitted.is_ok(),
        "refused": permitted.err().map(|error| error.to_string()),
    })
}

/// The overlay as lines, a line of its own for why it does not count.
pub(super) fn describe(device: &Device, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    let overlay = device.overlay();
    for url in &overlay.packages {
        writeln!(console.out, "  {url}")?;
    }
    for url in &overlay.repositories {
        writeln!(console.out, "  any package of {url}")?;
    }
    if let Err(error) = device.overlay_permitted()
        && !overlay.is_empty()
    {
        writeln!(console.out, "  not in force: {error}")?;
    }
    Ok(())
}

fn list(device: &Device, console: &mut Console<'_>) -> Result<(), DeviceVerbError> {
    if console.json {
        return console.print_json(&described(device));
    }
    if device.overlay().is_empty() {
        return Ok(writeln!(console.out, "there is no overlay")?);
    }
    writeln!(console.out, "overlay:")?;
    describe(device, console)
}
