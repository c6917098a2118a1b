//! A tree of files like a system image, the same for the same seed: a few large files, many small ones, some that compress
//! well, some that do not; and the package manifests that name them.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use colibri_common::{BlobId, merkle};
use colibri_package::manifest::{META_FAR_PATH, ManifestBlob, PackageManifest, PathsRelative};
use colibri_package::{AbiRevision, MetaPackage, PackageBuild, PackageVariant};
use fastrand::Rng;

/// Content files per package.
const PACKAGE_FILES: usize = 100;

/// Content is made in pieces of one kind of this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Shares of the bytes, in hundredths, and the range of file lengths, each with the same chance per power of two.
const CLASSES: [(u64, u64, u64); 3] = [(40, 8 << 20, 64 << 20), (45, 128 << 10, 4 << 20), (15, 512, 64 << 10)];

/// What lies on the disk.
pub struct Tree {
    /// Every blob's file, meta.fars included, and its length in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// Their blobs.
    pub ids: BTreeSet<BlobId>,
    /// Their bytes.
    pub bytes: u64,
    /// The packages.
    pub manifests: Vec<PathBuf>,
}

impl Tree {
    /// Writes about `bytes` of files and their manifests into `dir`.
    pub fn generate(dir: &Path, bytes: u64, seed: u64) -> Result<Self, Box<dyn Error>> {
        let mut rng = Rng::with_seed(seed);
        let mut lengths = Vec::new();
        for (share, least, most) in CLASSES {
            let wanted = bytes * share / 100;
            let most = most.min(wanted.max(least));
            let mut sum = 0;
            while sum < wanted {
                let length = ((least as f64) * (most as f64 / least as f64).powf(rng.f64())) as u64;
                sum += length;
                lengths.push(length);
            }
        }
        rng.shuffle(&mut lengths);
        let words = words(&mut rng);
        let mut tree = Self { files: Vec::new(), ids: BTreeSet::new(), bytes: 0, manifests: Vec::new() };
        for (number, lengths) in lengths.chunks(PACKAGE_FILES).enumerate() {
            tree.package(dir, number, lengths, &words, &mut rng)?;
        }
        Ok(tree)
    }

    fn package(
        &mut self,
        dir: &Path,
        number: usize,
        lengths: &[u64],
        words: &[Vec<u8>],
        rng: &mut Rng,
    ) -> Result<(), Box<dyn Error>> {
        let name = format!("package-{number}");
        let dir = dir.join(&name);
        fs::create_dir_all(&dir)?;
        let mut build = PackageBuild::new(name.parse()?, AbiRevision::LATEST);
        let mut blobs = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let path = format!("data/{index}");
            let blob = self.file(&dir, &index.to_string(), &path, &content(*length as usize, words, rng))?;
            build.add_content(&path, blob.merkle)?;
            blobs.push(blob);
        }
        let package = MetaPackage { name: build.name().clone(), variant: PackageVariant::zero() };
        blobs.insert(0, self.file(&dir, "meta.far", META_FAR_PATH, &build.finish()?)?);
        let manifest = PackageManifest {
            repository: None,
            package,
            blobs,
            blob_sources_relative: PathsRelative::File,
            subpackages: Vec::new(),
            delivery_blob_type: None,
            abi_revision: Some(AbiRevision::LATEST),
        };
        let path = dir.join("package_manifest.json");
        fs::write(&path, manifest.to_bytes()?)?;
        self.manifests.push(path);
        Ok(())
    }

    fn file(&mut self, dir: &Path, name: &str, path: &str, content: &[u8]) -> Result<ManifestBlob, Box<dyn Error>> {
        let file = dir.join(name);
        fs::write(&file, content)?;
        let (merkle, size) = (merkle::build(content).id, content.len() as u64);
        if self.ids.insert(merkle) {
            self.files.push((file, size));
            self.bytes += size;
        }
        Ok(ManifestBlob { source_path: name.to_owned(), path: path.to_owned(), merkle, size })
    }
}

fn words(rng: &mut Rng) -> Vec<Vec<u8>> {
    let letter = |rng: &mut Rng| b"etaoinshrdlucmfwypvbgkqjxz_"[(rng.f64() * rng.f64() * 27.0) as usize];
    (0..4096).map(|_| (0..rng.usize(2..12)).map(|_| letter(rng)).collect()).collect()
}

/// Pieces of text, of machine-code-like records, of nothing and of noise.
fn content(length: usize, words: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut content = Vec::with_capacity(length + PIECE_BYTES);
    while content.len() < length {
        let end = (content.len() + PIECE_BYTES).min(length);
        match rng.u32(0..100) {
            0..35 => text(&mut content, end, words, rng),
            35..75 => records(&mut content, end, rng),
            75..80 => content.resize(end, 0),
            _ => content.extend(
                std::iter::repeat_with(|| rng.u64(..).to_le_bytes()).take((end - content.len()).div_ceil(8)).flatten(),
            ),
        }
        content.truncate(end);
    }
    content
}

fn text(content: &mut Vec<u8>, end: usize, words: &[Vec<u8>], rng: &mut Rng) {
    while content.len() < end {
        // Few words are frequent, most are rare.
        let index = (rng.f64().powi(3) * words.len() as f64) as usize;
        content.extend_from_slice(&words[index]);
        content.push(if rng.u32(0..12) == 0 { b'\n' } else { b' ' });
    }
}

/// Eight-byte instructions: few opcodes, registers, and now and then a constant of its own.
fn records(content: &mut Vec<u8>, end: usize, rng: &mut Rng) {
    let opcodes: Vec<u16> = (0..48).map(|_| rng.u16(..)).collect();
    while content.len() < end {
        let opcode = opcodes[(rng.f64().powi(2) * 48.0) as usize];
        content.extend_from_slice(&opcode.to_le_bytes());
        content.extend_from_slice(&[rng.u8(0..16), rng.u8(0..16)]);
        let constant = if rng.u32(0..4) == 0 { rng.u32(..) } else { u32::from(rng.u8(0..8)) };
        content.extend_from_slice(&constant.to_le_bytes());
    }
}
