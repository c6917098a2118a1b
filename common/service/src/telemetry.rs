//! [`init`]: where `tracing` goes. Standard error, so that standard output stays for results. [`LogFilter`] changes what is
//! logged while the process runs.

use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::sync::Arc;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

use crate::error::ServiceError;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!("log format {other:?} is unknown: use human or json")),
        }
    }
}

/// Keep it until the process ends: dropping it flushes what was logged.
#[derive(Debug)]
#[must_use = "logs are flushed when it is dropped"]
pub struct TelemetryGuard(LogFilter);

impl TelemetryGuard {
    /// What is logged, to be changed.
    pub fn filter(&self) -> LogFilter {
        self.0.clone()
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        _ = std::io::stderr().flush();
    }
}

/// A filter that was understood, such as `info` or `colibri_edge=debug,warn`.
#[derive(Debug)]
pub struct Filter(EnvFilter);

impl FromStr for Filter {
    type Err = ServiceError;

    fn from_str(filter: &str) -> Result<Self, ServiceError> {
        let refused = |reason: String| ServiceError::Filter { filter: filter.to_owned(), reason };
        EnvFilter::try_new(filter).map(Self).map_err(|error| refused(error.to_string()))
    }
}

/// What a running process logs. Clones share it.
#[derive(Clone)]
pub struct LogFilter(Arc<dyn Fn(Filter) + Send + Sync>);

impl std::fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFilter").finish_non_exhaustive()
    }
}

impl LogFilter {
    /// Logs what this lets through, from now on.
    pub fn set(&self, filter: Filter) {
        (self.0)(filter);
    }
}

/// Sends the process's logs to standard error. `filter` is in the form `info` or `colibri_edge=debug,warn`.
///
/// # Errors
/// The filter is not valid, or logging was already set up.
pub fn init(format: Format, filter: &str) -> Result<TelemetryGuard, ServiceError> {
    let colours = std::io::stderr().is_terminal();
    let (subscriber, filter) = subscriber(format, filter.parse()?, colours, std::io::stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| ServiceError::TelemetryTwice)?;
    Ok(TelemetryGuard(filter))
}

type Boxed = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(format: Format, filter: Filter, colours: bool, writer: W) -> (Boxed, LogFilter)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter.0).with_writer(writer);
    match format {
        Format::Human => {
            let builder = builder.with_ansi(colours).with_filter_reloading();
            let filter = changed_by(builder.reload_handle());
            (Box::new(builder.finish()), filter)
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let filter = changed_by(builder.reload_handle());
            (Box::new(builder.finish()), filter)
        }
    }
}

fn changed_by<S: 'static>(handle: Handle<EnvFilter, S>) -> LogFilter {
    LogFilter(Arc::new(move |filter: Filter| {
        // It fails only when the subscriber is gone: then nothing is logged anyway.
        _ = handle.reload(filter.0);
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let (subscriber, _) = subscriber(format, filter.parse().unwrap(), false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(blob = "b10b", "stored");
            tracing::debug!("hidden");
        });
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn human_lines_carry_message_and_fields() {
        let text = logged(Format::Human, "info");
        assert!(text.contains("stored") && text.contains("b10b"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn json_lines_are_objects() {
        let text = logged(Format::Json, "debug");
        let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["message"], "stored");
        assert_eq!(objects[0]["blob"], "b10b");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = "a=b=c".parse::<Filter>().unwrap_err();
        assert!(error.to_string().contains("a=b=c"), "{error}");
    }

    #[test]
    fn a_filter_is_changed_while_the_process_runs() {
        for format in [Format::Human, Format::Json] {
            let sink = Sink::default();
            let writer = sink.clone();
            let (subscriber, filter) = subscriber(format, "warn".parse().unwrap(), false, move || writer.clone());
            tracing::subscriber::with_default(subscriber, || {
                let say = |what: &str| tracing::info!(what, "said");
                say("first");
                filter.set("info".parse().unwrap());
                say("second");
                filter.set("off".parse().unwrap());
                say("third");
            });
            let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("first") && text.contains("second") && !text.contains("third"), "{text}");
        }
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("xml".parse::<Format>().unwrap_err().contains("xml"));
    }
}
