//! A signed repository of many flat targets in memory: 225 bytes per target.

use std::fmt::Write as _;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use bytes::Bytes;
use colibri_common::{UnixSeconds, hex, sha256};
use colibri_metadata::{PublicKey, utc};
use serde_json::{Value, json};

/// Bytes of one entry, the comma included.
const BYTES_PER_TARGET: usize = 225;

/// When everything is fresh.
pub const NOW: UnixSeconds = UnixSeconds(1_768_435_200);

/// The files of a repository, and what a base is told about them beforehand.
pub struct Generated {
    /// Trusted.
    pub root: Bytes,
    /// Names the snapshot by its version.
    pub timestamp: Bytes,
    /// Names targets by its version.
    pub snapshot: Bytes,
    /// The large one.
    pub targets: Bytes,
    /// Where the signed part lies in it.
    pub signed: std::ops::Range<usize>,
    /// Whose signature it carries.
    pub key: PublicKey,
    /// How many targets.
    pub count: usize,
}

impl Generated {
    /// A repository with `count` targets, one key for all roles.
    pub fn new(count: usize) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed has 32 bytes");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        let key = PublicKey::from_bytes(public);
        let id = key.id();
        let role = json!({"keyids": [id], "threshold": 1});
        let roles = json!({"root": role, "snapshot": role, "targets": role, "timestamp": role});
        let meta = |file: &str| json!({file: {"version": 1}});
        let listed = |kind: &str, name: &str, value: Value| {
            let mut signed = header(kind);
            signed[name] = value;
            signed
        };
        let mut root = listed("root", "roles", roles);
        root["consistent_snapshot"] = json!(true);
        root["keys"] = json!({id.as_str(): key.to_json()});
        let file = |signed: &Value| sign(&pair, id.as_str(), &encode(signed));
        let signed = targets(count);
        let targets = sign(&pair, id.as_str(), &signed);
        let start = targets.len() - 1 - signed.len();
        Self {
            root: file(&root),
            timestamp: file(&listed("timestamp", "meta", meta("snapshot.json"))),
            snapshot: file(&listed("snapshot", "meta", meta("targets.json"))),
            signed: start..targets.len() - 1,
            targets,
            key,
            count,
        }
    }

    /// The name of a target.
    pub fn name(number: usize) -> String {
        format!("package-{number:08}/0")
    }
}

fn header(kind: &str) -> Value {
    let expires = utc::format(NOW.plus(86_400)).expect("before the year 9999");
    json!({"_type": kind, "expires": expires, "spec_version": "1.0", "version": 1})
}

fn encode(signed: &Value) -> String {
    let bytes = colibri_metadata::canonical::encode(signed).expect("no floats");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// The signed part of targets, written in canonical form at once.
fn targets(count: usize) -> String {
    let mut out = encode(&header("targets"));
    // Between `spec_version` and `version`, where canonical order wants it.
    let at = out.find("\"version\"").expect("a header has a version");
    let mut listed = String::with_capacity(count * BYTES_PER_TARGET + 16);
    listed.push_str("\"targets\":{");
    for number in 0..count {
        let start = listed.len();
        let name = Generated::name(number);
        let (merkle, hash) = (hex(&sha256(name.as_bytes())), hex(&sha256(&number.to_le_bytes())));
        write!(
            listed,
            r#""{name}":{{"custom":{{"merkle":"{merkle}","size":24576}},"hashes":{{"sha256":"{hash}"}},"length":24576}},"#,
        )
        .expect("a string takes everything");
        assert_eq!(listed.len() - start, BYTES_PER_TARGET, "{}", &listed[start..]);
    }
    listed.pop();
    listed.push_str("},");
    out.insert_str(at, &listed);
    out
}

fn sign(pair: &Ed25519KeyPair, id: &str, signed: &str) -> Bytes {
    let signature = hex(pair.sign(signed.as_bytes()).as_ref());
    format!(r#"{{"signatures":[{{"keyid":"{id}","sig":"{signature}"}}],"signed":{signed}}}"#).into()
}
