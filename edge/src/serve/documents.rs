//! Metadata, targets and what is made of the request: small bodies, whole in memory.

use bytes::Bytes;
use colibri_api::problem::VARY_CODING;
use colibri_api::{
    ApiError, Coding, ETag, MetadataFile, RepositoryName, Representation, Route, cache as cache_control, head_for,
    negotiate,
};
use colibri_common::Digest;
use colibri_transport::{Body, Response};
use http::HeaderValue;
use http::header::AGE;
use serde_json::{Map, Value};

use super::{Asked, OCTETS, ReadApi, api_error, built};
use crate::documents::{Life, Wish};
use crate::freshness::Freshness;
use crate::metadata::Answered;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl ReadApi {
    /// A file of a followed repository from its verified sets; of others as upstream has it.
    pub(super) async fn metadata(
        &self,
        route: &Route,
        repository: &RepositoryName,
        file: &MetadataFile,
        asked: &Asked,
    ) -> Result<Response, ApiError> {
        if let Some(followed) = self.parts.repositories.get(repository) {
            let Answered { file, freshness, age_s } = followed.answer(file, asked.insists(), &asked.fetcher).await?;
            let mut response = self.send_document(route, JSON, &file.bytes, file.sha256, freshness, asked).await?;
            if let Some(age_s) = age_s {
                response.headers_mut().insert(AGE, age_s.into());
            }
            return Ok(response);
        }
        let life = if file.is_numbered() { Life::Numbered } else { Life::Short };
        self.document(route, life, JSON, asked).await
    }

    /// A TUF target.
    pub(super) async fn target(&self, route: &Route, name: &str, asked: &Asked) -> Result<Response, ApiError> {
        let life = hash_in(name).map_or(Life::Short, |hash| Life::Hashed(hash.to_owned()));
        self.document(route, life, OCTETS, asked).await
    }

    /// A small file as upstream has it. The route names it, not the request: there are many ways to write one path.
    async fn document(
        &self,
        route: &Route,
        life: Life,
        content_type: HeaderValue,
        asked: &Asked,
    ) -> Result<Response, ApiError> {
        let wish = Wish { path: route.path(), life, insists: asked.insists() };
        let (document, freshness) = self.parts.documents.get(&asked.fetcher, wish).await;
        let document = document.map_err(|error| api_error(&error))?;
        self.send_document(route, content_type, &document.bytes, document.sha256, freshness, asked).await
    }

    async fn send_document(
        &self,
        route: &Route,
        content_type: HeaderValue,
        bytes: &Bytes,
        sha256: Digest,
        freshness: Freshness,
        asked: &Asked,
    ) -> Result<Response, ApiError> {
        // Metadata is coded and sent whole, targets are neither.
        let is_metadata = matches!(route, Route::Metadata { .. });
        let coding = if is_metadata { negotiate(&asked.headers)? } else { Coding::Identity };
        let form = self.parts.documents.forms.of(sha256, coding, bytes).await?;
        let representation = Representation {
            length: form.len() as u64,
            etag: Some(ETag::coded(&sha256, coding)),
            cache_control: cache_control::for_route(route, self.parts.lifetimes.max_age_s()),
            content_type,
            accept_ranges: !is_metadata,
            coding,
            vary: is_metadata.then_some(VARY_CODING),
        };
        let plan = head_for(&representation, &asked.method, &asked.headers);
        let body = Body::segments(plan.segments(&form));
        Ok(self.finish(plan, body, freshness, asked))
    }

    /// The configuration that upstream gives, with this edge as the mirror. It is only as trusted as whoever adds it.
    pub(super) async fn repo_config(
        &self,
        route: &Route,
        repository: &RepositoryName,
        asked: &Asked,
    ) -> Result<Response, ApiError> {
        let here = asked.here.as_ref().ok_or_else(|| ApiError::BadRequest("the request names no host".to_owned()))?;
        let wish = Wish { path: route.path(), life: Life::Short, insists: asked.insists() };
        let document = self.parts.documents.get(&asked.fetcher, wish).await.0.map_err(|error| api_error(&error))?;
        let config: Result<Map<String, Value>, _> = serde_json::from_slice(&document.bytes);
        let mut config =
            config.map_err(|error| ApiError::BadGateway(format!("upstream's {} is not one: {error}", route.path())))?;
        // Events are promised only where there are any, and if upstream's operator wants them used.
        let subscribes = config.get("mirrors").and_then(|mirrors| mirrors.get(0)?.get("subscribe")?.as_bool());
        let subscribe = subscribes == Some(true) && self.parts.repositories.get(repository).is_some();
        let mirror = serde_json::json!({ "mirror_url": format!("{here}/{repository}"), "subscribe": subscribe });
        config.insert("mirrors".to_owned(), Value::Array(vec![mirror]));
        let text: Bytes = Value::Object(config).to_string().into();
        Ok(self.send_built(&text, &built(text.len() as u64, cache_control::NO_STORE, JSON), asked))
    }

    pub(super) fn send_plain(&self, text: &Bytes, asked: &Asked) -> Response {
        let cache_control = cache_control::max_age(self.parts.lifetimes.max_age_s());
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        self.send_built(text, &built(text.len() as u64, cache_control, content_type), asked)
    }

    fn send_built(&self, bytes: &Bytes, representation: &Representation, asked: &Asked) -> Response {
        let plan = head_for(representation, &asked.method, &asked.headers);
        let body = Body::segments(plan.segments(bytes));
        self.finish(plan, body, Freshness::Hit, asked)
    }
}

/// The hash that consistent snapshots put before the name of a target: SHA-256 or SHA-512 in hex.
fn hash_in(target: &str) -> Option<&str> {
    let file = target.rsplit_once('/').map_or(target, |(_, file)| file);
    let (hash, _) = file.split_once('.')?;
    let is_hex = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && matches!(hash.len(), 64 | 128)).then_some(hash)
}
