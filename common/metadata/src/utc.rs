//! The one date form of TUF metadata: `YYYY-MM-DDThh:mm:ssZ` (TUF specification §4.2.1), to and from [`UnixSeconds`].

use colibri_common::UnixSeconds;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const FORM: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// Length of the form in bytes: years have four digits.
const FORM_BYTES: usize = 20;

/// Reads a date; nothing if it is not exactly of the form, or lies before 1970.
pub fn parse(text: &str) -> Option<UnixSeconds> {
    if text.len() != FORM_BYTES {
        return None;
    }
    let seconds = PrimitiveDateTime::parse(text, FORM).ok()?.assume_utc().unix_timestamp();
    u64::try_from(seconds).ok().map(UnixSeconds)
}

/// Writes a date; nothing beyond the year 9999.
pub fn format(at: UnixSeconds) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.0).ok()?).ok()?.format(FORM).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_round() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-31T00:00:00Z", 1_769_817_600),
            ("2024-02-29T23:59:59Z", 1_709_251_199),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Some(UnixSeconds(seconds)), "{text}");
            assert_eq!(format(UnixSeconds(seconds)).as_deref(), Some(text));
        }
        assert_eq!(format(UnixSeconds(253_402_300_800)), None);
        assert_eq!(format(UnixSeconds(u64::MAX)), None);
    }

    #[test]
    fn only_the_one_form_is_a_date() {
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T00:00:00",
            "2026-01-31t00:00:00Z",
            "2026-01-31T00:00:00z",
            "2026-01-31T00:00:00.0Z",
            "2026-01-31T00:00:00+00:00",
            "2026-02-29T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T00:00:60Z",
            "1969-12-31T23:59:59Z",
            "+2026-1-31T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
