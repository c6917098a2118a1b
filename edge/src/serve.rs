//! The read API over the cache: route, representation, body. The one place where a [`FetchError`] becomes a status.

use std::sync::Arc;

use bytes::Bytes;
use colibri_api::{
    ApiError, BlobForm, CacheStatus, ETag, Forward, Representation, ResponsePlan, Route, cache as cache_control,
    head_for, parse_path,
};
use colibri_common::{BlobId, ByteRange, sha512};
use colibri_fetch::FetchError;
use colibri_package::delivery::{DeliveryType, Encoding};
use colibri_transport::{Body, BodySender, Request, Response};
use http::header::{CACHE_CONTROL, HeaderMap};
use http::{HeaderValue, Method};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use crate::cache::{Cache, Freshness, Opened, UnitAccess};
use crate::config::EdgeConfig;
use crate::documents::{Document, Documents, Life};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Answers requests of one edge.
#[derive(Debug)]
pub(crate) struct ReadApi {
    name: String,
    cache: Arc<Cache>,
    documents: Documents,
    tasks: TaskTracker,
    metadata_max_age_s: u64,
}

/// What every answer needs of its request.
struct Asked {
    method: Method,
    headers: HeaderMap,
    /// `http://HOST` or `https://HOST` as the client sees this edge.
    here: Option<String>,
}

impl ReadApi {
    pub fn new(config: &EdgeConfig, cache: Cache, documents: Documents, tasks: TaskTracker) -> Self {
        let metadata_max_age_s = config.metadata_max_age_s;
        Self { name: config.name.clone(), cache: Arc::new(cache), documents, tasks, metadata_max_age_s }
    }

    /// The answer to one request.
    pub async fn answer(&self, request: Request) -> Response {
        let secure = request.extensions().get::<colibri_transport::Secure>().is_some_and(|secure| secure.0);
        let scheme = if secure { "https" } else { "http" };
        let here = colibri_transport::authority(&request).map(|authority| format!("{scheme}://{authority}"));
        let path = request.uri().path().to_owned();
        let (head, _body) = request.into_parts();
        let asked = Asked { method: head.method, headers: head.headers, here };
        if asked.method != Method::GET && asked.method != Method::HEAD {
            return self.problem(&ApiError::MethodNotAllowed, &asked.method);
        }
        let answer = match parse_path(&path) {
            Ok(route) => self.route(&route, &path, &asked).await,
            Err(error) => Err(error.into()),
        };
        answer.unwrap_or_else(|error| self.problem(&error, &asked.method))
    }

    async fn route(&self, route: &Route, path: &str, asked: &Asked) -> Result<Response, ApiError> {
        match route {
            Route::Blob { repository, id, form } => {
                let place = repository.as_ref().map(|name| format!("/{}", name.as_str())).unwrap_or_default();
                match form {
                    BlobForm::Leaves => self.leaves(&place, *id, asked).await,
                    BlobForm::Raw => self.blob(&place, *id, Encoding::Raw, asked).await,
                    BlobForm::Delivery(number) => {
                        let kind = DeliveryType::try_from(*number);
                        let kind = kind.map_err(|error| ApiError::NotFound(error.to_string()))?;
                        self.blob(&place, *id, Encoding::Delivery(kind), asked).await
                    }
                }
            }
            Route::Metadata { file, .. } => {
                let life = if file.is_numbered() { Life::Immutable } else { self.life(asked) };
                let (document, freshness) = self.document(path, life).await?;
                Ok(self.send_document(&document, freshness, route, JSON, asked))
            }
            Route::Target { name, .. } => self.target(name, route, path, asked).await,
            Route::RepoConfig { repository } => self.repo_config(repository.as_str(), path, asked).await,
            Route::PmConfig => {
                Err(ApiError::NotFound("an edge has no /config.json: ask for /REPO/repo.config".to_owned()))
            }
            Route::Index | Route::RepositoryIndex { .. } => {
                let text = format!("colibri edge `{}`: packages are at /REPO/, blobs at /blobs/\n", self.name);
                Ok(self.send_plain(text.into(), asked))
            }
        }
    }

    /// A client that insists (`no-cache`) gets a revalidated copy; equal requests share one question upstream.
    fn life(&self, asked: &Asked) -> Life {
        let insists = asked.headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
        if insists.is_some_and(|value| value.contains("no-cache")) { Life::Revalidate } else { Life::Short }
    }

    async fn document(&self, path: &str, life: Life) -> Result<(Arc<Document>, Freshness), ApiError> {
        let (document, freshness) = self.documents.get(path, life).await;
        Ok((document.map_err(|error| api_error(&error))?, freshness))
    }

