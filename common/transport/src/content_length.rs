//! Reading `Content-Length` (RFC 9110 §8.6) strictly: one number, or several times the same.

use http::header::{CONTENT_LENGTH, HeaderMap};

/// The `Content-Length`, where there is one.
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|other| other != first) {
        return Err(());
    }
    let digits = first.to_str().map_err(drop)?;
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(());
    }
    digits.parse().map(Some).map_err(drop)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn one_number_or_the_same_again() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_LENGTH, HeaderValue::from_str(value).unwrap());
            }
            content_length(&headers)
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["0"]), Ok(Some(0)));
        assert_eq!(read(&["7", "7"]), Ok(Some(7)));
        assert_eq!(read(&["18446744073709551615"]), Ok(Some(u64::MAX)));
        for refused in [&["7", "8"][..], &[""], &["+7"], &["7, 7"], &["-1"], &["0x7"], &["18446744073709551616"]] {
            assert_eq!(read(refused), Err(()), "{refused:?}");
        }
    }
}
