//! [`OtaManifest`]: a system update as a signed list of blobs instead of packages (RFC-0284; reference "Fuchsia device and
//! update" §10.4).
//!
//! The signatures are looked at before the manifest is decoded, so that only what a trusted key signed is ever read.
//! Deliberately absent: fetching, and writing the form (a publisher of it is not built yet).

use bytes::Bytes;
use colibri_common::{BlobId, Digest};
use colibri_metadata::PublicKey;
use prost::Message;

use crate::limits;
use crate::update_images::{ImageSlot, ImageTarget, ImagesError, PartitionKind, check_images};
use crate::update_package::{UpdateMode, UpdateRefused, UpdateTarget};
use crate::version::ProductVersion;

const MAGIC: [u8; 4] = [0xfc, 0x1a, 0x07, 0xaf];
const VERSION: u32 = 1;

/// A system update as a list of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtaManifest {
    /// Version of the new system, for people.
    pub version: String,
    /// The board that it is for.
    pub board: String,
    /// Systems of a higher epoch do not take it.
    pub epoch: u64,
    /// What it does.
    pub mode: UpdateMode,
    /// Where its blobs are, with the delivery type; relative to the manifest's own URL, or absolute.
    pub blob_base_url: String,
    /// Images for the slots.
    pub images: Vec<OtaImage>,
    /// Blobs of the new system.
    pub blobs: Vec<OtaBlob>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtaImage {
    /// Where it goes.
    pub target: ImageTarget,
    /// SHA-256 of the image.
    pub sha256: Digest,
    /// The blob that it is.
    pub blob: OtaBlob,
}

/// A blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtaBlob {
    /// Its id.
    pub id: BlobId,
    /// Length of its content in bytes.
    pub bytes: u64,
}

/// Why a file is no manifest that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OtaManifestError {
    /// Cut short, too long, or of another form.
    #[error("signed manifest of the update: {0}")]
    Malformed(String),
    /// A form that is not known.
    #[error("the signed manifest of the update has version {0}; this program reads version {VERSION}")]
    Version(u32),
    /// Nobody who is trusted signed it.
    #[error("no trusted key signed this manifest of an update")]
    Untrusted,
    /// Images that contradict each other or the mode.
    #[error("signed manifest of the update: {0}")]
    Images(#[from] ImagesError),
}

impl OtaManifest {
    /// The manifest in `file`, if one of `keys` signed it.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn open(file: &Bytes, keys: &[PublicKey]) -> Result<Self, OtaManifestError> {
        let mut rest = file.clone();
        let malformed = |reason: &str| OtaManifestError::Malformed(reason.to_owned());
        if take(&mut rest, 4)?[..] != MAGIC {
            return Err(malformed("it does not begin like one"));
        }
        let version = number(&mut rest)?;
        if version != VERSION {
            return Err(OtaManifestError::Version(version));
        }
        let manifest = part(&mut rest, "manifest", limits::OTA_MANIFEST_BYTES_MAX)?;
        let signed = file.slice(..file.len() - rest.len());
        let signatures = part(&mut rest, "signatures", limits::OTA_SIGNATURES_BYTES_MAX)?;
        if !rest.is_empty() {
            return Err(malformed("something follows the signatures"));
        }
        let wire::Signatures { signatures } = decode(signatures)?;
        if signatures.len() as u64 > limits::OTA_SIGNATURES_MAX {
            return Err(malformed("too many signatures"));
        }
        if !signatures.iter().any(|signature| keys.iter().any(|key| key.verifies(&signed, signature))) {
            return Err(OtaManifestError::Untrusted);
        }
        let manifest = decode::<wire::OtaManifest>(manifest)?.read()?;
        check_images(manifest.mode, manifest.images.iter().map(|image| &image.target))?;
        Ok(manifest)
    }

    /// Whether `target` may take it. `not_below` is the version of the running system where that counts: other than with
    /// metadata of a repository, nothing else tells an old manifest from a new one. A version that is no [`ProductVersion`]
    /// is not compared.
    ///
    /// # Errors
    /// Why not.
    pub fn check_for(&self, target: &UpdateTarget, not_below: Option<ProductVersion>) -> Result<(), UpdateRefused> {
        target.check_board(&self.board)?;
        target.check(self.epoch, self.mode)?;
        match (self.version.parse::<ProductVersion>(), not_below) {
            (Ok(found), Some(running)) if found < running => Err(UpdateRefused::Older { found, running }),
            _ => Ok(()),
        }
    }
}

fn take(rest: &mut Bytes, bytes: usize) -> Result<Bytes, OtaManifestError> {
    if rest.len() < bytes {
        return Err(OtaManifestError::Malformed("it is cut short".to_owned()));
    }
    Ok(rest.split_to(bytes))
}

