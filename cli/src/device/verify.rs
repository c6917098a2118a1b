//! `device verify`: re-hash everything that is at rest, and repair what is damaged.

use std::num::NonZeroU64;
use std::process::ExitCode;

use colibri_device::daemon::wire::{self, Event};
use serde_json::json;

use super::api::{self, Api};
use super::{Console, DeviceVerbError};
use crate::progress::{bytes, step};

/// Arguments of `device verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Read at most so many bytes per second
    #[arg(long, value_name = "BYTES_PER_S")]
    pub rate: Option<NonZeroU64>,
    /// Only look: nothing is set aside, nothing is fetched
    #[arg(long)]
    pub only_look: bool,
}

/// Runs the verb: 1 if something is damaged and was not repaired.
pub(super) async fn run(
    args: &Verify,
    connect: impl AsyncFn() -> Result<Api, DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let api = connect().await?;
    let wanted = wire::Verify { bytes_per_s: args.rate, only_look: args.only_look };
    let verifying = step("verifying bytes");
    let mut events = api.events("/verify", api::json(&wanted)?).await?;
    let report = loop {
        match events.next().await? {
            Event::Verifying { bytes, bytes_total } if bytes_total > 0 => verifying.progress(bytes, bytes_total),
            Event::Verified(report) => break report,
            _ => {}
        }
    };
    drop(verifying);
    let lost = report.damaged.iter().filter(|damage| !damage.repaired).count();
    if console.json {
        console.print_json(&json!(report))?;
    } else {
        for damage in &report.damaged {
            let outcome =
                damage.reason.as_ref().map_or_else(|| "repaired".to_owned(), |why| format!("not repaired: {why}"));
            writeln!(console.out, "blob {} is damaged at byte {}: {outcome}", damage.blob, damage.offset)?;
        }
        let (blobs, read, damaged) = (report.blobs, bytes(report.bytes), report.damaged.len());
        writeln!(console.out, "{blobs} blobs verified ({read}), {damaged} damaged, {} repaired", damaged - lost)?;
    }
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
