//! [`UpdatePackage`]: what a system update consists of, read from the files of a package named `update`
//! (reference "Fuchsia device and update" §10.1), and whether a device may take it.
//!
//! Deliberately absent: files (the caller gives a reader), fetching, writing images.

use std::fmt;

use bytes::Bytes;
use colibri_common::{DIGEST_BYTES, Digest, unhex};
use colibri_package::url::{AbsoluteComponentUrl, AbsolutePackageUrl, PinnedPackageUrl};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::limits;
use crate::update_images::check_images;
pub use crate::update_images::{ImageSlot, ImageTarget, ImagesError, PartitionKind};
use crate::version::ProductVersion;

/// Version of the form of each JSON file.
const VERSION: &str = "1";

/// A system update, read and checked against itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatePackage {
    /// The packages of the new system.
    pub packages: Vec<PinnedPackageUrl>,
    /// Images for the slots.
    pub images: Vec<UpdateImage>,
    /// Systems of a higher epoch do not take it.
    pub epoch: u64,
    /// The board that it is for; nothing if it does not say.
    pub board: Option<String>,
    /// What it does.
    pub mode: UpdateMode,
    /// Version of the new system, for people.
    pub version: String,
}

/// What an update does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateMode {
    /// Writes the other slot and makes it the next.
    #[default]
    Normal,
    /// Writes recovery and starts that; no packages.
    ForceRecovery,
}

/// An image of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateImage {
    /// Where it goes.
    pub target: ImageTarget,
    /// Length in bytes.
    pub bytes: u64,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// The package that holds it.
    pub package: PinnedPackageUrl,
    /// The file in that package.
    pub path: String,
}

/// The device that shall take an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateTarget {
    /// Its board.
    pub board: String,
    /// Epoch of the running system.
    pub epoch: u64,
    /// Whether recovery may be written by an update.
    pub writes_recovery: bool,
}

