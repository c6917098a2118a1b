//! Drives the TUF core over something that has files: an HTTP mirror or a directory. The core decides what to ask for and
//! whether to believe it; this file only carries names out and bytes in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_api::Coding;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, MetadataError, Start, Step, TrustedSet, Update, Want};
use colibri_transport::Client;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use crate::attempt::Attempt;
use crate::error::{AttemptError, FetchError};
use crate::patience::Patience;
use crate::round::{Round, Subject};
use crate::source::Sources;

/// Something that has metadata files by name. Two live: a mirror over HTTP, which [`refresh`] makes, and [`Directory`].
///
/// "Not found" must be said only when the source is sure: it ends the root chain. Any other failure is an error and ends
/// the refresh, which loses nothing.
pub trait MetadataSource {
    /// Fetches one file of at most `want.bytes_max` bytes.
    fn fetch(&self, want: &Want) -> impl Future<Output = Result<Answer, AttemptError>> + Send;
}

/// One mirror over HTTP.
#[derive(Debug)]
struct HttpMirror<'a> {
    attempt: Attempt<'a>,
    /// `/REPO` for sources with several repositories, else empty.
    place: &'a str,
}

impl MetadataSource for HttpMirror<'_> {
    async fn fetch(&self, want: &Want) -> Result<Answer, AttemptError> {
        let url = self.attempt.source.url.join(&format!("{}/{}", self.place, want.name));
        let extra = HeaderMap::from_iter([(ACCEPT_ENCODING, Coding::ACCEPTED)]);
        match self.attempt.get(&url, None, extra).await {
            Ok(answer) => Ok(Answer::Found(self.attempt.read_whole(answer, want.bytes_max).await?.bytes)),
            Err(AttemptError::NotFound) => Ok(Answer::NotFound),
            Err(error) => Err(error),
        }
    }
}

/// A directory with metadata files, as on the desk of a publisher.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

impl MetadataSource for Directory {
    async fn fetch(&self, want: &Want) -> Result<Answer, AttemptError> {
        read_capped(&self.0.join(&want.name), want.bytes_max)
    }
}

fn read_capped(path: &Path, bytes_max: u64) -> Result<Answer, AttemptError> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| AttemptError::Unexpected(format!("{}: {error}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Answer::NotFound),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(AttemptError::Unexpected(format!("{}: over {bytes_max} bytes", path.display())));
    }
    Ok(Answer::Found(bytes.into()))
}

/// Why one refresh from one source failed: it could not be had, or it cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// A file could not be had.
    #[error("{name}: {error}")]
    Attempt {
        /// The file.
        name: String,
        /// Why not.
        error: AttemptError,
    },
    /// The metadata was refused.
    #[error(transparent)]
    Refused(#[from] MetadataError),
}

/// A refresh that did not come to its end, and what was proven before: newer roots, newer versions. The caller keeps the
/// floor, so that nobody can take it back behind what was once proven.
#[derive(Debug)]
pub struct Unfinished<E> {
    /// Why it ended.
    pub error: E,
    /// What was proven.
    pub floor: Option<TrustedSet>,
}

/// One refresh from one source.
pub async fn refresh_from<S: MetadataSource + Sync>(
    source: &S,
    start: Start,
    now: UnixSeconds,
) -> Result<TrustedSet, Unfinished<RefreshError>> {
    let mut update = Update::start(start, now);
    while let Step::Want(want) = update.next() {
        let answer = source.fetch(&want).await;
        let answer = answer.map_err(|error| RefreshError::Attempt { name: want.name.clone(), error });
        let supplied = answer.and_then(|answer| Ok(update.supply(answer)?));
        if let Err(error) = supplied {
            return Err(Unfinished { error, floor: update.into_floor() });
        }
    }
    update.finish().map_err(|error| Unfinished { error: error.into(), floor: None })
}

/// One refresh from the first source that can give a set we believe. What one source proved before it failed is the start
/// for the next.
pub async fn refresh(
    client: &Client,
    sources: &Sources,
    place: &str,
    agent: &str,
    mut start: Start,
    now: UnixSeconds,
) -> Result<TrustedSet, Unfinished<FetchError>> {
    let agent = HeaderValue::from_str(agent).unwrap_or(HeaderValue::from_static("colibri"));
    let what = "repository metadata".to_owned();
    let mut round = Round::new(sources, Subject { what, blob: None, encoding: None, unit: 0 });
    // Caches on the way are asked to revalidate: what is wanted is the newest.
    let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static("no-cache"))]);
    let (patience, memory) = (Patience::default(), Semaphore::new(Semaphore::MAX_PERMITS));
    let (mut refused, mut floor) = (None, None);
    while let Some(source) = round.next().await {
        let pace = round.pace(&patience);
        let attempt = Attempt { client, agent: &agent, headers: &headers, source, pace, memory: &memory };
        let mirror = HttpMirror { attempt, place };
        let unfinished = match refresh_from(&mirror, start.clone(), now).await {
            Ok(set) => {
                source.succeeded();
                return Ok(set);
            }
            Err(unfinished) => unfinished,
        };
        if let Some(proven) = unfinished.floor {
            start = Start::FromSet(proven.clone());
            floor = Some(proven);
        }
        match unfinished.error {
            RefreshError::Attempt { name, error } => {
                tracing::debug!(source = %source.url, file = %name, %error, "metadata could not be fetched");
                round.failed(source, &error);
            }
            RefreshError::Refused(error) => {
                tracing::warn!(source = %source.url, %error, "metadata refused");
                round.refused(source, &AttemptError::Unexpected(error.to_string()));
                refused = Some((source.url.authority().to_owned(), error));
            }
        }
    }
    let error = match refused {
        Some((source_name, error)) => FetchError::Metadata { source_name, error: Arc::new(error) },
        None => round.give_up(),
    };
    Err(Unfinished { error, floor })
}