    /// A TUF target. A name that carries a hash is checked against it before a byte is passed on.
    async fn target(&self, name: &str, route: &Route, path: &str, asked: &Asked) -> Result<Response, ApiError> {
        let hash = name.rsplit('/').next().and_then(|file| file.split('.').next()).filter(|hash| hash.len() == 128);
        let life = if hash.is_some() { Life::Immutable } else { self.life(asked) };
        let (document, freshness) = self.document(path, life).await?;
        if hash.is_some_and(|hash| hash != colibri_common::hex(&sha512(&document.bytes))) {
            return Err(ApiError::BadGateway(format!("upstream's {path} does not have the hash in its name")));
        }
        Ok(self.send_document(&document, freshness, route, OCTETS, asked))
    }

    fn send_document(
        &self,
        document: &Document,
        freshness: Freshness,
        route: &Route,
        content_type: HeaderValue,
        asked: &Asked,
    ) -> Response {
        let representation = Representation {
            length: document.bytes.len() as u64,
            etag: Some(document.etag.clone()),
            cache_control: cache_control::for_route(route, self.metadata_max_age_s),
            content_type,
            accept_ranges: matches!(route, Route::Target { .. }),
        };
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let body = plan.body.map_or(Body::empty(), |range| Body::full(document.bytes.slice(range.within(0))));
        self.finish(plan, body, freshness)
    }

    /// The configuration that upstream gives, with this edge as the mirror. It is only as trusted as whoever adds it.
    async fn repo_config(&self, repository: &str, path: &str, asked: &Asked) -> Result<Response, ApiError> {
        let here = asked.here.as_ref().ok_or_else(|| ApiError::BadRequest("the request names no host".to_owned()))?;
        let (document, _) = self.document(path, Life::Short).await?;
        let mut config: Value = serde_json::from_slice(&document.bytes)
            .map_err(|error| ApiError::BadGateway(format!("upstream's {path} is not JSON: {error}")))?;
        let mirror = serde_json::json!({ "mirror_url": format!("{here}/{repository}"), "subscribe": false });
        config["mirrors"] = Value::Array(vec![mirror]);
        let representation = Representation {
            length: 0,
            etag: None,
            cache_control: cache_control::NO_STORE,
            content_type: JSON,
            accept_ranges: false,
        };
        Ok(self.send_built(config.to_string().into(), representation, asked))
    }

    fn send_plain(&self, text: Bytes, asked: &Asked) -> Response {
        let representation = Representation {
            length: 0,
            etag: None,
            cache_control: cache_control::max_age(self.metadata_max_age_s),
            content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
            accept_ranges: false,
        };
        self.send_built(text, representation, asked)
    }

    fn send_built(&self, bytes: Bytes, mut representation: Representation, asked: &Asked) -> Response {
        representation.length = bytes.len() as u64;
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let body = plan.body.map_or(Body::empty(), |_| Body::full(bytes));
        self.finish(plan, body, Freshness::Hit)
    }

    async fn leaves(&self, place: &str, id: BlobId, asked: &Asked) -> Result<Response, ApiError> {
        let (leaves, freshness) = self.cache.leaves(place, id).await;
        let wire = leaves.map_err(|error| api_error(&error))?.wire();
        let representation = blob_representation(wire.len() as u64, ETag::leaves(id));
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let body = plan.body.map_or(Body::empty(), |range| Body::full(wire.slice(range.within(0))));
        Ok(self.finish(plan, body, freshness))
    }

    async fn blob(&self, place: &str, id: BlobId, encoding: Encoding, asked: &Asked) -> Result<Response, ApiError> {
        let (opened, open_freshness) = self.cache.open(place, id, encoding).await;
        let opened = opened.map_err(|error| api_error(&error))?;
        let layout = &opened.layout;
        let etag = match (encoding, layout.identity()) {
            (Encoding::Delivery(kind), Some(identity)) => ETag::delivery(id, kind.number(), identity.as_bytes()),
            _ => ETag::raw(id),
        };
        // The length was proven when the blob was opened.
        let representation = blob_representation(layout.encoded_length().0, etag);
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let Some(range) = plan.body else { return Ok(self.finish(plan, Body::empty(), open_freshness)) };
        let reader = Reader::new(self.cache.clone(), place, opened, range);
        let freshness = reader.current.as_ref().map_or(open_freshness, |(_, access)| access.freshness());
        let body = match reader.in_memory() {
            Some(segments) => Body::segments(segments),
            None => {
                let (sender, body) = Body::channel(Some(range.len()));
                self.tasks.spawn(reader.stream(sender));
                body
            }
        };
        Ok(self.finish(plan, body, freshness))
    }

