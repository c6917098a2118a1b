//! Writing a release bundle: metadata, leaves and blobs of one release as one archive (docs/formats.md, "Release bundle").
//!
//! All that can be missing is found before the first byte is written; each blob is verified on its way into the archive,
//! a unit at a time. Reading one is in `colibri_release::bundle`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use bytes::Bytes;
use colibri_common::{BlobId, UnixSeconds};
use colibri_metadata::{Role, Start, TrustAnchor, TrustedSet, Update};
use colibri_package::delivery::{Layout, VerifyingReader};
use colibri_package::far::{self, Content};
use colibri_package::{MetaFar, PackagePath};
use colibri_release::Release;
use colibri_release::bundle::{
    self, BUNDLE_DELIVERY_TYPE, BUNDLE_FORMAT, BundleError, BundleHead, HEAD_PATH, with_delegated,
};

use crate::error::RepositoryError;
use crate::layout;
use crate::repository::{Repository, Versions};

/// What was bundled.
#[derive(Debug, Clone)]
pub struct BundleReport {
    /// The release.
    pub release: Release,
    /// The package that carries it.
    pub hash: BlobId,
    /// Blobs, that package included.
    pub blobs: usize,
    /// Bytes of the blobs as delivery blobs.
    pub bytes: u64,
    /// Versions of the metadata.
    pub versions: Versions,
}

/// Everything that goes into the archive.
struct Parts {
    head: Bytes,
    metadata: BTreeMap<String, Bytes>,
    blobs: BTreeMap<BlobId, Lengths>,
}

/// Lengths of the two files of one blob.
#[derive(Debug, Clone, Copy)]
struct Lengths {
    encoded_bytes: u64,
    leaves_bytes: u64,
}

impl Lengths {
    fn of(layout: &Layout) -> Self {
        let leaves_bytes = layout.leaves().wire().len() as u64;
        Self { encoded_bytes: layout.encoded_length().0, leaves_bytes }
    }
}

impl Repository {
    /// Writes the bundle of the release that the package `NAME` or `NAME/VARIANT` carries. `progress` hears how many bytes of
    /// blobs, of how many, are written.
    ///
    /// # Errors
    /// Something is missing, damaged or expired at `now`, or writing fails; what was written until then is worthless.
    pub fn write_release_bundle(
        &self,
        name: &str,
        now: UnixSeconds,
        out: &mut dyn Write,
        progress: &dyn Fn(u64, u64),
    ) -> Result<BundleReport, RepositoryError> {
        let entry = self.package(name)?;
        let path = format!("{}/{}", entry.name, entry.variant);
        let package: PackagePath = path.parse().map_err(|_| RepositoryError::UnknownPackage(path))?;
        let (set, metadata) = self.whole_metadata(now)?;
        bundle::check_listed(&set, &package, entry.hash)?;
        let meta = MetaFar::parse(self.blobs.content(entry.hash)?.into())
            .map_err(|error| RepositoryError::StoredBlob { id: entry.hash, reason: error.to_string() })?;
        let document = bundle::release_document(&package, &meta)?;
        let release = Release::parse(&self.blobs.content(document)?).map_err(BundleError::from)?;
        let roots = metadata.iter().filter(|(file, _)| file.ends_with(Role::Root.file()));
        bundle::check_trusts(&release, roots.map(|(_, bytes)| bytes.clone()))?;
        let mut blobs = BTreeMap::new();
        let needed = bundle::blobs_of_bundle(&release, entry.hash, &meta);
        for id in &needed {
            if self.blobs.has(BUNDLE_DELIVERY_TYPE, *id)? {
                blobs.extend(self.blobs.form(BUNDLE_DELIVERY_TYPE, *id)?.map(|layout| (*id, Lengths::of(&layout))));
            }
        }
        bundle::check_blobs(&needed, &blobs.keys().copied().collect())?;
        let head = BundleHead { format: BUNDLE_FORMAT, package, hash: entry.hash };
        let head = serde_json::to_vec(&head).map_err(|error| BundleError::Head(error.to_string()))?.into();
        let bytes = blobs.values().map(|lengths| lengths.encoded_bytes).sum();
        let parts = Parts { head, metadata, blobs };
        self.write_parts(&parts, bytes, out, progress)?;
        Ok(BundleReport { release, hash: entry.hash, blobs: parts.blobs.len(), bytes, versions: Versions::of(&set) })
    }

