//! [`expires_at`]: until when a certificate holds. Nothing else of it is read here, and nothing is believed because of it.

use colibri_common::UnixSeconds;

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// `notAfter` of a certificate in DER (RFC 5280 §4.1); nothing if it is not one.
pub(crate) fn expires_at(certificate: &[u8]) -> Option<UnixSeconds> {
    let mut certificate = Der(Der(certificate).take(SEQUENCE)?);
    let mut signed = Der(certificate.take(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.take(VERSION)?;
    }
    signed.take(INTEGER)?;
    let _algorithm = signed.take(SEQUENCE)?;
    let _issuer = signed.take(SEQUENCE)?;
    let mut validity = Der(signed.take(SEQUENCE)?);
    let _not_before = validity.next()?;
    let (tag, text) = validity.next()?;
    let text = std::str::from_utf8(text).ok().filter(|text| text.is_ascii())?;
    let (year, rest) = match tag {
        // Two digits stand for 1950 to 2049 (RFC 5280 §4.1.2.5.1).
        UTC_TIME => {
            let (year, rest) = (number(text.get(..2)?)?, text.get(2..)?);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => (number(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    let rest = rest.strip_suffix('Z').filter(|rest| rest.len() == 10)?;
    let part = |at: usize| number(rest.get(at..at + 2)?);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    let days = days_since_1970(year, month, day).filter(|_| in_range)?;
    Some(UnixSeconds(((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// Digits only: the standard parser would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// In the Gregorian calendar; months are counted from March, so that a leap day is the last of its year.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let before = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    // What the same sum gives for 1 January 1970.
    before.checked_sub(719_469)
}

/// Elements one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next element.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // No certificate that was read has more than three bytes of length.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next element, which must be one of this kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_forms_of_time() {
        for ((year, month, day), seconds) in [
            ((2000, 2, 29), 951_782_400),
            ((2026, 11, 22), 1_795_305_600),
            ((2049, 12, 31), 2_524_521_600),
            ((2050, 1, 1), 2_524_608_000),
            ((2100, 3, 1), 4_107_542_400),
        ] {
            assert_eq!(expires_at(&certificate(year, month, day)), Some(UnixSeconds(seconds)), "{year}-{month}-{day}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_a_certificate() {
        let good = certificate(2040, 1, 2);
        let end = expires_at(&good).unwrap();
        for cut in 0..good.len() {
            assert_eq!(expires_at(&good[..cut]), None, "{cut}");
        }
        // Whatever is broken in it, it is read or not, and that is all.
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut broken = good.clone();
                broken[at] ^= 1 << bit;
                _ = expires_at(&broken);
            }
        }
        assert_eq!((expires_at(&[]), expires_at(b"0"), expires_at(&good)), (None, None, Some(end)));
    }
}
