//! [`AccessLog`]: one JSON object a line for each request, written by a thread of its own. Whoever logs never waits: when the
//! queue is full the line is dropped and counted. What a line says is the caller's business.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ServiceError;
use crate::limits::{ACCESS_LINE_BYTES_MAX, ACCESS_QUEUE_LINES_MAX};
use crate::metrics::{IntCounter, MetricsError, Registry};

/// How long lines are kept together before they are written.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// Where lines about requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogConfig {
    /// `off`, `stdout`, or the path of a file, which is appended to.
    pub to: String,
    /// Lines that may wait to be written; more are dropped and counted.
    pub queue_lines: usize,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self { to: "off".to_owned(), queue_lines: 8192 }
    }
}

/// What became of lines.
#[derive(Debug, Clone)]
struct Counters {
    written: IntCounter,
    dropped: IntCounter,
    failures: IntCounter,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Reopen,
}

/// The log of a process. Dropping it writes what waits.
#[derive(Debug)]
pub struct AccessLog {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
    counters: Counters,
}

impl AccessLog {
    /// Opens what is configured; nothing if that is `off`.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread to be had.
    pub fn open(config: &AccessLogConfig, registry: &Registry) -> Result<Option<Self>, ServiceError> {
        let metrics = Counters::register(registry)?;
        let target = match config.to.as_str() {
            "off" => return Ok(None),
            "stdout" => Target::Stdout,
            path => Target::File(PathBuf::from(path)),
        };
        let writer =
            target.open().map_err(|source| ServiceError::AccessLog { path: config.to.clone().into(), source })?;
        Self::start(target, writer, config.queue_lines, metrics).map(Some)
    }

    fn start(
        target: Target,
        writer: Box<dyn Write + Send>,
        lines: usize,
        counters: Counters,
    ) -> Result<Self, ServiceError> {
        let (sender, receiver) = sync_channel(lines.clamp(1, ACCESS_QUEUE_LINES_MAX));
        let writer = Writer { target, out: BufWriter::new(writer), failing: false, counters: counters.clone() };
        let thread = std::thread::Builder::new()
            .name("colibri-access".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| ServiceError::AccessLog { path: "thread".into(), source })?;
        Ok(Self { sender: Some(sender), thread: Some(thread), counters })
    }

    /// Logs one request, or counts that there was no room.
    pub fn log(&self, record: &impl Serialize) {
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        if line.is_empty() || line.len() > ACCESS_LINE_BYTES_MAX {
            return self.counters.dropped.inc();
        }
        line.push(b'\n');
        self.send(Message::Line(line));
    }

    /// Opens the file anew: somebody has moved the old one away.
    pub fn reopen(&self) {
        self.send(Message::Reopen);
    }

    fn send(&self, message: Message) {
        let sent = self.sender.as_ref().map(|sender| sender.try_send(message));
        if let Some(Err(TrySendError::Full(Message::Line(_)) | TrySendError::Disconnected(Message::Line(_)))) = sent {
            self.counters.dropped.inc();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

impl Counters {
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let counter = |name, help| registry.counter(name, help);
        Ok(Self {
            written: counter("colibri_access_log_lines_total", "lines written to the access log")?,
            dropped: counter("colibri_access_log_dropped_total", "lines for which the queue had no room")?,
            failures: counter("colibri_access_log_failures_total", "failed writes of the access log")?,
        })
    }
}

#[derive(Debug)]
enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    fn open(&self) -> io::Result<Box<dyn Write + Send>> {
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::File(path) => Ok(Box::new(append(path)?)),
        }
    }
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The end of the queue.
struct Writer {
    target: Target,
    out: BufWriter<Box<dyn Write + Send>>,
    /// The last write failed: said once, not for each line.
    failing: bool,
    counters: Counters,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            match receiver.recv_timeout(FLUSH_AFTER) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            while let Ok(message) = receiver.try_recv() {
                self.take(message);
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => match self.out.write_all(&line) {
                Ok(()) => self.counters.written.inc(),
                Err(error) => self.failed(&error),
            },
            Message::Reopen => {
                self.flush();
                self.renew();
            }
        }
    }

    fn flush(&mut self) {
        match self.out.flush() {
            Ok(()) => self.failing = false,
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.counters.failures.inc();
        if !self.failing {
            self.failing = true;
            tracing::error!(target = ?self.target, %error, "the access log cannot be written: lines are lost");
        }
        // What is buffered is lost; another try with it would double what was written of it.
        self.renew();
    }

    fn renew(&mut self) {
        match self.target.open() {
            Ok(writer) => {
                let old = std::mem::replace(&mut self.out, BufWriter::new(writer));
                _ = old.into_parts();
            }
            Err(error) => {
                tracing::error!(target = ?self.target, %error, "the access log cannot be opened: the old one is kept");
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// Writes only when it is let, and tells that it was asked to.
    struct Gated(Receiver<()>, SyncSender<()>);

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            _ = self.1.send(());
            _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_hangs_delays_nobody_and_what_finds_no_room_is_counted() {
        let ((open, gate), (asked, was_asked)) = (sync_channel(1), sync_channel(100));
        let counters = Counters::register(&Registry::new()).unwrap();
        let log = AccessLog::start(Target::Stdout, Box::new(Gated(gate, asked)), 4, counters.clone()).unwrap();
        let long = "x".repeat(9_000);
        log.log(&long);
        was_asked.recv().unwrap();
        // From here the writer hangs.
        (0..10).for_each(|number| log.log(&number));
        assert_eq!(counters.dropped.get(), 6);
        log.log(&"y".repeat(ACCESS_LINE_BYTES_MAX));
        assert_eq!(counters.dropped.get(), 7, "a line that is too long");
        drop(open);
        drop(log);
        assert_eq!(counters.written.get(), 5);
    }
}
