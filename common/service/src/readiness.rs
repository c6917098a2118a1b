//! [`Readiness`]: tells the service manager how the process is (the protocol of `sd_notify`: datagrams of `KEY=VALUE` lines to
//! the socket that `NOTIFY_SOCKET` names). Without one nothing is told.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where a service manager listens, if one does.
#[derive(Debug, Default)]
pub struct Readiness(Option<(UnixDatagram, SocketAddr)>);

/// How often the service manager wants a sign of life, if it wants any of this process: half of the time that it waits for one.
pub fn sign_of_life_every() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let of_this =
        std::env::var_os("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| of_this && *micros > 1).map(|micros| Duration::from_micros(micros / 2))
}

impl Readiness {
    /// The service manager of this process, as its environment says.
    ///
    /// # Errors
    /// The environment names a socket that cannot be one.
    pub fn from_environment() -> io::Result<Self> {
        std::env::var_os("NOTIFY_SOCKET").map_or(Ok(Self(None)), |socket| Self::to(&socket))
    }

    /// A service manager that listens at `socket`: a path, or an abstract name after `@`.
    ///
    /// # Errors
    /// It cannot be a socket.
    pub fn to(socket: &OsStr) -> io::Result<Self> {
        let address = match socket.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(socket)?,
        };
        Ok(Self(Some((UnixDatagram::unbound()?, address))))
    }

    /// The process does what it is for. `status` is for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The process gets work done.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    /// The process was told to end, and is about to.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.0 else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(at: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = at.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_service_manager_hears_of_it_wherever_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("colibri-readiness-{}", std::process::id());
        let managers = [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (manager, socket) in managers {
            let readiness = Readiness::to(&socket).unwrap();
            readiness.ready("serving");
            assert_eq!(heard(&manager), "READY=1\nSTATUS=serving\n");
            readiness.alive();
            assert_eq!(heard(&manager), "WATCHDOG=1\n");
            readiness.stopping();
            assert_eq!(heard(&manager), "STOPPING=1\n");
        }
    }

    #[test]
    fn nobody_needs_to_listen() {
        Readiness::default().ready("serving");
        let dir = tempfile::tempdir().unwrap();
        Readiness::to(dir.path().join("nobody").as_os_str()).unwrap().ready("serving");
        assert!(Readiness::to(OsStr::new(&"x".repeat(300))).is_err());
    }
}