    fn finish(&self, plan: ResponsePlan, body: Body, freshness: Freshness) -> Response {
        let body = if plan.problem.is_empty() { body } else { Body::full(plan.problem) };
        let mut response = Response::new(body);
        *response.status_mut() = plan.status;
        *response.headers_mut() = plan.headers;
        let status = match freshness {
            Freshness::Hit => CacheStatus::hit(&self.name),
            Freshness::Joined => CacheStatus { collapsed: true, ..CacheStatus::forwarded(&self.name, Forward::Miss) },
            Freshness::Miss => CacheStatus { stored: true, ..CacheStatus::forwarded(&self.name, Forward::Miss) },
        };
        status.append_to(response.headers_mut());
        response
    }

    fn problem(&self, error: &ApiError, method: &Method) -> Response {
        let answer = error.respond(self.metadata_max_age_s);
        let body = if *method == Method::HEAD { Body::empty() } else { Body::full(answer.body) };
        let mut response = Response::new(body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        CacheStatus::forwarded(&self.name, Forward::Miss).append_to(response.headers_mut());
        response
    }
}

fn blob_representation(length: u64, etag: ETag) -> Representation {
    let cache_control = cache_control::IMMUTABLE;
    Representation { length, etag: Some(etag), cache_control, content_type: OCTETS, accept_ranges: true }
}

/// What a failed fetch means to the client.
fn api_error(error: &FetchError) -> ApiError {
    let text = error.to_string();
    match error {
        FetchError::NotFound { .. } => ApiError::NotFound(text),
        FetchError::AllFailed { .. } | FetchError::NoSource(_) | FetchError::Metadata { .. } => {
            ApiError::BadGateway(text)
        }
        FetchError::Url { .. } | FetchError::Local(_) => ApiError::Internal(text),
    }
}

/// One reader of a range of the encoded form, unit by unit, the next unit already on its way.
#[derive(Debug)]
struct Reader {
    cache: Arc<Cache>,
    place: String,
    opened: Arc<Opened>,
    range: ByteRange,
    next_unit: u32,
    end_unit: u32,
    current: Option<(u32, UnitAccess)>,
}

impl Reader {
    fn new(cache: Arc<Cache>, place: &str, opened: Arc<Opened>, range: ByteRange) -> Self {
        let units = opened.layout.units_of(range);
        let place = place.to_owned();
        let mut reader =
            Self { cache, place, opened, range, next_unit: units.start, end_unit: units.end, current: None };
        reader.current = reader.ask();
        reader
    }

    /// Asks for the next unit of the range that has bytes.
    fn ask(&mut self) -> Option<(u32, UnitAccess)> {
        while self.next_unit < self.end_unit {
            let unit = self.next_unit;
            self.next_unit += 1;
            if !self.opened.layout.unit_range(unit).is_empty() {
                return Some((unit, self.cache.unit(&self.place, &self.opened, unit)));
            }
        }
        None
    }

    fn head_part(&self) -> Bytes {
        let unit_h = self.opened.layout.unit_h();
        let part = self.range.intersect(ByteRange::whole(unit_h.len() as u64));
        if part.is_empty() { Bytes::new() } else { unit_h.slice(part.within(0)) }
    }

    /// The whole answer without a task, if it lies in unit H and one unit that is in memory.
    fn in_memory(&self) -> Option<Vec<Bytes>> {
        let mut segments: Vec<_> = Some(self.head_part()).into_iter().filter(|part| !part.is_empty()).collect();
        match &self.current {
            None => Some(segments),
            Some((_, UnitAccess::Ready(unit))) if self.next_unit >= self.end_unit => {
                for segment in unit.segments() {
                    let part = segment.range().intersect(self.range);
                    if !part.is_empty() {
                        segments.push(segment.bytes().slice(part.within(segment.offset())));
                    }
                }
                Some(segments)
            }
            Some(_) => None,
        }
    }

    async fn stream(mut self, mut sender: BodySender) {
        let mut at = self.range.start();
        let head = self.head_part();
        at += head.len() as u64;
        if !head.is_empty() && sender.send(head).await.is_err() {
            return;
        }
        while let Some((unit, access)) = self.current.take() {
            self.current = self.ask();
            let end = self.opened.layout.unit_range(unit).end().min(self.range.end());
            let wanted = ByteRange::new(at, end);
            while at < end {
                match access.read(at, wanted).await {
                    Ok(bytes) => {
                        at += bytes.len() as u64;
                        if sender.send(bytes).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => return sender.abort(error),
                }
            }
        }
        sender.finish();
    }
}
