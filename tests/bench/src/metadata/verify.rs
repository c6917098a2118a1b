//! What is measured: our core, from a trusted root to a trusted set, through the door that every client uses.

use colibri_metadata::{Answer, Caps, Start, Step, TrustAnchor, TrustedSet, Update};

use crate::metadata::repository::{Generated, NOW};

/// Targets that [`look_up`] asks for.
pub const LOOKUPS: usize = 1000;

/// A whole refresh: root, timestamp, snapshot, targets.
pub fn refresh(generated: &Generated) -> TrustedSet {
    let caps = Caps { targets_bytes: 64 << 20, ..Caps::default() };
    let anchor = TrustAnchor::RootFile(generated.root.clone());
    let mut update = Update::start(Start::FromAnchor(anchor), NOW).within(caps);
    while let Step::Want(want) = update.next() {
        let answer = match want.name.as_str() {
            "timestamp.json" => Answer::Found(generated.timestamp.clone()),
            "1.snapshot.json" => Answer::Found(generated.snapshot.clone()),
            "1.targets.json" => Answer::Found(generated.targets.clone()),
            _ => Answer::NotFound,
        };
        update.supply(answer).expect("it was generated");
    }
    let set = update.finish().expect("it was generated");
    assert_eq!(set.targets().map(colibri_metadata::Targets::len), Some(generated.count));
    set
}

/// Looks targets up, spread over all.
pub fn look_up(set: &TrustedSet, generated: &Generated) {
    for step in 0..LOOKUPS {
        let name = Generated::name(step * generated.count / LOOKUPS).parse().expect("a name");
        assert!(std::hint::black_box(set.find(&name)).is_some());
    }
}
