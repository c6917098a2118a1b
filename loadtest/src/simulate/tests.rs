//! The model against closed forms, and its own promises.

use super::cache::Lru;
use super::*;
use crate::draw::{Draw, Purpose, Weighted};
use crate::outcome::Standing;

fn scenario(text: &str) -> Scenario {
    Scenario::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn simulated(text: &str) -> Report {
    Simulation::of(&scenario(text)).run(&mut |_| ()).unwrap()
}

#[test]
fn the_cache_follows_che() {
    for (alpha, share) in [(0.6, 0.05), (0.8, 0.01), (1.0, 0.1), (1.2, 0.01)] {
        let objects = 10_000;
        let law = Weighted::zipf(objects, alpha);
        let capacity = (objects as f64 * share) as u64;
        let mut cache = Lru::new(capacity);
        let mut draw = Draw::of(3, Purpose::Wants, 0, 0);
        let mut hits = 0;
        for number in 0..400_000 {
            let object = Object::Package(law.pick(&mut draw) as u16);
            let hit = cache.touch(object);
            hits += u32::from(hit && number >= 100_000);
            cache.insert(object, 1);
        }
        let probabilities: Vec<_> = (0..objects).map(|index| law.probability(index)).collect();
        let (found, expected) = (f64::from(hits) / 300_000.0, analysis::lru_hit_ratio(&probabilities, capacity as f64));
        assert!((found - expected).abs() < 0.01, "alpha {alpha}, {share} of the objects: {found} for {expected}");
    }
    assert_eq!(analysis::lru_hit_ratio(&[0.5, 0.5], 2.0), 1.0);
}

#[test]
fn a_wave_spares_the_origin_what_the_formula_says() {
    let text = "name = 'w'\ndevices = 5000\nduration_s = 100\ninstalled = false\nslo = ['origin_bytes/edge_bytes < 2%']\n\
        [arrivals]\nkind = 'flash'\nwithin_s = 60\n[system]\nedges = 20\npackages = 0\nrelease_file_bytes = 1000000\n";
    let report = simulated(text);
    assert_eq!(report.standing(), Standing::Passed, "{:?}", report.verdicts);
    let count = |name: &str| report.counters[name] as f64;
    let found = 1.0 - count("origin_bytes") / count("edge_bytes");
    let expected = analysis::wave_offload(20.0, 16e6, 5000.0, 16e6);
    // Metadata comes on top of both.
    assert!((found - expected).abs() < 1e-3, "{found} for {expected}");
    // With the meta.far and the file that names the release.
    assert_eq!(count("edge_requests") - count("edge_hits"), 20.0 * 18.0, "each edge fetches each blob once");

    let shielded = simulated(&format!("{text}edges_per_shield = 10\n"));
    let found = 1.0 - shielded.counters["origin_bytes"] as f64 / shielded.counters["edge_bytes"] as f64;
    let expected = analysis::wave_offload(2.0, 16e6, 5000.0, 16e6);
    assert!((found - expected).abs() < 1e-3, "{found} for {expected}");
}

#[test]
fn timestamps_reach_the_origin_once_a_life_and_edge() {
    let text = "name = 't'\ndevices = 2000\nduration_s = 1000\n[arrivals]\nkind = 'poll'\ninterval_s = 100\n\
        [system]\nedges = 4\npackages = 0\ntimestamp_life_s = 10\n";
    let found = simulated(text).counters["origin_checks"] as f64;
    let fluid = analysis::fluid_wave(&scenario(text), 2000).unwrap();
    let expected = fluid.origin_checks_per_s * 1000.0;
    assert!((found / expected - 1.0).abs() < 0.03, "{found} for {expected}");
}

#[test]
fn a_release_takes_a_poll_a_life_and_a_link() {
    let text = "name = 'r'\ndevices = 20000\nduration_s = 400\nslo = ['time_to(99% updated) < 120s']\n\
        [arrivals]\nkind = 'poll'\ninterval_s = 100\n[[release]]\nat_s = 150\n\
        [system]\nedges = 10\npackages = 0\nchanged = 0.5\ntimestamp_life_s = 5\n";
    let report = simulated(text);
    assert_eq!(report.counters["devices_updated"], 20_000);
    let found = report.load_record().unwrap().updated_after_s(150.0, 19_800).unwrap();
    let expected = analysis::fluid_wave(&scenario(text), 20_000).unwrap().most_s;
    assert!((found / expected - 1.0).abs() < 0.15, "{found} s for {expected} s");
    assert_eq!(report.standing(), Standing::Passed);
    let again = simulated(text);
    assert!(again == report, "a seed is a simulation");
}

#[test]
fn narrow_links_and_edges_take_their_time() {
    let text = |link: &str, edge_mbit: f64| {
        format!(
            "name = 'n'\ndevices = 100\nduration_s = 30\ninstalled = false\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n\
         [[link]]\nclass = '{link}'\nshare = 1\n[system]\nedges = 1\npackages = 0\nrelease_file_bytes = 100000\nedge_mbit_per_s = {edge_mbit}\n"
        )
    };
    let p50_s = |report: &Report| {
        let record = report.load_record().unwrap();
        record.of(Step::Fetch, None, None).unwrap().value_at_quantile(0.5) as f64 / 1e6
    };
    // Each of the 16 files is 100 kB after a first request of 33 kB: 2.14 MB over 6 Mb/s take 2.85 s; and six round trips of 40 ms.
    let dsl = p50_s(&simulated(&text("dsl", 10_000.0)));
    assert!((dsl - 3.1).abs() < 0.15, "{dsl}");
    // A hundred times 2.14 MB over 100 Mb/s take 17 s, half of that in the middle.
    let narrow = p50_s(&simulated(&text("fibre", 100.0)));
    assert!((narrow - 8.1).abs() < 1.0, "{narrow}");
}

#[test]
fn what_is_not_simulated_is_refused() {
    let faulty = "name = 'f'\ndevices = 1\nduration_s = 1\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n[[fault]]\nkind = 'slow'\nnode = 'origin'\nat_s = 0\n";
    assert!(matches!(Simulation::of(&scenario(faulty)).run(&mut |_| ()), Err(SimulateError::Faults(_))));
    let large = "name = 'l'\ndevices = 1\nduration_s = 1\n[arrivals]\nkind = 'flash'\nwithin_s = 1\n[system]\nedges = 100000\npackages = 10000\n";
    assert!(matches!(Simulation::of(&scenario(large)).run(&mut |_| ()), Err(SimulateError::TooLarge { .. })));
}
