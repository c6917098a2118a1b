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
    assert_eq!(
        scenario.faults,
        [Fault { kind: FaultKind::Freeze, place: Place::Edge(2), at_s: 1.0, for_s: 2.0, by_s: 0.0 }]
    );
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

#[test]
fn faults_are_where_they_can_be() {
    let with = |fault: &str| {
        let text = format!(
            "name = 'x'\ndevices = 1\nduration_s = 1\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n[[fault]]\n{fault}"
        );
        Scenario::parse(&text)
            .map(|scenario| (scenario.faults[0], scenario.acts_on_servers()))
            .map_err(|error| error.to_string())
    };
    let (skew, acts) = with("kind = 'clock-skew'\nnode = 'devices'\nat_s = 0\nby_s = -3600").unwrap();
    assert_eq!((skew.place, skew.by_s, acts), (Place::Devices, -3600.0, false));
    assert!(with("kind = 'cut'\nnode = 'edge-2'\nat_s = 0").unwrap().1);
    for (fault, mistake) in [
        ("kind = 'clock-skew'\nnode = 'devices'\nat_s = 0", "`fault[0].by_s` is needed"),
        ("kind = 'kill'\nnode = 'edge-1'\nat_s = 0\nby_s = 1", "`fault[0].by_s` is not a key"),
        ("kind = 'partition'\nnode = 'origin'\nat_s = 0", "is `origin`: the fault partition is one of an edge"),
        ("kind = 'disk-full'\nnode = 'edge-1'\nat_s = 0", "is `edge-1`: the fault disk-full is one of devices"),
        ("kind = 'drain'\nnode = 'devices'\nat_s = 0", "the fault drain is one of the origin or an edge"),
    ] {
        let error = with(fault).unwrap_err();
        assert!(error.contains(mistake), "{fault}: {error}");
    }
}

#[test]
fn links_have_the_numbers_of_their_class_or_their_own() {
    let link = |keys: &str| {
        let text = format!(
            "name = 'x'\ndevices = 1\nduration_s = 1\nshaped = true\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n[[link]]\nshare = 1\n{keys}"
        );
        Scenario::parse(&text).unwrap().links.remove(0)
    };
    let satellite = link("class = 'satellite'").made();
    assert_eq!((satellite.delay_us, satellite.up_bits_per_s, satellite.loss_ppm), (300_000, 2_000_000, 5_000));
    let changed = link("class = 'wifi'\nloss_percent = 0\nrebind_s = 2.5").made();
    assert_eq!((changed.loss_ppm, changed.rebind_us, changed.jitter_us), (0, 2_500_000, 10_000));
    let own = link("class = 'village'\ndown_mbit_per_s = 2\nround_trip_ms = 80").made();
    assert_eq!((own.up_bits_per_s, own.jitter_us, own.loss_ppm, own.rebind_us), (2_000_000, 0, 0, 0));
}
