//! Scenarios: what is read, and that mistakes are told together.

use super::*;

const WHOLE: &str = r#"
name = "all"
about = "everything"
seed = 9
devices = 1000
duration_s = 60
slo = ["ratio(failed) = 0", "p99(step=timestamp) < 200ms"]
[arrivals]
kind = "ramp"
stages = [[10, 5], [20.5, 50], [60, 100]]
[popularity]
on_demand = 2
zipf = 1.1
[[link]]
class = "dsl"
share = 3
[[link]]
class = "own"
share = 1
down_mbit_per_s = 2.5
round_trip_ms = 7
[[release]]
at_s = 5
[[fault]]
kind = "freeze"
node = "edge-2"
at_s = 1
for_s = 2
[system]
edges = 2
[generator]
sessions_at_once = 9
"#;

#[test]
fn a_whole_scenario() {
    let scenario = Scenario::parse(WHOLE).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.seed, scenario.devices), ("all", 9, 1000));
    assert_eq!(scenario.arrivals, Arrivals::Ramp { stages: vec![(10.0, 5.0), (20.5, 50.0), (60.0, 100.0)] });
    assert_eq!(scenario.links[0].down_bits_per_s, 6e6, "what is usual for the class");
    assert_eq!((scenario.links[1].down_bits_per_s, scenario.links[1].round_trip_ms), (2.5e6, 7.0));
    assert_eq!(scenario.faults, [Fault { kind: FaultKind::Freeze, place: Place::Edge(2), at_s: 1.0, for_s: 2.0 }]);
    assert_eq!((scenario.releases_at_s.as_slice(), scenario.slo.len()), (&[5.0][..], 2));
    assert_eq!(scenario.generator.sessions_at_once, 9);
}

#[test]
fn all_mistakes_are_told_together() {
    let wrong = r#"
name = 3
devices = 0
duration_s = "long"
colour = "red"
slo = ["p99(step=x) < 1s"]
[arrivals]
kind = "pole"
intervall_s = 3
[popularity]
on_demand = 3
[system]
packages = 2
[[fault]]
kind = "explode"
node = "edge-7"
at_s = 0
[[fault]]
kind = "slow"
node = "edge-7"
at_s = 0
[[link]]
class = "carrier pigeon"
"#;
    let Err(ScenarioError::Mistakes(mistakes)) = Scenario::parse(wrong) else { panic!("it was taken") };
    let all = mistakes.join("\n");
    for mistake in [
        "`name` must be a text, not integer",
        "`devices` is 0: it must lie from 1 to",
        "`duration_s` must be a number, not string",
        "`colour` is not a key",
        "`slo[0]` in `p99(step=x) < 1s`, at character 10",
        "`arrivals.kind` is `pole`: it must be poll,",
        "`arrivals.intervall_s` is not a key",
        "`popularity.on_demand` is 3, of 2 packages",
        "`fault[0].kind` is `explode`",
        "`fault` is on edge-7, beyond the 2",
        "`link` classes have no share",
        "`link[0].class` is `carrier pigeon`",
        "`link[0].share` is needed",
    ] {
        assert!(all.contains(mistake), "{mistake} is not in:\n{all}");
    }
    assert_eq!(mistakes.len(), 13, "{all}");
    assert!(matches!(Scenario::parse("name ="), Err(ScenarioError::Syntax(_))));
}
