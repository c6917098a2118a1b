//! The read API over the cache: route, representation, body. The one place where a [`FetchError`] becomes a status.

mod blobs;
mod documents;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use colibri_api::cache_status::CACHE_STATUS;
use colibri_api::{
    ApiError, BlobForm, CacheStatus, Coding, Forward, RepositoryName, Representation, ResponsePlan, Route, Trace,
    cache as cache_control, parse_path,
};
use colibri_common::{BlobId, Clock, UnixSeconds};
use colibri_fetch::nearby::{ABSENT_ABOVE, FROM_PEER, LEAVING};
use colibri_fetch::{BlobFetcher, Class, FetchError};
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_transport::{Body, Priority, Request, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Method};
use serde::Serialize;
use tokio_util::task::TaskTracker;

use crate::access::{Access, SetVersion, Trail};
use crate::auto::{EVENT_STREAM, Listeners};
use crate::cache::Cache;
use crate::cache::explain::FormState;
use crate::cdn_loop::{self, OwnHop};
use crate::circle::Probes;
use crate::config::EdgeConfig;
use crate::documents::Documents;
use crate::freshness::Freshness;
use crate::lifetimes::Lifetimes;
use crate::limits::ABSENT_FLOOR_MS;
use crate::metadata::Repositories;
use crate::metrics::Metrics;
use crate::quarantine::{Quarantine, Seen};
use crate::relay::{self, Relay};
use crate::tokens::{CurrentTokens, Denied};
use crate::unknown::{FORM_LEAVES, Unknown};
use crate::warm::Warmers;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Answers requests of one edge.
pub(crate) struct ReadApi {
    name: String,
    parts: Parts,
    tasks: TaskTracker,
    /// Peers are told that it is about to stop.
    leaving: AtomicBool,
    probes: Probes,
}

impl std::fmt::Debug for ReadApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadApi").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a [`ReadApi`] is made of.
pub(crate) struct Parts {
    pub access: Access,
    pub tokens: CurrentTokens,
    pub lifetimes: Lifetimes,
    pub clock: Arc<dyn Clock>,
    pub relay: Relay,
    pub hop: OwnHop,
    pub fetcher: BlobFetcher,
    pub cache: Arc<Cache>,
    pub documents: Documents,
    pub repositories: Repositories,
    pub listeners: Listeners,
    pub unknown: Unknown,
    pub warmers: Arc<Warmers>,
    pub seen: Arc<Seen>,
    pub metrics: Metrics,
}

/// What is known of a blob.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    blob: BlobId,
    /// What happened before is not known, seconds since 1970.
    remembers_since: UnixSeconds,
    forms: Vec<FormState>,
    /// Sources that served what was not this blob, the newest last.
    blames: Vec<String>,
    /// Numbers of what they sent, in quarantine.
    quarantined: Vec<u64>,
}

/// What every answer needs of its request.
struct Asked {
    method: Method,
    headers: HeaderMap,
    /// `http://HOST` or `https://HOST` as the client sees this edge.
    here: Option<String>,
    /// Asks upstream on behalf of this request.
    fetcher: BlobFetcher,
    /// What upstream says meanwhile.
    trail: Arc<Trail>,
    /// How long ago upstream said that it has no such blob, once that is the answer.
    absent_since: OnceLock<Duration>,
}

impl ReadApi {
    pub fn new(config: &EdgeConfig, parts: Parts, tasks: TaskTracker) -> Self {
        let name = config.name.clone();
        let leaving = AtomicBool::new(false);
        Self { name, parts, tasks, leaving, probes: Probes::new() }
    }

    /// Ends the streams of everybody who listens.
    pub fn end_events(&self) {
        self.parts.listeners.end();
    }

    /// The tiers.
    pub const fn cache(&self) -> &Arc<Cache> {
        &self.parts.cache
    }

    /// What warms them.
    pub const fn warmers(&self) -> &Arc<Warmers> {
        &self.parts.warmers
    }

    /// The repositories that are followed.
    pub const fn repositories(&self) -> &Repositories {
        &self.parts.repositories
    }

