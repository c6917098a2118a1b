//! [`import`]: a release bundle fills the cache, where there is no network to fetch over.
//!
//! It goes through the running edge, not into its folder: so there is one owner of the disk tier's books, memory and
//! metadata change with the disk, and nothing has to stop. Nothing in the bundle is believed for being there: its metadata is
//! taken as from any upstream, from what is trusted and was seen here, and every byte is verified before any of it is kept.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use colibri_common::BlobId;
use colibri_fetch::read_unit;
use colibri_package::delivery::VerifiedPieces;
use colibri_release::bundle::{Bundle, BundleError, Checked};
use serde::Serialize;

use crate::cache::Cache;
use crate::limits::IMPORT_WAIT_MS_MAX;
use crate::metadata::Followed;
use crate::shapes::Opened;
use crate::unit::UnitKey;

/// How often is looked whether a unit has reached the disk.
const LOOK: Duration = Duration::from_millis(2);

/// What an import did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Imported {
    /// Product and version of the release.
    pub release: String,
    /// Version of the timestamp in the bundle.
    pub timestamp: Option<u32>,
    /// Blobs of the release, all of them verified.
    pub blobs: u64,
    /// Their delivery forms in bytes.
    pub bytes: u64,
    /// Blobs that were verified but found no place here: there is too little room, or the disk is in trouble.
    pub blobs_without_room: u64,
}

/// Why a bundle is not taken in. Nothing of it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the edge is stopping")]
    Stopping,
}

/// Takes in the bundle in a file of this machine.
pub(crate) async fn import(
    followed: &Arc<Followed>,
    cache: &Arc<Cache>,
    file: PathBuf,
) -> Result<Imported, ImportError> {
    let (start, now) = (followed.start(), followed.now());
    let checking = tokio::task::spawn_blocking(move || {
        let mut bundle = open(&file)?;
        let checked = bundle.check(start, now)?;
        let roots = bundle.roots(checked.set.root().version())?;
        Ok::<_, ImportError>((bundle, checked, roots))
    });
    let (bundle, checked, roots) = checking.await.map_err(|_| ImportError::Stopping)??;
    let Checked { set, release, blobs } = checked;
    let timestamp = set.timestamp().map(|timestamp| timestamp.version());
    // Blobs first: what the new set names is here when it is seen.
    let cache = cache.clone();
    let filling = tokio::task::spawn_blocking(move || fill(bundle, blobs.into_iter(), &cache));
    let filled = filling.await.map_err(|_| ImportError::Stopping)??;
    followed.take_imported(set, roots).await;
    Ok(Imported { release: format!("{} {}", release.product(), release.version()), timestamp, ..filled })
}

fn open(path: &Path) -> Result<Bundle<BufReader<File>>, ImportError> {
    let file = File::open(path).map_err(|error| ImportError::Read { path: path.to_owned(), error })?;
    Ok(Bundle::open(BufReader::new(file))?)
}

fn fill(
    mut bundle: Bundle<BufReader<File>>,
    blobs: impl Iterator<Item = BlobId>,
    cache: &Cache,
) -> Result<Imported, ImportError> {
    let mut done = Imported { release: String::new(), timestamp: None, blobs: 0, bytes: 0, blobs_without_room: 0 };
    for id in blobs {
        let (bytes, kept) = fill_blob(&mut bundle, id, cache)?;
        done.blobs += 1;
        done.bytes += bytes;
        done.blobs_without_room += u64::from(!kept);
    }
    Ok(done)
}

/// Brings one blob here, unit by unit; its length, and whether all of it found a place.
fn fill_blob(bundle: &mut Bundle<BufReader<File>>, id: BlobId, cache: &Cache) -> Result<(u64, bool), ImportError> {
    let wrong = |reason: String| BundleError::Blob { id, reason };
    let layout = bundle.layout(id)?;
    let mut source = bundle.blob(id)?;
    let mut skip = layout.unit_h().to_vec();
    source.read_exact(&mut skip).map_err(|error| wrong(error.to_string()))?;
    let (mut length, mut kept) = (None, true);
    for unit in 0..layout.unit_count() {
        let (range, key) = (layout.unit_range(unit), UnitKey::of(&layout, unit));
        let mut pieces = Vec::new();
        let mut sink = |verified: VerifiedPieces| {
            length = length.or(verified.length());
            pieces.push(verified.without_content());
        };
        read_unit(&layout, unit, &mut source, &mut sink).map_err(|error| wrong(error.to_string()))?;
        if !range.is_empty() && !cache.has(&key) {
            cache.take(key, pieces);
            kept &= arrives(cache, &key);
        }
    }
    let bytes = layout.encoded_length().0;
    if let Some(length) = length {
        cache.keep_shape(Opened::new(layout, length, None));
    }
    Ok((bytes, kept))
}

/// Waits until a unit is here to stay: the disk takes its time, and one import must not flood its queue.
fn arrives(cache: &Cache, key: &UnitKey) -> bool {
    let looks = IMPORT_WAIT_MS_MAX / u64::try_from(LOOK.as_millis()).unwrap_or(1);
    for _ in 0..looks {
        if cache.has(key) {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}
