//! [`Remote`]: publishing to a running origin over its write API (`docs/write-api.md`).
//!
//! Only missing blobs travel, several at a time; one that stops half-way goes on from where the origin says it is, over a new
//! connection if need be. What a blob claims to be is proven by the origin; if it disagrees, the file at fault is named here.
//! Deliberately absent: signing, which is the origin's, and the keeping of tokens.

mod error;
mod sending;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use colibri_common::BlobId;
use colibri_package::PackagePath;
use colibri_transport::{Body, Client, ClientConfig, ClientIdentity, Response, Trust};
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use error::RemoteError;

use crate::collect::{self, Collected};
use crate::ingest::SourceBlob;
use crate::limits::{BLOBS_ASKED_MAX, REMOTE_ANSWER_BYTES_MAX, REMOTE_ATTEMPTS_MAX, REMOTE_HEADER_S_MAX};
use crate::publish::Publish;
use crate::repository::Versions;
use crate::wire::{
    MissingAnswer, MissingQuestion, NamedPackage, OfferedPackage, Refreshed, StatusAnswer, Submission, Submitted,
    VERSION_SEGMENT, WriteProblem,
};

/// Whom to publish to, and as whom.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// `https://HOST:PORT/REPO`; plain `http` only to this machine.
    pub url: String,
    /// The bearer token, if one is used.
    pub token: Option<String>,
    /// Whom to believe to be the origin; never [`Trust::None`].
    pub trust: Trust,
    /// The client certificate, if one is used.
    pub identity: Option<ClientIdentity>,
}

/// What to publish.
#[derive(Debug, Clone)]
pub struct Push {
    /// Manifests, archives, product bundles and `clean` count; how blobs are stored is the origin's to say.
    pub packages: Publish<'static>,
    /// Packages no longer to offer.
    pub remove: Vec<PackagePath>,
    /// Blobs uploaded at a time.
    pub uploads_at_a_time: usize,
    /// Why edges are not waited for; takes an admin.
    pub past_gate_because: Option<String>,
    /// How far it is, for whoever looks from outside.
    pub progress: Arc<PushProgress>,
}

/// How far a push is.
#[derive(Debug, Default)]
pub struct PushProgress {
    bytes_sent: AtomicU64,
    bytes_to_send: AtomicU64,
}

