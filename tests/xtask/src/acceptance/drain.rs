//! SIGTERM while a slow download is under way: the download completes, then the edge ends well.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::binary::Binary;
use super::sample::{self, REPOSITORY};
use super::servers::{Download, Server, get, until};
use super::work::{empty_dir, ensure, write};
use crate::run::{Failure, output};

/// More than all buffers between edge and reader together, so that the edge must go on sending after the signal.
const BLOB_BYTES: usize = 64 << 20;

/// The reader takes this much at a time, with a pause behind it.
const PORTION_BYTES: usize = 1 << 20;

const PAUSE: Duration = Duration::from_millis(30);

/// Runs it.
pub fn check(binary: &Binary) -> Result<(), Failure> {
    let dir = empty_dir("drain")?;
    let package = sample::package(binary, &dir, BLOB_BYTES)?;
    let repository = sample::repository(binary, &dir, &package)?;
    let repository = format!("{REPOSITORY}={}", repository.display());
    let origin = Server::start(binary, &dir, "origin", &["origin", "serve", "--repo", &repository])?;
    let upstream = format!("https://127.0.0.1:{}", origin.port("https")?);
    let mut edge = Server::start(binary, &dir, "edge", &["edge", "serve", "--upstream", &upstream])?;
    let [plain, admin] = [edge.port("http")?, edge.port("admin")?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    get(admin, "/readyz")?;

    let mut download = Download::start(plain, &format!("/{REPOSITORY}/blobs/{}", package.blob))?;
    ensure(download.is_ok(), || format!("the blob was not answered: {}", download.head))?;
    download.read(PORTION_BYTES)?;
    edge.terminate()?;
    until("the edge says that it drains", || Ok(edge.log().contains("accepting nothing new")))?;
    until("new connections are refused", || Ok(TcpStream::connect(plain).is_err()))?;
    // A load balancer that saw it fall would take the flows of requests under way elsewhere.
    get(admin, "/readyz").map_err(|error| format!("readiness fell while draining: {error}"))?;
    while download.read(PORTION_BYTES)? > 0 {
        sleep(PAUSE);
    }
    whole(binary, &dir, &download, &package)?;
    until("the edge has ended", || Ok(edge.ended()?.is_some()))?;
    let status = edge.ended()?.ok_or("the edge has not ended")?;
    ensure(status.success(), || format!("the drained edge ended with {status}:\n{}", edge.log()))?;
    println!(
        "a download of {} bytes under way at SIGTERM completed; the edge ended with {status}",
        download.body.len()
    );
    Ok(())
}

/// Every byte is there and right.
fn whole(binary: &Binary, dir: &Path, download: &Download, package: &sample::Package) -> Result<(), Failure> {
    let (came, all) = (download.body.len(), package.blob_bytes);
    ensure(came == all, || format!("the download was cut at {came} of {all} bytes"))?;
    let file = dir.join("downloaded");
    write(&file, &download.body)?;
    let mut hash = binary.command(["file-hash"]);
    hash.arg(&file);
    let line = output(hash)?;
    ensure(line.starts_with(&package.blob), || format!("what was downloaded is not blob {}: {line}", package.blob))
}
