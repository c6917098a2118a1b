//! The rules for names in archives. Any bytes but these; UTF-8 is not asked for here.

use super::FarError;

/// Checks a name: 1 to 65535 bytes, no leading or trailing `/`, no zero byte, no empty, `.` or `..` segment.
pub fn check_name(name: &[u8]) -> Result<(), FarError> {
    if name.is_empty() {
        return Err(FarError::ZeroLengthName);
    }
    if name.len() > usize::from(u16::MAX) {
        return Err(FarError::NameTooLong(name.len()));
    }
    let text = || shown(name);
    if name[0] == b'/' {
        return Err(FarError::NameStartsWithSlash(text()));
    }
    if name.ends_with(b"/") {
        return Err(FarError::NameEndsWithSlash(text()));
    }
    if name.contains(&0) {
        return Err(FarError::NameContainsNull(text()));
    }
    for segment in name.split(|byte| *byte == b'/') {
        match segment {
            b"" => return Err(FarError::NameContainsEmptySegment(text())),
            b"." => return Err(FarError::NameContainsDotSegment(text())),
            b".." => return Err(FarError::NameContainsDotDotSegment(text())),
            _ => {}
        }
    }
    Ok(())
}

/// A name for people.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
