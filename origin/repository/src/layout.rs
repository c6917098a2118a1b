//! Where everything lies in a repository's folder (reference "Fuchsia formats" §5, "Layout of an on-disk repository").
//!
//! `keys/` and the lock are beside `repository/`, which any web server can serve as it is.

use colibri_common::BlobId;
use colibri_package::delivery::DeliveryType;
use colibri_store::{DocumentName, StoreError};

use crate::storage::Storage;

/// Folder of private keys below the repository's folder.
pub const KEYS: &str = "keys";

/// Folder that is served.
pub const SERVED: &str = "repository";

/// Folder of commits, below the repository's folder: `commits/N`.
pub const COMMITS: &str = "commits";

/// Folder of receipts, below the repository's folder: `receipts/N`.
pub const RECEIPTS: &str = "receipts";

/// Folder of announcements, below the repository's folder: `announced/N`.
pub const ANNOUNCED: &str = "announced";

/// Folder of pins, below the repository's folder: `pins/NAME`.
pub const PINS: &str = "pins";

/// Folder of unfinished uploads, below the repository's folder: `uploads/ID.FORM/OFFSET`.
pub const UPLOADS: &str = "uploads";

/// Folder of metadata without numbered names (repositories without consistent snapshots), by the SHA-256 of each file.
pub const STAGED: &str = "staged";

/// Folder of the audit log, below the repository's folder: `audit/N`, where N is the number of the first line.
pub const AUDIT: &str = "audit";

/// How what is signed here lives, below the repository's folder.
pub const SETTINGS: &str = "settings.json";

/// The publish lock, below the repository's folder.
pub const LOCK: &str = ".repository.lock";

fn served(below: &str) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{SERVED}/{below}"))
}

/// A metadata file by its unnumbered name, such as `targets.json`.
pub(crate) fn metadata(file: &str) -> Result<DocumentName, StoreError> {
    served(file)
}

/// The numbered form of a metadata file.
pub(crate) fn numbered_metadata(file: &str, version: u32) -> Result<DocumentName, StoreError> {
    served(&format!("{version}.{file}"))
}

/// A commit.
pub(crate) fn commit(number: u64) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{COMMITS}/{number}"))
}

/// A segment of receipts.
pub(crate) fn receipts(number: u64) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{RECEIPTS}/{number}"))
}

/// What a publish at work depends on.
pub(crate) fn announced(number: u64) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{ANNOUNCED}/{number}"))
}

/// The numbers under which a folder has documents, growing. A name that is a number in another form, such as `07`, is somebody
/// else's: nothing of ours would be found under it.
pub(crate) fn numbers(storage: &dyn Storage, folder: &str) -> Result<Vec<u64>, StoreError> {
    let prefix = format!("{folder}/");
    let number = |name: &DocumentName| {
        let text = name.as_str().strip_prefix(&prefix)?;
        text.parse::<u64>().ok().filter(|number| number.to_string() == text)
    };
    let mut numbers: Vec<u64> = storage.list(&prefix)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A pin.
pub(crate) fn pin(name: &str) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{PINS}/{name}"))
}

/// Metadata that has no numbered name.
pub(crate) fn staged(sha256: &str) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{STAGED}/{sha256}"))
}

/// A delivery blob.
pub(crate) fn blob(ty: DeliveryType, id: BlobId) -> Result<DocumentName, StoreError> {
    served(&format!("blobs/{ty}/{id}"))
}

/// A blob's leaf list in wire form.
pub(crate) fn leaves(id: BlobId) -> Result<DocumentName, StoreError> {
    served(&format!("blobs/leaves/{id}"))
}

/// A TUF target as clients look for it: its hash before the last part of its name. `folder` is the rest of the name, perhaps
/// nothing.
pub(crate) fn target(folder: &str, sha512: &str, file: &str) -> Result<DocumentName, StoreError> {
    match folder {
        "" => served(&format!("targets/{sha512}.{file}")),
        folder => served(&format!("targets/{folder}/{sha512}.{file}")),
    }
}

/// The part of the audit log that begins with this line.
pub(crate) fn audit(first_line: u64) -> Result<DocumentName, StoreError> {
    DocumentName::new(&format!("{AUDIT}/{first_line:012}"))
}
