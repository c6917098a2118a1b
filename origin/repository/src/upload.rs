//! One blob arriving over time: its bytes come in order, are durable a piece at a time, and count once all of them are proven.
//!
//! Pieces are documents `uploads/ID.FORM/OFFSET`, so that an upload goes on after a restart, on any backend, from where it
//! stood. Nothing of them is served. Deliberately absent: the network, how many uploads run at a time.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use colibri_common::{BlobId, UnixSeconds, merkle};
use colibri_package::delivery::{self, DeliveryError, DeliveryType, Encoding, Layout};
use colibri_store::DocumentName;

use crate::blobs::{Encoded, Standing};
use crate::error::RepositoryError;
use crate::repository::Repository;
use crate::{layout, limits};

/// Enough of a delivery blob to know its type and the length of unit H.
const HEAD_BYTES: usize = 60;

/// An unfinished upload. Dropped, it stays as far as it is durable; [`Repository::upload`] goes on.
#[derive(Debug)]
pub struct Upload {
    repository: Repository,
    id: BlobId,
    form: Encoding,
    /// Lengths of the pieces that are durable.
    pieces: Vec<u64>,
    durable: u64,
    waiting: BytesMut,
    head_checked: bool,
}

/// A blob that an upload brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploaded {
    /// The blob.
    pub id: BlobId,
    /// Length of its content in bytes.
    pub bytes: u64,
    /// Length of the delivery blob that is stored.
    pub bytes_stored: u64,
}

impl Repository {
    /// Starts or resumes the upload of one blob, as it is (`Encoding::Raw`) or as a delivery blob; nothing if it is here and
    /// proven.
    ///
    /// # Errors
    /// Too many uploads are unfinished, or the disk refuses.
    pub fn upload(&self, id: BlobId, form: Encoding, now: UnixSeconds) -> Result<Option<Upload>, RepositoryError> {
        self.blobs.receipts.read_new()?;
        if self.blobs.any_standing(id, now)? == Standing::Proven {
            self.blobs.receipts.flush()?;
            return Ok(None);
        }
        let upload = Upload::found(self, id, form)?;
        if upload.pieces.is_empty() {
            upload.begin(now)?;
        }
        Ok(Some(upload))
    }

    /// Where an upload of this blob would begin or go on; nothing if the blob is here and proven.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn upload_offset(&self, id: BlobId, form: Encoding) -> Result<Option<u64>, RepositoryError> {
        if self.missing_blobs(&[id])?.is_empty() {
            return Ok(None);
        }
        Ok(Some(Upload::found(self, id, form)?.durable))
    }

    /// Unfinished uploads: the folder of each, and when it began; 0 if nobody can say, as where a crash cut a removal short.
    pub(crate) fn uploads(&self) -> Result<BTreeMap<String, UnixSeconds>, RepositoryError> {
        let mut found = BTreeMap::new();
        for name in self.storage.list(&format!("{}/", layout::UPLOADS))? {
            let Some((folder, file)) = name.as_str().rsplit_once('/') else { continue };
            let began = found.entry(folder.to_owned()).or_insert(UnixSeconds(0));
            if file == "began" {
                let text = self.storage.read(&name, limits::UPLOAD_BEGAN_BYTES_MAX)?.unwrap_or_default();
                let at = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
                *began = UnixSeconds(at.unwrap_or(0));
            }
        }
        Ok(found)
    }
}

impl Upload {
    /// An upload as far as it has come.
    fn found(repository: &Repository, id: BlobId, form: Encoding) -> Result<Self, RepositoryError> {
        let mut upload = Self {
            repository: repository.clone(),
            id,
            form,
            pieces: Vec::new(),
            durable: 0,
            waiting: BytesMut::new(),
            head_checked: false,
        };
        upload.find_pieces()?;
        Ok(upload)
    }

    /// The blob.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Bytes that are durable: where an upload goes on after anything fails.
    pub const fn offset(&self) -> u64 {
        self.durable
    }

    /// Bytes taken, durable or not: where the next must begin.
    pub fn received(&self) -> u64 {
        self.durable + self.waiting.len() as u64
    }

    fn folder(&self) -> String {
        format!("{}/{}.{}", layout::UPLOADS, self.id, self.form)
    }

    fn piece(&self, offset: u64) -> Result<DocumentName, RepositoryError> {
        // As long for every offset, so that names sort by it.
        Ok(DocumentName::new(&format!("{}/{offset:012}", self.folder()))?)
    }

    fn bad(&self, reason: impl std::fmt::Display) -> RepositoryError {
        RepositoryError::Upload { id: self.id, reason: reason.to_string() }
    }

    fn begin(&self, now: UnixSeconds) -> Result<(), RepositoryError> {
        if self.repository.uploads()?.len() as u64 >= limits::UPLOADS_MAX {
            return Err(RepositoryError::TooMany { what: "unfinished uploads", limit: limits::UPLOADS_MAX });
        }
        let name = DocumentName::new(&format!("{}/began", self.folder()))?;
        self.repository.storage.create(&name, &now.0.to_string().into())?;
        Ok(())
    }

    fn find_pieces(&mut self) -> Result<(), RepositoryError> {
        let storage = self.repository.storage.clone();
        for name in storage.list(&format!("{}/", self.folder()))? {
            let at = name.as_str().rsplit('/').next().and_then(|text| text.parse::<u64>().ok());
            if at != Some(self.durable) {
                continue;
            }
            let Some(length) = storage.length(&name)? else { break };
            self.pieces.push(length);
            self.durable += length;
        }
        Ok(())
    }

