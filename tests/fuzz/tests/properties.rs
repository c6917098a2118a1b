//! Every property on its seeds and on some random damage to them: quick, without a fuzzer.

use colibri_fuzz::TARGETS;

/// Damaged inputs per seed.
const DAMAGED: usize = 200;

#[test]
fn every_property_holds_on_its_seeds_and_on_damage_to_them() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has seeds", target.name);
        (target.property)(b"");
        for input in seeds {
            (target.property)(&input);
            for _ in 0..DAMAGED {
                (target.property)(&damaged(&input, &mut random));
            }
        }
    }
}

fn damaged(input: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=bytes.len());
        match random.u8(..3) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 => drop(bytes.drain(at..(at + random.usize(1..16)).min(bytes.len()))),
            _ => bytes.insert(at, random.u8(..)),
        }
    }
    bytes
}
