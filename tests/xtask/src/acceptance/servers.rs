//! Servers as processes of this machine, and the plainest of HTTP clients to ask them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::binary::Binary;
use super::work;
use crate::run::{Failure, command, run};

/// How long anything may take. A bound for what hangs, not a claim about speed.
pub const PATIENCE: Duration = Duration::from_secs(120);

const LOCAL: &str = "127.0.0.1:0";

/// A server under way; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    ports: PathBuf,
}

impl Server {
    /// Starts `colibri ARGUMENTS` on free ports with its files in `dir`, and waits until it says that it answers.
    pub fn start(binary: &Binary, dir: &Path, name: &str, arguments: &[&str]) -> Result<Self, Failure> {
        let [log, ports, tls] = ["log", "ports", "tls"].map(|ending| dir.join(format!("{name}.{ending}")));
        let mut command = binary.command(arguments);
        command.args(["--listen", LOCAL, "--listen-plain", LOCAL, "--listen-admin", LOCAL, "--name", name]);
        command.arg("--tls-dir").arg(tls).arg("--port-file").arg(&ports);
        command.stderr(File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?);
        let child = command.spawn().map_err(|error| format!("{name} could not start: {error}"))?;
        let mut server = Self { child, log, ports };
        until(&format!("{name} answers"), || {
            if let Some(status) = server.ended()? {
                return Err(format!("{name} ended with {status}:\n{}", server.log()));
            }
            Ok(fs::read_to_string(&server.ports).is_ok_and(|ports| ports.contains("admin=")))
        })?;
        Ok(server)
    }

    /// One of its ports: `https`, `http` or `admin`.
    pub fn port(&self, name: &str) -> Result<u16, Failure> {
        let ports = work::read(&self.ports)?;
        let port = ports.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        port.ok_or_else(|| format!("{} names no port {name}", self.ports.display()))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<(), Failure> {
        run(command("kill", ["-TERM", &self.child.id().to_string()]))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        self.child.try_wait().map_err(|error| error.to_string())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Asks again and again until it holds.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > PATIENCE {
            return Err(format!("after {} s still not: {what}", PATIENCE.as_secs()));
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The body of an answer that is read as it is asked for, not faster.
#[derive(Debug)]
pub struct Download {
    stream: TcpStream,
    /// Status line and header fields.
    pub head: String,
    /// What came behind the head so far.
    pub body: Vec<u8>,
}

impl Download {
    /// Asks for `path` over HTTP/1.1 and reads the head of the answer.
    pub fn start(address: SocketAddr, path: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| format!("GET {path} from {address}: {error}");
        let mut stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(failed)?;
            head.extend(byte);
        }
        Ok(Self { stream, head: String::from_utf8_lossy(&head).into_owned(), body: Vec::new() })
    }

    /// Whether the status is 200.
    pub fn is_ok(&self) -> bool {
        self.head.starts_with("HTTP/1.1 200 ")
    }

    /// Reads at most `bytes` more; how many came, 0 at the end.
    pub fn read(&mut self, bytes: usize) -> Result<usize, Failure> {
        let mut portion = Vec::new();
        let came = Read::by_ref(&mut self.stream).take(bytes as u64).read_to_end(&mut portion);
        let came = came.map_err(|error| format!("after {} bytes of body: {error}", self.body.len()))?;
        self.body.append(&mut portion);
        Ok(came)
    }
}

/// The body of `path`, which must be there.
pub fn get(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut download = Download::start(address, path)?;
    while download.read(1 << 20)? > 0 {}
    work::ensure(download.is_ok(), || format!("GET {path} from {address}: {}", download.head))?;
    Ok(String::from_utf8_lossy(&download.body).into_owned())
}
