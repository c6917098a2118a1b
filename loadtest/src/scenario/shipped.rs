//! The scenarios that come with the program, by name. Their files are in `loadtest/scenarios`.

/// Names and texts.
pub const ALL: &[(&str, &str)] = &[
    ("smoke", include_str!("../../scenarios/smoke.toml")),
    ("steady", include_str!("../../scenarios/steady.toml")),
    ("release-wave", include_str!("../../scenarios/release-wave.toml")),
    ("flash-crowd", include_str!("../../scenarios/flash-crowd.toml")),
    ("cold-region", include_str!("../../scenarios/cold-region.toml")),
    ("rotten-edge", include_str!("../../scenarios/rotten-edge.toml")),
    ("freeze", include_str!("../../scenarios/freeze.toml")),
    ("origin-away", include_str!("../../scenarios/origin-away.toml")),
    ("edge-loss", include_str!("../../scenarios/edge-loss.toml")),
    ("million", include_str!("../../scenarios/million.toml")),
    ("billion", include_str!("../../scenarios/billion.toml")),
    ("partition", include_str!("../../scenarios/partition.toml")),
    ("storm", include_str!("../../scenarios/storm.toml")),
    ("ailing", include_str!("../../scenarios/ailing.toml")),
    ("slow-links", include_str!("../../scenarios/slow-links.toml")),
    ("metadata-herd", include_str!("../../scenarios/metadata-herd.toml")),
];

/// The text of a scenario.
pub fn text(name: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn every_one_can_be_read_and_has_rules() {
        for (name, text) in ALL {
            let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenario.name, *name);
            assert!(!scenario.slo.is_empty() && !scenario.about.is_empty(), "{name}");
        }
        assert!(text("smoke").is_some() && text("smoked").is_none());
    }
}
