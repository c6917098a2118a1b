//! The same seed gives the same bytes, each law of arrival does what it says, and a scheduled device is small.

use super::file::{PlanError, PlanFile, write};
use super::*;

fn scenario(arrivals: &str, devices: u32, duration_s: u32) -> Scenario {
    let text = format!(
        "name = \"t\"\nseed = 7\ndevices = {devices}\nduration_s = {duration_s}\n[arrivals]\n{arrivals}\n\
         [popularity]\non_demand = 1\n[[link]]\nclass = \"fibre\"\nshare = 3\n[[link]]\nclass = \"dsl\"\nshare = 1\n"
    );
    Scenario::parse(&text).unwrap_or_else(|error| panic!("{error}"))
}

const LAWS: [&str; 8] = [
    "kind = \"poll\"\ninterval_s = 10",
    "kind = \"diurnal\"\ninterval_s = 5\nday_s = 60",
    "kind = \"flash\"\nat_s = 3\nwithin_s = 10",
    "kind = \"reboot\"\nat_s = 3\nspread_s = 10",
    "kind = \"herd\"\nlife_s = 20\nwithin_s = 2",
    "kind = \"cold\"\nrate_per_s = 50",
    "kind = \"ramp\"\nstages = [[10, 10], [20, 10], [50, 90]]",
    "kind = \"trace\"\nwakes = [[2, 4], [1.5, 3], [2, 4]]",
];

fn bytes(scenario: &Scenario) -> Vec<u8> {
    let mut out = Vec::new();
    write(scenario, &mut out).unwrap();
    out
}

fn times_s(scenario: &Scenario) -> Vec<f64> {
    Plan::of(scenario).map(|planned| planned.wake.at_us as f64 / 1e6).collect()
}

#[test]
fn a_seed_is_a_plan_byte_for_byte() {
    for law in LAWS {
        let one = scenario(law, 500, 60);
        let written = bytes(&one);
        assert_eq!(written, bytes(&one), "{law}");
        let other = Scenario { seed: 8, ..one.clone() };
        assert!(written != bytes(&other) && written.len() > 60, "{law}: another seed, another plan");
        let replayed: Result<Vec<_>, _> = PlanFile::open(&written[..], &one).unwrap().collect();
        assert_eq!(replayed.unwrap(), Plan::of(&one).collect::<Vec<_>>(), "{law}: what was written is replayed");
        assert!(matches!(PlanFile::open(&written[..], &other), Err(PlanError::OtherScenario { .. })));
        assert!(Plan::of(&one).map(|planned| planned.wake).is_sorted_by_key(|wake| wake.at_us), "{law}");
    }
}

#[test]
fn a_device_does_not_hang_on_the_number_of_devices() {
    let wakes = |devices| {
        Plan::of(&scenario(LAWS[0], devices, 60)).filter(|planned| planned.wake.device == 17).collect::<Vec<_>>()
    };
    assert_eq!(wakes(20), wakes(2_000));
}

#[test]
fn spoilt_plan_files_are_refused() {
    let scenario = scenario(LAWS[0], 20, 60);
    let written = String::from_utf8(bytes(&scenario)).unwrap();
    let (head, _) = written.split_once('\n').unwrap();
    for line in ["5 1 0 0", "5 1 0 9 1\n", "5 99 0 0 1\n", "5 1 0 0 77\n", "x\n", "9 1 0 0 1\n5 1 0 0 1\n"] {
        let spoilt = format!("{head}\n{line}");
        let read: Result<Vec<_>, _> = PlanFile::open(spoilt.as_bytes(), &scenario).unwrap().collect();
        assert!(matches!(read, Err(PlanError::Line { .. })), "{line:?}: {read:?}");
    }
}

#[test]
fn a_million_scheduled_devices_cost_little() {
    let plan = Plan::of(&scenario("kind = \"poll\"\ninterval_s = 3600", 1_000_000, 3600));
    let per_device = (size_of::<Plan>() + plan.heap_bytes()) as f64 / 1e6;
    assert!(per_device < 256.0, "{per_device} bytes");
    assert!(per_device >= 16.0, "the plan holds them all");
}

#[test]
fn polls_come_evenly_with_their_jitter() {
    let scenario = scenario(LAWS[0], 2_000, 60);
    let times = times_s(&scenario);
    assert!((11_500..12_500).contains(&times.len()), "{} polls of 2000 devices in 6 intervals", times.len());
    for tenth in 0..6 {
        let from = f64::from(tenth) * 10.0;
        let count = times.iter().filter(|at| (from..from + 10.0).contains(*at)).count();
        assert!((1_850..2_150).contains(&count), "{count} polls in ten seconds from {from}");
    }
    let mut last = std::collections::HashMap::new();
    for planned in Plan::of(&scenario) {
        if let Some(before) = last.insert(planned.wake.device, planned.wake.at_us) {
            let gap_s = (planned.wake.at_us - before) as f64 / 1e6;
            assert!((8.75..11.25).contains(&gap_s), "{gap_s}");
        }
    }
}

