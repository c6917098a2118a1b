//! A signer for the harnesses: four fixed keys, envelopes with whatever signatures are asked for, and a clock that stands.

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use colibri_common::{UnixSeconds, hex};
use colibri_metadata::{KeyId, PublicKey, canonical};
use serde_json::{Map, Value, json};

/// 2026-01-02T00:00:00Z, as text and as a number.
pub const NOW_TEXT: &str = "2026-01-02T00:00:00Z";
/// The same.
pub const NOW: UnixSeconds = UnixSeconds(1_767_312_000);
/// When what the harness signs expires.
pub const EXPIRES: &str = "2030-01-01T00:00:00Z";

/// One key.
pub struct Key {
    pair: Ed25519KeyPair,
    /// As metadata writes it.
    pub json: Value,
    /// Its id.
    pub id: KeyId,
}

impl Key {
    fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed has 32 bytes");
        let public = hex(pair.public_key().as_ref());
        let json = json!({"keytype": "ed25519", "keyval": {"public": public}, "scheme": "ed25519"});
        let id = KeyId::of(&json).expect("a key has an id");
        Self { pair, json, id }
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey::from_json(&self.json).expect("a key that metadata can write")
    }

    /// A signature over any bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// The keys.
pub static KEYS: LazyLock<[Key; 4]> = LazyLock::new(|| [1, 2, 3, 4].map(Key::new));

/// The keys of a bit mask.
pub fn of_mask(mask: u8) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().enumerate().filter(move |(index, _)| mask & 1 << index != 0).map(|(_, key)| key)
}

/// An envelope around `signed` with a signature of each key; nothing if the value has no canonical form.
pub fn sign<'a>(signed: &Value, keys: impl IntoIterator<Item = &'a Key>) -> Option<Vec<u8>> {
    let message = canonical::encode(signed).ok()?;
    let signature = |key: &Key| json!({"keyid": key.id, "sig": hex(key.pair.sign(&message).as_ref())});
    let signatures: Vec<Value> = keys.into_iter().map(signature).collect();
    canonical::encode(&json!({"signatures": signatures, "signed": signed})).ok()
}

/// The signed part of a root of this version: `root` keys and threshold for root, key 0 for the other roles.
pub fn root(version: u64, root: u8, threshold: u64) -> Value {
    let listed: Map<String, Value> = KEYS.iter().map(|key| (key.id.to_string(), key.json.clone())).collect();
    let ids = |mask: u8| of_mask(mask).map(|key| key.id.to_string()).collect::<Vec<_>>();
    let online = json!({"keyids": ids(1), "threshold": 1});
    json!({
        "_type": "root", "spec_version": "1.0", "version": version, "expires": EXPIRES, "consistent_snapshot": false,
        "keys": listed,
        "roles": {
            "root": {"keyids": ids(root), "threshold": threshold},
            "timestamp": online, "snapshot": online, "targets": online,
        },
    })
}
