//! [`Images`]: where the images of the two systems, of recovery and of firmware lie: files, or block devices.
//!
//! An image is the first bytes of its place. It is written where it lies, because a block device knows nothing else: the
//! caller marks the slot unbootable before. What was written is synced, then read back from the disk and hashed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use colibri_common::{Digest, Sha256Stream, hex};
use colibri_release::update_package::PartitionKind;
use colibri_store::{Disk, DiskFile, OpenMode};

use super::UpdateError;
use super::boot::Slot;
use crate::limits::IMAGE_PIECE_BYTES;

/// Where an image goes, on this device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImagePlace {
    /// A partition of a slot.
    Slot(Slot, PartitionKind),
    /// A partition of recovery.
    Recovery(PartitionKind),
    /// Firmware that starts a slot.
    Firmware(Slot, String),
}

impl ImagePlace {
    /// Its name in a configuration, and the file's name where nothing else is configured: `a.zbi`, `recovery.vbmeta`,
    /// `b.firmware`, `b.firmware-TYPE`. Nothing for firmware whose type is not letters, digits, `_` and `-`.
    pub fn name(&self) -> Option<String> {
        let kind = |kind: PartitionKind| match kind {
            PartitionKind::Zbi => "zbi",
            PartitionKind::Vbmeta => "vbmeta",
        };
        Some(match self {
            Self::Slot(slot, partition) => format!("{}.{}", slot.name(), kind(*partition)),
            Self::Recovery(partition) => format!("recovery.{}", kind(*partition)),
            Self::Firmware(slot, ty) if ty.is_empty() => format!("{}.firmware", slot.name()),
            Self::Firmware(slot, ty) => {
                let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                if ty.len() > 64 || !ty.bytes().all(is_plain) {
                    return None;
                }
                format!("{}.firmware-{ty}", slot.name())
            }
        })
    }
}

/// The images of a device.
#[derive(Debug, Clone)]
pub struct Images {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// Places elsewhere, by name.
    elsewhere: BTreeMap<String, PathBuf>,
}

/// An image in pieces.
pub type Pieces<'a> = dyn FnMut(u64) -> Result<Vec<u8>, UpdateError> + 'a;

impl Images {
    /// Images in `dir`, which must exist, but for those that lie `elsewhere` by name, as on block devices.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, elsewhere: BTreeMap<String, PathBuf>) -> Self {
        Self { disk, dir: dir.to_owned(), elsewhere }
    }

    fn path(&self, place: &ImagePlace) -> Result<PathBuf, UpdateError> {
        let name = place.name().ok_or_else(|| UpdateError::ImagePlace(format!("{place:?}")))?;
        Ok(self.elsewhere.get(&name).cloned().unwrap_or_else(|| self.dir.join(name)))
    }

    /// Whether this image is there already.
    ///
    /// # Errors
    /// The disk fails.
    pub fn holds(&self, place: &ImagePlace, bytes: u64, sha256: &Digest) -> Result<bool, UpdateError> {
        let path = self.path(place)?;
        let failed = |source| UpdateError::Image { path: path.clone(), source };
        match self.disk.open(&path, OpenMode::Read) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            opened => Self::has(opened.map_err(failed)?.as_ref(), bytes, sha256).map_err(failed),
        }
    }

    fn has(file: &dyn DiskFile, bytes: u64, sha256: &Digest) -> std::io::Result<bool> {
        if file.length()? < bytes {
            return Ok(false);
        }
        let mut hash = Sha256Stream::new();
        let mut buffer = vec![0; IMAGE_PIECE_BYTES as usize];
        let mut at = 0;
        while at < bytes {
            let piece = &mut buffer[..(bytes - at).min(IMAGE_PIECE_BYTES) as usize];
            file.read_exact_at(at, piece)?;
            hash.update(piece);
            at += piece.len() as u64;
        }
        Ok(hash.finish() == *sha256)
    }

    /// Writes an image of `bytes` bytes, whose pieces `next` gives by their offset (an empty one is an early end), and proves
    /// what lies there afterwards.
    ///
    /// # Errors
    /// The image is another one, too short or too long, or the disk fails. What lies there is then of no use.
    pub fn write(
        &self,
        place: &ImagePlace,
        bytes: u64,
        sha256: &Digest,
        next: &mut Pieces<'_>,
    ) -> Result<(), UpdateError> {
        let path = self.path(place)?;
        let failed = |source| UpdateError::Image { path: path.clone(), source };
        let file = self.disk.open(&path, OpenMode::Create).map_err(failed)?;
        let mut at = 0;
        while at < bytes {
            let piece = next(at)?;
            let room = bytes - at;
            if piece.is_empty() || piece.len() as u64 > room {
                return Err(UpdateError::WrongImage { path, expected: hex(sha256) });
            }
            file.write_at(at, &piece).map_err(failed)?;
            at += piece.len() as u64;
        }
        file.sync().map_err(failed)?;
        self.disk.sync_dir(path.parent().unwrap_or(&self.dir)).map_err(failed)?;
        // A hint where the file system takes none: what is read is checked in any case.
        _ = file.forget_cached();
        match Self::has(file.as_ref(), bytes, sha256) {
            Ok(true) => Ok(()),
            Ok(false) => Err(UpdateError::WrongImage { path, expected: hex(sha256) }),
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::sha256;
    use colibri_store::OsDisk;

    use super::*;

    fn place() -> ImagePlace {
        ImagePlace::Slot(Slot::B, PartitionKind::Zbi)
    }

    fn write(images: &Images, content: &[u8], sha256: &Digest) -> Result<(), UpdateError> {
        let mut next = |at: u64| {
            let rest = &content[(at as usize).min(content.len())..];
            Ok(rest[..rest.len().min(1000)].to_vec())
        };
        images.write(&place(), 5000, sha256, &mut next)
    }

    #[test]
    fn an_image_is_the_first_bytes_of_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("partition");
        std::fs::write(&elsewhere, [7; 9000]).unwrap();
        let content: Vec<u8> = (0..5000_u32).map(|byte| (byte % 251) as u8).collect();
        let hash = sha256(&content);
        for elsewhere in [BTreeMap::new(), BTreeMap::from([("b.zbi".to_owned(), elsewhere)])] {
            let images = Images::new(Arc::new(OsDisk), dir.path(), elsewhere);
            assert!(!images.holds(&place(), 5000, &hash).unwrap());
            write(&images, &content, &hash).unwrap();
            assert!(images.holds(&place(), 5000, &hash).unwrap());
            assert!(!images.holds(&place(), 4999, &hash).unwrap());
        }
        assert_eq!(std::fs::metadata(dir.path().join("partition")).unwrap().len(), 9000);
    }

    #[test]
    fn another_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::new(Arc::new(OsDisk), dir.path(), BTreeMap::new());
        let content = [1; 5000];
        assert!(matches!(write(&images, &content, &[0; 32]), Err(UpdateError::WrongImage { .. })));
        assert!(matches!(write(&images, &content[..4000], &sha256(&content)), Err(UpdateError::WrongImage { .. })));
        assert!(write(&images, &content, &sha256(&content)).is_ok());
    }

    #[test]
    fn firmware_gets_no_path_out_of_its_folder() {
        let name = |ty: &str| ImagePlace::Firmware(Slot::A, ty.to_owned()).name();
        assert_eq!((name("").as_deref(), name("bl2").as_deref()), (Some("a.firmware"), Some("a.firmware-bl2")));
        for bad in ["../x", "a/b", ".", "a b", &"x".repeat(65)] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }
}
