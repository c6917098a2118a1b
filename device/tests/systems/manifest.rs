//! Signed manifests of systems, written here by hand: the reader under test has no writer that could share its mistakes.

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use colibri_common::{BlobId, hex, merkle, sha256};
use colibri_metadata::PublicKey;
use colibri_package::manifest::PackageManifest;

use super::{Bench, Change, Release, images};
use crate::scene::Built;

/// Seed of the key that the device trusts.
pub const TRUSTED: u8 = 1;
/// Seed of another one.
pub const STRANGER: u8 = 9;

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

pub fn public(seed: u8) -> PublicKey {
    hex(pair(seed).public_key().as_ref()).parse().unwrap()
}

/// An image, as a manifest says it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Type of firmware; nothing for the zbi.
    pub firmware: Option<String>,
    pub slot: u64,
    pub sha256: [u8; 32],
    pub blob: BlobId,
    pub bytes: u64,
}

/// What a manifest says.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub version: String,
    pub board: String,
    pub epoch: u64,
    pub is_recovery: bool,
    pub blobs_url: String,
    pub images: Vec<Image>,
    pub blobs: BTreeMap<BlobId, u64>,
}

impl Manifest {
    /// Of a release with these packages, all of them named; publishes them with its images.
    pub fn of(bench: &Bench, release: &Release, packages: &[&Built]) -> Self {
        bench.publish_with_images(release, packages);
        let (zbi, firmware) = images(release);
        let is_recovery = release.change == Change::ForceRecovery;
        let image = |kind: Option<&str>, slot, content: &[u8]| {
            let lies = release.change == Change::WrongImageHash && kind.is_none();
            let sha256 = if lies { [1; 32] } else { sha256(content) };
            let (blob, bytes) = (merkle::build(content).id, content.len() as u64);
            Image { firmware: kind.map(str::to_owned), slot, sha256, blob, bytes }
        };
        let images = vec![image(None, u64::from(is_recovery), &zbi), image(Some("bl2"), 0, &firmware)];
        let blobs = packages.iter().flat_map(|built| {
            let manifest = PackageManifest::parse(&fs::read(&built.manifest).unwrap()).unwrap();
            manifest.blobs.into_iter().map(|blob| (blob.merkle, blob.size))
        });
        Self {
            version: release.version.to_owned(),
            board: release.board.to_owned(),
            epoch: release.epoch,
            is_recovery,
            blobs_url: bench.blobs_url(),
            images: if release.change == Change::NoImages { Vec::new() } else { images },
            blobs: blobs.collect(),
        }
    }

    /// The file, signed by these.
    pub fn signed(&self, signers: &[u8]) -> Vec<u8> {
        let part = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
        let signed = [&[0xfc, 0x1a, 0x07, 0xaf, 1, 0, 0, 0][..], &part(&self.body())].concat();
        let signatures: Vec<u8> = signers.iter().flat_map(|seed| text(1, pair(*seed).sign(&signed).as_ref())).collect();
        [signed, part(&signatures)].concat()
    }

    fn body(&self) -> Vec<u8> {
        let mut body = [
            text(1, self.version.as_bytes()),
            text(2, self.board.as_bytes()),
            number(3, self.epoch),
            number(4, self.is_recovery.into()),
            text(5, self.blobs_url.as_bytes()),
        ]
        .concat();
        for Image { firmware, slot, sha256, blob: id, bytes } in &self.images {
            let target = firmware.as_ref().map_or_else(|| number(1, 0), |kind| text(2, kind.as_bytes()));
            let image = [target, number(3, *slot), text(4, sha256), text(5, &blob(*id, *bytes))].concat();
            body.extend(text(6, &image));
        }
        for (id, bytes) in &self.blobs {
            body.extend(text(7, &blob(*id, *bytes)));
        }
        body
    }
}

fn blob(id: BlobId, bytes: u64) -> Vec<u8> {
    [text(1, id.as_bytes()), number(2, bytes)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn text(field: u64, value: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}
