//! Drives the TUF core over something that has files: an HTTP mirror or a directory. The core decides what to ask for and
//! whether to believe it; this file only carries names out and bytes in.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_api::Coding;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, Found, MetadataError, Search, Start, Step, TargetName, TrustedSet, Update, Want};
use colibri_transport::Client;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue};
use tokio::sync::Semaphore;

use crate::attempt::{Attempt, Whole};
use crate::bandwidth::Bandwidth;
use crate::error::{AttemptError, FetchError};
use crate::follow::{Hear, Received, Terms, take_roles};
use crate::round::{Round, Subject};
use crate::source::Sources;
use crate::urgency::Urgency;

/// Something that has metadata files by name. Two live: a mirror over HTTP, which [`refresh`] makes, and [`Directory`].
///
/// "Not found" must be said only when the source is sure: it ends the root chain. Any other failure is an error and ends
/// the refresh, which loses nothing.
pub trait MetadataSource {
    /// Fetches one file of at most `want.bytes_max` bytes.
    fn fetch(&self, want: &Want) -> impl Future<Output = Result<Answer, AttemptError>> + Send;
}

/// One mirror over HTTP.
struct HttpMirror<'a> {
    attempt: Attempt<'a>,
    /// `/REPO` for sources with several repositories, else empty.
    place: &'a str,
    hear: Option<Hear<'a>>,
}

impl MetadataSource for HttpMirror<'_> {
    async fn fetch(&self, want: &Want) -> Result<Answer, AttemptError> {
        let url = self.attempt.source.url.join(&format!("{}/{}", self.place, want.name));
        let extra = HeaderMap::from_iter([(ACCEPT_ENCODING, Coding::ACCEPTED)]);
        match self.attempt.get(&url, None, extra).await {
            Ok(answer) => {
                let age_s = answer.age_s;
                let Whole { bytes, coded } = self.attempt.read_whole(answer, want.bytes_max).await?;
                if let Some(hear) = self.hear {
                    hear(Received { name: &want.name, bytes: &bytes, coded: coded.as_ref(), age_s });
                }
                Ok(Answer::Found(bytes))
            }
            Err(AttemptError::NotFound { .. }) => Ok(Answer::NotFound),
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
    drive(source, Machine::Update(Update::start(start, now))).await.map(|(set, _)| set)
}

/// Looks for a target in a set that was refreshed at `now`; delegated roles that are not held come from `source`. Gives
/// the set with these, and what was found; nothing means that the repository has no such target.
pub async fn search_from<S: MetadataSource + Sync>(
    source: &S,
    set: TrustedSet,
    name: &TargetName,
    now: UnixSeconds,
) -> Result<(TrustedSet, Option<Found>), Unfinished<RefreshError>> {
    drive(source, Machine::Search(Search::start(set, name.clone(), now))).await
}

/// One walk of the core through files: the top-level roles of a refresh, or the delegated ones of a search.
enum Machine {
    Update(Update),
    Search(Search),
}

impl Machine {
    fn next(&mut self) -> Step {
        match self {
            Self::Update(update) => update.next(),
            Self::Search(search) => search.next(),
        }
    }

    fn supply(&mut self, answer: Answer) -> Result<(), MetadataError> {
        match self {
            Self::Update(update) => update.supply(answer),
            Self::Search(search) => search.supply(answer),
        }
    }

    fn finish(self) -> Result<(TrustedSet, Option<Found>), MetadataError> {
        match self {
            Self::Update(update) => update.finish().map(|set| (set, None)),
            Self::Search(search) => search.finish(),
        }
    }

    fn into_floor(self) -> Option<TrustedSet> {
        match self {
            Self::Update(update) => update.into_floor(),
            Self::Search(search) => Some(search.into_set()),
        }
    }
}

async fn drive<S: MetadataSource + Sync>(
    source: &S,
    mut machine: Machine,
) -> Result<(TrustedSet, Option<Found>), Unfinished<RefreshError>> {
    while let Step::Want(want) = machine.next() {
        let answer = source.fetch(&want).await;
        let answer = answer.map_err(|error| RefreshError::Attempt { name: want.name.clone(), error });
        let supplied = answer.and_then(|answer| Ok(machine.supply(answer)?));
        if let Err(error) = supplied {
            return Err(Unfinished { error, floor: machine.into_floor() });
        }
    }
    machine.finish().map_err(|error| Unfinished { error: error.into(), floor: None })
}

/// Mirrors of one repository over HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Mirrors<'a> {
    /// The connection pool.
    pub client: &'a Client,
    /// Where the mirrors are.
    pub sources: &'a Sources,
    /// `/REPO` for sources with several repositories, else empty.
    pub place: &'a str,
    /// `User-Agent`.
    pub agent: &'a str,
    /// How fast bodies are read.
    pub bandwidth: Option<&'a Bandwidth>,
}

