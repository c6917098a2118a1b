//! `device verify`: re-hash everything that is at rest, and repair what is damaged.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use colibri_device::{Device, VerifyOptions};
use colibri_store::Store;
use serde_json::json;

use super::{Console, DeviceVerbError, Make};
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
    open: impl Fn(Make) -> Result<(Device, Arc<Store>), DeviceVerbError>,
    console: &mut Console<'_>,
) -> Result<ExitCode, DeviceVerbError> {
    let (device, _) = open(Make::Refused)?;
    let options = VerifyOptions { bytes_per_s: args.rate, only_look: args.only_look };
    let (read, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = |now, all| {
        read.store(now, Ordering::Relaxed);
        total.store(all, Ordering::Relaxed);
    };
    let verifying = step("verifying bytes");
    let verify = device.verify(options, Arc::new(|_| ()), progress);
    let at = || (read.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
    let report = verifying.watch(verify, at).await?;
    drop(verifying);
    let lost = report.damaged.iter().filter(|damage| damage.lost.is_some()).count();
    if console.json {
        let damaged = report.damaged.iter().map(|damage| {
            json!({ "blob": damage.blob, "offset": damage.offset, "repaired": damage.lost.is_none(), "reason": damage.lost })
        });
        console.print_json(&json!({
            "blobs": report.blobs,
            "bytes": report.bytes,
            "damaged": damaged.collect::<Vec<_>>(),
            "trees_removed": report.trees_removed,
        }))?;
    } else {
        for damage in &report.damaged {
            let outcome =
                damage.lost.as_ref().map_or_else(|| "repaired".to_owned(), |why| format!("not repaired: {why}"));
            writeln!(console.out, "blob {} is damaged at byte {}: {outcome}", damage.blob, damage.offset)?;
        }
        let (blobs, read, damaged) = (report.blobs, bytes(report.bytes), report.damaged.len());
        writeln!(console.out, "{blobs} blobs verified ({read}), {damaged} damaged, {} repaired", damaged - lost)?;
    }
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
