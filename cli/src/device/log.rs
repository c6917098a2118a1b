//! The device's log on standard error, in the form in which real devices show theirs: `[pkg-resolver] INFO: …`.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What the resolver of real devices calls itself.
const RESOLVER: &str = "pkg-resolver";

/// Prints events up to a level, one line each.
#[derive(Debug)]
struct Lines {
    level: Level,
}

/// From now on the log of this process is printed: warnings, and with `verbose` what is resolved as what. Only the first call in
/// a process counts.
pub(super) fn start(verbose: bool) {
    let level = if verbose { Level::INFO } else { Level::WARN };
    // Somebody else in this process decides already.
    _ = tracing::subscriber::set_global_default(Lines { level });
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level && metadata.target().starts_with("colibri")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        // Standard error that is gone is no reason to stop.
        _ = writeln!(std::io::stderr(), "{}", line(event));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(event: &Event<'_>) -> String {
    let target = event.metadata().target();
    let module = target.split("::").next().unwrap_or(target);
    let who = if module == "colibri_device" { RESOLVER } else { module };
    let mut text = Text { message: String::new(), fields: String::new() };
    event.record(&mut text);
    format!("[{who}] {}: {}{}", event.metadata().level(), text.message, text.fields)
}

struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Into a text nothing fails.
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