    /// Tells peers from now on that this edge is about to stop.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// How long what upstream said is believed, to be changed.
    pub const fn lifetimes(&self) -> &Lifetimes {
        &self.parts.lifetimes
    }

    /// Who may read, to be replaced.
    pub const fn tokens(&self) -> &CurrentTokens {
        &self.parts.tokens
    }

    /// Who notes requests.
    pub const fn access(&self) -> &Access {
        &self.parts.access
    }

    /// What sources sent that was bad.
    pub fn quarantine(&self) -> &Quarantine {
        &self.parts.seen.quarantine
    }

    /// What is known of a blob, for people who ask why.
    pub fn explain(&self, id: BlobId) -> Explanation {
        let blames = self.parts.fetcher.sources().blames().into_iter().filter(|blame| blame.blob == Some(id));
        Explanation {
            blob: id,
            remembers_since: self.parts.cache.remembers_since(),
            forms: self.parts.cache.explain(id),
            blames: blames.map(|blame| blame.to_string()).collect(),
            quarantined: self.quarantine().of(id),
        }
    }

    /// The answer to one request.
    pub async fn answer(&self, request: Request) -> Response {
        let trace = Trace::continued(request.headers(), fastrand::u128(..), fastrand::u64(..));
        let visit = self.parts.access.visit(&request, &trace);
        let from_peer = request.headers().contains_key(FROM_PEER);
        let mut response = self.respond(request, from_peer, &trace, visit.trail()).await;
        if from_peer && self.leaving.load(Ordering::Relaxed) {
            response.headers_mut().insert(LEAVING, HeaderValue::from_static("1"));
        }
        visit.ends_with(response)
    }

    async fn respond(&self, request: Request, from_peer: bool, trace: &Trace, trail: &Arc<Trail>) -> Response {
        let secure = request.extensions().get::<colibri_transport::Secure>().is_some_and(|secure| secure.0);
        let scheme = if secure { "https" } else { "http" };
        let here = colibri_transport::authority(&request).map(|authority| format!("{scheme}://{authority}"));
        let (head, body) = request.into_parts();
        let relayed = relay::is_relayed(&head.method, &head.uri);
        let via = match self.parts.hop.check(&head.headers) {
            Ok(via) => via,
            Err(_) if relayed => return relay::hang_up(),
            Err(_) => return self.problem(&cdn_loop::refusal(&self.name), &head.method),
        };
        let mut onward = via.headers();
        trace.add_to(&mut onward);
        let class = head.extensions.get().map_or(Class::Demand, |asked: &Priority| Class::of_request(asked.class()));
        let fetcher = self.parts.fetcher.clone().with_headers(onward).with_class(class);
        let mut fetcher = fetcher.with_witness(Some(trail.clone()));
        if from_peer {
            // Peers ask each other once for a unit; what this one has not got, it asks of its upstreams.
            fetcher = fetcher.on_behalf_of_nearby();
        }
        if relayed {
            return self.parts.relay.pass_on(&fetcher, &head.uri, &head.headers, body).await;
        }
        let mut asked = Asked {
            method: head.method,
            headers: head.headers,
            here,
            fetcher,
            trail: trail.clone(),
            absent_since: OnceLock::new(),
        };
        let absence_age_ms_max = if asked.insists() { 0 } else { self.parts.unknown.age_ms_max() };
        asked.fetcher = asked.fetcher.believing_absence(absence_age_ms_max);
        if asked.method != Method::GET && asked.method != Method::HEAD {
            return self.problem(&ApiError::MethodNotAllowed, &asked.method);
        }
        let route = match parse_path(head.uri.path()) {
            Ok(route) => route,
            Err(error) => return self.problem(&error.into(), &asked.method),
        };
        let tokens = self.parts.tokens.get();
        let allowance = match tokens.judge(&route, &head.uri, &asked.headers, self.parts.clock.now()) {
            Ok(allowance) => allowance,
            Err(denied) => return self.problem(&denied.into(), &asked.method),
        };
        let entered = match allowance.map(|allowance| self.tokens().quotas().enter(allowance)).transpose() {
            Ok(entered) => entered.flatten(),
            Err(wait) => {
                self.parts.metrics.quota_refusals.inc();
                let retry_after_s = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                return self.problem(&ApiError::TooManyRequests { retry_after_s }, &asked.method);
            }
        };
        let answer = self.route(&route, &asked);
        let answer = match via.is_from_an_edge() {
            true => self.probes.unless_circle(answer, &asked.fetcher, head.uri.path()).await,
            false => Ok(answer.await),
        };
        let answer = answer.unwrap_or_else(|_| Err(cdn_loop::refusal(&self.name)));
        let mut response = answer.unwrap_or_else(|error| self.problem(&error, &asked.method));
        if let Some(since) = asked.absent_since.get().filter(|_| from_peer) {
            // Rounded up, so that nobody takes it for newer than it is.
            let since_ms = u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            response.headers_mut().insert(ABSENT_ABOVE, since_ms.into());
        }
        if tokens.are_needed() {
            cache_control::keep_private(response.headers_mut());
        }
        let followed = route.repository().and_then(|repository| self.parts.repositories.get(repository));
        if let Some(version) = followed.and_then(|followed| *followed.versions().borrow()) {
            response.extensions_mut().insert(SetVersion(version));
        }
        match entered {
            Some(entered) => entered.charged(response),
            None => response,
        }
    }

