//! [`Reload`]: the configuration of a running process, read again: on SIGHUP, and when its file has changed.
//!
//! The layers are the same as at the start, so flags and environment still win over the file. What is read is judged as a whole
//! before anything changes. Keys that cannot change at run time are named; which those are is the caller's to say, and how the
//! others change.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::Metadata;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Sources, load};
use crate::metrics::{IntCounterVec, IntGauge, MetricsError, Registry};
use crate::telemetry::LogFilter;

/// Where a running process's configuration is read again from, and what of the process itself it changes.
#[derive(Debug, Clone, Default)]
pub struct Reloading {
    /// The layers it was started from.
    pub sources: Sources,
    /// What is logged, if this process decides that.
    pub log: Option<LogFilter>,
}

/// Which keys another configuration changes, as dotted paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Those that hold from now on; what held before is what was applied last.
    pub applied: Vec<String>,
    /// Those that differ from the start and take effect at the next one.
    pub at_next_start: Vec<String>,
}

/// A configuration was not taken over. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is not usable, and nothing was changed: {0}")]
pub struct ReloadError(pub String);

/// How reloads ended.
#[derive(Debug, Clone)]
struct ReloadMetrics {
    reloads: IntCounterVec,
    failing: IntGauge,
    pending: IntGauge,
}

impl ReloadMetrics {
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let help = "times the configuration was read again, by outcome";
        let reloads = registry.counter_vec("colibri_config_reloads_total", help, &["outcome"])?;
        for outcome in ["applied", "unchanged", "failed"] {
            reloads.with_label_values(&[outcome]);
        }
        let failing =
            registry.gauge("colibri_config_reload_failures", "1 while the configuration read last is not usable")?;
        let pending = registry.gauge(
            "colibri_config_pending_keys",
            "keys of the configuration that were changed and take effect at the next start",
        )?;
        Ok(Self { reloads, failing, pending })
    }
}

/// The configuration of a running process.
#[derive(Debug)]
pub struct Reload<T> {
    sources: Sources,
    /// The keys that can change at run time; a key stands for what is below it, too.
    changeable: Vec<&'static str>,
    started: Value,
    applied: Mutex<Value>,
    metrics: ReloadMetrics,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Serialize + Default> Reload<T> {
    /// For a process that runs with `running`, which came from `sources`.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(
        sources: Sources,
        running: &T,
        changeable: Vec<&'static str>,
        registry: &Registry,
    ) -> Result<Self, MetricsError> {
        let started = to_value(running);
        let (applied, metrics) = (Mutex::new(started.clone()), ReloadMetrics::register(registry)?);
        Ok(Self { sources, changeable, started, applied, metrics, of: PhantomData })
    }

    /// The file of the configuration, if it comes from one.
    pub fn file(&self) -> Option<&Path> {
        self.sources.file.as_deref()
    }

    /// Reads all layers again. `apply` judges the whole, and then, if nothing is wrong, changes what can change: those of its
    /// keys that are among [`Changes::applied`].
    ///
    /// # Errors
    /// Every mistake of the layers, or what `apply` found wrong.
    pub fn reload<E: fmt::Display>(
        &self,
        apply: impl FnOnce(&T, &Changes) -> Result<(), E>,
    ) -> Result<Changes, ReloadError> {
        // Reloads are one after the other.
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.read_and_apply(&mut applied, apply);
        let (name, failing) = match &outcome {
            Ok(changes) if changes.applied.is_empty() => ("unchanged", 0),
            Ok(_) => ("applied", 0),
            Err(_) => ("failed", 1),
        };
        self.metrics.reloads.with_label_values(&[name]).inc();
        self.metrics.failing.set(failing);
        match &outcome {
            Ok(changes) => self.tell(changes),
            Err(error) => tracing::error!(%error, "the configuration was read again"),
        }
        outcome
    }

