//! How much a device fetches again after it was killed in the middle of a large blob: at most the units in flight.

use std::fs;

use serde_json::Value;

use super::relay::Relay;
use super::{Program, Random, letters};
use crate::run::Failure;

/// Content of the blob: twelve units.
const BLOB_BYTES: u64 = 24 << 20;

/// Units of a blob that a device fetches at a time, and the content of one.
const IN_FLIGHT_BYTES: u64 = 4 * (2 << 20);

/// Metadata, and what hangs in the relay's sockets though no device has it.
const SLACK_BYTES: u64 = 1 << 20;

/// Kills `runs` resolves of a large blob, each on a new device, and resolves it to its end.
pub fn refetch(
    program: &mut Program,
    random: &mut Random,
    (repository, host, device): (&str, &str, &str),
    runs: u64,
) -> Result<(), Failure> {
    let (manifest, _) = program.build("resumed", "resumed", &[("blob", letters(random, BLOB_BYTES))])?;
    program.tell(&["repo", "publish", "--level", "1", "--package", &manifest, repository])?;
    let path = program.dir.join(device).join("state/repositories.json");
    let known = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let known: Value = serde_json::from_str(&known).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut config = known["content"][0].clone();
    let mirror = config["mirrors"][0]["mirror_url"].as_str().ok_or("the device knows no mirror")?.to_owned();
    let server = mirror.trim_start_matches("http://").split('/').next().unwrap_or_default();
    let relay = Relay::start(server)?;
    config["mirrors"][0]["mirror_url"] = mirror.replace(server, &relay.address).into();
    fs::write(program.dir.join("relayed.json"), config.to_string()).map_err(|error| error.to_string())?;
    let url = format!("fuchsia-pkg://{host}/resumed");
    let (mut whole, mut within) = (0, std::time::Duration::ZERO);
    let (mut most, mut sum, mut killed) = (0, 0, 0);
    for run in 0..=runs {
        let name = format!("resumed-{run}");
        program.tell(&["device", "--dir", &name, "repo", "add", "file", "relayed.json"])?;
        let resolve = ["device", "--dir", &name, "resolve", &url];
        relay.taken();
        if run == 0 {
            let began = std::time::Instant::now();
            program.tell(&resolve)?;
            (whole, within) = (relay.taken(), began.elapsed());
        } else {
            let ended = program.killed_within(&resolve, random, within)?;
            program.tell(&resolve)?;
            let again = relay.taken().saturating_sub(whole);
            if again > IN_FLIGHT_BYTES + SLACK_BYTES {
                return Err(format!("{again} bytes were fetched again in {name}, more than the units in flight"));
            }
            if !ended {
                (most, sum, killed) = (most.max(again), sum + again, killed + 1);
            }
        }
        let dir = program.dir.join(&name);
        fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let mean = sum / killed.max(1);
    println!(
        "{killed} resolves of a blob of {BLOB_BYTES} bytes killed: {mean} bytes fetched again on average, {most} at most"
    );
    Ok(())
}