impl PushProgress {
    /// Bytes sent and bytes to send, of missing blobs.
    pub fn at(&self) -> (u64, u64) {
        (self.bytes_sent.load(Ordering::Relaxed), self.bytes_to_send.load(Ordering::Relaxed))
    }
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushReport {
    /// Packages submitted.
    pub packages: usize,
    /// Packages no longer offered.
    pub removed: usize,
    /// Distinct blobs of these packages and their subpackages.
    pub blobs: usize,
    /// Those that the origin did not have.
    pub blobs_sent: usize,
    /// Bytes that travelled for them.
    pub bytes_sent: u64,
    /// Uploads that went on after they had stopped half-way.
    pub resumed: u64,
    /// Versions now visible.
    pub versions: Versions,
}

/// One repository of a running origin.
#[derive(Debug, Clone)]
pub struct Remote {
    client: Client,
    /// `https://HOST:PORT/v1/REPO`.
    base: String,
    authorization: Option<HeaderValue>,
}

impl Remote {
    /// Prepares to talk to an origin; nothing is sent yet.
    ///
    /// # Errors
    /// The address, the token or a certificate is not usable, or the token would travel in the clear.
    pub fn new(config: RemoteConfig) -> Result<Self, RemoteError> {
        let RemoteConfig { url, token, trust, identity } = config;
        let base = base(&url)?;
        if url.starts_with("https") && trust == Trust::None {
            return Err(RemoteError::Untrusted);
        }
        let authorization = token.map(|token| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| RemoteError::Token)?;
            value.set_sensitive(true);
            Ok::<_, RemoteError>(value)
        });
        let client = Client::new(ClientConfig {
            trust,
            identity,
            http3: false,
            // A large blob is compressed and proven before it is answered for.
            header_timeout: Duration::from_secs(REMOTE_HEADER_S_MAX),
            ..ClientConfig::default()
        })?;
        Ok(Self { client, base, authorization: authorization.transpose()? })
    }

    /// What the repository is now, and who the origin takes us for.
    ///
    /// # Errors
    /// The origin cannot be reached, or refuses.
    pub async fn status(&self) -> Result<StatusAnswer, RemoteError> {
        self.patiently(async || self.json(Method::GET, "status", None::<&()>).await).await
    }

    /// Has what expires first signed again.
    ///
    /// # Errors
    /// The origin cannot be reached, or refuses.
    pub async fn refresh(&self) -> Result<Versions, RemoteError> {
        let refreshed: Refreshed = self.json(Method::POST, "refresh", Some(&())).await?;
        Ok(refreshed.versions.into())
    }

    /// Publishes packages: asks what is missing, uploads it, submits the names.
    ///
    /// # Errors
    /// Names the file, the blob and the package at fault. What was uploaded stays: the next try sends the rest.
    pub async fn push(&self, push: &Push) -> Result<PushReport, RemoteError> {
        let Publish { manifests, package_archives, product_bundles, now, .. } = push.packages.clone();
        let collecting = tokio::task::spawn_blocking(move || {
            collect::collect(&Publish { manifests, package_archives, product_bundles, ..Publish::new(now) })
        });
        let collected = collecting.await.map_err(|_| RemoteError::Stopped)??;
        let mut blobs: BTreeMap<BlobId, SourceBlob> = BTreeMap::new();
        for blob in &collected.blobs {
            blobs.entry(blob.id).or_insert_with(|| blob.clone());
        }
        let missing = self.missing(&blobs.keys().copied().collect::<Vec<_>>()).await?;
        let sent = self.send_all(&blobs, &missing, push).await?;
        let versions = self.submit(&collected, push).await?;
        Ok(PushReport {
            packages: collected.named.len(),
            removed: push.remove.len(),
            blobs: blobs.len(),
            blobs_sent: missing.len(),
            bytes_sent: sent.bytes,
            resumed: sent.resumed,
            versions,
        })
    }

    async fn missing(&self, blobs: &[BlobId]) -> Result<Vec<BlobId>, RemoteError> {
        let mut missing = Vec::new();
        for part in blobs.chunks(usize::try_from(BLOBS_ASKED_MAX).unwrap_or(usize::MAX)) {
            let question = MissingQuestion { blobs: part.to_vec() };
            let ask = async || self.json(Method::POST, "blobs/missing", Some(&question)).await;
            let answer: MissingAnswer = self.patiently(ask).await?;
            // Only what was asked for: the answer decides what is read from this disk.
            missing.extend(answer.missing.into_iter().filter(|id| part.binary_search(id).is_ok()));
        }
        missing.dedup();
        Ok(missing)
    }

    async fn send_all(
        &self,
        blobs: &BTreeMap<BlobId, SourceBlob>,
        missing: &[BlobId],
        push: &Push,
    ) -> Result<sending::Sent, RemoteError> {
        let wanted: Vec<SourceBlob> = missing.iter().filter_map(|id| blobs.get(id).cloned()).collect();
        push.progress.bytes_to_send.store(wanted.iter().map(|blob| blob.size).sum(), Ordering::Relaxed);
        let places = Arc::new(Semaphore::new(push.uploads_at_a_time.clamp(1, 64)));
        let mut sending = JoinSet::new();
        for blob in wanted {
            let (remote, places, progress) = (self.clone(), places.clone(), push.progress.clone());
            sending.spawn(async move {
                let _place = places.acquire_owned().await.map_err(|_| RemoteError::Stopped)?;
                let sent = remote.send_blob(&blob).await?;
                progress.bytes_sent.fetch_add(blob.size, Ordering::Relaxed);
                Ok::<_, RemoteError>(sent)
            });
        }
        let mut all = sending::Sent::default();
        // The first error ends it; dropping the set ends the others.
        while let Some(sent) = sending.join_next().await {
            all.add(sent.map_err(|_| RemoteError::Stopped)??);
        }
        Ok(all)
    }

    async fn submit(&self, collected: &Collected, push: &Push) -> Result<Versions, RemoteError> {
        let add = collected.named.iter().map(|named| OfferedPackage {
            name: named.path.name.clone(),
            variant: named.path.variant.clone(),
            package: named.hash,
        });
        let remove = push.remove.iter().cloned().map(|path| NamedPackage { name: path.name, variant: path.variant });
        let submission = Submission {
            add: add.collect(),
            remove: remove.collect(),
            replace_all: push.packages.clean,
            if_targets_version: None,
            if_snapshot_version: None,
            past_gate_because: push.past_gate_because.clone(),
        };
        // Submitting twice changes nothing more, unless something is removed: then the second would miss it.
        let ask = async || self.json(Method::POST, "targets", Some(&submission)).await;
        let submitted: Submitted = if push.remove.is_empty() { self.patiently(ask).await? } else { ask().await? };
        Ok(submitted.versions.into())
    }

    /// Asks again while the origin is busy or out of reach, a few times and each time later.
    async fn patiently<T>(&self, ask: impl AsyncFn() -> Result<T, RemoteError>) -> Result<T, RemoteError> {
        let mut attempt = 1;
        loop {
            match ask().await {
                Err(error) if error.may_pass() && attempt < REMOTE_ATTEMPTS_MAX => {
                    tracing::debug!(%error, attempt, "asking again");
                    tokio::time::sleep(pause(attempt)).await;
                    attempt += 1;
                }
                answered => return answered,
            }
        }
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        question: Option<&impl Serialize>,
    ) -> Result<T, RemoteError> {
        let mut request = http::Request::builder().method(method).uri(format!("{}/{path}", self.base));
        let body = match question {
            Some(question) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                let text = serde_json::to_vec(question).map_err(|error| RemoteError::answer(path, &error))?;
                Body::full(text)
            }
            None => Body::empty(),
        };
        let response = self.send(request, body).await?;
        let text = read(response, path).await?;
        serde_json::from_slice(&text).map_err(|error| RemoteError::answer(path, &error))
    }

    /// Sends a request as ourselves; a refusal is an error.
    async fn send(&self, mut request: http::request::Builder, body: Body) -> Result<Response, RemoteError> {
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let request = request.body(body).map_err(|error| RemoteError::Url(error.to_string()))?;
        let response = self.client.send(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let offset = response.headers().get(crate::wire::UPLOAD_OFFSET);
        let offset = offset.and_then(|value| value.to_str().ok()?.parse().ok());
        let text = read(response, "the refusal").await.unwrap_or_default();
        let problem: WriteProblem = serde_json::from_slice(&text).unwrap_or_default();
        Err(RemoteError::refused(status, problem, offset))
    }
}