    fn read_and_apply<E: fmt::Display>(
        &self,
        applied: &mut Value,
        apply: impl FnOnce(&T, &Changes) -> Result<(), E>,
    ) -> Result<Changes, ReloadError> {
        let new = load::<T>(self.sources.clone()).map_err(|errors| ReloadError(errors.to_string()))?.value;
        let value = to_value(&new);
        let can_change = |key: &String| self.changeable.iter().any(|changeable| is_within(key, changeable));
        let changes = Changes {
            applied: differences(applied, &value).into_iter().filter(can_change).collect(),
            at_next_start: differences(&self.started, &value).into_iter().filter(|key| !can_change(key)).collect(),
        };
        apply(&new, &changes).map_err(|error| ReloadError(error.to_string()))?;
        *applied = value;
        Ok(changes)
    }

    fn tell(&self, changes: &Changes) {
        let Changes { applied, at_next_start } = changes;
        self.metrics.pending.set(i64::try_from(at_next_start.len()).unwrap_or(i64::MAX));
        match applied.as_slice() {
            [] => tracing::info!("the configuration was read again: nothing that can change at run time is new"),
            keys => tracing::info!(keys = keys.join(", "), "the configuration was read again: these keys are new"),
        }
        if !at_next_start.is_empty() {
            let keys = at_next_start.join(", ");
            tracing::warn!(
                keys,
                "these keys were changed and cannot change at run time: they take effect at the next start"
            );
        }
    }
}

fn to_value(config: &impl Serialize) -> Value {
    // What was read from text can be written as text.
    serde_json::to_value(config).unwrap_or_default()
}

/// Whether `key` is `whole` or below it.
fn is_within(key: &str, whole: &str) -> bool {
    key.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Dotted paths of all that is not alike, in order.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(String::new(), before, after, &mut found);
    found
}

fn compare(path: String, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            for name in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let of = |object: &serde_json::Map<String, Value>| object.get(name).cloned().unwrap_or_default();
                compare(path, &of(before), &of(after), found);
            }
        }
        (before, after) if before != after => found.push(path),
        _ => {}
    }
}

/// What changes when a file does, however it is replaced: inode, length, time of modification and of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp([u64; 2], [i64; 4]);

impl Stamp {
    /// Nothing if there is no such file.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let of = |found: Metadata| {
            Self([found.ino(), found.len()], [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()])
        };
        std::fs::metadata(path).ok().map(of)
    }
}

/// Calls `act` at each SIGHUP, and when the file is another than it was and has stood still for `every` (never, if that is
/// zero): what is being written is not read half. For as long as it is polled; never completes.
pub async fn follow<F: Future<Output = ()>>(file: Option<PathBuf>, every: Duration, mut act: impl FnMut() -> F) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be waited for: the configuration is read again when its file changes");
            None
        }
    };
    let mut ticks = (file.is_some() && !every.is_zero()).then(|| interval(every));
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let look = || file.as_deref().and_then(Stamp::of);
    let (mut acted_on, mut last) = (look(), look());
    loop {
        let asked = tokio::select! {
            Some(()) = async { hangup.as_mut()?.recv().await } => true,
            Some(_) = async { Some(ticks.as_mut()?.tick().await) } => false,
            else => return std::future::pending().await,
        };
        let now = look();
        if asked || (now != acted_on && now == last) {
            acted_on = now;
            act().await;
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_alike_is_named_once_and_as_far_down_as_both_go() {
        let before = json!({"a": 1, "b": {"c": [1, 2], "d": null, "e": {}}, "f": "x"});
        let after = json!({"a": 1, "b": {"c": [2, 1], "d": {"g": 1}, "e": {"h": 2}}, "f": "y"});
        assert_eq!(differences(&before, &after), ["b.c", "b.d", "b.e.h", "f"]);
        assert_eq!(differences(&after, &before), ["b.c", "b.d", "b.e.h", "f"]);
        assert!(differences(&before, &before).is_empty());
    }

    #[test]
    fn a_key_stands_for_what_is_below_it_and_not_for_what_begins_alike() {
        assert!(is_within("edge.tokens", "edge.tokens") && is_within("edge.tokens.keys.a", "edge.tokens"));
        assert!(!is_within("edge.tokens2", "edge.tokens") && !is_within("edge", "edge.tokens"));
    }
}