fn number(rest: &mut Bytes) -> Result<u32, OtaManifestError> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// A length and as many bytes.
fn part(rest: &mut Bytes, what: &str, bytes_max: u64) -> Result<Bytes, OtaManifestError> {
    let bytes = number(rest)?;
    if u64::from(bytes) > bytes_max {
        return Err(OtaManifestError::Malformed(format!("{bytes} bytes of {what}, at most {bytes_max} are read")));
    }
    take(rest, bytes as usize)
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, OtaManifestError> {
    M::decode(bytes).map_err(|error| OtaManifestError::Malformed(error.to_string()))
}

/// The messages as they travel.
mod wire {
    use prost::{Enumeration, Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub struct Signatures {
        #[prost(bytes = "vec", repeated, tag = "1")]
        pub signatures: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct OtaManifest {
        #[prost(string, tag = "1")]
        pub build_info_version: String,
        #[prost(string, tag = "2")]
        pub board: String,
        #[prost(uint64, tag = "3")]
        pub epoch: u64,
        #[prost(enumeration = "Mode", tag = "4")]
        pub mode: i32,
        #[prost(string, tag = "5")]
        pub blob_base_url: String,
        #[prost(message, repeated, tag = "6")]
        pub images: Vec<Image>,
        #[prost(message, repeated, tag = "7")]
        pub blobs: Vec<Blob>,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
    #[repr(i32)]
    pub enum Mode {
        Normal = 0,
        ForceRecovery = 1,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Image {
        #[prost(oneof = "Target", tags = "1, 2")]
        pub target: Option<Target>,
        #[prost(enumeration = "Slot", tag = "3")]
        pub slot: i32,
        #[prost(bytes = "vec", tag = "4")]
        pub sha256: Vec<u8>,
        #[prost(message, optional, tag = "5")]
        pub blob: Option<Blob>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Target {
        #[prost(enumeration = "Asset", tag = "1")]
        Asset(i32),
        #[prost(string, tag = "2")]
        Firmware(String),
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
    #[repr(i32)]
    pub enum Asset {
        Zbi = 0,
        Vbmeta = 1,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
    #[repr(i32)]
    pub enum Slot {
        Ab = 0,
        R = 1,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Blob {
        #[prost(bytes = "vec", tag = "1")]
        pub fuchsia_merkle_root: Vec<u8>,
        #[prost(uint64, tag = "2")]
        pub uncompressed_size: u64,
    }
}

impl wire::OtaManifest {
    fn read(self) -> Result<OtaManifest, OtaManifestError> {
        let malformed = |reason: &str| OtaManifestError::Malformed(reason.to_owned());
        let mode = match wire::Mode::try_from(self.mode).map_err(|_| malformed("a mode that is not known"))? {
            wire::Mode::Normal => UpdateMode::Normal,
            wire::Mode::ForceRecovery => UpdateMode::ForceRecovery,
        };
        if self.images.len() as u64 > limits::UPDATE_IMAGES_MAX || self.blobs.len() as u64 > limits::BLOBS_MAX {
            return Err(malformed("too many images or blobs"));
        }
        let images = self.images.into_iter().map(wire::Image::read).collect::<Result<_, _>>()?;
        Ok(OtaManifest {
            version: self.build_info_version,
            board: self.board,
            epoch: self.epoch,
            mode,
            blob_base_url: self.blob_base_url,
            images,
            blobs: self.blobs.into_iter().map(wire::Blob::read).collect::<Result<_, _>>()?,
        })
    }
}

impl wire::Image {
    fn read(self) -> Result<OtaImage, OtaManifestError> {
        let malformed = |reason: &str| OtaManifestError::Malformed(format!("an image {reason}"));
        let slot = match wire::Slot::try_from(self.slot).map_err(|_| malformed("for a slot that is not known"))? {
            wire::Slot::Ab => ImageSlot::Fuchsia,
            wire::Slot::R => ImageSlot::Recovery,
        };
        let target = match self.target.ok_or_else(|| malformed("for nothing"))? {
            wire::Target::Firmware(kind) => ImageTarget::Firmware(kind),
            wire::Target::Asset(asset) => {
                let kind = match wire::Asset::try_from(asset).map_err(|_| malformed("of a kind that is not known"))? {
                    wire::Asset::Zbi => PartitionKind::Zbi,
                    wire::Asset::Vbmeta => PartitionKind::Vbmeta,
                };
                ImageTarget::Partition { slot, kind }
            }
        };
        let sha256 = self.sha256.try_into().map_err(|_| malformed("without a SHA-256"))?;
        let blob = self.blob.ok_or_else(|| malformed("without a blob"))?.read()?;
        Ok(OtaImage { target, sha256, blob })
    }
}

impl wire::Blob {
    fn read(self) -> Result<OtaBlob, OtaManifestError> {
        let id: Result<Digest, _> = self.fuchsia_merkle_root.try_into();
        let id = id.map_err(|_| OtaManifestError::Malformed("a blob without an id".to_owned()))?;
        Ok(OtaBlob { id: BlobId::from_digest(id), bytes: self.uncompressed_size })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    fn pair(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
    }

    fn public(seed: u8) -> PublicKey {
        colibri_common::hex(pair(seed).public_key().as_ref()).parse().unwrap()
    }

    fn blob(byte: u8) -> wire::Blob {
        wire::Blob { fuchsia_merkle_root: vec![byte; 32], uncompressed_size: u64::from(byte) }
    }

    fn manifest() -> wire::OtaManifest {
        let zbi = wire::Target::Asset(wire::Asset::Zbi as i32);
        let image = |target, slot| wire::Image { target: Some(target), slot, sha256: vec![7; 32], blob: Some(blob(1)) };
        wire::OtaManifest {
            build_info_version: "1.2.3".to_owned(),
            board: "toucan".to_owned(),
            epoch: 5,
            mode: 0,
            blob_base_url: "blobs/1".to_owned(),
            images: vec![image(zbi.clone(), 0), image(zbi, 1), image(wire::Target::Firmware("bl2".to_owned()), 0)],
            blobs: vec![blob(1), blob(2)],
        }
    }

    fn file(manifest: &wire::OtaManifest, signers: &[u8]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&VERSION.to_le_bytes());
        let manifest = manifest.encode_to_vec();
        file.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
        file.extend_from_slice(&manifest);
        let signatures = signers.iter().map(|seed| pair(*seed).sign(&file).as_ref().to_vec()).collect();
        let signatures = wire::Signatures { signatures }.encode_to_vec();
        file.extend_from_slice(&(signatures.len() as u32).to_le_bytes());
        file.extend_from_slice(&signatures);
        file
    }

    fn open(file: Vec<u8>) -> Result<OtaManifest, OtaManifestError> {
        OtaManifest::open(&file.into(), &[public(1), public(2)])
    }

    #[test]
    fn one_trusted_signature_is_enough_and_none_is_not() {
        let read = open(file(&manifest(), &[9, 2])).unwrap();
        assert_eq!(
            (read.version.as_str(), read.board.as_str(), read.epoch, read.mode),
            ("1.2.3", "toucan", 5, UpdateMode::Normal)
        );
        assert_eq!((read.images.len(), read.blobs.len(), read.blobs[1].bytes), (3, 2, 2));
        assert_eq!(read.images[2].target, ImageTarget::Firmware("bl2".to_owned()));
        assert_eq!(open(file(&manifest(), &[9])), Err(OtaManifestError::Untrusted));
        assert_eq!(open(file(&manifest(), &[])), Err(OtaManifestError::Untrusted));
    }

    #[test]
    fn a_changed_cut_or_prolonged_file_does_not_count() {
        let good = file(&manifest(), &[1]);
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert!(open(bad).is_err(), "byte {index} changed");
            assert!(open(good[..index].to_vec()).is_err(), "cut at {index}");
        }
        assert!(open([good, vec![0]].concat()).is_err());
    }

    #[test]
    fn what_is_signed_and_nonsense_is_refused() {
        let refused = |change: &dyn Fn(&mut wire::OtaManifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            assert!(matches!(open(file(&manifest, &[1])), Err(OtaManifestError::Malformed(_))));
        };
        refused(&|manifest| manifest.mode = 2);
        refused(&|manifest| manifest.images[0].slot = 2);
        refused(&|manifest| manifest.images[0].target = None);
        refused(&|manifest| manifest.images[0].sha256.truncate(31));
        refused(&|manifest| manifest.images[0].blob = None);
        refused(&|manifest| manifest.blobs[0].fuchsia_merkle_root.push(0));
        let mut newer = file(&manifest(), &[1]);
        newer[4] = 2;
        assert_eq!(open(newer), Err(OtaManifestError::Version(2)));
        let images = |change: &dyn Fn(&mut wire::OtaManifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            open(file(&manifest, &[1])).unwrap_err()
        };
        let twice = images(&|manifest| manifest.images[1].slot = 0);
        assert!(matches!(twice, OtaManifestError::Images(ImagesError::Duplicate(_))), "{twice}");
        assert_eq!(images(&|manifest| manifest.mode = 1), OtaManifestError::Images(ImagesError::SystemInRecovery));
        let bare = images(&|manifest| manifest.images.clear());
        assert_eq!(bare, OtaManifestError::Images(ImagesError::NoSystem));
    }

    #[test]
    fn a_device_takes_only_what_is_meant_for_it_and_not_older() {
        let manifest = open(file(&manifest(), &[1])).unwrap();
        let target = UpdateTarget { board: "toucan".to_owned(), epoch: 5, writes_recovery: false };
        let at = |version: &str| Some(version.parse().unwrap());
        for not_below in [None, at("1.2.3"), at("1.2.2.9")] {
            assert_eq!(manifest.check_for(&target, not_below), Ok(()));
        }
        let older = manifest.check_for(&target, at("1.2.4")).unwrap_err();
        assert_eq!(older.to_string(), "the update has version 1.2.3.0, older than the running system's 1.2.4.0");
        let nameless = OtaManifest { version: "spring".to_owned(), ..manifest.clone() };
        assert_eq!(nameless.check_for(&target, at("1.2.4")), Ok(()));
        let other = UpdateTarget { board: String::new(), ..target.clone() };
        assert!(matches!(manifest.check_for(&other, None), Err(UpdateRefused::Board { .. })));
        let newer = UpdateTarget { epoch: 6, ..target };
        assert_eq!(manifest.check_for(&newer, None), Err(UpdateRefused::Epoch { found: 5, epoch: 6 }));
    }
}
