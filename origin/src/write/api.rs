//! [`WriteApi`]: the write API over the repositories of an origin.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use colibri_api::RepositoryName;
use colibri_common::{BlobId, Clock};
use colibri_package::delivery::Encoding;
use colibri_repository::limits::{BLOBS_ASKED_MAX, PACKAGES_PER_PUBLISH_MAX};
use colibri_repository::wire::{
    CollectQuestion, Collected, MissingAnswer, MissingQuestion, NamedPackage, NeededBlob, Refreshed, StatusAnswer,
    Submission, Submitted, UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_OFFSET, WrongPackage, form_segment,
};
use colibri_repository::{
    Act as SigningAct, Collect, CollectReport, EdgeGate, KeySources, PublishGate, Repository, RepositoryError, Submit,
};
use colibri_service::MetricsError;
use colibri_service::metrics::{IntCounterVec, Registry};
use colibri_transport::{Body, Handler, Peer, Request, Response, handler};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::audit::{Audit, AuditLine};
use super::auth::{Gatekeeper, Principal};
use super::config::WriteConfig;
use super::edges;
use super::problem::{WriteError, empty, json};
use super::role::WriteRole;
use super::route::{self, Act};
use super::uploads::Uploads;
use crate::config::RepositoryConfig;
use crate::error::OriginError;
use crate::limits::{LINGER_BYTES_MAX, LINGER_MS_MAX, WRITE_JSON_BYTES_MAX, WRITE_JSON_S_MAX};

/// Answers the write API. Cheap to clone.
#[derive(Clone)]
pub struct WriteApi {
    shared: Arc<Shared>,
}

struct Shared {
    repositories: Vec<(RepositoryName, Repository)>,
    /// Where edges are waited for.
    gates: BTreeMap<RepositoryName, EdgeGate>,
    gatekeeper: Gatekeeper,
    uploads: Arc<Uploads>,
    audit: Audit,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
    upload_bytes_max: u64,
    request_max: Duration,
}

/// What the write API counts.
struct Metrics {
    requests: IntCounterVec,
    refused_logins: IntCounterVec,
    uploaded_bytes: IntCounterVec,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let requests = "Requests of the write API, by act and status; `none` for what was not understood.";
        let refused = "Requests of the write API without good credentials, by status.";
        let uploaded = "Bytes that uploads brought, by form.";
        Ok(Self {
            requests: registry.counter_vec("colibri_origin_write_requests_total", requests, &["act", "status"])?,
            refused_logins: registry.counter_vec("colibri_origin_write_refused_logins_total", refused, &["status"])?,
            uploaded_bytes: registry.counter_vec("colibri_origin_write_uploaded_bytes_total", uploaded, &["form"])?,
        })
    }
}

