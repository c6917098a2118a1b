//! `colibri repo server stop`: SIGTERM, and a short wait for the end.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::instances::{Instance, Instances};
use super::{RepoError, ServerError};
use crate::files;

/// How long the end is waited for.
const WAIT_S: u64 = 3;

/// Arguments of `repo server stop`.
#[derive(Debug, Default, clap::Args)]
pub struct Stop {
    /// The server; may be left out where only one runs
    pub name: Option<String>,
    /// All servers
    #[arg(long, conflicts_with_all = ["name", "port", "product_bundle"])]
    pub all: bool,
    /// The server at this port
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// The server of this product bundle
    #[arg(long, value_name = "PATH")]
    pub product_bundle: Option<PathBuf>,
    /// Print a JSON array of the names that were stopped
    #[arg(long)]
    pub json: bool,
}

/// Stops.
pub(super) fn run(args: &Stop, instances: &Instances, out: &mut dyn Write) -> Result<ExitCode, RepoError> {
    let mut chosen = instances.running()?;
    let running = chosen.len();
    chosen.retain(|instance| is_meant(args, instance));
    let named = args.name.is_some() || args.port.is_some() || args.product_bundle.is_some();
    if chosen.is_empty() && !args.all {
        return Err(ServerError::NoneRuns(args.name.clone().unwrap_or_default()).into());
    }
    if !args.all && !named && running > 1 {
        return Err(ServerError::Several(running).into());
    }
    for instance in &chosen {
        tell_to_end(instance)?;
    }
    let began = Instant::now();
    for instance in &chosen {
        while instances.get(&instance.name)?.is_some_and(|now| now.pid == instance.pid) {
            if began.elapsed() > Duration::from_secs(WAIT_S) {
                let (name, pid) = (instance.name.clone(), instance.pid);
                return Err(ServerError::StillRuns { name, pid, waited_s: WAIT_S }.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if !args.json {
            writeln!(out, "stopped {} (process {})", instance.name, instance.pid)?;
        }
    }
    if args.json {
        files::print_json(out, &json!(chosen.iter().map(|instance| &instance.name).collect::<Vec<_>>()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_meant(args: &Stop, instance: &Instance) -> bool {
    let bundle = |path: &PathBuf| path.canonicalize().ok() == instance.product_bundle;
    args.name.as_ref().is_none_or(|name| instance.name == *name)
        && args.port.is_none_or(|port| instance.is_at(port))
        && args.product_bundle.as_ref().is_none_or(bundle)
}

/// The record's lock is held, so the process of that id is still the server.
fn tell_to_end(instance: &Instance) -> Result<(), ServerError> {
    let pid = instance.pid;
    let refused = |source: std::io::Error| ServerError::Signal { pid, source };
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| refused(std::io::ErrorKind::InvalidInput.into()))?;
    kill_process(process, Signal::TERM).map_err(|error| refused(error.into()))
}
