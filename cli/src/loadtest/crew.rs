//! What a coordinator and its workers say to each other: JSON objects, one a line, over one TCP connection for each worker that stays
//! open for the whole run. A line is bounded, and so is silence.
//!
//! There is no encryption and nobody proves who he is: it is for a network of one's own, such as a cluster's.

use std::io;
use std::time::Duration;

use colibri_loadtest::outcome::Report;
use colibri_loadtest::slice::Slice;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// One line, bytes: a report with all its histograms.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// How often a worker says that it is there.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(2);

/// Who is silent for so long is lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// To a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToWorker {
    /// What to do.
    Task(Box<Task>),
    /// Begin after so many milliseconds: all workers are told at the same moment.
    Begin { in_ms: u64 },
    /// Go away.
    Refused { reason: String },
}

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Task {
    pub slice: Slice,
    /// The scenario's text.
    pub scenario: String,
    pub seed: u64,
    pub devices: u32,
    pub targets: Vec<String>,
    pub packages: Vec<String>,
    pub no_times: bool,
}

/// From a worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromWorker {
    /// It is there.
    Hello { version: String },
    /// It has its task and can begin.
    Ready,
    /// It goes on.
    Beat { sessions: u64 },
    /// What it measured.
    Report(Box<Report>),
    /// It cannot go on.
    Failed { reason: String },
}

/// One end of a connection.
pub(super) struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Line {
    pub fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// Says something.
    pub async fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(what)?;
        text.push(b'\n');
        let written = tokio::time::timeout(SILENCE_MAX, self.writer.write_all(&text)).await;
        written.map_err(|_| io::Error::other("the other side does not listen"))?
    }

    /// Hears the next thing; an error if there is none, if it is too long or not understood, or if nothing comes.
    pub async fn hear<T: DeserializeOwned>(&mut self, silence_max: Duration) -> io::Result<T> {
        let mut text = Vec::new();
        let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX);
        let read = tokio::time::timeout(silence_max, bounded.read_until(b'\n', &mut text)).await;
        read.map_err(|_| io::Error::other(format!("it said nothing for {} s", silence_max.as_secs())))??;
        match text.pop() {
            Some(b'\n') => serde_json::from_slice(&text)
                .map_err(|error| io::Error::other(format!("it said what is not understood: {error}"))),
            Some(_) if text.len() as u64 + 1 >= LINE_BYTES_MAX => {
                Err(io::Error::other(format!("it said more than {LINE_BYTES_MAX} bytes at once")))
            }
            _ => Err(io::Error::other("it closed the connection")),
        }
    }
}
