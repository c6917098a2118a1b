//! What is fuzzed: one function per target that takes any bytes and asserts a property, and the seeds to begin with.
//!
//! A target that only does not panic says little: each here compares two ways to the same answer, or what came out with what
//! went in. Deliberately absent: libFuzzer, which `fuzz.rs` adds, so that `cargo test` runs the properties without it.

#![forbid(unsafe_code)]

mod bundle;
mod delegations;
mod formats;
mod release;
mod roles;
mod root_chain;
mod search;
mod seeds;
mod signer;
mod update;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line and of its folders.
    pub name: &'static str,
    /// Asserts.
    pub property: fn(&[u8]),
    /// Inputs to begin with, made of the vectors and of past finds.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input worth trying, in bytes.
    pub input_bytes_max: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "canonical", property: formats::canonical, seeds: seeds::canonical, input_bytes_max: 4 << 10 },
    Target { name: "root", property: roles::root, seeds: seeds::root, input_bytes_max: 8 << 10 },
    Target { name: "timestamp", property: roles::timestamp, seeds: seeds::timestamp, input_bytes_max: 4 << 10 },
    Target { name: "snapshot", property: roles::snapshot, seeds: seeds::snapshot, input_bytes_max: 4 << 10 },
    Target { name: "targets", property: roles::targets, seeds: seeds::targets, input_bytes_max: 8 << 10 },
    Target {
        name: "delegations",
        property: delegations::delegations,
        seeds: seeds::delegations,
        input_bytes_max: 8 << 10,
    },
    Target { name: "search", property: search::search, seeds: seeds::search, input_bytes_max: 128 },
    Target { name: "root-chain", property: root_chain::root_chain, seeds: seeds::root_chain, input_bytes_max: 64 },
    Target { name: "target-name", property: formats::target_name, seeds: seeds::target_name, input_bytes_max: 2 << 10 },
    Target { name: "manifest", property: formats::manifest, seeds: seeds::manifest, input_bytes_max: 8 << 10 },
    Target { name: "far", property: formats::far, seeds: seeds::far, input_bytes_max: 64 << 10 },
    Target { name: "delivery", property: formats::delivery, seeds: seeds::delivery, input_bytes_max: 64 << 10 },
    Target { name: "url", property: formats::url, seeds: seeds::url, input_bytes_max: 2 << 10 },
    Target { name: "release", property: release::release, seeds: seeds::release, input_bytes_max: 32 << 10 },
    Target { name: "bundle", property: bundle::bundle, seeds: seeds::bundle, input_bytes_max: 64 << 10 },
    Target { name: "rollout", property: release::rollout, seeds: seeds::rollout, input_bytes_max: 4 << 10 },
    Target {
        name: "update-package",
        property: update::update_package,
        seeds: seeds::update_package,
        input_bytes_max: 8 << 10,
    },
    Target {
        name: "ota-manifest",
        property: update::ota_manifest,
        seeds: seeds::ota_manifest,
        input_bytes_max: 4 << 10,
    },
    Target { name: "omaha", property: update::omaha, seeds: seeds::omaha, input_bytes_max: 4 << 10 },
    Target { name: "cup", property: update::cup, seeds: seeds::cup, input_bytes_max: 512 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}