/// Why a package is no update.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdatePackageError {
    /// A file that must be there.
    #[error("the update package has no {0}")]
    Missing(&'static str),
    /// A file that is not in its form.
    #[error("{file} of the update package: {reason}")]
    Malformed {
        /// Which.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file of a form that is not known.
    #[error("{file} of the update package has version {found:?}; this program reads version 1")]
    Version {
        /// Which.
        file: &'static str,
        /// The version that it says.
        found: String,
    },
    /// More than a limit.
    #[error("{file} of the update package has more than {limit} {what}")]
    TooMany {
        /// Which.
        file: &'static str,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Images that contradict each other or the mode.
    #[error("images.json of the update package: {0}")]
    Images(#[from] ImagesError),
}

/// Why a device does not take an update.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateRefused {
    /// It is for another board.
    #[error("the update is for board {found:?}; this is {board:?}")]
    Board {
        /// The board that it names.
        found: String,
        /// This one.
        board: String,
    },
    /// RFC-0071.
    #[error("the update has epoch {found}, below this system's {epoch}: it could not run on this device any more")]
    Epoch {
        /// Its epoch.
        found: u64,
        /// The running system's.
        epoch: u64,
    },
    /// Recovery stays as it is on this device.
    #[error("the update would write recovery, which this device does not allow")]
    Recovery,
    /// A signed manifest says nothing of when it was signed: an old one could be offered for ever.
    #[error("the update has version {found}, older than the running system's {running}")]
    Older {
        /// Its version.
        found: ProductVersion,
        /// The running system's.
        running: ProductVersion,
    },
}

impl UpdatePackage {
    /// Reads the update from the files that `file` gives by their path in the package, nothing where there is none.
    ///
    /// # Errors
    /// Which file is at fault, and why.
    pub fn read<E: From<UpdatePackageError>>(
        mut file: impl FnMut(&'static str) -> Result<Option<Bytes>, E>,
    ) -> Result<Self, E> {
        let mut required = |name: &'static str| file(name)?.ok_or_else(|| E::from(UpdatePackageError::Missing(name)));
        let packages = packages(&required("packages.json")?)?;
        let images = images(&required("images.json")?)?;
        let version = line("version", &required("version")?)?.unwrap_or_default();
        let board = file("board")?.map(|text| line("board", &text)).transpose()?.flatten();
        let epoch = file("epoch.json")?.map(|json| epoch(&json)).transpose()?.unwrap_or_default();
        let mode = file("update-mode")?.map(|json| mode(&json)).transpose()?.unwrap_or_default();
        let update = Self { packages, images, epoch, board, mode, version };
        check_images(update.mode, update.images.iter().map(|image| &image.target)).map_err(UpdatePackageError::from)?;
        Ok(update)
    }

    /// Whether `target` may take it.
    ///
    /// # Errors
    /// Why not.
    pub fn check_for(&self, target: &UpdateTarget) -> Result<(), UpdateRefused> {
        if let Some(board) = &self.board {
            target.check_board(board)?;
        }
        target.check(self.epoch, self.mode)
    }
}

impl UpdateTarget {
    pub(crate) fn check_board(&self, found: &str) -> Result<(), UpdateRefused> {
        if found == self.board {
            return Ok(());
        }
        Err(UpdateRefused::Board { found: found.to_owned(), board: self.board.clone() })
    }

    pub(crate) const fn check(&self, epoch: u64, mode: UpdateMode) -> Result<(), UpdateRefused> {
        if epoch < self.epoch {
            return Err(UpdateRefused::Epoch { found: epoch, epoch: self.epoch });
        }
        match mode {
            UpdateMode::ForceRecovery if !self.writes_recovery => Err(UpdateRefused::Recovery),
            _ => Ok(()),
        }
    }
}

fn malformed(file: &'static str, reason: impl fmt::Display) -> UpdatePackageError {
    UpdatePackageError::Malformed { file, reason: reason.to_string() }
}

/// A JSON file whose `version` is looked at before the rest.
fn versioned<T: DeserializeOwned>(file: &'static str, json: &[u8]) -> Result<T, UpdatePackageError> {
    #[derive(Deserialize)]
    struct Head {
        version: String,
    }
    if json.len() as u64 > limits::UPDATE_FILE_BYTES_MAX {
        return Err(UpdatePackageError::TooMany { file, what: "bytes", limit: limits::UPDATE_FILE_BYTES_MAX });
    }
    let head: Head = serde_json::from_slice(json).map_err(|error| malformed(file, error))?;
    if head.version != VERSION {
        return Err(UpdatePackageError::Version { file, found: head.version });
    }
    serde_json::from_slice(json).map_err(|error| malformed(file, error))
}

fn packages(json: &[u8]) -> Result<Vec<PinnedPackageUrl>, UpdatePackageError> {
    const FILE: &str = "packages.json";
    #[derive(Deserialize)]
    struct Packages {
        content: Vec<String>,
    }
    let Packages { content } = versioned(FILE, json)?;
    if content.len() as u64 > limits::PACKAGES_MAX {
        return Err(UpdatePackageError::TooMany { file: FILE, what: "packages", limit: limits::PACKAGES_MAX });
    }
    content.iter().map(|url| url.parse().map_err(|error| malformed(FILE, format_args!("{url}: {error}")))).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionImage {
    slot: ImageSlot,
    #[serde(rename = "type")]
    kind: PartitionKind,
    size: u64,
    hash: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirmwareImage {
    #[serde(rename = "type")]
    kind: String,
    size: u64,
    hash: String,
    url: String,
}

fn images(json: &[u8]) -> Result<Vec<UpdateImage>, UpdatePackageError> {
    const FILE: &str = "images.json";
    #[derive(Deserialize)]
    struct Images {
        contents: Contents,
    }
    #[derive(Deserialize)]
    struct Contents {
        #[serde(default)]
        partitions: Vec<PartitionImage>,
        #[serde(default)]
        firmware: Vec<FirmwareImage>,
    }
    let Images { contents: Contents { partitions, firmware } } = versioned(FILE, json)?;
    if (partitions.len() + firmware.len()) as u64 > limits::UPDATE_IMAGES_MAX {
        return Err(UpdatePackageError::TooMany { file: FILE, what: "images", limit: limits::UPDATE_IMAGES_MAX });
    }
    let partitions = partitions
        .into_iter()
        .map(|PartitionImage { slot, kind, size, hash, url }| (ImageTarget::Partition { slot, kind }, size, hash, url));
    let firmware = firmware
        .into_iter()
        .map(|FirmwareImage { kind, size, hash, url }| (ImageTarget::Firmware(kind), size, hash, url));
    partitions.chain(firmware).map(|(target, bytes, hash, url)| image(target, bytes, &hash, &url)).collect()
}

fn image(target: ImageTarget, bytes: u64, hash: &str, url: &str) -> Result<UpdateImage, UpdatePackageError> {
    let bad = |reason: String| malformed("images.json", format_args!("{target}: {reason}"));
    let sha256 = unhex(hash).and_then(|hash| <[u8; DIGEST_BYTES]>::try_from(hash).ok());
    let sha256 = sha256.ok_or_else(|| bad(format!("{hash:?} is not a SHA-256")))?;
    let component: AbsoluteComponentUrl = url.parse().map_err(|error| bad(format!("{url}: {error}")))?;
    let AbsolutePackageUrl::Pinned(package) = component.package() else {
        return Err(bad(format!("{url} has no hash")));
    };
    let (package, path) = (package.clone(), component.resource().as_str().to_owned());
    Ok(UpdateImage { target, bytes, sha256, package, path })
}

fn epoch(json: &[u8]) -> Result<u64, UpdatePackageError> {
    #[derive(Deserialize)]
    struct Epoch {
        epoch: u64,
    }
    versioned("epoch.json", json).map(|Epoch { epoch }| epoch)
}

fn mode(json: &[u8]) -> Result<UpdateMode, UpdatePackageError> {
    #[derive(Deserialize)]
    struct File {
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        mode: UpdateMode,
    }
    versioned("update-mode", json).map(|File { content: Content { mode } }| mode)
}

/// The one line of a text file; nothing if it is empty.
fn line(file: &'static str, text: &[u8]) -> Result<Option<String>, UpdatePackageError> {
    let text = std::str::from_utf8(text).map_err(|error| malformed(file, error))?.trim();
    if text.len() as u64 > limits::UPDATE_LINE_BYTES_MAX {
        return Err(UpdatePackageError::TooMany { file, what: "bytes", limit: limits::UPDATE_LINE_BYTES_MAX });
    }
    if text.chars().any(char::is_control) {
        return Err(malformed(file, "more than one line"));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn image(slot: &str, kind: &str) -> Value {
        json!({"slot": slot, "type": kind, "size": 9, "hash": HASH, "url": url(&format!("#{kind}"))})
    }

    fn url(end: &str) -> String {
        format!("fuchsia-pkg://fuchsia.com/update-images/0?hash={HASH}{end}")
    }

    fn files() -> BTreeMap<&'static str, Value> {
        let images = json!({"version": "1", "contents": {
            "partitions": [image("fuchsia", "zbi"), image("fuchsia", "vbmeta"), image("recovery", "zbi")],
            "firmware": [{"type": "", "size": 3, "hash": HASH, "url": url("#firmware")}],
        }});
        BTreeMap::from([
            ("packages.json", json!({"version": "1", "content": [url("")]})),
            ("images.json", images),
            ("version", json!("1.2.3\n")),
            ("board", json!("toucan")),
            ("epoch.json", json!({"version": "1", "epoch": 3})),
        ])
    }

    fn read(files: &BTreeMap<&'static str, Value>) -> Result<UpdatePackage, UpdatePackageError> {
        UpdatePackage::read(|name| {
            Ok(files.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned).into()))
        })
    }

    fn refused(change: impl FnOnce(&mut BTreeMap<&'static str, Value>)) -> UpdatePackageError {
        let mut files = files();
        change(&mut files);
        read(&files).unwrap_err()
    }

    #[test]
    fn an_update_says_what_it_brings() {
        let update = read(&files()).unwrap();
        assert_eq!((update.packages.len(), update.images.len(), update.epoch), (1, 4, 3));
        assert_eq!(
            (update.mode, update.version.as_str(), update.board.as_deref()),
            (UpdateMode::Normal, "1.2.3", Some("toucan"))
        );
        assert_eq!((update.images[0].path.as_str(), update.images[0].bytes), ("zbi", 9));
        let mut bare = files();
        bare.remove("board");
        bare.remove("epoch.json");
        assert_eq!(read(&bare).map(|update| (update.board, update.epoch)), Ok((None, 0)));
    }

    #[test]
    fn a_device_takes_only_what_is_meant_for_it() {
        let mut update = read(&files()).unwrap();
        let target = UpdateTarget { board: "toucan".to_owned(), epoch: 3, writes_recovery: false };
        assert_eq!(update.check_for(&target), Ok(()));
        let other = UpdateTarget { board: "heron".to_owned(), ..target.clone() };
        assert!(matches!(update.check_for(&other), Err(UpdateRefused::Board { .. })));
        let newer = UpdateTarget { epoch: 4, ..target.clone() };
        assert_eq!(update.check_for(&newer), Err(UpdateRefused::Epoch { found: 3, epoch: 4 }));
        update.mode = UpdateMode::ForceRecovery;
        assert_eq!(update.check_for(&target), Err(UpdateRefused::Recovery));
        assert_eq!(update.check_for(&UpdateTarget { writes_recovery: true, ..target }), Ok(()));
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        for name in ["packages.json", "images.json", "version"] {
            let missing = refused(|files| drop(files.remove(name)));
            assert_eq!(missing, UpdatePackageError::Missing(name));
        }
        let version = refused(|files| files.get_mut("packages.json").unwrap()["version"] = json!("2"));
        assert_eq!(version, UpdatePackageError::Version { file: "packages.json", found: "2".to_owned() });
        let unpinned = json!({"version": "1", "content": ["fuchsia-pkg://fuchsia.com/a/0"]});
        let unpinned = refused(|files| drop(files.insert("packages.json", unpinned)));
        assert!(matches!(unpinned, UpdatePackageError::Malformed { file: "packages.json", .. }));
        let partitions =
            |list: Value| refused(|files| files.get_mut("images.json").unwrap()["contents"]["partitions"] = list);
        let zbi = || image("fuchsia", "zbi");
        assert!(matches!(partitions(json!([zbi(), zbi()])), UpdatePackageError::Images(ImagesError::Duplicate(_))));
        let alone = json!([zbi(), image("recovery", "vbmeta")]);
        assert_eq!(partitions(alone), UpdatePackageError::Images(ImagesError::VbmetaAlone(ImageSlot::Recovery)));
        assert_eq!(partitions(json!([])), UpdatePackageError::Images(ImagesError::NoSystem));
        for (field, bad) in [("hash", "12"), ("slot", "c"), ("url", "fuchsia-pkg://fuchsia.com/a#zbi")] {
            let mut image = zbi();
            image[field] = json!(bad);
            assert!(matches!(partitions(json!([image])), UpdatePackageError::Malformed { .. }), "{field}");
        }
        let recovery = json!({"version": "1", "content": {"mode": "force-recovery"}});
        let both = refused(|files| drop(files.insert("update-mode", recovery)));
        assert_eq!(both, UpdatePackageError::Images(ImagesError::SystemInRecovery));
        assert!(matches!(
            refused(|files| drop(files.insert("board", json!("a\nb")))),
            UpdatePackageError::Malformed { .. }
        ));
    }
}
