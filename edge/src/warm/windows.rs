//! [`Windows`]: the times of day, in UTC, at which is warmed.

use colibri_common::UnixSeconds;

const DAY_S: u64 = 24 * 3600;

/// Spans of the day in seconds; none means at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Windows(Vec<(u64, u64)>);

impl Windows {
    /// Reads `HH:MM-HH:MM`; one that ends before it begins goes over midnight.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let bad = |text: &str| format!("`{text}` is no window of time: give it as 01:00-05:30, in UTC");
        let span = |text: &String| {
            let (from, to) = text.split_once('-').ok_or_else(|| bad(text))?;
            Ok((time(from).ok_or_else(|| bad(text))?, time(to).ok_or_else(|| bad(text))?))
        };
        texts.iter().map(span).collect::<Result<_, _>>().map(Self)
    }

    /// Whether this is a time for warming.
    pub fn are_open(&self, now: UnixSeconds) -> bool {
        let at = now.0 % DAY_S;
        let inside = |&(from, to): &(u64, u64)| {
            if from <= to { (from..to).contains(&at) } else { at >= from || at < to }
        };
        self.0.is_empty() || self.0.iter().any(inside)
    }
}

fn time(text: &str) -> Option<u64> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let number = |text: &str| (text.len() == 2).then(|| text.parse::<u64>().ok()).flatten();
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60 || (hours, minutes) == (24, 0)).then_some(hours * 3600 + minutes * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_at(windows: &[&str], hour: u64) -> bool {
        let texts: Vec<String> = windows.iter().map(|text| (*text).to_owned()).collect();
        Windows::parse(&texts).unwrap().are_open(UnixSeconds(40 * DAY_S + hour * 3600))
    }

    #[test]
    fn windows_may_go_over_midnight_and_none_is_always() {
        assert!(open_at(&[], 12));
        assert!(open_at(&["01:00-05:30"], 1) && !open_at(&["01:00-05:00"], 5));
        assert!(open_at(&["22:00-04:00"], 23) && open_at(&["22:00-04:00"], 3) && !open_at(&["22:00-04:00"], 4));
        assert!(open_at(&["01:00-02:00", "12:00-24:00"], 23) && !open_at(&["01:00-02:00", "12:00-24:00"], 3));
        for bad in ["", "1-2", "01:00", "25:00-26:00", "01:60-02:00", "1:00-2:00", "a:b-c:d", "24:01-01:00"] {
            assert!(Windows::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
