//! [`Mirrors::follow`]: a refresh for who serves a repository on, as an edge does: delegated roles come along, every file that
//! arrives is shown to the caller as it came, and patience and request fields are the caller's.

use bytes::Bytes;
use colibri_api::Coding;
use colibri_common::UnixSeconds;
use colibri_metadata::{Answer, RoleName, Start, TrustedSet};
use http::HeaderMap;

use crate::error::{AttemptError, FetchError};
use crate::metadata::{MetadataSource, Mirrors, RefreshError, Task, Unfinished};
use crate::patience::Patience;

/// A metadata file as a source sent it. Nothing is known yet of whether to believe it.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its name below the repository.
    pub name: &'a str,
    /// Its bytes, decoded.
    pub bytes: &'a Bytes,
    /// The form in which it came, if that was coded.
    pub coded: Option<&'a (Coding, Bytes)>,
    /// How old the source says its answer is (`Age`), in seconds.
    pub age_s: u64,
}

/// Hears of every file that arrives.
pub type Hear<'a> = &'a (dyn Fn(Received<'_>) + Sync);

/// How metadata is asked for.
#[derive(Clone)]
pub struct Terms<'a> {
    /// How slow a source may be.
    pub patience: Patience,
    /// Fields of every request, besides those that make caches on the way revalidate.
    pub headers: HeaderMap,
    /// Hears of every file.
    pub hear: Option<Hear<'a>>,
}

impl Default for Terms<'_> {
    fn default() -> Self {
        Self { patience: Patience::default(), headers: HeaderMap::new(), hear: None }
    }
}

impl Mirrors<'_> {
    /// A refresh that takes every delegated role along if there are at most `roles_max` that are not held yet; else none.
    /// The set is whole and so are these, from one source, or the next source is asked.
    pub async fn follow(
        &self,
        start: Start,
        roles_max: usize,
        terms: &Terms<'_>,
        now: UnixSeconds,
    ) -> Result<TrustedSet, Unfinished<FetchError>> {
        self.run(Task::Follow(start, roles_max), terms, now).await.map(|(set, _)| set)
    }
}

/// Takes all delegated roles that are missing, and those that they delegate to, if there are at most `roles_max`.
pub(crate) async fn take_roles<S: MetadataSource + Sync>(
    source: &S,
    mut set: TrustedSet,
    roles_max: usize,
    now: UnixSeconds,
) -> Result<TrustedSet, Unfinished<RefreshError>> {
    let mut room = roles_max;
    loop {
        let missing = set.delegated_missing();
        if missing.is_empty() || missing.len() > room {
            return Ok(set);
        }
        room -= missing.len();
        for name in &missing {
            if let Err(error) = take_role(source, &mut set, name, now).await {
                return Err(Unfinished { error, floor: Some(set) });
            }
        }
    }
}

async fn take_role<S: MetadataSource + Sync>(
    source: &S,
    set: &mut TrustedSet,
    name: &RoleName,
    now: UnixSeconds,
) -> Result<(), RefreshError> {
    let Some(want) = set.delegated_want(name) else { return Ok(()) };
    let answer = source.fetch(&want).await;
    match answer.map_err(|error| RefreshError::Attempt { name: want.name.clone(), error })? {
        Answer::Found(bytes) => Ok(set.take_delegated(name, &bytes, now)?),
        Answer::NotFound => {
            Err(RefreshError::Attempt { name: want.name, error: AttemptError::NotFound { above_ms: None } })
        }
    }
}
