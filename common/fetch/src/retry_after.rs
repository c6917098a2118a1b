//! `Retry-After` (RFC 9110 §10.2.3): how long a source wants to be left alone.

use std::time::{Duration, UNIX_EPOCH};

use colibri_common::UnixSeconds;
use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// How long it wants to be left alone: seconds, or until a time. That is one of the source's own clock, so what that says now
/// counts, if it says it; else ours.
pub(crate) fn retry_after(headers: &HeaderMap, now: Option<UnixSeconds>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let seconds_of =
        |text: &str| Some(httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs());
    let then = seconds_of(text)?;
    let said = headers.get(DATE).and_then(|value| seconds_of(value.to_str().ok()?));
    let now = said.or(now.map(|now| now.0))?;
    Some(Duration::from_secs(then.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn pause(fields: &[(http::HeaderName, &'static str)], now: Option<u64>) -> Option<u64> {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect();
        retry_after(&headers, now.map(UnixSeconds)).map(|pause| pause.as_secs())
    }

    /// All three forms of RFC 9110 §5.6.7, by the clock of whoever wrote the date if it can be known.
    #[test]
    fn a_pause_may_be_seconds_or_a_date() {
        const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";
        let noon = 784_123_200;
        assert_eq!(pause(&[(RETRY_AFTER, "120")], None), Some(120));
        for then in ["Sun, 06 Nov 1994 12:01:40 GMT", "Sunday, 06-Nov-94 12:01:40 GMT", "Sun Nov  6 12:01:40 1994"] {
            assert_eq!(pause(&[(RETRY_AFTER, then), (DATE, NOON)], None), Some(100), "{then}");
            assert_eq!(pause(&[(RETRY_AFTER, then)], Some(noon)), Some(100), "{then}");
            assert_eq!(pause(&[(RETRY_AFTER, then), (DATE, NOON)], Some(0)), Some(100), "a device in 1970: {then}");
            assert_eq!(pause(&[(RETRY_AFTER, then)], None), None, "nobody says how late it is");
        }
        assert_eq!(pause(&[(RETRY_AFTER, NOON)], Some(noon + 5)), Some(0), "it is over");
        for nonsense in ["", "soon", "-5", "1.5", "Sun, 06 Nov 1994"] {
            assert_eq!(pause(&[(RETRY_AFTER, nonsense)], Some(noon)), None, "{nonsense:?}");
        }
    }
}