    /// What a client reads that trusts the oldest root here and knows nothing else: the chain of roots, the current set and
    /// every delegated role, by the names under which they are served.
    fn whole_metadata(&self, now: UnixSeconds) -> Result<(TrustedSet, BTreeMap<String, Bytes>), RepositoryError> {
        let read = |file: &str, role: Role| self.storage.read(&layout::metadata(file)?, role.bytes_max());
        let newest = self.metadata.committed()?.root().version();
        let mut files = BTreeMap::new();
        let mut oldest = None;
        for version in (1..=newest).rev() {
            let file = Role::Root.numbered_file(version);
            let Some(bytes) = read(&file, Role::Root)? else { break };
            oldest = Some(bytes.clone());
            files.insert(file, bytes);
        }
        let oldest = oldest.ok_or_else(|| self.metadata.damaged("its newest root has no numbered file"))?;
        let start = Start::FromAnchor(TrustAnchor::RootFile(oldest));
        let set = self.metadata.refresh(Update::start(start, now), &BTreeMap::new())?;
        let numbered = set.root().consistent_snapshot();
        let set = with_delegated(set, now, |role, version| {
            let file = if numbered { role.numbered_file(version) } else { role.file() };
            let found = read(&file, Role::Targets)?;
            files.extend(found.clone().map(|bytes| (file, bytes)));
            Ok::<_, RepositoryError>(found)
        })?;
        for (role, bytes) in set.files() {
            let Some(role) = Role::ALL.into_iter().find(|known| known.file() == role) else { continue };
            let is_numbered = role == Role::Root || numbered && role != Role::Timestamp;
            let version = set.version(role).filter(|_| is_numbered);
            let file = version.map_or_else(|| role.file().to_owned(), |version| role.numbered_file(version));
            files.insert(file, bytes.clone());
        }
        Ok((set, files))
    }

    fn write_parts(
        &self,
        parts: &Parts,
        bytes_total: u64,
        mut out: &mut dyn Write,
        progress: &dyn Fn(u64, u64),
    ) -> Result<(), BundleError> {
        let names: Vec<(BlobId, Lengths, String, String)> = parts
            .blobs
            .iter()
            .map(|(id, lengths)| (*id, *lengths, bundle::path::leaves(*id), bundle::path::blob(*id)))
            .collect();
        let metadata: Vec<(String, &Bytes)> =
            parts.metadata.iter().map(|(file, bytes)| (bundle::path::metadata(file), bytes)).collect();
        let mut files: BTreeMap<&[u8], Content<'_>> = BTreeMap::new();
        files.insert(HEAD_PATH.as_bytes(), Content::bytes(&parts.head));
        files.extend(metadata.iter().map(|(name, bytes)| (name.as_bytes(), Content::bytes(bytes))));
        let done = std::cell::Cell::new(0);
        let written = |bytes| {
            done.set(done.get() + bytes);
            progress(done.get(), bytes_total);
        };
        for (id, lengths, leaves, blob) in &names {
            let open = move || Ok(Box::new(io::Cursor::new(self.form_to_bundle(*id)?.leaves().wire())) as _);
            let content = Content { length: lengths.leaves_bytes, open: Box::new(open) };
            files.insert(leaves.as_bytes(), content);
            let written = &written;
            let open = move || Ok(Box::new(self.blob_to_bundle(*id, written)?) as _);
            let content = Content { length: lengths.encoded_bytes, open: Box::new(open) };
            files.insert(blob.as_bytes(), content);
        }
        Ok(far::write(&mut out, files)?)
    }

    /// The checked layout of a blob, read when its turn comes: the leaves of all of them together may be large.
    fn form_to_bundle(&self, id: BlobId) -> io::Result<Layout> {
        let found = self.blobs.form(BUNDLE_DELIVERY_TYPE, id).map_err(io::Error::other)?;
        found.ok_or_else(|| io::Error::other(format!("blob {id} has gone")))
    }

    /// The delivery blob, verified as it goes.
    fn blob_to_bundle(&self, id: BlobId, written: &impl Fn(u64)) -> io::Result<impl io::Read> {
        let name = layout::blob(BUNDLE_DELIVERY_TYPE, id).map_err(io::Error::other)?;
        let form = self.form_to_bundle(id)?;
        written(form.unit_h().len() as u64);
        let read = move |range| {
            let bytes = self.storage.read_range(&name, range).map_err(io::Error::other)?;
            let bytes = bytes.ok_or_else(|| io::Error::other(format!("blob {id} has gone")))?;
            written(bytes.len() as u64);
            Ok(bytes)
        };
        Ok(VerifyingReader::new(form, read))
    }
}
