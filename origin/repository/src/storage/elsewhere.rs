//! Blobs in a folder of their own, which several repositories may use: `repository/blobs` is then a symbolic link to it, so
//! that whatever serves or reads the repository finds them where they always are.

use std::fs;
use std::path::{Path, PathBuf};

use colibri_store::{DocumentName, StoreError};

use crate::error::RepositoryError;
use crate::layout::SERVED;

/// Where blobs lie below a repository's folder, and what their documents' names begin with.
const BLOBS: &str = "repository/blobs/";

/// Keeps the blobs of the repository in `dir`, from now on, in the folder `blobs`, which is made if it is missing. Nothing
/// happens if that is so already.
///
/// # Errors
/// Blobs lie in another place already, or the system refuses.
pub fn keep_blobs_in(dir: &Path, blobs: &Path) -> Result<(), RepositoryError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| RepositoryError::read(&path, error)
    };
    fs::create_dir_all(blobs).map_err(failed(blobs))?;
    let blobs = blobs.canonicalize().map_err(failed(blobs))?;
    let refused = |reason: String| {
        Err(RepositoryError::BlobsElsewhere { repository: dir.to_owned(), path: blobs.clone(), reason })
    };
    let served = dir.join(SERVED);
    let link = served.join("blobs");
    match link.canonicalize() {
        Ok(there) if there == blobs => return Ok(()),
        Ok(there) if folder_of(dir).is_some() => {
            return refused(format!("they lie in {} already", there.display()));
        }
        Ok(_) => {
            // An empty folder is in nobody's way.
            if fs::remove_dir(&link).is_err() {
                let link = link.display();
                return refused(format!(
                    "some lie in {link} already: move them there, remove {link}, and publish again"
                ));
            }
        }
        Err(_) => fs::create_dir_all(&served).map_err(failed(&served))?,
    }
    std::os::unix::fs::symlink(&blobs, &link).map_err(failed(&link))?;
    fs::File::open(&served).and_then(|folder| folder.sync_all()).map_err(failed(&served))
}

/// Where the blobs of the repository in `dir` lie, if that is another folder.
pub(super) fn folder_of(dir: &Path) -> Option<PathBuf> {
    let link = dir.join(SERVED).join("blobs");
    let is_link = fs::symlink_metadata(&link).is_ok_and(|found| found.is_symlink());
    if is_link { link.canonicalize().ok() } else { None }
}

/// The name of a blob's document in the folder of blobs, if it is one.
pub(super) fn name_below(name: &str) -> Option<&str> {
    name.strip_prefix(BLOBS)
}

/// What blobs' names in the folder of blobs begin with, if any can be meant by a prefix.
pub(super) fn prefix_below(prefix: &str) -> Option<&str> {
    prefix.strip_prefix(BLOBS).or_else(|| BLOBS.starts_with(prefix).then_some(""))
}

/// The name of a document of the folder of blobs as the repository knows it.
pub(super) fn name_above(name: &DocumentName) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{BLOBS}{name}"))
}
