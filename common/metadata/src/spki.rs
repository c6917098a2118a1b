//! Public keys as PEM (`SubjectPublicKeyInfo`, RFC 5280 §4.1), for the two key types that TUF writes so: ECDSA P-256 and RSA.
//!
//! Strict DER only, so that one key has one form here however its PEM is laid out. Whether the numbers make a key is for
//! the cryptographic library to say.

use crate::limits;

/// Length of an uncompressed P-256 point: 04, x, y.
pub(crate) const POINT_BYTES: usize = 65;

/// Everything before the point in the one form of a P-256 key: `id-ecPublicKey`, `prime256v1`, uncompressed.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// `rsaEncryption` with its NULL parameter.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// The DER inside a PEM text of a public key.
pub(crate) fn der_of_pem(text: &str) -> Option<Vec<u8>> {
    if text.len() as u64 > limits::KEY_PEM_BYTES_MAX {
        return None;
    }
    let parsed = pem::parse(text).ok()?;
    (parsed.tag() == "PUBLIC KEY").then(|| parsed.into_contents())
}

/// A public key's DER as PEM.
pub(crate) fn pem_of_der(der: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("PUBLIC KEY", der), config)
}

/// The point of a P-256 key.
pub(crate) fn p256_point(der: &[u8]) -> Option<[u8; POINT_BYTES]> {
    let point: [u8; POINT_BYTES] = der.strip_prefix(&P256_HEAD)?.try_into().ok()?;
    (point[0] == 4).then_some(point)
}

/// The key of a P-256 point.
pub(crate) fn p256_der(point: &[u8; POINT_BYTES]) -> Vec<u8> {
    [&P256_HEAD[..], point].concat()
}

/// The `RSAPublicKey` (RFC 8017 §A.1.1) of an RSA key whose modulus and exponent have a bearable size: both cost time in
/// every verification.
pub(crate) fn rsa_public_key(der: &[u8]) -> Option<Vec<u8>> {
    let (body, rest) = element(der, SEQUENCE)?;
    let bits = body.strip_prefix(&RSA_ALGORITHM)?;
    let (bits, tail) = element(bits, BIT_STRING)?;
    let key = bits.strip_prefix(&[0])?;
    let (numbers, after_key) = element(key, SEQUENCE)?;
    let (modulus, numbers) = element(numbers, INTEGER)?;
    let (exponent, after_numbers) = element(numbers, INTEGER)?;
    if [rest, tail, after_key, after_numbers].iter().any(|left| !left.is_empty()) {
        return None;
    }
    let bits = bits_of(modulus)?;
    let exponent = bits_of(exponent).filter(|bits| *bits <= limits::RSA_EXPONENT_BITS_MAX).map(|_| exponent)?;
    let odd = exponent.last().is_some_and(|last| last & 1 == 1) && exponent != [1];
    (odd && (limits::RSA_BITS_MIN..=limits::RSA_BITS_MAX).contains(&bits)).then(|| key.to_vec())
}

/// The key around an `RSAPublicKey`.
pub(crate) fn rsa_der(key: &[u8]) -> Vec<u8> {
    let bits = wrap(BIT_STRING, &[&[0], key].concat());
    wrap(SEQUENCE, &[&RSA_ALGORITHM[..], &bits].concat())
}

/// One element with `tag` in strict DER: its content and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = der.strip_prefix(&[tag])?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest.split_first().map(|(length, rest)| (usize::from(*length), rest)).filter(|(n, _)| *n >= 0x80)?,
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    if *first == 0x82 && length < 0x100 {
        return None;
    }
    rest.split_at_checked(length)
}

/// Bits of a positive integer in its shortest form.
fn bits_of(integer: &[u8]) -> Option<u64> {
    let digits = match integer {
        [0, rest @ ..] if rest.first().is_some_and(|first| first & 0x80 != 0) => rest,
        [0, ..] | [] => return None,
        digits if digits[0] & 0x80 != 0 => return None,
        digits => digits,
    };
    Some(digits.len() as u64 * 8 - u64::from(digits[0].leading_zeros()))
}

fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match (u8::try_from(content.len()), u16::try_from(content.len())) {
        (Ok(short @ 0..=0x7f), _) => out.push(short),
        (Ok(byte), _) => out.extend([0x81, byte]),
        // Keys are bounded far below 64 KiB.
        (_, Ok(two)) => out.extend([0x82].into_iter().chain(two.to_be_bytes())),
        _ => return Vec::new(),
    }
    out.extend_from_slice(content);
    out
}
