//! [`VerifyingReader`]: a stored delivery blob as a stream that gives nothing that was not verified.

use std::io::{Error, Read, Result};

use bytes::Bytes;
use colibri_common::ByteRange;

use super::Layout;

/// Reads the encoded form that a [`Layout`] describes, a content unit at a time, and gives its bytes once they are checked
/// against the blob's id. Whoever knows the length of what is stored compares it with [`Layout::encoded_length`] first.
pub struct VerifyingReader<F> {
    layout: Layout,
    /// Gives the bytes of a range of the encoded form.
    read_range: F,
    unit: u32,
    ready: Bytes,
}

impl<F: FnMut(ByteRange) -> Result<Bytes>> VerifyingReader<F> {
    /// A reader at the first byte, which is the layout's own: unit H was checked when the layout was made.
    pub fn new(layout: Layout, read_range: F) -> Self {
        let ready = layout.unit_h().clone();
        Self { layout, read_range, unit: 0, ready }
    }

    /// Makes the next verified bytes ready; false at the end.
    fn advance(&mut self) -> Result<bool> {
        while self.ready.is_empty() && self.unit < self.layout.unit_count() {
            let pieces = self.layout.pieces_of(self.unit);
            self.unit += 1;
            if pieces.is_empty() {
                continue;
            }
            let encoded = (self.read_range)(self.layout.pieces_range(pieces.clone()))?;
            let verified = self.layout.verify(pieces.start, encoded);
            let verified = verified.map_err(|error| Error::other(format!("blob {}: {error}", self.layout.id())))?;
            self.ready = verified.encoded().clone();
        }
        Ok(!self.ready.is_empty())
    }
}

impl<F: FnMut(ByteRange) -> Result<Bytes>> Read for VerifyingReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if !self.advance()? {
            return Ok(0);
        }
        let given = self.ready.split_to(buffer.len().min(self.ready.len()));
        buffer[..given.len()].copy_from_slice(&given);
        Ok(given.len())
    }
}

#[cfg(test)]
mod tests {
    use colibri_common::merkle;

    use super::*;
    use crate::delivery::{DeliveryType, encode};

    fn read_all(blob: &[u8], content: &[u8], ty: DeliveryType) -> Result<Vec<u8>> {
        let layout = Layout::from_unit_h(ty, merkle::build(content).leaves, blob).unwrap();
        assert_eq!(layout.encoded_length().0, blob.len() as u64);
        let blob = Bytes::copy_from_slice(blob);
        let mut out = Vec::new();
        VerifyingReader::new(layout, |range| Ok(blob.slice(range.within(0)))).read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn what_is_right_comes_out_whole() {
        let noise: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for content in [&b""[..], b"a", &[7; 100_000], &noise[..8192], &noise[..3_000_001], &noise] {
            for ty in [DeliveryType::Type1, DeliveryType::Type2] {
                let blob = encode(content, ty, Some(1)).unwrap();
                assert_eq!(read_all(&blob, content, ty).unwrap(), blob);
            }
        }
    }

    #[test]
    fn nothing_unverified_comes_out() {
        let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251 * (n / 9000)) as u8).collect();
        let mut blob = encode(&content, DeliveryType::Type1, Some(1)).unwrap();
        let last = blob.len() - 3;
        blob[last] ^= 1;
        let layout = Layout::from_unit_h(DeliveryType::Type1, merkle::build(&content).leaves, &blob).unwrap();
        let stored = Bytes::copy_from_slice(&blob);
        let mut reader = VerifyingReader::new(layout.clone(), |range| Ok(stored.slice(range.within(0))));
        let mut out = Vec::new();
        let said = reader.read_to_end(&mut out).unwrap_err().to_string();
        assert!(said.starts_with(&format!("blob {}: ", layout.id())), "{said}");
        assert_eq!(out, blob[..out.len()]);
        assert!(out.len() < last, "the unit with the wrong byte stays inside");
    }
}
