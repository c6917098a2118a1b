//! [`init`]: where `tracing` goes. Standard error, so that standard output stays for results.

use std::io::{IsTerminal, Write};
use std::str::FromStr;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

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
pub struct TelemetryGuard(());

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        _ = std::io::stderr().flush();
    }
}

/// Sends the process's logs to standard error. `filter` is in the form `info` or `colibri_edge=debug,warn`.
///
/// # Errors
/// The filter is not valid, or logging was already set up.
pub fn init(format: Format, filter: &str) -> Result<TelemetryGuard, ServiceError> {
    let colours = std::io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(format, filter, colours, std::io::stderr)?)
        .map_err(|_| ServiceError::TelemetryTwice)?;
    Ok(TelemetryGuard(()))
}

type Boxed = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(format: Format, filter: &str, colours: bool, writer: W) -> Result<Boxed, ServiceError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| ServiceError::Filter { filter: filter.to_owned(), reason: error.to_string() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        Format::Human => Box::new(builder.with_ansi(colours).finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    })
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
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
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
        let error = subscriber(Format::Human, "a=b=c", false, std::io::stderr).err().unwrap();
        assert!(error.to_string().contains("a=b=c"), "{error}");
    }

    #[test]
    fn formats_have_names() {
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!("xml".parse::<Format>().unwrap_err().contains("xml"));
    }
}