/// One refresh from the first source that can give a set we believe. What one source proved before it failed is the start
/// for the next.
pub async fn refresh(
    client: &Client,
    sources: &Sources,
    place: &str,
    agent: &str,
    start: Start,
    now: UnixSeconds,
) -> Result<TrustedSet, Unfinished<FetchError>> {
    Mirrors { client, sources, place, agent, bandwidth: None }.refresh(start, now).await
}

impl Mirrors<'_> {
    /// [`refresh`].
    ///
    /// # Errors
    /// As [`refresh`].
    pub async fn refresh(&self, start: Start, now: UnixSeconds) -> Result<TrustedSet, Unfinished<FetchError>> {
        self.run(Task::Refresh(start), &Terms::default(), now).await.map(|(set, _)| set)
    }

    /// [`search_from`] the first mirror that can give what is missing. The set that comes back, also with an error, holds
    /// every delegated role that was proven.
    pub async fn search(
        &self,
        set: TrustedSet,
        name: &TargetName,
        now: UnixSeconds,
    ) -> Result<(TrustedSet, Option<Found>), Unfinished<FetchError>> {
        self.run(Task::Search(set, name.clone()), &Terms::default(), now).await
    }

    pub(crate) async fn run(
        &self,
        mut task: Task,
        terms: &Terms<'_>,
        now: UnixSeconds,
    ) -> Result<(TrustedSet, Option<Found>), Unfinished<FetchError>> {
        let agent = HeaderValue::from_str(self.agent).unwrap_or(HeaderValue::from_static("colibri"));
        let what = "repository metadata".to_owned();
        let mut round = Round::new(self.sources, Subject { what, blob: None, encoding: None, unit: 0 });
        // Caches on the way are asked to revalidate: what is wanted is the newest.
        let mut headers = terms.headers.clone();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let (memory, urgency) = (Semaphore::new(Semaphore::MAX_PERMITS), Urgency::default());
        let (mut refused, mut floor) = (None, None);
        while let Some(source) = round.next().await {
            let pace = round.pace(&terms.patience);
            let client = self.client;
            let (urgency, agent, headers, memory) = (&urgency, &agent, &headers, &memory);
            let attempt = Attempt {
                client,
                agent,
                headers,
                source,
                pace,
                urgency,
                memory,
                witness: None,
                bandwidth: self.bandwidth,
                signed: None,
                now: Some(now),
            };
            let mirror = HttpMirror { attempt, place: self.place, hear: terms.hear };
            let unfinished = match task.attempt(&mirror, now).await {
                Ok(done) => {
                    source.succeeded();
                    source.keeps_up();
                    return Ok(done);
                }
                Err(unfinished) => unfinished,
            };
            if let Some(proven) = unfinished.floor {
                task.go_on_from(&proven);
                floor = Some(proven);
            }
            match unfinished.error {
                // Every file has a largest length, most of them a signed one.
                RefreshError::Attempt { name, error } if error.is_too_long() => {
                    round.refused(source, format!("{name} {error}"), true);
                }
                RefreshError::Attempt { name, error } => {
                    tracing::debug!(source = %source.url, file = %name, %error, "metadata could not be fetched");
                    round.failed(source, &error);
                }
                RefreshError::Refused(error) => {
                    tracing::warn!(source = %source.url, %error, "metadata refused");
                    if error.is_lagging() && !error.is_missing() {
                        source.lags(error.to_string(), now);
                    }
                    round.refused_metadata(source, &error);
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
}

/// What is to be done, and from where it can begin again at another source.
pub(crate) enum Task {
    Refresh(Start),
    /// A refresh, and so many delegated roles.
    Follow(Start, usize),
    Search(TrustedSet, TargetName),
}

impl Task {
    async fn attempt<S: MetadataSource + Sync>(
        &self,
        source: &S,
        now: UnixSeconds,
    ) -> Result<(TrustedSet, Option<Found>), Unfinished<RefreshError>> {
        match self {
            Self::Refresh(start) => drive(source, Machine::Update(Update::start(start.clone(), now))).await,
            Self::Follow(start, roles_max) => {
                let (set, _) = drive(source, Machine::Update(Update::start(start.clone(), now))).await?;
                Ok((take_roles(source, set, *roles_max, now).await?, None))
            }
            Self::Search(set, name) => {
                drive(source, Machine::Search(Search::start(set.clone(), name.clone(), now))).await
            }
        }
    }

    fn go_on_from(&mut self, proven: &TrustedSet) {
        match self {
            Self::Refresh(start) | Self::Follow(start, _) => *start = Start::FromSet(proven.clone()),
            Self::Search(set, _) => *set = proven.clone(),
        }
    }
}
