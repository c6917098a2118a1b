//! What stands for an edge: a process of its own that serves files of a folder over HTTP/3, 2 and 1.1, as fast as it is let. It
//! verifies nothing and caches nothing: only the device is measured.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use colibri_api::{Coding, Representation, cache, head_for};
use colibri_transport::{Body, BodySender, Request, Response, Server, ServerConfig, ServerTls, handler};
use http::{HeaderValue, StatusCode};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// The hidden name of this program.
pub const NAME: &str = "device-edge";

/// Bytes of a file that are sent at a time.
const PIECE_BYTES: u64 = 64 << 10;

/// An edge in another process, which ends with this.
pub struct Edge {
    process: Child,
    /// `HOST:PORT`.
    pub authority: String,
}

impl Edge {
    /// Serves `dir`, at most so many bytes per second (0: as many as it can).
    pub fn start(dir: &Path, bytes_per_s: u64) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(NAME).arg(dir).arg(bytes_per_s.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut authority = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut authority)?;
        Ok(Self { process, authority: authority.trim().to_owned() })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// The process itself: serves until its input ends.
pub fn run(words: &[String]) -> Result<bool, Box<dyn Error>> {
    let [dir, bytes_per_s] = words else { return Err("a folder and a rate are needed".into()) };
    let site = Arc::new(Site { dir: dir.into(), rate: Rate::new(bytes_per_s.parse()?) });
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async move {
        let tls = ServerTls::self_signed(&["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()])?;
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let handler = handler(move |request: Request| {
            let answer = site.clone().answer(&request);
            async move { answer }
        });
        let mut config = ServerConfig::secure(any, tls);
        // Connections that are measured while they are idle stay.
        config.limits.idle_timeout = Duration::from_secs(3_600);
        let server = Server::bind(config, handler)?;
        println!("{}", server.address());
        tokio::spawn(server.serve(CancellationToken::new(), Duration::ZERO));
        tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
        Ok(true)
    })
}

struct Site {
    dir: PathBuf,
    rate: Rate,
}

impl Site {
    fn answer(self: Arc<Self>, request: &Request) -> Response {
        let path = self.dir.join(request.uri().path().trim_start_matches('/'));
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let Some((metadata, file)) = opened.ok().filter(|(metadata, _)| metadata.is_file()) else {
            let mut absent = Response::new(Body::empty());
            *absent.status_mut() = StatusCode::NOT_FOUND;
            return absent;
        };
        let representation = Representation {
            length: metadata.len(),
            etag: None,
            cache_control: cache::IMMUTABLE,
            content_type: HeaderValue::from_static("application/octet-stream"),
            accept_ranges: true,
            coding: Coding::Identity,
            vary: None,
        };
        let plan = head_for(&representation, request.method(), request.headers());
        let body = plan.body.map_or_else(Body::empty, |range| {
            let (sender, body) = Body::channel(Some(range.len()));
            tokio::spawn(self.send(file, range.start(), range.end(), sender));
            body
        });
        let mut response = Response::new(body);
        *response.status_mut() = plan.status;
        *response.headers_mut() = plan.headers;
        response
    }

    async fn send(self: Arc<Self>, file: File, mut at: u64, end: u64, mut sender: BodySender) {
        while at < end {
            let mut piece = vec![0; PIECE_BYTES.min(end - at) as usize];
            if let Err(error) = file.read_exact_at(&mut piece, at) {
                return sender.abort(error);
            }
            at += piece.len() as u64;
            self.rate.pass(piece.len()).await;
            if sender.send(Bytes::from(piece)).await.is_err() {
                return;
            }
        }
        sender.finish();
    }
}

/// Lets bytes pass one after the other, at a steady rate.
struct Rate {
    bytes_per_s: u64,
    free_at: Mutex<Instant>,
}

impl Rate {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, free_at: Mutex::new(Instant::now()) }
    }

    async fn pass(&self, bytes: usize) {
        if self.bytes_per_s == 0 {
            return;
        }
        let due = {
            let mut free_at = self.free_at.lock().await;
            let due = (*free_at).max(Instant::now());
            *free_at = due + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
            due
        };
        sleep_until(due).await;
    }
}