impl WriteApi {
    /// Opens the repositories that can be written, the tokens and the audit file. Blocks.
    ///
    /// # Errors
    /// A contradiction in the configuration, or the repository or file at fault.
    pub fn open(
        config: &WriteConfig,
        repositories: &[RepositoryConfig],
        clock: Arc<dyn Clock>,
        registry: &Registry,
        keys: &KeySources,
    ) -> Result<Self, OriginError> {
        if let Some(mistake) = config.mistake() {
            return Err(OriginError::WriteConfig(mistake));
        }
        let known = |name: &&RepositoryName| !repositories.iter().any(|repository| repository.name == **name);
        if let Some(unknown) = config.repositories.iter().find(known) {
            return Err(OriginError::WriteConfig(format!(
                "write.repositories names {unknown}, which is not served here"
            )));
        }
        let is_meant = |repository: &&RepositoryConfig| {
            config.repositories.is_empty() || config.repositories.contains(&repository.name)
        };
        let open = |config: &RepositoryConfig| {
            Ok((config.name.clone(), Repository::open_with(&config.path, config.keys.clone(), keys.clone())?))
        };
        let repositories = repositories.iter().filter(is_meant).map(open);
        let repositories = repositories.collect::<Result<Vec<_>, RepositoryError>>().map_err(Box::new)?;
        let mut gates = BTreeMap::new();
        for (name, _) in &repositories {
            gates.extend(edges::gate(&config.edge_gate, name)?.map(|gate| (name.clone(), gate)));
        }
        let audit = Audit::open(config.audit_file.as_deref());
        let unusable = |source| OriginError::AuditFile { path: config.audit_file.clone().unwrap_or_default(), source };
        let shared = Shared {
            repositories,
            gates,
            gatekeeper: Gatekeeper::new(config, clock.clone())?,
            uploads: Arc::new(Uploads::new(config)),
            audit: audit.map_err(unusable)?,
            metrics: Metrics::register(registry)?,
            clock,
            upload_bytes_max: config.upload_bytes_max,
            request_max: Duration::from_secs(config.request_s_max),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The API as a handler.
    pub fn handler(&self) -> Handler {
        let shared = self.shared.clone();
        handler(move |request| {
            let shared = shared.clone();
            async move { shared.respond(request).await }
        })
    }
}

impl Shared {
    async fn respond(&self, request: Request) -> Response {
        let (parts, mut body) = request.into_parts();
        let head = parts.method == Method::HEAD;
        let principal = match self.gatekeeper.admit(&parts) {
            Ok(principal) => principal,
            Err(error) => {
                let status = error.status();
                self.metrics.refused_logins.with_label_values(&[status.as_str()]).inc();
                // Beyond the rate nothing is recorded: a flood must not fill the disk.
                if !matches!(error, WriteError::TooMany { .. }) {
                    self.record(&parts, None, None, &Err(&error));
                }
                return error.respond(head);
            }
        };
        let routed = route::parse(&parts);
        let answered = match &routed {
            Ok((name, act)) => self.perform(&principal, name, *act, &parts, &mut body).await,
            Err(error) => Err(error.clone()),
        };
        let routed = routed.ok();
        let act = routed.as_ref().map(|(_, act)| *act);
        let outcome = answered.as_ref().map(Response::status);
        let status = outcome.unwrap_or_else(WriteError::status);
        self.metrics.requests.with_label_values(&[act.map_or("none", Act::name), status.as_str()]).inc();
        if outcome.is_err() {
            linger(body).await;
        }
        if outcome.is_err() || act.is_some_and(Act::changes) {
            self.record(&parts, Some(&principal), routed.as_ref(), &outcome);
        }
        answered.unwrap_or_else(|error| error.respond(head))
    }

    fn record(
        &self,
        parts: &Parts,
        principal: Option<&Principal>,
        routed: Option<&(RepositoryName, Act)>,
        outcome: &Result<StatusCode, &WriteError>,
    ) {
        let reason = outcome.err().map(WriteError::to_string);
        self.audit.record(&AuditLine {
            time: self.clock.now(),
            who: principal.map(|principal| principal.name.as_str()),
            peer: parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_string()),
            act: routed.map_or("none", |(_, act)| act.name()),
            repository: routed.map(|(name, _)| name.as_str()),
            blob: routed.and_then(|(_, act)| act.blob()).map(|id| id.to_string()),
            status: outcome.unwrap_or_else(WriteError::status).as_u16(),
            outcome: reason.as_deref().unwrap_or("done"),
        });
    }

    async fn perform(
        &self,
        principal: &Principal,
        name: &RepositoryName,
        act: Act,
        parts: &Parts,
        body: &mut Body,
    ) -> Result<Response, WriteError> {
        principal.may(act.needs(), name)?;
        let repository = self.repositories.iter().find(|(known, _)| known == name).map(|(_, repository)| repository);
        let repository =
            repository.ok_or_else(|| WriteError::NotFound(format!("no repository {name} can be written here")))?;
        let acting = async {
            match act {
                Act::Status => self.status(principal, name, repository).await,
                Act::Missing => self.missing(repository, parts, body).await,
                Act::UploadState(form, id) => upload_state(repository, form, id).await,
                Act::Upload(form, id) => self.upload(principal, name, repository, (form, id), parts, body).await,
                Act::Discard(form, id) => self.discard(principal, name, repository, (form, id)).await,
                Act::Submit => self.submit(principal, name, repository, parts, body).await,
                Act::Refresh => self.refresh(&signing_for(repository, principal)).await,
                Act::Collect => self.collect(repository, parts, body).await,
            }
        };
        let limit = self.request_max;
        let too_long = |_| WriteError::TooSlow(format!("the request took longer than {} s", limit.as_secs()));
        timeout(limit, acting).await.unwrap_or_else(|elapsed| Err(too_long(elapsed)))
    }

    async fn status(
        &self,
        principal: &Principal,
        name: &RepositoryName,
        repository: &Repository,
    ) -> Result<Response, WriteError> {
        let (packages, versions, expires) = blocking(repository, |repository| {
            let metadata = repository.metadata()?;
            let ends = [
                Some(metadata.root().expires()),
                metadata.targets().map(|role| role.expires()),
                metadata.snapshot().map(|role| role.expires()),
                metadata.timestamp().map(|role| role.expires()),
            ];
            let expires = ends.into_iter().flatten().min().map_or(0, |first| first.0);
            let packages = metadata.targets().map_or(0, |targets| targets.len() as u64);
            Ok((packages, repository.versions()?, expires))
        })
        .await?;
        let answer = StatusAnswer {
            repository: name.to_string(),
            packages,
            versions: versions.into(),
            expires,
            uploads: self.uploads.count(),
            you: principal.name.clone(),
            role: principal.role.to_string(),
        };
        Ok(json(StatusCode::OK, &answer))
    }

    async fn missing(&self, repository: &Repository, parts: &Parts, body: &mut Body) -> Result<Response, WriteError> {
        let question: MissingQuestion = read_json(parts, body).await?;
        if question.blobs.len() as u64 > BLOBS_ASKED_MAX {
            let reason =
                format!("{} blobs are asked for at once, the most are {BLOBS_ASKED_MAX}", question.blobs.len());
            return Err(WriteError::BadRequest(reason));
        }
        let missing = blocking(repository, move |repository| repository.missing_blobs(&question.blobs)).await?;
        Ok(json(StatusCode::OK, &MissingAnswer { missing }))
    }

    async fn upload(
        &self,
        principal: &Principal,
        name: &RepositoryName,
        repository: &Repository,
        (form, id): (Encoding, BlobId),
        parts: &Parts,
        body: &mut Body,
    ) -> Result<Response, WriteError> {
        let length = number(parts, UPLOAD_LENGTH)?
            .ok_or_else(|| WriteError::BadRequest(format!("the header {UPLOAD_LENGTH} is missing")))?;
        let offset = number(parts, UPLOAD_OFFSET)?.unwrap_or(0);
        if length > self.upload_bytes_max {
            return Err(WriteError::TooLarge { bytes_max: self.upload_bytes_max });
        }
        let left = length.checked_sub(offset).ok_or_else(|| {
            WriteError::BadRequest(format!("{UPLOAD_OFFSET} {offset} lies beyond {UPLOAD_LENGTH} {length}"))
        })?;
        let now = self.clock.now();
        let turn = self.uploads.begin((name.to_string(), form, id), &principal.name).await?;
        let Some(upload) = blocking(repository, move |repository| repository.upload(id, form, now)).await? else {
            return Ok(uploaded(StatusCode::OK, length, true));
        };
        if upload.received() != offset {
            return Err(WriteError::WrongOffset { offset: upload.received() });
        }
        let (upload, turn, ended) = self.uploads.carry(upload, body, left, turn).await?;
        let received = upload.received();
        self.metrics.uploaded_bytes.with_label_values(&[form_segment(form)]).inc_by(received - offset);
        match ended {
            Some(error) => return Err(error),
            None if received < length => return Ok(uploaded(StatusCode::NO_CONTENT, received, false)),
            None => {}
        }
        let kept = (self.uploads.room_to_prove(length).await?, turn);
        blocking(repository, move |_| {
            let _kept = kept;
            upload.finish(None, now)
        })
        .await?;
        Ok(uploaded(StatusCode::CREATED, length, true))
    }

    async fn discard(
        &self,
        principal: &Principal,
        name: &RepositoryName,
        repository: &Repository,
        (form, id): (Encoding, BlobId),
    ) -> Result<Response, WriteError> {
        let turn = self.uploads.begin((name.to_string(), form, id), &principal.name).await?;
        let now = self.clock.now();
        blocking(repository, move |repository| {
            let _turn = turn;
            repository.upload(id, form, now)?.map_or(Ok(()), colibri_repository::Upload::discard)
        })
        .await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    async fn submit(
        &self,
        principal: &Principal,
        name: &RepositoryName,
        repository: &Repository,
        parts: &Parts,
        body: &mut Body,
    ) -> Result<Response, WriteError> {
        let submission: Submission = read_json(parts, body).await?;
        let asked = submission.add.len() + submission.remove.len();
        if asked as u64 > PACKAGES_PER_PUBLISH_MAX {
            let reason = format!("{asked} packages are submitted at once, the most are {PACKAGES_PER_PUBLISH_MAX}");
            return Err(WriteError::BadRequest(reason));
        }
        if submission.past_gate_because.is_some() && principal.role < WriteRole::Admin {
            let (who, role) = (principal.name.clone(), principal.role);
            return Err(WriteError::Forbidden { who, role, needed: WriteRole::Admin });
        }
        let wrong = contradictions(&submission);
        if !wrong.is_empty() {
            return Err(WriteError::Unfit { blobs: Vec::new(), count: 0, wrong });
        }
        let now = self.clock.now();
        let gate = self.gates.get(name).filter(|_| submission.past_gate_because.is_none()).cloned();
        let versions = blocking(&signing_for(repository, principal), move |repository| {
            let Submission { add, remove, replace_all, if_targets_version, if_snapshot_version, past_gate_because } =
                submission;
            repository.submit(&Submit {
                packages: add.iter().map(|package| (package.path(), package.package)).collect(),
                remove: remove.iter().map(NamedPackage::path).collect(),
                clean: replace_all,
                if_targets_version,
                if_snapshot_version,
                past_gate_because,
                gate: gate.as_ref().map(|gate| gate as &dyn PublishGate),
                ..Submit::new(now)
            })
        })
        .await?;
        Ok(json(StatusCode::OK, &Submitted { versions: versions.into() }))
    }

    async fn collect(&self, repository: &Repository, parts: &Parts, body: &mut Body) -> Result<Response, WriteError> {
        let question: CollectQuestion = read_json(parts, body).await?;
        let collect = Collect { dry_run: question.dry_run, ..Collect::new(self.clock.now()) };
        let report = blocking(repository, move |repository| repository.collect(&collect)).await?;
        let CollectReport { blobs_kept, blobs_in_grace, blobs_removed, bytes_removed, uploads_removed, .. } = report;
        let collected = Collected { blobs_kept, blobs_in_grace, blobs_removed, bytes_removed, uploads_removed };
        Ok(json(StatusCode::OK, &collected))
    }

    async fn refresh(&self, repository: &Repository) -> Result<Response, WriteError> {
        let now = self.clock.now();
        let versions = blocking(repository, move |repository| repository.refresh(now)).await?;
        Ok(json(StatusCode::OK, &Refreshed { versions: versions.into() }))
    }
}

/// The repository with whoever asks for a signature named in its audit log, as our own log of acts names them.
fn signing_for(repository: &Repository, principal: &Principal) -> Repository {
    repository.clone().with_act(SigningAct { by: Some(principal.name.clone()), reason: None })
}

async fn upload_state(repository: &Repository, form: Encoding, id: BlobId) -> Result<Response, WriteError> {
    let offset = blocking(repository, move |repository| repository.upload_offset(id, form)).await?;
    Ok(uploaded(StatusCode::OK, offset.unwrap_or(0), offset.is_none()))
}

/// Packages that are to be offered twice, or offered and not.
fn contradictions(submission: &Submission) -> Vec<WrongPackage> {
    let mut wrong = Vec::new();
    let mut added = BTreeMap::new();
    for package in &submission.add {
        if added.insert(package.path(), package.package).is_some_and(|before| before != package.package) {
            let reason = "it is added twice, with different content".to_owned();
            wrong.push(WrongPackage { package: package.path().to_string(), reason });
        }
    }
    for path in submission.remove.iter().map(NamedPackage::path).filter(|path| added.contains_key(path)) {
        wrong.push(WrongPackage { package: path.to_string(), reason: "it is added and removed".to_owned() });
    }
    wrong
}

fn uploaded(status: StatusCode, offset: u64, complete: bool) -> Response {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static(UPLOAD_OFFSET), HeaderValue::from(offset));
    let complete = HeaderValue::from_static(if complete { "?1" } else { "?0" });
    headers.insert(HeaderName::from_static(UPLOAD_COMPLETE), complete);
    response
}

/// A header that is one decimal number.
fn number(parts: &Parts, name: &'static str) -> Result<Option<u64>, WriteError> {
    let mut values = parts.headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.and_then(|text| text.parse().ok()), values.next()) {
        (Some(number), None) => Ok(Some(number)),
        _ => Err(WriteError::BadRequest(format!("the header {name} is not one decimal number"))),
    }
}