    /// Takes the bytes that begin at `offset`, which must be where those before end. They are durable in pieces; what is not
    /// yet may be lost with the process.
    ///
    /// # Errors
    /// Another offset is due, another upload of the blob was faster, the blob is too long or begins as no delivery blob does,
    /// or the disk refuses.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) -> Result<(), RepositoryError> {
        let expected = self.received();
        if offset != expected {
            return Err(RepositoryError::UploadOffset { id: self.id, expected, found: offset });
        }
        let bytes_max = limits::BLOB_CONTENT_BYTES_MAX;
        if expected.saturating_add(bytes.len() as u64) > bytes_max {
            return Err(self.bad(format_args!("it has more than the {bytes_max} bytes allowed")));
        }
        let piece_bytes = usize::try_from(limits::UPLOAD_PIECE_BYTES).unwrap_or(usize::MAX);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(piece_bytes - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() >= piece_bytes {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Makes everything taken durable; gives the offset.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn flush(&mut self) -> Result<u64, RepositoryError> {
        if self.waiting.is_empty() {
            return Ok(self.durable);
        }
        if !self.head_checked && self.durable == 0 {
            self.check_head()?;
        }
        let piece = self.waiting.split().freeze();
        if !self.repository.storage.create(&self.piece(self.durable)?, &piece)? {
            let found = self.durable;
            self.find_pieces()?;
            return Err(RepositoryError::UploadOffset { id: self.id, expected: self.durable, found });
        }
        self.durable += piece.len() as u64;
        self.pieces.push(piece.len() as u64);
        Ok(self.durable)
    }

    /// Nobody sends gigabytes of what cannot be a delivery blob.
    fn check_head(&mut self) -> Result<(), RepositoryError> {
        if let Encoding::Delivery(ty) = self.form {
            // A shorter first piece may be cut anywhere: the end will tell.
            if self.waiting.len() >= HEAD_BYTES {
                Layout::unit_h_bytes(&self.waiting).map_err(|e| self.bad(e))?;
                let named = delivery_type(&self.waiting).map_err(|e| self.bad(e))?;
                if named != ty {
                    return Err(self.bad(format_args!("it is a delivery blob of type {named}, not {ty}")));
                }
            }
        }
        self.head_checked = true;
        Ok(())
    }

    fn content(&self) -> Result<Bytes, RepositoryError> {
        let mut content = BytesMut::with_capacity(usize::try_from(self.durable).unwrap_or(0));
        let mut at = 0;
        for length in &self.pieces {
            let piece = self.repository.storage.read(&self.piece(at)?, *length)?;
            content.extend_from_slice(&piece.ok_or_else(|| self.bad("a piece of it is gone: begin again"))?);
            at += length;
        }
        Ok(content.freeze())
    }

    /// Ends the upload: proves all of it, stores it, and writes its receipt. Raw content is compressed at `level`, by default
    /// that of type 1.
    ///
    /// # Errors
    /// It is another blob, or no delivery blob; then what was uploaded is dropped. Or the disk refuses; then it stays.
    pub fn finish(mut self, level: Option<i32>, now: UnixSeconds) -> Result<Uploaded, RepositoryError> {
        self.flush()?;
        let encoded = match self.encoded(level) {
            Err(error @ RepositoryError::Upload { .. }) => {
                self.discard()?;
                return Err(error);
            }
            encoded => encoded?,
        };
        let (bytes, bytes_stored) = (encoded.tree.length.bytes(), encoded.bytes.len() as u64);
        let id = self.id;
        self.repository.blobs.store_all(&[encoded], now)?;
        self.repository.blobs.receipts.flush()?;
        self.discard()?;
        Ok(Uploaded { id, bytes, bytes_stored })
    }

    fn encoded(&self, level: Option<i32>) -> Result<Encoded, RepositoryError> {
        let content = self.content()?;
        let (tree, ty) = match self.form {
            Encoding::Raw => (merkle::build(&content), DeliveryType::Type1),
            Encoding::Delivery(ty) => {
                let tree = delivery::content_tree(&content).map_err(|e| self.bad(e))?;
                let named = delivery_type(&content).map_err(|e| self.bad(e))?;
                if named != ty {
                    return Err(self.bad(format_args!("it is a delivery blob of type {named}, not {ty}")));
                }
                (tree, ty)
            }
        };
        if tree.id != self.id {
            return Err(self.bad(format_args!("what was uploaded is blob {}", tree.id)));
        }
        match self.form {
            Encoding::Raw => Encoded::of(tree, &content, &delivery::Encoder::new(ty, level)),
            Encoding::Delivery(_) => Ok(Encoded { tree, ty, bytes: content }),
        }
    }

    /// Drops what was uploaded.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn discard(self) -> Result<(), RepositoryError> {
        let mut names = self.repository.storage.list(&format!("{}/", self.folder()))?;
        // From the end, so that what a crash leaves is the beginning of the blob.
        names.reverse();
        Ok(self.repository.storage.sweep(&names)?)
    }
}

/// The type that a delivery blob's header names.
fn delivery_type(blob: &[u8]) -> Result<DeliveryType, DeliveryError> {
    let number = blob.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    DeliveryType::try_from(number)
}
