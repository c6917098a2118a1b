//! [`Access`]: what is written and counted of each request once its body has ended: tier, source, bytes, duration, trace.
//!
//! Nothing is remembered of a request here when there is no access log, but for the counters.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use colibri_api::Trace;
use colibri_api::cache_status::inherited;
use colibri_common::{Clock, UnixSeconds};
use colibri_fetch::{Blame, Given, Witness};
use colibri_service::AccessLog;
use colibri_transport::{Peer, Protocol, Request, Response};
use http::header::{RANGE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::freshness::Freshness;
use crate::history::clip;
use crate::limits::{LOGGED_FIELD_BYTES_MAX, LOGGED_PATH_BYTES_MAX};
use crate::metrics::Metrics;
use crate::quarantine::Seen;

/// Who notes the requests of one edge.
pub(crate) struct Access {
    log: Option<Arc<AccessLog>>,
    clock: Arc<dyn Clock>,
    seen: Arc<Seen>,
    metrics: Metrics,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("log", &self.log).finish_non_exhaustive()
    }
}

/// The version of the metadata that a repository was served with; in the extensions of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetVersion(pub u32);

/// One request, from its arrival to the end of its body.
pub(crate) struct Visit {
    began: Instant,
    protocol: Option<Protocol>,
    metrics: Metrics,
    trail: Arc<Trail>,
    noted: Option<Noted>,
}

/// What is written of it besides.
struct Noted {
    log: Arc<AccessLog>,
    line: Line,
}

/// What sources did on behalf of one request. What is remembered of them whoever asks is told as well.
#[derive(Debug)]
pub(crate) struct Trail {
    seen: Arc<Seen>,
    /// The one that gave something last.
    source: Mutex<Option<String>>,
    /// What the caches before said of the answer that began last.
    caches: Mutex<Option<HeaderValue>>,
}

impl Trail {
    /// What the caches between the origin and here said of the answer that began last.
    pub fn caches(&self) -> Option<HeaderValue> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Witness for Trail {
    fn gave(&self, authority: &str, given: Given) {
        self.seen.gave(authority, given);
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.to_owned());
    }

    fn answers(&self, fields: &HeaderMap) {
        let caches = inherited(fields).and_then(|list| HeaderValue::try_from(list).ok());
        *self.caches.lock().unwrap_or_else(PoisonError::into_inner) = caches;
    }

    fn blamed(&self, blame: &Blame) {
        self.seen.blamed(blame);
    }
}

/// A line of the access log.
#[derive(Debug, Serialize)]
struct Line {
    /// When the request came, seconds since 1970.
    time_s: UnixSeconds,
    method: String,
    path: String,
    range: Option<String>,
    status: u16,
    /// Body bytes taken by the connection.
    bytes: u64,
    /// Whether that was the whole body.
    complete: bool,
    protocol: Option<&'static str>,
    /// Where the first of it came from: `memory`, `disk`, `flight` (another's), `upstream`, `stale`; nothing if no cache was asked.
    tier: Option<&'static str>,
    /// The upstream that gave the last of what was fetched for this request.
    source: Option<String>,
    duration_ms: u64,
    set_version: Option<u32>,
    client: Option<String>,
    user_agent: Option<String>,
    traceparent: String,
}

impl Access {
    pub fn new(log: Option<Arc<AccessLog>>, clock: Arc<dyn Clock>, seen: Arc<Seen>, metrics: Metrics) -> Self {
        Self { log, clock, seen, metrics }
    }

    /// Opens the log's file anew.
    pub fn reopen(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// Notes that a request has come.
    pub fn visit(&self, request: &Request, trace: &Trace) -> Visit {
        let protocol = request.extensions().get::<Protocol>().copied();
        let line = || Line::of(request, trace, self.clock.now());
        let noted = self.log.clone().map(|log| Noted { log, line: line() });
        let trail = Trail { seen: self.seen.clone(), source: Mutex::default(), caches: Mutex::default() };
        Visit { began: Instant::now(), protocol, metrics: self.metrics.clone(), trail: Arc::new(trail), noted }
    }
}

impl Visit {
    /// Who is to be told what sources do for this request.
    pub const fn trail(&self) -> &Arc<Trail> {
        &self.trail
    }

    /// The answer, watched to its end.
    pub fn ends_with(self, response: Response) -> Response {
        let Self { began, protocol, metrics, trail, noted } = self;
        let freshness = response.extensions().get::<Freshness>().copied();
        let protocol = protocol.map_or("none", Protocol::name);
        let class = match response.status().as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        metrics.answers.with_label_values(&[protocol, class]).inc();
        metrics.head_seconds.observe(began.elapsed().as_secs_f64());
        let Some(Noted { log, mut line }) = noted else { return response };
        line.status = response.status().as_u16();
        line.set_version = response.extensions().get::<SetVersion>().map(|version| version.0);
        response.map(|body| {
            body.watched(move |bytes, complete| {
                line.source = trail.source.lock().unwrap_or_else(PoisonError::into_inner).take();
                line.tier = freshness.map(Freshness::tier);
                (line.bytes, line.complete) = (bytes, complete);
                line.duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                log.log(&line);
            })
        })
    }
}

impl Line {
    fn of(request: &Request, trace: &Trace, time_s: UnixSeconds) -> Self {
        let field = |name| text_of(request.headers(), &name);
        Self {
            time_s,
            method: clip(request.method().as_str(), LOGGED_FIELD_BYTES_MAX).to_owned(),
            path: clip(request.uri().path(), LOGGED_PATH_BYTES_MAX).to_owned(),
            range: field(RANGE),
            status: 0,
            bytes: 0,
            complete: false,
            protocol: request.extensions().get::<Protocol>().copied().map(Protocol::name),
            tier: None,
            source: None,
            duration_ms: 0,
            set_version: None,
            client: request.extensions().get::<Peer>().map(|peer| peer.0.to_string()),
            user_agent: field(USER_AGENT),
            traceparent: trace.to_string(),
        }
    }
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    Some(clip(text, LOGGED_FIELD_BYTES_MAX).to_owned())
}
