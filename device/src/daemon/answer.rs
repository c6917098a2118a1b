//! Answers: JSON, problems, and lines that come while something is being done.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use colibri_transport::error::ReaderGone;
use colibri_transport::{Body, BodySender, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::Daemon;
use super::wire::{Event, Problem};
use crate::error::DeviceError;
use crate::limits::DAEMON_PROGRESS_MS;
use crate::update::UpdateError;

/// Media type of lines of JSON.
const LINES: HeaderValue = HeaderValue::from_static("application/jsonl");

/// An answer that is one JSON value.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => with_type(Body::full(text), HeaderValue::from_static("application/json")),
        Err(error) => Problem::internal(error.to_string()).respond(),
    }
}

pub(super) fn with_type(body: Body, media_type: HeaderValue) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// The body of a request, at most so much of it.
pub(super) async fn read_bytes(body: Body, bytes_max: u64) -> Result<Bytes, Problem> {
    body.read_all(bytes_max).await.map_err(|error| Problem::bad_request(error.to_string()))
}

/// The body of a request as what it should be. None stands for `{}`.
pub(super) async fn read<T: DeserializeOwned>(body: Body, bytes_max: u64) -> Result<T, Problem> {
    let text = read_bytes(body, bytes_max).await?;
    let text = if text.is_empty() { Bytes::from_static(b"{}") } else { text };
    serde_json::from_slice(&text).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

/// A parameter of a query, decoded.
pub(super) fn query(query: &str, name: &str) -> Result<String, Problem> {
    let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    let (_, value) = value.ok_or_else(|| Problem::bad_request(format!("the query has no `{name}=`")))?;
    let decoded = percent_decode_str(value).decode_utf8();
    Ok(decoded.map_err(|error| Problem::bad_request(format!("`{name}`: {error}")))?.into_owned())
}

impl Problem {
    fn new(status: StatusCode, kind: &str, zx_status: &str, detail: String) -> Self {
        Self {
            type_uri: format!("urn:colibri:device:{kind}").into(),
            title: words(kind).into(),
            status: status.as_u16(),
            detail: detail.into(),
            kind: kind.into(),
            zx_status: zx_status.into(),
        }
    }

    pub(super) fn internal(detail: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", "INTERNAL", detail)
    }

    pub(super) fn bad_request(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", "INVALID_ARGS", detail)
    }

    pub(super) fn denied(detail: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", "ACCESS_DENIED", detail)
    }

    pub(super) fn too_much(detail: String) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooMuch", "NO_RESOURCES", detail)
    }

    pub(super) fn no_such_thing(method: &str, path: &str) -> Self {
        let detail = format!("there is no {method} {path} here");
        Self::new(StatusCode::NOT_FOUND, "NoSuchRequest", "NOT_SUPPORTED", detail)
    }

    pub(super) fn conflict(detail: String) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", "BAD_STATE", detail)
    }

    /// The answer.
    pub(super) fn respond(&self) -> Response {
        let mut response = json(self);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

/// `PackageNotFound` as "Package not found".
fn words(kind: &str) -> String {
    let mut text = String::new();
    for letter in kind.chars() {
        match letter.is_uppercase() && !text.is_empty() {
            true => text.extend([' ', letter.to_ascii_lowercase()]),
            false => text.push(letter),
        }
    }
    text
}

impl From<DeviceError> for Problem {
    fn from(error: DeviceError) -> Self {
        let kind = error.kind();
        let status = match (&error, kind) {
            (DeviceError::TooMuch(_), _) => StatusCode::TOO_MANY_REQUESTS,
            (DeviceError::PendingCommit | DeviceError::NoRelease | DeviceError::NotWhole { .. }, _) => {
                StatusCode::CONFLICT
            }
            (_, "InvalidUrl" | "InvalidContext") => StatusCode::BAD_REQUEST,
            (_, "AccessDenied") => StatusCode::FORBIDDEN,
            (_, "PackageNotFound" | "RepoNotFound" | "BlobNotFound") => StatusCode::NOT_FOUND,
            (_, "NoSpace") => StatusCode::INSUFFICIENT_STORAGE,
            (_, "UnavailableBlob") => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, kind, error.zx_status(), error.to_string())
    }
}

impl From<UpdateError> for Problem {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Device(error) => error.into(),
            UpdateError::Busy | UpdateError::NotCommitted | UpdateError::Recovery | UpdateError::Unhealthy(_) => {
                Self::conflict(error.to_string())
            }
            UpdateError::Source { .. } => Self::bad_request(error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}

/// What becomes of work whose asker goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// It is stopped; what was verified is kept.
    Stops,
    /// It goes on to its end.
    GoesOn,
}

/// The lines of one answer.
pub(super) struct Lines(BodySender);

impl Lines {
    /// Sends one.
    pub async fn send(&mut self, event: &Event) -> Result<(), ReaderGone> {
        let mut line = serde_json::to_vec(event).unwrap_or_default();
        line.push(b'\n');
        self.0.send(line.into()).await
    }

    /// Completes when nobody reads any more.
    pub async fn gone(&self) {
        self.0.closed().await;
    }

    /// That was all.
    pub fn finish(self) {
        self.0.finish();
    }
}

/// Work in a task of its own, which is stopped with this if it should be.
pub(super) struct Working<T> {
    task: JoinHandle<T>,
    without: Without,
}

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        if self.without == Without::Stops {
            self.task.abort();
        }
    }
}

impl Daemon {
    /// An answer of lines that `tell` writes, in a task of its own.
    pub(super) fn lines<F>(&self, tell: impl FnOnce(Lines) -> F) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, body) = Body::channel(None);
        self.inner.tracker.spawn(tell(Lines(sender)));
        with_type(body, LINES)
    }

    /// Begins work.
    pub(super) fn work<T: Send + 'static>(
        &self,
        without: Without,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Working<T> {
        Working { task: self.inner.tracker.spawn(work), without }
    }
}

impl<T> Working<Result<T, Problem>> {
    /// Waits for the end of the work and tells what `progress` says meanwhile. Nothing if nobody listens any more.
    pub async fn watched(
        mut self,
        lines: &mut Lines,
        mut progress: impl FnMut() -> Option<Event>,
    ) -> Option<Result<T, Problem>> {
        let mut tick = tokio::time::interval(Duration::from_millis(DAEMON_PROGRESS_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut self.task => {
                    return Some(done.unwrap_or_else(|error| Err(Problem::internal(error.to_string()))));
                }
                () = lines.gone() => return None,
                _ = tick.tick() => {
                    if let Some(event) = progress() && lines.send(&event).await.is_err() {
                        return None;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let text = "a=1&url=fuchsia-pkg%3A%2F%2Fdevhost%2Fhello%3Fhash%3D5&b";
        assert_eq!(query(text, "url").unwrap(), "fuchsia-pkg://devhost/hello?hash=5");
        assert_eq!(query("url=fuchsia-pkg://devhost/hello", "url").unwrap(), "fuchsia-pkg://devhost/hello");
        for bad in ["", "b", "url", "url=%ff"] {
            assert_eq!(query(bad, "url").unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn a_problem_says_what_programs_of_real_devices_know() {
        let problem = Problem::from(DeviceError::RepositoryNotFound("devhost".to_owned()));
        assert_eq!((problem.status, &*problem.kind, &*problem.zx_status), (404, "RepoNotFound", "NOT_FOUND"));
        assert_eq!((&*problem.title, &*problem.type_uri), ("Repo not found", "urn:colibri:device:RepoNotFound"));
    }
}
