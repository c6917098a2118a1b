//! An exported repository behind nginx as Debian has it: a device resolves a package from a server that knows nothing of us.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;

use super::binary::Binary;
use super::sample::{self, PACKAGE_URL, REPOSITORY};
use super::servers::until;
use super::work::{empty_dir, ensure, json, write};
use crate::run::{Failure, command, run};

/// Several units, so that ranges are asked for.
const BLOB_BYTES: usize = 9 << 20;

/// Runs it.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let dir = empty_dir("static-server")?;
    let package = sample::package(binary, &dir, BLOB_BYTES)?;
    let repository = sample::repository(binary, &dir, &package)?;
    let nginx = Nginx::start(&dir)?;
    let url = format!("http://{}/{REPOSITORY}", nginx.address);
    let out = export(binary, &dir, &repository, &nginx)?;
    let device = dir.join("device");
    let on_device = |words: &[&str]| {
        let mut command = binary.command(["device", "--json", "--dir"]);
        command.arg(&device).args(words);
        command
    };
    run(on_device(&["repo", "add", "url", &format!("{url}/repo.config")]))?;
    let resolved = json(on_device(&["resolve", PACKAGE_URL]))?;
    let fetched = resolved["fetched_content_bytes"].as_u64().unwrap_or_default();
    ensure(fetched >= BLOB_BYTES as u64, || format!("the device has not fetched everything: {resolved}"))?;
    println!("a device fetched {fetched} bytes of content from nginx at {url}");
    // The next release, into the same folder: the device follows.
    fs::write(package.dir.join("files/data/small"), "new").map_err(|error| error.to_string())?;
    let mut build = binary.command(["package", "build", "--name", "hello", "--from-dir"]);
    build.arg(package.dir.join("files")).arg("--output").arg(package.dir.join("out"));
    run(build)?;
    let mut publish = binary.command(["repo", "publish", "--level", "1", "--package"]);
    publish.arg(package.dir.join("out/package_manifest.json")).arg(&repository);
    run(publish)?;
    let mut export = binary.command(["repo", "export"]);
    export.args([&repository, &out]);
    run(export)?;
    let again = json(on_device(&["resolve", PACKAGE_URL]))?;
    let fetched_again = again["fetched_content_bytes"].as_u64().unwrap_or(u64::MAX);
    ensure(again["hash"] != resolved["hash"] && fetched_again < BLOB_BYTES as u64, || {
        format!("the device did not follow, or fetched again what it had: {again}")
    })
}

/// Exports the repository into the folder that this server serves, which is given back.
pub fn export(binary: &Binary, dir: &Path, repository: &Path, nginx: &Nginx) -> Result<PathBuf, Failure> {
    let url = format!("http://{}/{REPOSITORY}", nginx.address);
    let out = dir.join("www").join(REPOSITORY);
    let mut export = binary.command(["repo", "export", "--name", REPOSITORY, "--mirror-url", &url]);
    export.args([repository, &out]);
    run(export)?;
    Ok(out)
}

/// nginx on a free port; stopped when dropped.
pub struct Nginx {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Nginx {
    /// Serves `DIR/www` with the least configuration there is.
    pub fn start(dir: &Path) -> Result<Self, Failure> {
        // The port may be taken by another in between: then nginx says so.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        fs::create_dir_all(dir.join("www")).map_err(|error| error.to_string())?;
        let configuration = dir.join("nginx.conf");
        let at = dir.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {at}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off;\npid {at}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  access_log {at}/access.log;\n\
             {temporary}  server {{ listen {address}; root {at}/www; }}\n}}\n"
        );
        write(&configuration, text)?;
        // The folder belongs to whoever runs this, so the workers must be the same.
        let mut program = command("nginx", ["-g", "user root;", "-e", "stderr", "-c"]);
        program.arg(&configuration);
        let child = program.spawn().map_err(|error| format!("nginx could not start: {error}"))?;
        let mut nginx = Self { child, address };
        until("nginx answers", || {
            if let Some(status) = nginx.child.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("nginx ended with {status}"));
            }
            Ok(TcpStream::connect(address).is_ok())
        })?;
        Ok(nginx)
    }
}

/// SIGTERM, for the workers go with their master then.
impl Drop for Nginx {
    fn drop(&mut self) {
        _ = run(command("kill", ["-TERM", &self.child.id().to_string()]));
        _ = self.child.wait();
    }
}
