//! All delegated roles of a served repository, for who passes it on as it is or takes it back: many small files, several at a
//! time, verified as a whole. Deliberately absent: which of them a single target needs (that is a search).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use colibri_common::UnixSeconds;
use colibri_metadata::{FileMeta, Role, RoleName, TrustedSet};
use tokio::task::JoinSet;

use crate::blob::BlobFetcher;
use crate::document::Unverified;
use crate::error::FetchError;
use crate::limits::{DELEGATED_BYTES_MAX, ROLES_AT_ONCE};

/// How often sources are asked in vain for what is known anyhow: an edge whose origin is away answers each time late.
const ASKED_IN_VAIN_MAX: u32 = 4;

/// Files of delegated roles that the caller has.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Gives one by the name under which it is served.
    pub file: &'a (dyn Fn(&str) -> Option<Bytes> + Sync),
    /// Whether it is asked before the sources: where a number stands for one file. Else after them, if they have none; and
    /// before, once they have been asked in vain a few times.
    pub first: bool,
}

impl Known<'_> {
    fn give(self, file: &str, meta: &FileMeta) -> Option<Bytes> {
        (self.file)(file).filter(|bytes| is(bytes, meta).is_ok())
    }
}

impl BlobFetcher {
    /// The set with every delegated role that its snapshot lists and somebody delegates to, each verified at `now`; and their
    /// files by the names under which they are served.
    ///
    /// # Errors
    /// A role cannot be had, or must be refused.
    pub async fn delegated(
        &self,
        set: TrustedSet,
        now: UnixSeconds,
        known: Known<'_>,
    ) -> Result<(TrustedSet, BTreeMap<String, Bytes>), FetchError> {
        let listed = set.listed_roles().map(|(role, meta)| (set.file_of(&role, meta.version), role, meta.clone()));
        let mut queue = listed.collect::<Vec<_>>().into_iter();
        let (mut files, mut by_role, mut bytes_all) = (BTreeMap::new(), BTreeMap::new(), 0_u64);
        let (mut tasks, mut in_vain) = (JoinSet::new(), 0);
        loop {
            while tasks.len() < ROLES_AT_ONCE
                && let Some((file, role, meta)) = queue.next()
            {
                let ask_first = !known.first && in_vain < ASKED_IN_VAIN_MAX;
                let here = if ask_first { None } else { known.give(&file, &meta) };
                let fetcher = self.clone();
                tasks.spawn(async move {
                    let fetched = match here {
                        Some(bytes) => Ok(bytes),
                        None => fetcher.role_file(&file, &meta).await,
                    };
                    (file, role, meta, fetched)
                });
            }
            let Some(joined) = tasks.join_next().await else { break };
            let (file, role, meta, fetched) = joined.map_err(|error| FetchError::Local(error.to_string()))?;
            let bytes = match fetched {
                Ok(bytes) => bytes,
                Err(error) => match (known.give(&file, &meta), error) {
                    (Some(bytes), _) => {
                        in_vain += 1;
                        bytes
                    }
                    // It may be one that nobody delegates to.
                    (None, FetchError::NotFound { .. }) => continue,
                    (None, error) => return Err(error),
                },
            };
            bytes_all += bytes.len() as u64;
            if bytes_all > DELEGATED_BYTES_MAX {
                return Err(FetchError::Local(format!("the delegated roles have over {DELEGATED_BYTES_MAX} bytes")));
            }
            files.insert(file, bytes.clone());
            by_role.insert(role, bytes);
        }
        let read = |role: &RoleName, _: &FileMeta| by_role.get(role).cloned();
        let refused = |error| FetchError::Metadata { source_name: self.sources().names(), error: Arc::new(error) };
        Ok((set.with_delegated(read, now).map_err(refused)?, files))
    }

    async fn role_file(&self, file: &str, meta: &FileMeta) -> Result<Bytes, FetchError> {
        let bytes_max = meta.length.unwrap_or(u64::MAX).min(Role::Targets.bytes_max());
        let path = format!("/{file}");
        match self.document_checked(&path, bytes_max, None, &|bytes| is(bytes, meta)).await? {
            Unverified::Document { bytes, .. } => Ok(bytes),
            // Nobody asked for a condition.
            Unverified::NotModified => Err(FetchError::NotFound { what: path, asked: self.sources().names() }),
        }
    }
}

/// Whether these may be the bytes that a snapshot lists, as far as it says.
fn is(bytes: &[u8], meta: &FileMeta) -> Result<(), String> {
    if meta.length.is_some_and(|length| length != bytes.len() as u64) {
        return Err("it has another length than the snapshot lists".to_owned());
    }
    let checked = meta.hashes.as_ref().map_or(Ok(()), |hashes| hashes.check(bytes));
    checked.map_err(|algorithm| format!("its {algorithm} hash is not the one that the snapshot lists"))
}