    async fn route(&self, route: &Route, asked: &Asked) -> Result<Response, ApiError> {
        match route {
            Route::Blob { repository, id, form } => {
                let place = repository.as_ref().map(|name| format!("/{}", name.as_str())).unwrap_or_default();
                self.is_known(repository.as_ref(), &place, *id, *form, asked)?;
                let era = self.parts.unknown.era();
                let answer = match form {
                    BlobForm::Leaves => self.leaves(&place, *id, asked).await,
                    BlobForm::Raw => self.blob(&place, *id, Encoding::Raw, asked).await,
                    BlobForm::Delivery(number) => {
                        let kind = DeliveryType::try_from(*number);
                        let kind = kind.map_err(|error| ApiError::NotFound(error.to_string()))?;
                        self.blob(&place, *id, Encoding::Delivery(kind), asked).await
                    }
                };
                if matches!(answer, Err(ApiError::NotFound(_))) {
                    self.parts.unknown.remember(&place, *id, form_number(*form), era);
                    asked.absent_since.get_or_init(Duration::default);
                    return Err(self.absent(*id));
                }
                answer
            }
            Route::Metadata { repository, file } => self.metadata(route, repository, file, asked).await,
            Route::Target { name, .. } => self.target(route, name, asked).await,
            Route::RepoConfig { repository } => self.repo_config(route, repository, asked).await,
            Route::Auto { repository } => self.auto(repository, asked),
            Route::PmConfig => {
                Err(ApiError::NotFound("an edge has no /config.json: ask for /REPO/repo.config".to_owned()))
            }
            Route::Index | Route::RepositoryIndex { .. } => {
                let text = format!("colibri edge `{}`: packages are at /REPO/, blobs at /blobs/\n", self.name);
                Ok(self.send_plain(&text.into(), asked))
            }
        }
    }

    /// Refuses what no trusted set reaches, if so configured, and what upstream did not have a moment ago.
    fn is_known(
        &self,
        repository: Option<&RepositoryName>,
        place: &str,
        id: BlobId,
        form: BlobForm,
        asked: &Asked,
    ) -> Result<(), ApiError> {
        if self.parts.warmers.refuses(repository, id) {
            self.parts.metrics.unlisted_blobs.inc();
            return Err(ApiError::NotFound(format!("no metadata that is trusted here leads to blob {id}")));
        }
        let life_max = if asked.insists() { Duration::from_millis(ABSENT_FLOOR_MS) } else { Duration::MAX };
        if let Some(since) = self.parts.unknown.since(place, id, form_number(form), life_max) {
            asked.absent_since.get_or_init(|| since);
            self.parts.metrics.unknown_blobs.inc();
            return Err(self.absent(id));
        }
        Ok(())
    }

