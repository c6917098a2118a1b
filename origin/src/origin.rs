//! [`Origin`]: repositories on disk behind the read API.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use colibri_api::{ApiError, CacheStatus, RepositoryName, Route, cache, head_for, parse_path};
use colibri_common::Clock;
use colibri_transport::{Body, Handler, Peer, Request, Response, handler};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};

use crate::config::OriginConfig;
use crate::content;
use crate::error::OriginError;
use crate::events::{EVENT_STREAM, Events};
use crate::find::log;
use crate::forms::Forms;
use crate::limits::{REPOSITORIES_MAX, USER_AGENT_BYTES_MAX};
use crate::observe::{Counters, Observation, ObservedRequest, RequestObserver};
use crate::proof::Proofs;
use crate::repository::{ServedRepository, Summaries};
use crate::small_files::SmallFiles;

/// A server of repositories. Cheap to clone; clones share caches and counters.
#[derive(Clone)]
pub struct Origin {
    shared: Arc<Shared>,
    observers: Arc<[Arc<dyn RequestObserver>]>,
}

/// What all answers draw on.
pub(crate) struct Shared {
    pub config: OriginConfig,
    pub repositories: Vec<Arc<ServedRepository>>,
    pub files: SmallFiles,
    pub forms: Forms,
    pub proofs: Proofs,
    pub summaries: Summaries,
    pub events: Events,
    counters: Arc<Counters>,
}

impl Origin {
    /// Opens the configured repositories. Their files may change while the origin runs. Blocks for a moment.
    ///
    /// # Errors
    /// A mistake in the configuration, or a folder that is not a repository.
    pub fn open(config: OriginConfig, clock: Arc<dyn Clock>) -> Result<Self, OriginError> {
        if config.repositories.is_empty() {
            return Err(OriginError::NoRepositories);
        }
        if config.repositories.len() > REPOSITORIES_MAX {
            return Err(OriginError::TooManyRepositories(config.repositories.len()));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = config.repositories.iter().find(|repository| !names.insert(&repository.name)) {
            return Err(OriginError::Duplicate(twice.name.clone()));
        }
        let open = |config| ServedRepository::open(config).map(Arc::new);
        let repositories = config.repositories.iter().map(open).collect::<Result<_, _>>()?;
        let shared = Shared {
            repositories,
            files: SmallFiles::new(clock),
            forms: Forms::new(),
            proofs: Proofs::new(config.keep_computed_leaves),
            summaries: Summaries::new(),
            events: Events::default(),
            counters: Arc::default(),
            config,
        };
        Ok(Self { shared: Arc::new(shared), observers: Arc::default() })
    }

    /// The same origin, telling `observer` too of every request it answers.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn RequestObserver>) -> Self {
        self.observers = self.observers.iter().cloned().chain([observer]).collect();
        self
    }

    /// What was answered so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// The names of the repositories, in the order configured.
    pub fn repositories(&self) -> impl Iterator<Item = &RepositoryName> {
        self.shared.repositories.iter().map(|repository| &repository.name)
    }

    /// The read API over these repositories.
    pub fn handler(&self) -> Handler {
        let origin = self.clone();
        handler(move |request| {
            let origin = origin.clone();
            async move { origin.respond(request).await }
        })
    }

    async fn respond(&self, request: Request) -> Response {
        // The body of a GET or HEAD means nothing; dropping it tells the peer to stop.
        let (parts, _) = request.into_parts();
        let route = parse_path(parts.uri.path());
        let observe = || self.observation(&parts, route.as_ref().ok());
        let found = match &route {
            Ok(_) if parts.method != Method::GET && parts.method != Method::HEAD => Err(ApiError::MethodNotAllowed),
            Ok(Route::Auto { repository }) => match self.auto(repository, &parts.method, observe()) {
                Ok(response) => return response,
                Err(error) => Err(error),
            },
            Ok(route) => self.shared.find(route, &parts).await,
            Err(error) => Err((*error).into()),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.refuse(&error, &parts.method, observe()),
        };
        let mut observation = observe();
        let plan = head_for(&found.representation, &parts.method, &parts.headers);
        observation.request.status = plan.status;
        observation.request.range = plan.body.filter(|_| plan.status == StatusCode::PARTIAL_CONTENT);
        let body = match (plan.body, plan.parts) {
            (Some(range), _) => content::send(found.content, range, observation).await,
            (None, Some(several)) => content::send_parts(found.content, &several, observation).await,
            (None, None) => {
                observation.finish(plan.problem.len() as u64);
                Ok(Body::full(plan.problem))
            }
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => return self.refuse(&log(&error), &parts.method, observe()),
        };
        self.response(
            plan.status,
            plan.headers,
            body,
            &CacheStatus::hit(&self.shared.config.cache_name).with_detail(found.detail),
        )
    }

    /// The stream of events of a repository.
    fn auto(&self, name: &RepositoryName, method: &Method, observation: Observation) -> Result<Response, ApiError> {
        let repository = self.shared.repository(name)?;
        let body = if method == Method::HEAD {
            observation.finish(0);
            Body::empty()
        } else {
            self.shared.listen(repository)?.body(observation)
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
        headers.insert(header::CACHE_CONTROL, cache::NO_STORE);
        let status = CacheStatus::entry(&self.shared.config.cache_name).with_detail("events");
        Ok(self.response(StatusCode::OK, headers, body, &status))
    }

    /// Ends what would never end by itself: the streams of `/REPO/auto`. For a process that drains.
    pub fn end_events(&self) {
        self.shared.events.end();
    }

    fn refuse(&self, error: &ApiError, method: &Method, mut observation: Observation) -> Response {
        let answer = error.respond(self.shared.config.timestamp_max_age_s);
        let body = if method == Method::HEAD { Bytes::new() } else { answer.body };
        observation.request.status = answer.status;
        observation.finish(body.len() as u64);
        let status = CacheStatus::entry(&self.shared.config.cache_name).with_detail("refused");
        self.response(answer.status, answer.headers, Body::full(body), &status)
    }

    fn response(&self, status: StatusCode, mut headers: HeaderMap, body: Body, cache_status: &CacheStatus) -> Response {
        cache_status.append_to(&mut headers);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn observation(&self, parts: &Parts, route: Option<&Route>) -> Observation {
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let request = ObservedRequest {
            method: parts.method.clone(),
            route: route.cloned(),
            range: None,
            status: StatusCode::OK,
            body_bytes: 0,
            peer: parts.extensions.get::<Peer>().map(|peer| peer.0),
            user_agent: user_agent.map(|text| text.chars().take(USER_AGENT_BYTES_MAX).collect()),
        };
        Observation { request, counters: self.shared.counters.clone(), observers: self.observers.clone() }
    }
}
