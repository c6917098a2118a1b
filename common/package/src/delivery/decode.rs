//! Whole delivery blobs that are at hand: strict decoding, by frame or at once, and the merkle tree of the content.

use colibri_common::BlobId;
use colibri_common::merkle::{Builder, Tree};

use super::frame::Decoder;
use super::header::{HEADER_BYTES, Header};
use super::{DeliveryError, StrictError, archive};
use crate::limits::DECODED_IN_MEMORY_BYTES_MAX;

/// The content of a delivery blob of any supported type, in one buffer that grows only as frames really decode.
pub fn decode(blob: &[u8]) -> Result<Vec<u8>, DeliveryError> {
    let mut content = Vec::new();
    decode_frames(blob, |piece| {
        let total = content.len() as u64 + piece.len() as u64;
        if total > DECODED_IN_MEMORY_BYTES_MAX {
            return Err(DeliveryError::ContentTooLarge(total));
        }
        content.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(content)
}

/// As [`decode`], and the content is proven to be blob `id`.
pub fn decode_verified(id: BlobId, blob: &[u8]) -> Result<Vec<u8>, DeliveryError> {
    let content = decode(blob)?;
    match colibri_common::merkle::build(&content).id {
        found if found == id => Ok(content),
        found => Err(DeliveryError::WrongBlob { expected: id, found }),
    }
}

/// The merkle tree of a delivery blob's content, holding one frame of it at a time.
pub fn content_tree(blob: &[u8]) -> Result<Tree, DeliveryError> {
    let mut builder = Builder::new();
    decode_frames(blob, |piece| {
        builder.push(piece);
        Ok(())
    })?;
    Ok(builder.finish())
}

/// Decodes a whole delivery blob under the strict rules and hands its content to `sink` in order, frame by frame
/// (an uncompressed payload at once). An error of the sink ends it.
pub fn decode_frames(
    blob: &[u8],
    mut sink: impl FnMut(&[u8]) -> Result<(), DeliveryError>,
) -> Result<(), DeliveryError> {
    let header = Header::parse(blob)?;
    let expected = HEADER_BYTES + header.payload_bytes;
    if blob.len() as u64 != expected {
        return Err(DeliveryError::Length { expected, found: blob.len() as u64 });
    }
    if !header.compressed {
        return sink(&blob[HEADER_BYTES as usize..]);
    }
    let mut decoder = Decoder::new();
    for (index, frame) in archive::parse(blob, header.payload_bytes)?.iter().enumerate() {
        let fault = |fault| StrictError::Frame { index: index as u32, offset: frame.offset, fault };
        // In range: the frames end where the payload does, and the payload is all here.
        let encoded = &blob[frame.offset as usize..frame.end() as usize];
        sink(&decoder.decode(encoded, frame.content_bytes).map_err(fault)?)?;
    }
    Ok(())
}
