//! A device's daemon as a process: it tells the service manager, is killed, started again, told to end, and misconfigured.

mod killed;
mod unit;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take. A bound for a test that hangs, not a claim about speed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The executable, without configuration from the environment of whoever runs the tests.
fn colibri(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_colibri"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COLIBRI_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NOTIFY_SOCKET").current_dir(dir).stdin(Stdio::null());
    command
}

fn run(dir: &Path, line: &[&str]) -> Output {
    colibri(dir).args(["device", "--dir", "device"]).args(line).output().unwrap()
}

fn printed(dir: &Path, line: &[&str]) -> String {
    let output = run(dir, line);
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A daemon under way; killed when dropped.
struct Daemon {
    child: Child,
    manager: UnixDatagram,
}

impl Daemon {
    /// Starts it and waits until it tells its service manager that it is ready.
    fn start(dir: &Path) -> Self {
        let mut daemon = colibri(dir);
        daemon.args(["device", "--dir", "device", "daemon"]);
        Self::managed(dir, daemon)
    }

    /// The same, as somebody else would start it.
    fn managed(dir: &Path, mut daemon: Command) -> Self {
        let notify = dir.join("notify");
        _ = fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        daemon.env("NOTIFY_SOCKET", &notify).stderr(log);
        let daemon = Self { child: daemon.spawn().unwrap(), manager };
        assert!(daemon.heard().starts_with("READY=1\n"));
        daemon
    }

    fn heard(&self) -> String {
        let mut buffer = [0; 512];
        let length = self.manager.recv(&mut buffer).expect("the daemon tells how it is");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn answers(dir: &Path) -> bool {
    !printed(dir, &["status"]).contains("none runs")
}

#[test]
fn a_daemon_is_killed_started_again_and_told_to_end() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    let socket = dir.join("device/daemon.sock");
    let mut daemon = Daemon::start(dir);
    assert!(answers(dir));
    // A second one finds the store taken, and takes nothing away from the first.
    let second = run(dir, &["daemon"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("in use by another process"), "{said}");
    assert!(answers(dir));

    daemon.signal("-KILL");
    daemon.ended();
    assert!(socket.exists(), "who is killed leaves the socket");
    assert!(!answers(dir), "verbs open the device themselves");
    let mut daemon = Daemon::start(dir);
    assert!(answers(dir));

    daemon.signal("-TERM");
    assert_eq!(daemon.heard(), "STOPPING=1\n");
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(!socket.exists());
    assert!(!answers(dir));

    let mut daemon = Daemon::start(dir);
    daemon.signal("-INT");
    assert_eq!(daemon.ended().code(), Some(0));
}

#[test]
fn its_configuration_is_checked_before_anything_is_made() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fs::write(dir.join("device.toml"), "socket_mode = \"660\"\n[update]\nboard = \"toucan\"\n").unwrap();
    let printed = printed(dir, &["daemon", "--config", "device.toml", "--set", "drain_s=3", "--check-config"]);
    for line in ["socket_mode = \"660\"", "update.board = \"toucan\"", "drain_s = 3  # command line"] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    for bad in ["drain=3", "drain_s=soon", "socket_mode=12345", "tls=everybody"] {
        let refused = run(dir, &["daemon", "--set", bad]);
        assert_eq!(refused.status.code(), Some(64), "{bad}: {}", String::from_utf8_lossy(&refused.stderr));
    }
    assert!(!dir.join("device").exists());
}

#[test]
fn the_sample_configuration_is_valid_and_names_every_key() {
    let temp = tempfile::tempdir().unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/device.toml");
    let printed = printed(temp.path(), &["daemon", "--config", sample.to_str().unwrap(), "--check-config"]);
    let text = fs::read_to_string(&sample).unwrap();
    let keys: Vec<_> = printed.lines().filter_map(|line| line.split([' ', '=']).next()).collect();
    assert!(keys.contains(&"socket_mode") && keys.contains(&"update.board"), "{printed}");
    for key in keys {
        let name = key.rsplit('.').next().unwrap_or(key);
        // Written, offered in a comment, or a table.
        let stands = text
            .lines()
            .map(|line| line.trim_start_matches(['#', ' ']))
            .any(|line| line.starts_with(&format!("{name} = ")) || line == format!("[{key}]"));
        assert!(stands, "the sample does not tell of the key {key}");
    }
}
