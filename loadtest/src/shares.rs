//! What a report's counters say of protocols: how much went over which protocol, how often a connection was used again.

use std::collections::BTreeMap;

/// Name of a share, and the counters it is made of.
const SHARES: [(&str, &str, &str); 6] = [
    ("requests over HTTP/3", "h3_requests", "requests"),
    ("requests over HTTP/2", "h2_requests", "requests"),
    ("requests over HTTP/1.1", "h1_requests", "requests"),
    ("requests on a used connection", "reused_requests", "requests"),
    ("connections over HTTP/3", "h3_connections", "connections"),
    ("resumed sessions", "resumed_connections", "connections"),
];

/// The shares that can be told.
pub fn of(counters: &BTreeMap<String, u64>) -> Vec<(&'static str, f64)> {
    let share = |(name, part, whole): (&'static str, &str, &str)| {
        let whole = *counters.get(whole).filter(|count| **count > 0)?;
        Some((name, *counters.get(part)? as f64 / whole as f64))
    };
    SHARES.into_iter().filter_map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_left_out() {
        let counters = [("requests", 8), ("h3_requests", 6), ("connections", 0), ("h3_connections", 0)];
        let counters = counters.map(|(name, count)| (name.to_owned(), count)).into();
        assert_eq!(of(&counters), [("requests over HTTP/3", 0.75)]);
    }
}