async fn read(response: Response, what: &str) -> Result<Bytes, RemoteError> {
    response.into_body().read_all(REMOTE_ANSWER_BYTES_MAX).await.map_err(|error| RemoteError::answer(what, &error))
}

/// How long to wait after an attempt that failed.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(attempt)).min(Duration::from_secs(10))
}

/// `https://HOST/REPO` as the address of the repository's write API.
fn base(url: &str) -> Result<String, RemoteError> {
    let refuse = |reason: &str| RemoteError::Url(format!("{url}: {reason}; it is https://HOST:PORT/REPOSITORY"));
    let uri: http::Uri = url.parse().map_err(|_| refuse("this is no address"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(refuse("scheme or host is missing"));
    };
    if authority.as_str().contains('@') || uri.query().is_some() {
        return Err(refuse("it has a user or a query"));
    }
    let host = authority.host().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => {}
        "http" if is_here => {}
        "http" => return Err(refuse("without TLS the token would travel in the clear")),
        _ => return Err(refuse("it must begin with https")),
    }
    let repository = uri.path().trim_matches('/');
    if repository.is_empty() || repository.contains('/') {
        return Err(refuse("its path must be the repository's name"));
    }
    Ok(format!("{scheme}://{authority}/{VERSION_SEGMENT}/{repository}"))
}

/// Whether an answer says that the origin has the blob.
fn is_stored(status: StatusCode) -> bool {
    status == StatusCode::OK || status == StatusCode::CREATED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(base("https://o.example:8444/fleet/").unwrap(), "https://o.example:8444/v1/fleet");
        assert_eq!(base("http://[::1]:1/fleet").unwrap(), "http://[::1]:1/v1/fleet");
        for bad in [
            "",
            "o.example",
            "https://o.example",
            "https://o.example/a/b",
            "http://o.example/a",
            "ftp://o.example/a",
            "https://u@o.example/a",
            "https://o.example/a?b",
            "http://127.0.0.1.example/a",
        ] {
            assert!(base(bad).is_err(), "{bad}");
        }
        let config = |trust| RemoteConfig { url: "https://o/a".to_owned(), token: None, trust, identity: None };
        assert!(matches!(Remote::new(config(Trust::None)), Err(RemoteError::Untrusted)));
        assert!(Remote::new(config(Trust::Pin(vec![[0; 32]]))).is_ok());
    }
}
