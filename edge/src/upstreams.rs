//! The upstreams of an edge as a set of sources: budgets, hedging, the protection of the origin, and their metrics.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use colibri_fetch::{Budget, BudgetLimits, CurrentSources, Hedging, Source, SourceOrder, SourceUrl, Sources};
use colibri_service::metrics::{IntCounter, IntCounterVec, IntGaugeVec, MetricsError, Registry};

use crate::config::{EdgeConfig, UpstreamOrder};
use crate::error::EdgeError;
use crate::peers::{Peers, Totals};

/// What `config` says about sources, checked and not yet in use.
#[derive(Debug)]
pub(crate) struct Plan {
    urls: Vec<SourceUrl>,
    origins: Vec<SourceUrl>,
    upstream: BudgetLimits,
    origin: BudgetLimits,
    order: SourceOrder,
    hedging: Hedging,
}

impl Plan {
    pub fn of(config: &EdgeConfig) -> Result<Self, EdgeError> {
        if config.upstreams.is_empty() {
            return Err(EdgeError::NoUpstream);
        }
        let urls: Result<Vec<SourceUrl>, _> = config.upstreams.iter().map(|url| url.parse()).collect();
        let urls = urls.map_err(EdgeError::Upstream)?;
        let origins = origins(config, &urls)?;
        let upstream = BudgetLimits { in_flight_max: config.upstream_in_flight_max, ..BudgetLimits::default() };
        let origin = BudgetLimits {
            requests_per_s: config.origin_requests_per_s,
            bytes_per_s: config.origin_bytes_per_s,
            ..upstream
        };
        let order = match config.upstream_order {
            UpstreamOrder::Listed => SourceOrder::Listed,
            UpstreamOrder::Quickest => SourceOrder::Quickest,
        };
        let hedging = Hedging {
            share_percent: config.upstream_hedge_percent.min(100),
            delay_min: Duration::from_millis(config.upstream_hedge_delay_ms),
            ..Hedging::default()
        };
        Ok(Self { urls, origins, upstream, origin, order, hedging })
    }

    /// The sources, with one budget for all that are the origin and one each for the others. Those that were there `before`
    /// keep their health, what was counted, and what is used of their budgets.
    pub fn sources(self, before: &Sources) -> Sources {
        let origin = before.list().iter().find(|source| source.is_spared());
        let origin = origin.map_or_else(|| Budget::new(self.origin), |source| source.budget().clone());
        origin.set_limits(self.origin);
        let list = self.urls.into_iter().map(|url| {
            let is_origin = self.origins.contains(&url);
            let known = before.list().iter().find(|source| source.url == url && source.is_spared() == is_origin);
            match known {
                Some(source) => {
                    if !is_origin {
                        source.budget().set_limits(self.upstream);
                    }
                    source.clone()
                }
                None if is_origin => Arc::new(Source::new(url).with_budget(origin.clone()).spared()),
                None => Arc::new(Source::new(url).with_budget(Budget::new(self.upstream))),
            }
        });
        before.followed_by(list.collect(), self.order).with_hedging(self.hedging)
    }
}

/// The sources that `config` names.
pub(crate) fn sources(config: &EdgeConfig) -> Result<Sources, EdgeError> {
    let plan = Plan::of(config)?;
    let none = Sources::new(Vec::new(), plan.order);
    Ok(plan.sources(&none))
}

/// Those that are marked, or else the last tier.
fn origins(config: &EdgeConfig, urls: &[SourceUrl]) -> Result<Vec<SourceUrl>, EdgeError> {
    if config.origins.is_empty() {
        return Ok(urls.last().cloned().into_iter().collect());
    }
    let marked = config.origins.iter().map(|url| {
        let marked: SourceUrl = url.parse().map_err(EdgeError::Upstream)?;
        if urls.contains(&marked) { Ok(marked) } else { Err(EdgeError::Origin(url.clone())) }
    });
    marked.collect()
}

/// What is exported of each source, by tier and URL.
struct Exported {
    requests: IntCounterVec,
    bytes: IntCounterVec,
    failures: IntCounterVec,
    blames: IntCounterVec,
    hedges: IntCounterVec,
    hedges_won: IntCounterVec,
    cancelled: IntCounterVec,
    waits: IntCounterVec,
    waited_ms: IntCounterVec,
    in_flight: IntGaugeVec,
    latency_us: IntGaugeVec,
    demotions: IntGaugeVec,
}

const LABELS: &[&str] = &["tier", "source"];

