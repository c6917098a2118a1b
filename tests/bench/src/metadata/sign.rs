//! Signing and serialising a flat document of many targets, against "serialise once with `serde_json` from plain typed structs,
//! one ed25519 signature".

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use colibri_common::{BlobId, hex, sha256};
use colibri_metadata::{PublicKey, TargetName};
use colibri_repository::sign_targets::{self, Entries, Entry};
use serde::Serialize;
use serde_json::json;

use crate::metadata::repository::Generated;

/// What is to be signed, in the form that each way starts from.
pub struct Document {
    pair: Ed25519KeyPair,
    key: PublicKey,
    base: Signed,
    values: Vec<(TargetName, BlobId, String)>,
    ours: Entries,
    rest: serde_json::Map<String, serde_json::Value>,
}

/// The signed part as the base has it. Fields are in canonical order.
#[derive(Serialize)]
struct Signed {
    _type: String,
    expires: String,
    spec_version: String,
    targets: BTreeMap<String, Target>,
    version: u32,
}

#[derive(Serialize)]
struct Target {
    custom: Custom,
    hashes: Hashes,
    length: u64,
}

#[derive(Serialize)]
struct Custom {
    merkle: String,
    size: u64,
}

#[derive(Serialize)]
struct Hashes {
    sha512: String,
}

impl Document {
    /// `count` packages as a publish lists them: the merkle root and one SHA-512.
    pub fn new(count: usize) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes");
        let key = PublicKey::from_bytes(pair.public_key().as_ref().try_into().expect("a public key has 32 bytes"));
        let (mut targets, mut ours, mut values) = (BTreeMap::new(), Entries::new(), Vec::new());
        for number in 0..count {
            let name = Generated::name(number);
            let merkle = BlobId::from_digest(sha256(name.as_bytes()));
            let sha512 = hex(&sha256(&number.to_le_bytes())).repeat(2);
            let parsed: TargetName = name.parse().expect("a target name");
            values.push((parsed.clone(), merkle, sha512.clone()));
            ours.insert(parsed, Entry::package(merkle, 24_576, &sha512));
            let custom = Custom { merkle: merkle.to_string(), size: 24_576 };
            targets.insert(name, Target { custom, hashes: Hashes { sha512 }, length: 24_576 });
        }
        let (expires, version) = ("2026-01-31T00:00:00Z".to_owned(), 1);
        let rest = json!({"_type": "targets", "expires": expires, "spec_version": "1.0", "version": version});
        let rest = rest.as_object().expect("an object").clone();
        let base = Signed { _type: "targets".into(), expires, spec_version: "1.0".into(), targets, version };
        Self { pair, key, base, values, ours, rest }
    }

    /// The base.
    pub fn base(&self) -> Vec<u8> {
        let signed = serde_json::to_vec(&self.base).expect("strings and numbers");
        self.seal(&signed)
    }

    /// Ours from typed values: the entries are made too, as when all targets were new in one publish.
    pub fn ours_from_values(&self) -> Vec<u8> {
        let entry = |(name, merkle, sha512): &(TargetName, BlobId, String)| {
            (name.clone(), Entry::package(*merkle, 24_576, sha512))
        };
        let entries: Entries = self.values.iter().map(entry).collect();
        self.seal(&sign_targets::write(&self.rest, &entries).expect("nothing that cannot be signed"))
    }

    /// Ours: the writer that every publish uses, over entries that are there.
    pub fn ours(&self) -> Vec<u8> {
        let signed = sign_targets::write(&self.rest, &self.ours).expect("nothing that cannot be signed");
        self.seal(&signed)
    }

    fn seal(&self, signed: &[u8]) -> Vec<u8> {
        let signature = hex(self.pair.sign(signed).as_ref());
        sign_targets::envelope(signed, &[(self.key.id(), signature)])
    }
}
