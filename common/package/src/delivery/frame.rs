//! One frame: compress, and decode under a hard cap. The only file that names `zstd`.

use std::fmt;

use zstd::zstd_safe::{self, CParameter};

use super::FrameFault;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// zstd's largest output in bytes for so much content; no honest frame is larger.
pub(super) fn bound(content_bytes: u64) -> u64 {
    // Content sizes were checked against the blob limit before; a size that does not fit has no honest frame at all.
    usize::try_from(content_bytes).map_or(0, |bytes| zstd_safe::compress_bound(bytes) as u64)
}

/// A decoder of strict frames; keeps zstd's working memory between frames.
pub(super) struct Decoder(zstd_safe::DCtx<'static>);

impl Decoder {
    pub fn new() -> Self {
        Self(zstd_safe::DCtx::create())
    }

    /// The content of `frame`, which must be exactly one zstd frame of exactly `expected` bytes of content. Never
    /// allocates or writes more than that.
    pub fn decode(&mut self, frame: &[u8], expected: u64) -> Result<Vec<u8>, FrameFault> {
        if !frame.starts_with(&MAGIC) {
            return Err(FrameFault::NotZstd);
        }
        if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
            return Err(FrameFault::NotOneFrame);
        }
        match zstd_safe::get_frame_content_size(frame) {
            Ok(Some(found)) if found != expected => return Err(FrameFault::OtherSize { expected, found }),
            Ok(_) => {}
            Err(_) => return Err(FrameFault::NotZstd),
        }
        let undecodable = FrameFault::Undecodable { expected };
        let capacity = usize::try_from(expected).map_err(|_| undecodable)?;
        let mut content = Vec::with_capacity(capacity);
        self.0.decompress(&mut content, frame).map_err(|_| undecodable)?;
        if content.len() as u64 != expected {
            return Err(FrameFault::Short { expected, found: content.len() as u64 });
        }
        Ok(content)
    }
}

/// A compressor of frames with content size and content checksum on.
pub(super) struct FrameEncoder(zstd::bulk::Compressor<'static>);

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameEncoder").finish_non_exhaustive()
    }
}

impl FrameEncoder {
    pub fn new(level: i32) -> Result<Self, String> {
        let mut compressor = zstd::bulk::Compressor::new(level).map_err(|error| error.to_string())?;
        for parameter in [CParameter::ContentSizeFlag(true), CParameter::ChecksumFlag(true)] {
            compressor.set_parameter(parameter).map_err(|error| error.to_string())?;
        }
        Ok(Self(compressor))
    }

    pub fn encode(&mut self, content: &[u8]) -> Result<Vec<u8>, String> {
        self.0.compress(content).map_err(|error| error.to_string())
    }
}