    /// Said alike when upstream was asked and when it was asked a moment ago: HEAD has the headers of GET.
    fn absent(&self, id: BlobId) -> ApiError {
        ApiError::NotFound(format!("blob {id}: no source has it (asked {})", self.parts.fetcher.sources().names()))
    }

    /// The events of a followed repository.
    fn auto(&self, repository: &RepositoryName, asked: &Asked) -> Result<Response, ApiError> {
        let followed = self.parts.repositories.get(repository).ok_or_else(|| {
            ApiError::NotFound(format!(
                "this edge does not follow {repository}, so it has no events of it: ask for the timestamp, or ask the origin"
            ))
        })?;
        let body = match asked.method {
            Method::HEAD => Body::empty(),
            _ => self.parts.listeners.listen(followed.versions())?,
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, EVENT_STREAM);
        headers.insert(CACHE_CONTROL, cache_control::NO_STORE);
        CacheStatus::entry(&self.name).append_to(headers);
        Ok(response)
    }

    fn finish(&self, plan: ResponsePlan, body: Body, freshness: Freshness, asked: &Asked) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = plan.status;
        *response.headers_mut() = plan.headers;
        response.extensions_mut().insert(freshness);
        // What other caches did for another request, when this was fetched, is no part of this answer.
        if let Some(caches) = asked.trail.caches().filter(|_| freshness.is_forwarded()) {
            response.headers_mut().insert(CACHE_STATUS, caches);
        }
        freshness.status(&self.name).append_to(response.headers_mut());
        response
    }

    fn problem(&self, error: &ApiError, method: &Method) -> Response {
        let answer = error.respond(self.parts.lifetimes.max_age_s());
        let body = if *method == Method::HEAD { Body::empty() } else { Body::full(answer.body) };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        let status = match error {
            // Found out without anybody else.
            ApiError::Path(_)
            | ApiError::MethodNotAllowed
            | ApiError::BadRequest(_)
            | ApiError::Unauthorized(_)
            | ApiError::Forbidden(_) => CacheStatus::entry(&self.name),
            _ => CacheStatus::forwarded(&self.name, Forward::Miss),
        };
        status.append_to(response.headers_mut());
        response
    }
}

impl Asked {
    /// The client wants what is revalidated; equal requests share one question upstream.
    fn insists(&self) -> bool {
        let fields = self.headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let mut directives = fields.flat_map(|field| field.split(',')).map(str::trim);
        directives.any(|directive| ["no-cache", "max-age=0"].iter().any(|word| directive.eq_ignore_ascii_case(word)))
    }
}

/// Tells forms of a blob apart.
const fn form_number(form: BlobForm) -> u32 {
    match form {
        BlobForm::Raw => 0,
        BlobForm::Delivery(number) => number,
        BlobForm::Leaves => FORM_LEAVES,
    }
}

/// What is made of the request itself.
const fn built(length: u64, cache_control: HeaderValue, content_type: HeaderValue) -> Representation {
    let (coding, vary) = (Coding::Identity, None);
    Representation { length, etag: None, cache_control, content_type, accept_ranges: false, coding, vary }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Missing | Denied::Invalid | Denied::Expired => Self::Unauthorized(denied.to_string()),
            Denied::OutOfScope => Self::Forbidden(denied.to_string()),
        }
    }
}

/// What a failed fetch means to the client.
pub(crate) fn api_error(error: &FetchError) -> ApiError {
    let text = error.to_string();
    match error {
        FetchError::NotFound { .. } => ApiError::NotFound(text),
        FetchError::Circle { .. } => ApiError::Circle(text),
        FetchError::AllFailed { .. }
        | FetchError::NoSource(_)
        | FetchError::Metadata { .. }
        | FetchError::SignedSize { .. } => ApiError::BadGateway(text),
        FetchError::Url { .. } | FetchError::Local(_) => ApiError::Internal(text),
    }
}