impl Exported {
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let counter = |name, help| registry.counter_vec(name, help, LABELS);
        let gauge = |name, help| registry.gauge_vec(name, help, LABELS);
        Ok(Self {
            requests: counter("colibri_edge_upstream_requests_total", "requests sent upstream")?,
            bytes: counter("colibri_edge_upstream_bytes_total", "body bytes received from upstream, before any check")?,
            failures: counter("colibri_edge_upstream_failures_total", "attempts that failed, bad bytes included")?,
            blames: counter("colibri_edge_upstream_blames_total", "times a source served bad bytes")?,
            hedges: counter("colibri_edge_upstream_hedges_total", "requests sent because another source was silent")?,
            hedges_won: counter("colibri_edge_upstream_hedges_won_total", "of these, those that were quicker")?,
            cancelled: counter("colibri_edge_upstream_cancelled_total", "requests given up: another was quicker")?,
            waits: counter("colibri_edge_upstream_waits_total", "requests that waited for a place in a budget")?,
            waited_ms: counter("colibri_edge_upstream_waited_ms_total", "milliseconds waited for places in a budget")?,
            in_flight: gauge("colibri_edge_upstream_in_flight_requests", "requests in flight")?,
            latency_us: gauge("colibri_edge_upstream_latency_microseconds", "mean time to the head of an answer")?,
            demotions: gauge("colibri_edge_upstream_demotions", "0 well, 1 failing or leaving, 2 served bad bytes")?,
        })
    }

    /// `with_waits` is false for a source that shares the budget of one before it.
    fn set(&self, tier: &str, source: &Source, with_waits: bool) {
        let labels = [tier, source.url.as_str()];
        let counts = source.counts();
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        for (counter, value) in [
            (&self.requests, counts.requests),
            (&self.bytes, counts.body_bytes),
            (&self.failures, counts.failures),
            (&self.blames, counts.blames),
            (&self.hedges, counts.hedges),
            (&self.hedges_won, counts.hedges_won),
            (&self.cancelled, counts.cancelled),
        ] {
            raise(&counter.with_label_values(&labels), value);
        }
        if with_waits {
            raise(&self.waits.with_label_values(&labels), counts.waits);
            raise(&self.waited_ms.with_label_values(&labels), ms(counts.waited));
        }
        let latency = counts.latency.map_or(0, |latency| i64::try_from(latency.as_micros()).unwrap_or(i64::MAX));
        self.in_flight.with_label_values(&labels).set(counts.in_flight.into());
        self.latency_us.with_label_values(&labels).set(latency);
        self.demotions.with_label_values(&labels).set(counts.standing as i64);
    }

    /// Nothing is said any more of a source that is asked no more.
    fn forget(&self, tier: &str, url: &str) {
        let labels = [tier, url];
        for counter in [
            &self.requests,
            &self.bytes,
            &self.failures,
            &self.blames,
            &self.hedges,
            &self.hedges_won,
            &self.cancelled,
            &self.waits,
            &self.waited_ms,
        ] {
            // Some have never had a value.
            _ = counter.remove_label_values(&labels);
        }
        for gauge in [&self.in_flight, &self.latency_us, &self.demotions] {
            _ = gauge.remove_label_values(&labels);
        }
    }

    /// Peers come and go: they are exported as one.
    fn set_peers(&self, totals: &Totals) {
        for (counter, value) in [
            (&self.requests, totals.requests),
            (&self.bytes, totals.body_bytes),
            (&self.failures, totals.failures),
            (&self.blames, totals.blames),
        ] {
            raise(&counter.with_label_values(&["peer", "all"]), value);
        }
    }
}

/// Brings a counter up to what was counted elsewhere.
fn raise(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

/// Exports what is counted of each source, of those that there are when metrics are rendered.
pub(crate) fn export(
    sources: &CurrentSources,
    peers: Option<&Arc<Peers>>,
    registry: &Registry,
) -> Result<(), EdgeError> {
    let exported = Exported::register(registry)?;
    let (sources, peers) = (sources.clone(), peers.map(Arc::downgrade));
    let before = Mutex::new(Vec::new());
    registry.before_rendering(move || {
        let sources = sources.get();
        let mut waits_of_origin = true;
        let labels = |source: &Arc<Source>| (tier(source), source.url.as_str().to_owned());
        let now: Vec<_> = sources.list().iter().map(labels).collect();
        let before = std::mem::replace(&mut *before.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        before.iter().filter(|gone| !now.contains(gone)).for_each(|(tier, url)| exported.forget(tier, url));
        for source in sources.list() {
            exported.set(tier(source), source, !source.is_spared() || waits_of_origin);
            waits_of_origin &= !source.is_spared();
        }
        if let Some(peers) = peers.as_ref().and_then(Weak::upgrade) {
            exported.set_peers(&peers.totals());
        }
    });
    Ok(())
}

fn tier(source: &Source) -> &'static str {
    if source.is_spared() { "origin" } else { "upstream" }
}
