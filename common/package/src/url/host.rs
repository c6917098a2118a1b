//! The rules for hosts: a repository's name that is also a valid URL host.

use super::UrlError;
use crate::limits::HOST_BYTES_MAX;

/// Checks a host that stands alone: only `[a-z0-9.-]`, not empty, and not a broken IPv4 address.
pub fn check_host(host: &str) -> Result<(), UrlError> {
    if host.is_empty() {
        return Err(UrlError::UrlParseError("the host is empty"));
    }
    if host.len() as u64 > HOST_BYTES_MAX {
        return Err(UrlError::UrlParseError("the host is too long"));
    }
    // Characters that no URL host may have; anything else that is wrong is a host, but not ours.
    if host.chars().any(|c| c.is_ascii_control() || " #%/:<>?@[\\]^|".contains(c)) {
        return Err(UrlError::UrlParseError("the host has a character that no URL host may have"));
    }
    if !host.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-')) {
        return Err(UrlError::InvalidHost);
    }
    if ends_in_number(host) && !is_ipv4(host) {
        return Err(UrlError::UrlParseError("the host ends in a number but is no IPv4 address"));
    }
    Ok(())
}

/// WHATWG "ends in a number": such a host must be an IPv4 address.
fn ends_in_number(host: &str) -> bool {
    let labels = host.strip_suffix('.').unwrap_or(host);
    let last = labels.rsplit('.').next().unwrap_or(labels);
    !last.is_empty() && (last.bytes().all(|digit| digit.is_ascii_digit()) || ipv4_number(last).is_some())
}

/// WHATWG's IPv4 parser: one to four numbers, the last of which fills the rest of the address.
fn is_ipv4(host: &str) -> bool {
    let numbers: Option<Vec<u64>> = host.strip_suffix('.').unwrap_or(host).split('.').map(ipv4_number).collect();
    let Some(numbers) = numbers else { return false };
    let Some((last, others)) = numbers.split_last() else { return false };
    others.len() <= 3 && others.iter().all(|number| *number <= 255) && *last < 1 << (8 * (4 - others.len()))
}

/// A decimal, octal (leading 0) or hexadecimal (leading 0x) number.
fn ipv4_number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    match digits {
        "" => (radix == 16).then_some(0),
        digits if digits.chars().all(|digit| digit.is_digit(radix)) => {
            // Too many digits for 64 bits are certainly too many for 32.
            Some(u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
        }
        _ => None,
    }
}
