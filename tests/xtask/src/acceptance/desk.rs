//! A developer's desk: from a saved file to the device that runs it, in at most two seconds.

use std::fs::File;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::binary::Binary;
use super::servers::{Download, until};
use super::work::{empty_dir, ensure, json, read, write};
use crate::run::{Failure, command, run};

/// From the end of the save to the end of the device's resolve.
const MOST: Duration = Duration::from_secs(2);

/// Times a file is saved.
const SAVES: usize = 5;

const PACKAGE_URL: &str = "fuchsia-pkg://devhost/app";

/// Runs it.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let dir = empty_dir("desk")?;
    let (repository, app, device, port) = (dir.join("repo"), dir.join("app"), dir.join("device"), dir.join("port"));
    std::fs::create_dir_all(&app).map_err(|error| format!("{}: {error}", app.display()))?;
    // A package is more than the file that is being worked on.
    write(&app.join("library"), vec![7; 4 << 20])?;
    write(&app.join("program"), "0")?;
    let mut create = binary.command(["repo", "create", "--dev"]);
    create.arg(&repository);
    run(create)?;
    let mut start = binary.command(["repo", "server", "start", "--address", "127.0.0.1:0", "--watch", "--servers-dir"]);
    start.arg(dir.join("servers")).arg("--repo-path").arg(&repository).arg("--port-path").arg(&port);
    start.arg("--from-dir").arg(format!("app={}", app.display()));
    start.stderr(File::create(dir.join("server.log")).map_err(|error| error.to_string())?);
    let child = start.spawn().map_err(|error| format!("the server could not start: {error}"))?;
    let _server = Ending(child);
    until("the server says its port", || Ok(read(&port).is_ok_and(|port| !port.is_empty())))?;
    let number: u16 = read(&port)?.parse().map_err(|_| "the port is no number".to_owned())?;
    let address = SocketAddr::from(([127, 0, 0, 1], number));
    let on_device = |words: &[&str]| {
        let mut command = binary.command(["device", "--json", "--dir"]);
        command.arg(&device).args(words);
        command
    };
    run(on_device(&["repo", "add", "url", &format!("http://{address}/devhost/repo.config")]))?;
    let mut events = Events(Download::start(address, "/devhost/auto")?);
    let mut last = resolve_new(&mut events, || json(on_device(&["resolve", PACKAGE_URL])), "")?;
    let mut slowest = Duration::ZERO;
    for save in 1..=SAVES {
        write(&app.join("program"), format!("version {save}"))?;
        let saved = Instant::now();
        last = resolve_new(&mut events, || json(on_device(&["resolve", PACKAGE_URL])), &last)?;
        let took = saved.elapsed();
        println!("save {save}: on the device after {} ms", took.as_millis());
        slowest = slowest.max(took);
    }
    ensure(slowest <= MOST, || format!("the slowest save took {} ms to the device", slowest.as_millis()))?;
    println!("the slowest of {SAVES} saves took {} ms to the device", slowest.as_millis());
    Ok(())
}

/// Resolves at each event until the package is another than `last`; gives its hash.
fn resolve_new(
    events: &mut Events,
    resolve: impl Fn() -> Result<serde_json::Value, Failure>,
    last: &str,
) -> Result<String, Failure> {
    loop {
        events.next()?;
        // Before the first publish there is no package yet.
        let Ok(resolved) = resolve() else { continue };
        match resolved["hash"].as_str() {
            Some(hash) if hash != last => return Ok(hash.to_owned()),
            _ => {}
        }
    }
}

/// The events of a server.
struct Events(Download);

impl Events {
    /// Waits for the next one.
    fn next(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(at) = self.0.body.windows(6).position(|six| six == b"data: ")
                && let Some(end) = self.0.body[at..].iter().position(|byte| *byte == b'\n')
            {
                self.0.body.drain(..at + end);
                return Ok(());
            }
            ensure(self.0.read(1)? > 0, || "the server ended the events".to_owned())?;
        }
    }
}

/// A server that is told to end when this is dropped.
struct Ending(std::process::Child);

impl Drop for Ending {
    fn drop(&mut self) {
        _ = run(command("kill", ["-TERM", &self.0.id().to_string()]));
        _ = self.0.wait();
    }
}