async fn read_json<T: DeserializeOwned>(parts: &Parts, body: &mut Body) -> Result<T, WriteError> {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(WriteError::NotJson);
    }
    let slow = |_| WriteError::TooSlow(format!("the body took longer than {WRITE_JSON_S_MAX} s"));
    let read = timeout(Duration::from_secs(WRITE_JSON_S_MAX), std::mem::take(body).read_all(WRITE_JSON_BYTES_MAX));
    let text = read.await.map_err(slow)??;
    serde_json::from_slice(&text)
        .map_err(|error| WriteError::BadRequest(format!("the body is not what is asked for: {error}")))
}

/// Reads on a little after a refusal: many clients see the answer only once they have sent their request.
async fn linger(mut body: Body) {
    let mut left = LINGER_BYTES_MAX;
    let reading = async {
        while let Some(Ok(piece)) = body.next().await {
            left = left.saturating_sub(piece.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    // Whoever is slower than this does without.
    _ = timeout(Duration::from_millis(LINGER_MS_MAX), reading).await;
}

/// Works on a repository where blocking is allowed. The work runs to its end even if the client goes away.
async fn blocking<T: Send + 'static>(
    repository: &Repository,
    work: impl FnOnce(&Repository) -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, WriteError> {
    let repository = repository.clone();
    let worked = tokio::task::spawn_blocking(move || work(&repository)).await;
    let worked = worked.map_err(|_| WriteError::Busy("the origin is stopping".to_owned()))?;
    worked.map_err(|error| refusal(&error))
}

/// What a client is told of an error: never a path of this machine.
pub(crate) fn refusal(error: &RepositoryError) -> WriteError {
    match error {
        RepositoryError::Unready { blobs, count } => {
            let blobs = blobs.iter().map(NeededBlob::from).collect();
            WriteError::Unfit { blobs, count: *count, wrong: Vec::new() }
        }
        RepositoryError::UnknownPackage(package) => {
            let reason = "it is to be removed, but is not offered".to_owned();
            let wrong = vec![WrongPackage { package: package.clone(), reason }];
            WriteError::Unfit { blobs: Vec::new(), count: 0, wrong }
        }
        RepositoryError::Moved { .. } => WriteError::Conflict(error.to_string()),
        RepositoryError::Upload { .. } => WriteError::WrongContent(error.to_string()),
        RepositoryError::UploadOffset { expected, .. } => WriteError::WrongOffset { offset: *expected },
        RepositoryError::BadReason { .. } => WriteError::BadRequest(error.to_string()),
        RepositoryError::Held { reason } => WriteError::Held(reason.clone()),
        RepositoryError::TooMany { .. } | RepositoryError::Contended { .. } => WriteError::Busy(error.to_string()),
        RepositoryError::Locked { .. } => WriteError::Busy("another publish is under way: try again".to_owned()),
        RepositoryError::NoKey { role, .. } => WriteError::Conflict(format!(
            "this origin does not hold the keys to sign {role}: sign at the desk that holds them, and import"
        )),
        error => {
            tracing::error!(%error, "the write API failed");
            let text = "the origin could not do it: its log says why";
            WriteError::Internal(text.to_owned())
        }
    }
}
