//! A chain of roots against a model of the rule: the next root counts if it has the next version and enough signatures of
//! the keys before it and of its own.
//!
//! Each four bytes of the input are one root: who its root keys are, its threshold, who signed, and what is odd about it.

use std::collections::BTreeMap;

use bytes::Bytes;
use colibri_metadata::{Answer, Start, Step, TrustAnchor, Update};

use crate::signer::{NOW, of_mask, root, sign};

/// Most roots of one chain.
const ROOTS_MAX: usize = 12;

/// What the model trusts.
struct Trusted {
    version: u64,
    keys: u8,
    threshold: u64,
}

/// The chain ends where the model says, with what the model says.
pub fn root_chain(data: &[u8]) {
    let mut trusted = Trusted { version: 1, keys: 0b0011, threshold: 1 };
    let first = sign(&root(1, trusted.keys, trusted.threshold), of_mask(trusted.keys)).expect("a root");
    let mut files = BTreeMap::new();
    let mut ended = false;
    for step in data.as_chunks::<4>().0.iter().take(ROOTS_MAX) {
        let (keys, signers, odd) = (step[0] & 15, step[2] & 15, step[3]);
        let threshold = u64::from(step[1] % 6);
        // Mostly the next version; sometimes another one in the next one's file.
        let version = if odd & 0xf0 == 0xf0 { u64::from(odd & 15) } else { trusted.version + 1 };
        let value = root(version, keys, threshold);
        let (again, other) = (odd & 1 != 0, odd & 2 != 0);
        // Twice the same signature counts once, or not at all; a signature over something else never.
        let repeated = of_mask(if again { signers & signers.wrapping_neg() } else { 0 });
        let file = sign(&value, of_mask(signers).chain(repeated)).expect("a root");
        let file = if other { unrelated(&value, &file) } else { file };
        let number = trusted.version + 1;
        files.entry(format!("{number}.root.json")).or_insert_with(|| Bytes::from(file));
        let good = !other
            && version == number
            && threshold >= 1
            && enough(signers & trusted.keys, trusted.threshold)
            && enough(signers & keys, threshold);
        if !good || again {
            // A repeated signature may be refused, but must not help.
            ended = true;
            let (version, ok) = run(&first, &files);
            let may = good && again;
            assert!(version == trusted.version || (may && version == number), "{version} after {data:02x?}");
            assert!(!ok || version != trusted.version, "a wrong root is an error, not an end");
            break;
        }
        trusted = Trusted { version, keys, threshold };
    }
    if !ended {
        assert_eq!(run(&first, &files).0, trusted.version, "{data:02x?}");
    }
}

fn enough(signers: u8, threshold: u64) -> bool {
    u64::from(signers.count_ones()) >= threshold
}

/// The envelope with a signed part that is not what was signed: a later expiry.
fn unrelated(value: &serde_json::Value, file: &[u8]) -> Vec<u8> {
    let mut envelope: serde_json::Value = serde_json::from_slice(file).expect("our own");
    let mut value = value.clone();
    value["expires"] = "2031-01-01T00:00:00Z".into();
    envelope["signed"] = value;
    serde_json::to_vec(&envelope).expect("JSON")
}

/// The version of the root that the client ends with, and whether the chain ended without an error.
fn run(first: &[u8], files: &BTreeMap<String, Bytes>) -> (u64, bool) {
    let anchor = TrustAnchor::RootFile(Bytes::copy_from_slice(first));
    let mut update = Update::start(Start::FromAnchor(anchor), NOW);
    let mut ok = true;
    while let Step::Want(want) = update.next() {
        if want.name == "timestamp.json" {
            break;
        }
        let answer = files.get(&want.name).map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()));
        if update.supply(answer).is_err() {
            ok = false;
            break;
        }
    }
    let floor = update.into_floor().expect("the first root stays");
    (u64::from(floor.root().version()), ok)
}
