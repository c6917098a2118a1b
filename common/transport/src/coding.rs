//! Bytes coded whole: gzip and zstd for small documents, encoded once and decoded under a cap.
//!
//! What is accepted and how it is named is said in `colibri-api`; nothing here looks at headers, and bodies are not decoded on
//! the way.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use crate::error::CodingError;
use crate::limits::ZSTD_WINDOW_LOG_MAX;

/// Documents up to this size are compressed as small as can be, larger ones fast; bytes.
const THOROUGH_BYTES_MAX: usize = 512 << 10;

/// These bytes in gzip. The same bytes give the same form every time.
///
/// # Errors
/// Out of memory.
pub fn gzip(bytes: &[u8]) -> Result<Bytes, CodingError> {
    let level = if bytes.len() <= THOROUGH_BYTES_MAX { Compression::best() } else { Compression::new(6) };
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3 + 64), level);
    let coded = encoder.write_all(bytes).and_then(|()| encoder.finish());
    coded.map(boxed).map_err(|error| CodingError::broken("gzip", &error))
}

/// These bytes in one zstd frame that says its length. The same bytes give the same form every time.
///
/// # Errors
/// Out of memory.
pub fn zstd(bytes: &[u8]) -> Result<Bytes, CodingError> {
    let broken = |error| CodingError::broken("zstd", &error);
    let level = if bytes.len() <= THOROUGH_BYTES_MAX { 19 } else { 6 };
    let mut encoder = zstd::bulk::Compressor::new(level).map_err(broken)?;
    if bytes.len() >> ZSTD_WINDOW_LOG_MAX > 0 {
        encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX)).map_err(broken)?;
    }
    encoder.compress(bytes).map(boxed).map_err(broken)
}

/// What gzip bytes decode to.
///
/// # Errors
/// They are not gzip, or decode to more than `bytes_max`.
pub fn gunzip(coded: &[u8], bytes_max: u64) -> Result<Bytes, CodingError> {
    read("gzip", MultiGzDecoder::new(coded), bytes_max)
}

/// What zstd bytes decode to.
///
/// # Errors
/// They are not zstd, need a larger window than RFC 9659 allows, or decode to more than `bytes_max`.
pub fn unzstd(coded: &[u8], bytes_max: u64) -> Result<Bytes, CodingError> {
    let broken = |error| CodingError::broken("zstd", &error);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(coded).map_err(broken)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(broken)?;
    read("zstd", decoder, bytes_max)
}

/// Reads one byte more than allowed at most: a bomb costs no more than an honest document.
fn read(coding: &'static str, decoder: impl Read, bytes_max: u64) -> Result<Bytes, CodingError> {
    let mut decoded = Vec::new();
    let mut capped = decoder.take(bytes_max.saturating_add(1));
    capped.read_to_end(&mut decoded).map_err(|error| CodingError::broken(coding, &error))?;
    if decoded.len() as u64 > bytes_max {
        return Err(CodingError::TooLong { coding, bytes_max });
    }
    Ok(boxed(decoded))
}

/// Without spare capacity.
fn boxed(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Coder = (fn(&[u8]) -> Result<Bytes, CodingError>, fn(&[u8], u64) -> Result<Bytes, CodingError>, &'static str);

    const CODERS: [Coder; 2] = [(gzip, gunzip, "gzip"), (zstd, unzstd, "zstd")];

    #[test]
    fn what_is_coded_decodes_to_the_same() {
        for (encode, decode, name) in CODERS {
            for length in [0, 1, 100, THOROUGH_BYTES_MAX, THOROUGH_BYTES_MAX + 1, 9 << 20] {
                let text: Vec<u8> = (0..length).map(|at| b'a' + (at * at / 7 % 11) as u8).collect();
                let coded = encode(&text).unwrap();
                assert_eq!(coded, encode(&text).unwrap(), "{name}: the same every time");
                assert_eq!(decode(&coded, length as u64).unwrap(), text, "{name}, {length} bytes");
                assert!(length < 10_000 || coded.len() < length / 2, "{name}, {length} bytes: {}", coded.len());
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_by_name() {
        for (encode, decode, name) in CODERS {
            let bomb = encode(&vec![0; 64 << 20]).unwrap();
            assert!(bomb.len() < 100_000, "{name}: {}", bomb.len());
            for bytes_max in [0, 1000, (64 << 20) - 1] {
                let error = decode(&bomb, bytes_max).unwrap_err();
                assert_eq!(error, CodingError::TooLong { coding: name, bytes_max });
                assert!(
                    error.to_string().contains(name) && error.to_string().contains(&bytes_max.to_string()),
                    "{error}"
                );
            }
            // Several small ones after each other are one large one.
            let many: Vec<u8> = encode(&[7; 1000]).unwrap().repeat(3);
            assert_eq!(decode(&many, 3000).unwrap().len(), 3000, "{name}");
            assert!(matches!(decode(&many, 2999), Err(CodingError::TooLong { .. })), "{name}");
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_refused() {
        for (encode, decode, name) in CODERS {
            let coded = encode(b"the quick brown hummingbird").unwrap();
            for end in 1..coded.len() {
                let cut = decode(&coded[..end], 1000);
                assert!(matches!(cut, Err(CodingError::Broken { .. })), "{name}, {end} bytes: {cut:?}");
            }
            let with_tail = [&coded[..], b"{}"].concat();
            assert!(matches!(decode(&with_tail, 1000), Err(CodingError::Broken { .. })), "{name}");
            assert!(matches!(decode(b"{\"signed\":{}}", 1000), Err(CodingError::Broken { .. })), "{name}");
        }
    }

    #[test]
    fn a_window_larger_than_agreed_is_refused() {
        let mut encoder = zstd::bulk::Compressor::new(3).unwrap();
        encoder.set_parameter(CParameter::WindowLog(ZSTD_WINDOW_LOG_MAX + 1)).unwrap();
        encoder.set_parameter(CParameter::ContentSizeFlag(false)).unwrap();
        let coded = encoder.compress(&vec![1; 20 << 20]).unwrap();
        assert!(matches!(unzstd(&coded, 64 << 20), Err(CodingError::Broken { .. })));
    }
}
