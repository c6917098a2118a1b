//! Properties of product releases and of rollouts.

use std::collections::BTreeSet;

use colibri_release::{Release, check_references};

/// What is read is written back the same, and is one closed whole.
pub fn release(data: &[u8]) {
    let Ok(release) = Release::parse(data) else { return };
    let text = release.to_bytes().expect("what was read can be written");
    let again = Release::parse(&text).expect("what was written can be read");
    assert_eq!(again, release);
    assert_eq!(again.to_bytes().expect("twice"), text);
    let needed = release.blobs_needed(release.hashes());
    let listed: BTreeSet<_> = release.blobs().iter().map(|blob| blob.hash).collect();
    assert_eq!(needed, listed);
    assert_eq!(listed.len(), release.blobs().len());
}

/// A rollout refers only to what was asked about and agreed to, and one refusal is enough.
pub fn rollout(data: &[u8]) {
    let mut asked = Vec::new();
    let Ok(rollout) = check_references(data, |hash| {
        asked.push(hash);
        true
    }) else {
        return;
    };
    assert_eq!(rollout.releases(), asked);
    for refused in &asked {
        assert!(check_references(data, |hash| hash != *refused).is_err());
    }
    // Every hash that a lenient reader sees in `releases` was asked about.
    let lenient: serde_json::Value = serde_json::from_slice(data).expect("a rollout is JSON");
    let listed = lenient["releases"].as_array().expect("a list");
    assert_eq!(listed.len(), asked.len());
    assert!(listed.iter().zip(&asked).all(|(text, hash)| *text == hash.to_string()));
}
