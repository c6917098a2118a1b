//! [`control`]: what an operator asks and tells a running edge on its admin port: how far it is warmed, which releases stay,
//! which bundle to take in, what is known of a blob, and what bad bytes came. It has no authentication of its own, like all of that port: it is not published.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use colibri_api::RepositoryName;
use colibri_common::BlobId;
use colibri_metadata::TargetName;
use colibri_transport::{Body, Handler, Request, Response, handler};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;

use crate::import;
use crate::limits::CONTROL_BYTES_MAX;
use crate::metadata::Followed;
use crate::serve::ReadApi;
use crate::warm::Warmer;
use crate::warm::pins::{Pin, PinError};

/// A release of a repository.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    repository: RepositoryName,
    /// `NAME`, `NAME/VARIANT` or a package hash.
    release: String,
}

/// A bundle in a file of the edge's machine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Import {
    repository: RepositoryName,
    file: PathBuf,
}

/// Why something was not done.
#[derive(Debug)]
struct Refused(StatusCode, String);

type Answer = Result<serde_json::Value, Refused>;

/// Answers for `edge`. The admin port has a thread of its own: work is done where the edge itself runs.
pub(crate) fn control(edge: Arc<ReadApi>) -> Handler {
    let runtime = Handle::current();
    handler(move |request: Request| {
        let (edge, runtime) = (edge.clone(), runtime.clone());
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.read_all(CONTROL_BYTES_MAX).await else {
                return respond(Err(Refused(StatusCode::BAD_REQUEST, "the body cannot be read".to_owned())));
            };
            let path = head.uri.path().to_owned();
            let answered = runtime.spawn(async move { answer(&edge, &head.method, &path, &body).await }).await;
            let stopped = |_| Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "the edge is stopping".to_owned()));
            respond(answered.unwrap_or_else(stopped))
        }
    })
}

async fn answer(edge: &ReadApi, method: &Method, path: &str, body: &Bytes) -> Answer {
    match (path, method.as_str()) {
        ("/warm", "GET") => {
            let repositories: Vec<_> = edge.warmers().all().map(|warmer| warmer.status()).collect();
            to_json(&json!({ "repositories": repositories }))
        }
        ("/pins", "POST") => {
            let Which { repository, release } = read(body)?;
            let warmer = warmer(edge, &repository)?;
            let hash = find(warmer.followed(), &release).await?;
            warmer.pin(Pin { release, hash }).await.map_err(|error| refused(&error))?;
            to_json(&json!({ "hash": hash }))
        }
        ("/pins", "DELETE") => {
            let Which { repository, release } = read(body)?;
            warmer(edge, &repository)?.unpin(&release).await.map_err(|error| refused(&error))?;
            to_json(&json!({}))
        }
        ("/import", "POST") => {
            let Import { repository, file } = read(body)?;
            let followed = warmer(edge, &repository)?.followed().clone();
            let imported = import::import(&followed, edge.cache(), file).await;
            to_json(&imported.map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?)
        }
        (path, "GET") if path.starts_with("/explain/") => {
            let id = path["/explain/".len()..].parse::<BlobId>();
            let id =
                id.map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("not the hash of a blob: {error}")))?;
            to_json(&edge.explain(id))
        }
        ("/quarantine", "GET") => to_json(&json!({ "pieces": edge.quarantine().list() })),
        (path, "GET") if path.starts_with("/quarantine/") => {
            let number = &path["/quarantine/".len()..];
            let shown = number.parse().ok().and_then(|number| edge.quarantine().show(number));
            let none =
                || Refused(StatusCode::NOT_FOUND, format!("there is no piece `{number}` in quarantine, or no more"));
            to_json(&shown.ok_or_else(none)?)
        }
        ("/warm" | "/pins" | "/import" | "/quarantine", _) => {
            Err(Refused(StatusCode::METHOD_NOT_ALLOWED, format!("{path} does not take {method}")))
        }
        _ => {
            let text =
                "here are /metrics, /healthz, /readyz, /reload, /warm, /pins, /import, /quarantine and /explain/HASH";
            Err(Refused(StatusCode::NOT_FOUND, text.to_owned()))
        }
    }
}

fn warmer<'a>(edge: &'a ReadApi, repository: &RepositoryName) -> Result<&'a Arc<Warmer>, Refused> {
    let none = || Refused(StatusCode::NOT_FOUND, format!("this edge does not follow repository {repository}"));
    edge.warmers().get(repository).ok_or_else(none)
}

/// The package that carries a release: by its hash, or by the name that the newest set lists.
async fn find(followed: &Arc<Followed>, release: &str) -> Result<BlobId, Refused> {
    if let Ok(hash) = release.parse() {
        return Ok(hash);
    }
    let full = if release.contains('/') { release.to_owned() } else { format!("{release}/0") };
    let not_found = |text: String| Refused(StatusCode::NOT_FOUND, text);
    let name: TargetName = full.parse().map_err(|error| not_found(format!("`{release}`: {error}")))?;
    let current = followed.current().ok_or_else(|| not_found("there is no metadata here yet".to_owned()))?;
    let mut found = current.set().find(&name);
    if found.is_none() {
        for role in current.set().delegated_names() {
            let role = followed.delegated(&current, &role).await.ok().flatten();
            found = role.and_then(|targets| targets.get(&name));
            if found.is_some() {
                break;
            }
        }
    }
    let hash = found.and_then(|target| target.merkle());
    hash.ok_or_else(|| not_found(format!("{} lists no package {full}", followed.name())))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
}

fn refused(error: &PinError) -> Refused {
    let status = match error {
        PinError::NotPinned(_) => StatusCode::NOT_FOUND,
        PinError::NoDisk | PinError::TooMany => StatusCode::CONFLICT,
        PinError::Write(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refused(status, error.to_string())
}

fn to_json(value: &impl Serialize) -> Answer {
    serde_json::to_value(value).map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn respond(answer: Answer) -> Response {
    let (status, value) = match answer {
        Ok(value) => (StatusCode::OK, value),
        Err(Refused(status, error)) => (status, json!({ "error": error })),
    };
    let mut response = Response::new(Body::full(value.to_string() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
