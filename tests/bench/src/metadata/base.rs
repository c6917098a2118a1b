//! The base: one parse with `serde_json` into plain typed structs, and one ed25519 verification over the raw slice, whose place
//! is known beforehand. No check of form beyond the types, none for duplicate keys, none whether the slice is canonical.

use std::collections::BTreeMap;

use colibri_common::unhex;
use serde::Deserialize;

use crate::metadata::repository::Generated;

/// A file with strings of type `S`.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de> + Ord"))]
pub struct File<S> {
    /// The signatures.
    pub signatures: Vec<Signature<S>>,
    /// The signed part.
    pub signed: Signed<S>,
}

/// One signature.
#[derive(Deserialize)]
pub struct Signature<S> {
    /// Whose.
    pub keyid: S,
    /// In hex.
    pub sig: S,
}

/// The signed part of targets.
#[derive(Deserialize)]
#[serde(bound(deserialize = "S: Deserialize<'de> + Ord"))]
pub struct Signed<S> {
    /// `targets`.
    pub _type: S,
    /// `1.0`.
    pub spec_version: S,
    /// At least 1.
    pub version: u32,
    /// A date.
    pub expires: S,
    /// By name.
    pub targets: BTreeMap<S, Target<S>>,
}

/// One target.
#[derive(Deserialize)]
pub struct Target<S> {
    /// In bytes.
    pub length: u64,
    /// By algorithm.
    pub hashes: Hashes<S>,
    /// What a package repository adds.
    pub custom: Custom<S>,
}

/// The hashes.
#[derive(Deserialize)]
pub struct Hashes<S> {
    /// In hex.
    pub sha256: S,
}

/// `custom`.
#[derive(Deserialize)]
pub struct Custom<S> {
    /// The package hash.
    pub merkle: S,
    /// In bytes.
    pub size: u64,
}

/// The base with strings of its own: what a program keeps.
pub fn parse_and_check(generated: &Generated) -> File<String> {
    let file: File<String> = serde_json::from_slice(&generated.targets).expect("it was generated");
    check(generated, &file.signatures[0].sig, file.signed.targets.len());
    file
}

/// The leanest base: strings borrowed from the document.
pub fn parse_borrowed_and_check(generated: &Generated) -> File<&str> {
    let file: File<&str> = serde_json::from_slice(&generated.targets).expect("it was generated");
    check(generated, file.signatures[0].sig, file.signed.targets.len());
    file
}

fn check(generated: &Generated, signature: &str, count: usize) {
    let signature = unhex(signature).expect("hex");
    assert!(generated.key.verifies(&generated.targets[generated.signed.clone()], &signature));
    assert_eq!(count, generated.count);
}
