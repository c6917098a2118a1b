//! [`Registry`]: Prometheus metrics whose names keep the rules, rendered as text.
//!
//! Rules: `colibri_` first; lower case; counters end in `_total`; histograms end in a unit; gauges end in a unit or in what
//! they count (a plural). One registry per process part, so that tests can have many.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
pub use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use prometheus::{HistogramOpts, Opts, TextEncoder};

use crate::limits::METRIC_LABELS_MAX;

/// Units a name may end in.
const UNITS: &[&str] = &["seconds", "bytes", "ratio"];

/// A metric cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The name breaks a rule.
    #[error("metric {name:?} is misnamed: {rule}")]
    Name {
        /// The name.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// There are too many labels.
    #[error("metric {name:?} has {labels} labels, at most {METRIC_LABELS_MAX} are allowed")]
    Labels {
        /// The name.
        name: String,
        /// How many.
        labels: usize,
    },
    /// Prometheus refuses it, most likely because the name is taken.
    #[error("metric {name:?} cannot be registered: {reason}")]
    Register {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// A set of metrics. Clones share it.
#[derive(Clone, Default)]
pub struct Registry {
    metrics: prometheus::Registry,
    /// Called before each rendering.
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter: only goes up. Its name ends in `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        check_counter(name)?;
        self.register(name, IntCounter::new(name, help))
    }

    /// Counters told apart by labels.
    pub fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricsError> {
        check_counter(name)?;
        check_labels(name, labels)?;
        self.register(name, IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge: goes up and down. Its name ends in a unit or in what it counts.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        check_gauge(name)?;
        self.register(name, IntGauge::new(name, help))
    }

    /// Gauges told apart by labels.
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        check_gauge(name)?;
        check_labels(name, labels)?;
        self.register(name, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// A distribution over `buckets` (upper bounds, rising). Its name ends in a unit.
    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, MetricsError> {
        check_histogram(name)?;
        self.register(name, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    /// Distributions told apart by labels.
    pub fn histogram_vec(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> Result<HistogramVec, MetricsError> {
        check_histogram(name)?;
        check_labels(name, labels)?;
        self.register(name, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }

    /// Lets `hook` bring metrics up to date before each rendering: for what is counted elsewhere.
    pub fn before_rendering(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(hook));
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn render(&self) -> String {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|hook| hook());
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.metrics.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }

    pub(crate) fn register<C: Collector + Clone + 'static>(
        &self,
        name: &str,
        made: Result<C, prometheus::Error>,
    ) -> Result<C, MetricsError> {
        let refused =
            |error: prometheus::Error| MetricsError::Register { name: name.to_owned(), reason: error.to_string() };
        let collector = made.map_err(refused)?;
        self.metrics.register(Box::new(collector.clone())).map_err(refused)?;
        Ok(collector)
    }
}

fn check_name(name: &str) -> Result<&str, MetricsError> {
    let broken = |rule| MetricsError::Name { name: name.to_owned(), rule };
    let Some(rest) = name.strip_prefix("colibri_") else { return Err(broken("it must begin with colibri_")) };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(plain) || rest.starts_with('_') || name.ends_with('_') || name.contains("__") {
        return Err(broken("only lower-case letters, digits and single underscores between them"));
    }
    rest.rsplit('_').next().filter(|word| !word.is_empty()).ok_or_else(|| broken("it must say what it measures"))
}

fn check_counter(name: &str) -> Result<(), MetricsError> {
    match check_name(name)? {
        "total" => Ok(()),
        _ => Err(MetricsError::Name { name: name.to_owned(), rule: "a counter ends in _total" }),
    }
}

fn check_gauge(name: &str) -> Result<(), MetricsError> {
    let word = check_name(name)?;
    if UNITS.contains(&word) || word == "info" || (word.ends_with('s') && word.len() > 1) {
        return Ok(());
    }
    let rule = "a gauge ends in a unit (_seconds, _bytes, _ratio), in _info, or in the plural of what it counts";
    Err(MetricsError::Name { name: name.to_owned(), rule })
}

fn check_histogram(name: &str) -> Result<(), MetricsError> {
    if UNITS.contains(&check_name(name)?) {
        return Ok(());
    }
    Err(MetricsError::Name { name: name.to_owned(), rule: "a histogram ends in a unit (_seconds, _bytes, _ratio)" })
}

fn check_labels(name: &str, labels: &[&str]) -> Result<(), MetricsError> {
    if labels.len() <= METRIC_LABELS_MAX {
        return Ok(());
    }
    Err(MetricsError::Labels { name: name.to_owned(), labels: labels.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_was_counted() {
        let registry = Registry::new();
        registry.counter("colibri_edge_requests_total", "Requests.").unwrap().inc_by(3);
        registry.counter_vec("colibri_edge_hits_total", "Hits.", &["tier"]).unwrap().with_label_values(&["disk"]).inc();
        registry.gauge("colibri_edge_memory_bytes", "Memory.").unwrap().set(4096);
        registry.histogram("colibri_edge_fill_seconds", "Fills.", vec![0.1, 1.0]).unwrap().observe(0.5);
        let text = registry.render();
        for line in [
            "# TYPE colibri_edge_requests_total counter",
            "colibri_edge_requests_total 3",
            "colibri_edge_hits_total{tier=\"disk\"} 1",
            "colibri_edge_memory_bytes 4096",
            "colibri_edge_fill_seconds_bucket{le=\"1\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn misnamed_metrics_are_refused_with_the_rule() {
        let registry = Registry::new();
        let refused = [
            registry.counter("edge_requests_total", "x").map(drop),
            registry.counter("colibri_edge_requests", "x").map(drop),
            registry.counter("colibri_Edge_total", "x").map(drop),
            registry.counter("colibri__total", "x").map(drop),
            registry.gauge("colibri_edge_memory", "x").map(drop),
            registry.histogram("colibri_edge_fill_total", "x", vec![1.0]).map(drop),
            registry.histogram("colibri_", "x", vec![1.0]).map(drop),
            registry.gauge_vec("colibri_edge_flights", "x", &["a"; METRIC_LABELS_MAX + 1]).map(drop),
        ];
        for result in refused {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("colibri_") || message.contains("edge_requests_total"), "{message}");
        }
        registry.gauge("colibri_edge_flights", "Plural.").unwrap();
        let twice = registry.gauge("colibri_edge_flights", "Plural.").unwrap_err();
        assert!(matches!(twice, MetricsError::Register { .. }), "{twice}");
    }
}
