//! The publish lock: one program changes a repository at a time (reference "Fuchsia formats" §5).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use colibri_store::disk::{Disk, DiskFile, Lock, OpenMode};

use crate::error::RepositoryError;
use crate::limits;

/// Between two tries: at first often, since most changes are short.
const POLL_FIRST: Duration = Duration::from_millis(1);
const POLL_LAST: Duration = Duration::from_millis(50);

/// Held while a repository changes; given back when dropped, also when the process dies.
#[derive(Debug)]
pub(crate) struct PublishLock {
    file: Option<Arc<dyn DiskFile>>,
}

impl PublishLock {
    /// For a place without locks: excludes nobody.
    #[cfg(test)]
    pub const fn none() -> Self {
        Self { file: None }
    }

    /// Whether others are kept from changing the repository.
    pub const fn excludes(&self) -> bool {
        self.file.is_some()
    }

    /// Waits for the lock, and says so once it takes long.
    pub fn take(disk: &dyn Disk, path: &Path) -> Result<Self, RepositoryError> {
        Self::take_within(disk, path, Duration::from_secs(limits::LOCK_WAIT_S))
    }

    pub fn take_within(disk: &dyn Disk, path: &Path, wait: Duration) -> Result<Self, RepositoryError> {
        let failed = |e| RepositoryError::read(path, e);
        let file = disk.open(path, OpenMode::Create).map_err(failed)?;
        let began = Instant::now();
        let mut said = false;
        let mut poll = POLL_FIRST;
        while !file.try_lock(Lock::Exclusive).map_err(failed)? {
            let waited = began.elapsed();
            if waited >= wait {
                return Err(RepositoryError::Locked { path: path.to_owned(), waited_s: waited.as_secs() });
            }
            if !said && waited >= Duration::from_secs(limits::LOCK_NOTICE_S) {
                said = true;
                tracing::warn!(lock = %path.display(), waited_s = waited.as_secs(), "waiting for another publish");
            }
            std::thread::sleep(poll.min(wait));
            poll = (2 * poll).min(POLL_LAST);
        }
        Ok(Self { file: Some(file) })
    }
}

impl Drop for PublishLock {
    fn drop(&mut self) {
        // Closing gives it back too, but not before a child process, of another thread and just being born, has closed its copy.
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.unlock()) {
            tracing::debug!(%error, "the publish lock goes when its file is closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use colibri_store::OsDisk;

    use super::*;

    #[test]
    fn the_second_waits_and_then_says_who_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".repository.lock");
        let first = PublishLock::take(&OsDisk, &path).unwrap();
        let error = PublishLock::take_within(&OsDisk, &path, Duration::from_millis(1)).unwrap_err();
        assert!(error.to_string().contains(".repository.lock"), "{error}");
        drop(first);
        PublishLock::take_within(&OsDisk, &path, Duration::ZERO).unwrap();
    }
}
