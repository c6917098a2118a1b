//! The daemon of a device, killed while it resolves or installs for somebody else. Whoever asked is told, the next daemon
//! opens the store, nobody has anything open any more, and the same request is gone on with.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::device::{Act, DEVICE, Scene};
use crate::run::Failure;

/// How long a daemon may take to start, and a client to hear that it is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon under way; killed when dropped.
struct Daemon(Child);

impl Daemon {
    /// Starts it and waits until it answers.
    fn start(scene: &Scene) -> Result<Self, Failure> {
        let boot = format!("update.boot_id=\"boot {}\"", scene.boots);
        // Of what it does by itself only what was asked for is to be seen here.
        let quiet = ["automatic", "verify", "space"].map(|chore| format!("chores.{chore}_every_s=0"));
        let mut words = vec!["device", "--dir", DEVICE, "--set", &boot];
        words.extend(quiet.iter().flat_map(|key| ["--set", key]));
        words.push("daemon");
        let mut daemon = Self(scene.program.command(&words).spawn().map_err(|error| error.to_string())?);
        let socket = scene.program.dir.join(DEVICE).join("daemon.sock");
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = daemon.0.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("the daemon ended with {status}: it could not go on from what was left"));
            }
            if began.elapsed() > PATIENCE {
                return Err("the daemon does not answer".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What has ended cannot be killed any more, which is no failure.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills the daemon in so many resolves and installations that a client waits for.
pub fn daemons(scene: &mut Scene, runs: u64) -> Result<(), Failure> {
    let (mut cut, mut done) = (0, 0);
    for run in 0..runs {
        let act = if run % 2 == 0 { Act::Resolve } else { Act::Install };
        let ended = one(scene, act).map_err(|failure| format!("daemon, run {run}: {failure}"))?;
        if ended { done += 1 } else { cut += 1 }
    }
    println!("{runs} daemons killed: {cut} clients were told that it is gone, {done} had their answer before");
    Ok(())
}

/// One act asked of a daemon that is killed meanwhile; whether the client had its answer.
fn one(scene: &mut Scene, act: Act) -> Result<bool, Failure> {
    // Something to fetch.
    scene.resolved.clear();
    scene.program.tell(&["device", "--dir", DEVICE, "gc"])?;
    let words = scene.words(act);
    let shown = words.join(" ");
    let line: Vec<_> = words.iter().map(String::as_str).collect();
    let daemon = Daemon::start(scene)?;
    let mut client = scene.program.command(&line);
    let mut client = client.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let within = u64::try_from(scene.takes[&act].as_micros()).unwrap_or(u64::MAX);
    std::thread::sleep(Duration::from_micros(scene.random.below(within)));
    drop(daemon);
    let ended = heard_of_it(&mut client).map_err(|failure| format!("`colibri {shown}`: {failure}"))?;
    let after = |failure| format!("after `colibri {shown}`, whose daemon was killed: {failure}");
    if ended {
        scene.acknowledged(act, &words);
    } else if act == Act::Install {
        let version = scene.version_of(&words);
        scene.next.push(version);
    }
    // The next daemon has the store, and nobody anything open.
    let next = Daemon::start(scene).map_err(after)?;
    let leases = scene.program.json(&["device", "--dir", DEVICE, "--json", "leases"]).map_err(after)?;
    if leases.as_array().is_none_or(|leases| !leases.is_empty()) {
        return Err(after(format!("packages are open: {leases}")));
    }
    scene.check().map_err(after)?;
    match act {
        Act::Install => {
            drop(next);
            scene.start_machine().map_err(after)?;
            scene.check().map_err(after)?;
            let commit = scene.words(Act::Commit);
            scene.program.tell(&commit.iter().map(String::as_str).collect::<Vec<_>>()).map_err(after)?;
        }
        _ => {
            scene.program.tell(&line).map_err(after)?;
            scene.acknowledged(act, &words);
            scene.check().map_err(after)?;
        }
    }
    Ok(ended)
}

/// Whether a client ended well; if not, it must have said why, and not waited for ever.
fn heard_of_it(client: &mut Child) -> Result<bool, Failure> {
    let began = Instant::now();
    let status = loop {
        if let Some(status) = client.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if began.elapsed() > PATIENCE {
            let _ = client.kill();
            return Err("it waits for a daemon that is gone".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    if let Some(mut stderr) = client.stderr.take() {
        stderr.read_to_string(&mut said).map_err(|error| error.to_string())?;
    }
    match status.code() {
        Some(0) => Ok(true),
        Some(1) if said.contains("does not answer as it should") => Ok(false),
        // The daemon was killed before it was asked, and had not let go of the store when the client looked.
        Some(1) if said.contains("is in use by another process") => Ok(false),
        _ => Err(format!("it ended with {status} and said\n{said}")),
    }
}
