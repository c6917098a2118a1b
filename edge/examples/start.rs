//! How long an edge takes from its start to the first byte, with a large disk tier and after a kill.
//!
//! `cargo xtask edge-start [--files N] [--dir DIR]` runs it: makes a disk tier of N blobs, one file each, as a full edge leaves
//! it; then starts an edge process on it three times, without an upstream that answers, and asks for one of the blobs. The
//! first two are killed (SIGKILL) while they still take the files into their books, the last may finish. The folder is removed
//! in the end. It prints and judges; it is no test and runs in no check: times depend on the machine.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use colibri_common::merkle::{self, Tree};
use colibri_edge::{DiskTierConfig, Edge, EdgeConfig};
use colibri_package::delivery::Layout;
use colibri_service::metrics::Registry;
use colibri_store::{BlobFile, HolePunching, OsDisk};
use colibri_transport::Body;

/// What issue 4 allows.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(1);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", dir, number] => serve(Path::new(dir), number).map(|()| true),
        ref options => drive(options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("edge-start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The blob of a number.
fn blob(number: u64) -> (Bytes, Tree) {
    let content: Bytes = number.to_le_bytes().repeat(100).into();
    let tree = merkle::build(&content);
    (content, tree)
}

fn drive(options: &[&str]) -> Outcome<bool> {
    let (mut files, mut dir) = (5_000_000_u64, std::env::temp_dir().join("colibri-edge-start"));
    for pair in options.chunks(2) {
        match *pair {
            ["--files", value] => files = value.parse()?,
            ["--dir", value] => dir = PathBuf::from(value),
            _ => return Err(format!("unknown option {}: there are --files N and --dir DIR", pair[0]).into()),
        }
    }
    if dir.exists() {
        return Err(format!("{} exists: it would be removed in the end", dir.display()).into());
    }
    let judged = fill(&dir, files).and_then(|()| measure(&dir, files));
    let begin = Instant::now();
    std::fs::remove_dir_all(&dir)?;
    println!("removed in {:.1} s", begin.elapsed().as_secs_f64());
    judged
}

fn fill(dir: &Path, files: u64) -> Outcome<()> {
    let begin = Instant::now();
    for folder in 0..=u8::MAX {
        std::fs::create_dir_all(dir.join(format!("{folder:02x}")))?;
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|worker| scope.spawn(move || fill_part(dir, files, worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker failed")?)
    })?;
    println!("{files} files made in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Files are copies of one that the store made, with other content, guard, check, id and tail: written in one piece, or five
/// million of them would take an hour. One that is wrong would not be served.
fn fill_part(dir: &Path, files: u64, worker: u64) -> Outcome<()> {
    let mut bytes = one_file(&dir.join(format!("pattern-{worker}")))?;
    for number in (0..files).filter(|number| number % 2 == worker) {
        let (content, tree) = blob(number);
        let (guards, tail) = (content.len(), bytes.len() - TAIL_BYTES);
        bytes[..guards].copy_from_slice(&content);
        let guard = crc32c::crc32c(&content).to_le_bytes();
        bytes[guards..guards + 4].copy_from_slice(&guard);
        let check = crc32c::crc32c_append(crc32c::crc32c(&[0; 4]), &guard).max(1);
        bytes[guards + 4..tail].copy_from_slice(&check.to_le_bytes());
        bytes[tail + TAIL_BYTES - 36..tail + TAIL_BYTES - 4].copy_from_slice(tree.id.as_bytes());
        let crc = crc32c::crc32c(&bytes[tail..tail + TAIL_BYTES - 4]);
        bytes[tail + TAIL_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let name = tree.id.to_string();
        std::fs::write(dir.join(&name[..2]).join(format!("{name}.raw.unit")), &bytes)?;
        if number % 500_000 < 2 {
            println!("  {number}");
        }
    }
    Ok(())
}

/// Bytes of the fixed end of a file.
const TAIL_BYTES: usize = 92;

fn one_file(path: &Path) -> Outcome<Vec<u8>> {
    let (content, tree) = blob(0);
    let layout = Layout::raw(tree.leaves, tree.length.into())?;
    let file = BlobFile::create(Arc::new(OsDisk), path, layout.clone(), HolePunching::Unsupported)?;
    file.write(&layout.verify(0, content)?)?;
    let bytes = std::fs::read(path)?;
    file.remove()?;
    Ok(bytes)
}

fn measure(dir: &Path, files: u64) -> Outcome<bool> {
    let mut good = true;
    for start in 1..=3_u64 {
        let begin = Instant::now();
        let number = files * start / 4;
        let mut edge = Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg(dir)
            .arg(number.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(edge.stdout.take().ok_or("no output")?).lines();
        let served = lines.next().ok_or("the edge ended without a byte")??;
        let first_byte = begin.elapsed();
        good &= served == "served" && first_byte <= FIRST_BYTE_MAX;
        println!("start {start}: first byte after {:.3} s ({served})", first_byte.as_secs_f64());
        if start < 3 {
            edge.kill()?;
        } else {
            let loaded = lines.next().ok_or("the edge ended before it had seen everything")??;
            println!("start {start}: {loaded} after {:.1} s", begin.elapsed().as_secs_f64());
            edge.kill()?;
        }
        edge.wait()?;
    }
    println!("{}", if good { "within the limit of 1 s" } else { "OVER the limit of 1 s" });
    Ok(good)
}

/// The edge process: asks itself for a blob, then waits until everything is in the books.
#[tokio::main]
async fn serve(dir: &Path, number: &str) -> Outcome<()> {
    let (content, tree) = blob(number.parse()?);
    let config = EdgeConfig {
        // The discard port: nobody answers.
        upstreams: vec!["http://127.0.0.1:9".to_owned()],
        disk: Some(DiskTierConfig { files: 100_000_000, ..DiskTierConfig::new(dir.to_owned(), 1 << 45) }),
        ..EdgeConfig::default()
    };
    let edge = Edge::build(&config, &Registry::new())?;
    let path = format!("/blobs/{}", tree.id);
    let request = http::Request::builder().uri(path).header("host", "edge.example").body(Body::empty())?;
    let answer = edge.handler()(request).await.into_body().read_all(1 << 20).await?;
    println!("{}", if answer == content { "served" } else { "NOT served" });
    std::io::stdout().flush()?;
    while edge.metrics().disk_unseen_folders.get() > 0 || edge.metrics().disk_files.get() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let resident = std::fs::read_to_string("/proc/self/status")?;
    let resident = resident.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
    println!("{} files in the books, {}", edge.metrics().disk_files.get(), resident.replace('\t', " "));
    std::io::stdout().flush()?;
    std::future::pending::<()>().await;
    Ok(())
}