#[test]
fn a_day_has_a_peak_and_24_zones_even_it_out() {
    let times =
        times_s(&scenario("kind = \"diurnal\"\ninterval_s = 1\nday_s = 60\ntrough = 0.1\npeak_hour = 12", 1_000, 60));
    // Over all zones the rate is the mean of the law, at any time.
    let expected = 1_000.0 * 60.0 * 0.55;
    assert!((times.len() as f64 - expected).abs() < expected * 0.05, "{} for {expected}", times.len());
    // In one zone it follows the sun.
    let scenario = scenario("kind = \"diurnal\"\ninterval_s = 1\nday_s = 60\ntrough = 0.1\npeak_hour = 12", 1_000, 60);
    let device = (0..1_000).find(|device| Draw::of(7, Purpose::Zone, *device, 0).below(24) == 0).unwrap();
    let own = Plan::of(&scenario).filter(|planned| u64::from(planned.wake.device) == device);
    let (noon, night) = own.map(|planned| planned.wake.at_us / 1_000_000).fold((0, 0), |(noon, night), second| {
        (noon + u32::from((20..40).contains(&second)), night + u32::from(!(10..50).contains(&second)))
    });
    assert!(noon > night, "{noon} polls about noon, {night} at night");
}

#[test]
fn crowds_reboots_herds_and_cold_fleets() {
    let flash = times_s(&scenario(LAWS[2], 3_000, 60));
    assert_eq!(flash.len(), 3_000);
    assert!(flash.iter().all(|at| (3.0..13.0).contains(at)));
    let mean = flash.iter().sum::<f64>() / 3_000.0;
    assert!((mean - 8.0).abs() < 0.2, "{mean}");

    let reboot = times_s(&scenario(LAWS[3], 3_000, 600));
    let after: f64 = reboot.iter().map(|at| at - 3.0).sum::<f64>() / reboot.len() as f64;
    assert!(reboot.iter().all(|at| *at >= 3.0) && (after - 10.0).abs() < 0.6, "{after}");

    let herd = times_s(&scenario(LAWS[4], 1_000, 50));
    assert_eq!(herd.len(), 2_000);
    assert!(herd.iter().all(|at| (20.0..22.0).contains(at) || (40.0..42.0).contains(at)));

    let cold: Vec<_> = Plan::of(&scenario(LAWS[5], 100_000, 60)).collect();
    assert!((2_800..3_200).contains(&cold.len()), "{}", cold.len());
    assert!(cold.iter().zip(0..).all(|(planned, device)| planned.wake.device == device), "each device once");
    let gaps: Vec<_> = cold.windows(2).map(|two| (two[1].wake.at_us - two[0].wake.at_us) as f64 / 1e6).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let spread = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
    assert!((spread / mean - 1.0).abs() < 0.1, "gaps of a Poisson process spread as their mean: {}", spread / mean);
}

#[test]
fn a_ramp_reaches_its_percentages() {
    let times = times_s(&scenario(LAWS[6], 10_000, 60));
    let by = |second: f64| times.iter().filter(|at| **at <= second).count() as f64 / 100.0;
    for (second, percent) in [(5.0, 5.0), (10.0, 10.0), (19.9, 10.0), (35.0, 50.0), (60.0, 90.0)] {
        assert!((by(second) - percent).abs() < 1.5, "{} % by {second} s", by(second));
    }
}

#[test]
fn links_and_wishes_follow_their_shares() {
    let scenario = scenario("kind = \"flash\"\nwithin_s = 1", 8_000, 60);
    let plan: Vec<_> = Plan::of(&scenario).collect();
    let dsl = plan.iter().filter(|planned| planned.link == 1).count();
    assert!((1_850..2_150).contains(&dsl), "{dsl} of 8000 for a share of a quarter");
    assert!(plan.iter().all(|planned| planned.wants.len() == 2 && planned.wants[0] == 0));
    let population = Population::of(&scenario);
    for package in 1..=8_u16 {
        let found = plan.iter().filter(|planned| planned.wants[1] == package).count() as f64;
        let expected = population.popularity_of(usize::from(package)) * 8_000.0;
        assert!((found - expected).abs() < 5.0 * expected.sqrt(), "package {package}: {found} for {expected}");
    }
}
