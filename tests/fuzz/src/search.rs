//! A search through a graph of delegations against the specification's words (§5.6.7) as a recursive function.
//!
//! The input is a graph: a few bytes say which roles have the target, are listed, are there, and who signed them; then four
//! bytes for each delegation. Cycles, several ways to one role and roles that must not be believed come by themselves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use colibri_common::{hex, merkle};
use colibri_metadata::{Answer, RoleName, Search, Step, TargetName};
use serde_json::{Map, Value, json};

use crate::delegations::matches;
use crate::roles::refresh;
use crate::signer::{EXPIRES, KEYS, NOW, of_mask, sign};

/// The delegated roles of a graph. Some names are hash bins, some must be encoded for files.
const ROLES: [&str; 8] = ["a", "bin-1", "bin-c", "../b", "ü", "rollout", "%2e%2e", "targets.json"];
/// What is searched for.
const NAME: &str = "b/x y";
/// What delegations cover: most of them the name.
const PATTERNS: [&str; 4] = ["b/x?y", "*/*", "*", "b/x*z"];
/// Bytes before the delegations.
const HEAD_BYTES: usize = 8;
/// Most delegations of one graph.
const EDGES_MAX: usize = 24;

/// What the input describes. Numbers below eight are roles, eight is the top.
struct Graph {
    has_target: u8,
    unlisted: u8,
    absent: u8,
    top_has_target: bool,
    signers: [u8; 8],
    edges: [Vec<Edge>; 9],
}

#[derive(Clone, Copy)]
struct Edge {
    /// To which role; nothing if that role is none of [`ROLES`], as a hash bin may be.
    to: Option<usize>,
    covers: Covers,
    keys: u8,
    threshold: u32,
    terminating: bool,
}

#[derive(Clone, Copy)]
enum Covers {
    Pattern(usize),
    /// So many digits of the name's hash, the last of which may be wrong.
    Prefix(usize, bool),
    /// All, as hash bins of so many bits.
    Bins(u32),
}

/// How a search ends.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Found(Option<RoleName>),
    Nothing,
    Refused,
}

fn digest() -> String {
    hex(merkle::sha256(NAME.as_bytes()).as_ref())
}

impl Graph {
    fn of(data: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = data.first_chunk()?;
        let [has_target, unlisted, absent, top, pairs @ ..] = *head;
        // Two roles in a byte; without a bit set, the first key signs.
        let signers = std::array::from_fn(|role| (pairs[role / 2] >> (role % 2 * 4) & 15) ^ 1);
        let edges = std::array::from_fn(|_| Vec::new());
        let mut graph = Self { has_target, unlisted, absent, top_has_target: top & 1 != 0, signers, edges };
        for edge in data[HEAD_BYTES..].as_chunks::<4>().0.iter().take(EDGES_MAX) {
            graph.edge(edge);
        }
        Some(graph)
    }

    fn edge(&mut self, [ends, covers, keys, flags]: &[u8; 4]) {
        let edges = &mut self.edges[usize::from(ends & 15) % 9];
        let (to, amount) = (usize::from(ends >> 4) % 8, usize::from(covers >> 3));
        let mut edge = Edge {
            to: Some(to),
            covers: match covers & 7 {
                pattern @ 0..4 => Covers::Pattern(pattern.into()),
                right => Covers::Prefix(amount, right % 2 == 0),
            },
            keys: (keys & 15) ^ 1,
            threshold: 1 + u32::from(keys >> 4) % 3,
            terminating: flags & 1 != 0,
        };
        let is_bins = |edge: &Edge| matches!(edge.covers, Covers::Bins(_));
        if flags & 0x80 != 0 && edges.is_empty() {
            let bits = 1 + amount as u32;
            let name = bin(bits);
            edge = Edge {
                to: ROLES.iter().position(|role| *role == name),
                covers: Covers::Bins(bits),
                terminating: true,
                ..edge
            };
        } else if edges.iter().any(|before| is_bins(before) || before.to == edge.to) {
            // Nobody may delegate to one role twice, or to bins and others.
            return;
        }
        edges.push(edge);
    }

    /// §5.6.7 for the delegates of `from`. Nothing: the search goes on elsewhere.
    fn walk(&self, from: usize, visited: &mut BTreeSet<usize>) -> Option<Outcome> {
        for edge in self.edges[from].iter().filter(|edge| edge.covers.covers()) {
            let Some(role) = edge.to else { return Some(Outcome::Refused) };
            if visited.insert(role) {
                let bit = 1 << role;
                let signed = (edge.keys & self.signers[role]).count_ones() >= edge.threshold;
                if self.unlisted & bit != 0 || self.absent & bit != 0 || !signed {
                    return Some(Outcome::Refused);
                }
                if self.has_target & bit != 0 {
                    return Some(Outcome::Found(ROLES[role].parse().ok()));
                }
                if let Some(end) = self.walk(role, visited) {
                    return Some(end);
                }
            }
            if edge.terminating {
                return Some(Outcome::Nothing);
            }
        }
        None
    }

    fn expected(&self) -> Outcome {
        if self.top_has_target {
            return Outcome::Found(None);
        }
        self.walk(8, &mut BTreeSet::new()).unwrap_or(Outcome::Nothing)
    }

    /// The signed part of a role.
    fn document(&self, role: usize) -> Value {
        let has = if role == 8 { self.top_has_target } else { self.has_target >> role & 1 != 0 };
        let target = json!({"length": role, "hashes": {"sha256": "00".repeat(32)}});
        let targets = if has { json!({NAME: target}) } else { json!({}) };
        let mut value =
            json!({"_type": "targets", "spec_version": "1.0", "version": 1, "expires": EXPIRES, "targets": targets});
        let keys: Map<String, Value> = KEYS.iter().map(|key| (key.id.to_string(), key.json.clone())).collect();
        match &self.edges[role][..] {
            [] => {}
            [Edge { covers: Covers::Bins(bits), keys: ids, threshold, .. }] => {
                let bins =
                    json!({"bit_length": bits, "name_prefix": "bin", "keyids": key_ids(*ids), "threshold": threshold});
                value["delegations"] = json!({"keys": keys, "succinct_roles": bins});
            }
            edges => {
                let roles: Vec<Value> = edges.iter().map(Edge::json).collect();
                value["delegations"] = json!({"keys": keys, "roles": roles});
            }
        }
        value
    }

    fn files(&self) -> BTreeMap<String, Bytes> {
        let listed = ROLES.iter().enumerate().filter(|(role, _)| self.unlisted >> role & 1 == 0);
        let meta = listed.map(|(_, name)| (format!("{name}.json"), json!({"version": 1})));
        let meta: Map<String, Value> = meta.chain([("targets.json".to_owned(), json!({"version": 1}))]).collect();
        let head = |ty: &str, meta: Value| json!({"_type": ty, "spec_version": "1.0", "version": 1, "expires": EXPIRES, "meta": meta});
        let online = |value: &Value| Bytes::from(sign(value, [&KEYS[0]]).expect("canonical"));
        let mut files = BTreeMap::from([
            ("timestamp.json".to_owned(), online(&head("timestamp", json!({"snapshot.json": {"version": 1}})))),
            ("snapshot.json".to_owned(), online(&head("snapshot", meta.into()))),
            ("targets.json".to_owned(), online(&self.document(8))),
        ]);
        for (role, name) in ROLES.iter().enumerate().filter(|(role, _)| self.absent >> role & 1 == 0) {
            let name: RoleName = name.parse().expect("a role name");
            let file = sign(&self.document(role), of_mask(self.signers[role])).expect("canonical");
            files.insert(name.file(), file.into());
        }
        files
    }
}

impl Edge {
    fn json(&self) -> Value {
        let name = ROLES[self.to.expect("only a bin has no role")];
        let mut role = json!({"name": name, "keyids": key_ids(self.keys), "threshold": self.threshold, "terminating": self.terminating});
        match self.covers {
            Covers::Pattern(pattern) => role["paths"] = json!(["c", PATTERNS[pattern]]),
            Covers::Prefix(digits, right) => role["path_hash_prefixes"] = json!([prefix(digits, right)]),
            Covers::Bins(_) => unreachable!("bins are no list"),
        }
        role
    }
}

impl Covers {
    fn covers(self) -> bool {
        match self {
            Self::Pattern(pattern) => matches(PATTERNS[pattern], NAME),
            Self::Prefix(digits, right) => right || digits == 0,
            Self::Bins(_) => true,
        }
    }
}

fn key_ids(mask: u8) -> Vec<String> {
    of_mask(mask).map(|key| key.id.to_string()).collect()
}

fn prefix(digits: usize, right: bool) -> String {
    let mut text = digest()[..digits].to_owned();
    if let Some(last) = text.pop() {
        text.push(if right {
            last
        } else if last == '0' {
            '1'
        } else {
            '0'
        });
    }
    text
}

/// The bin of the name: the first bits of its hash.
fn bin(bits: u32) -> String {
    let number = u32::from_str_radix(&digest()[..8], 16).expect("hex") >> (32 - bits);
    let digits = (bits as usize).div_ceil(4);
    format!("bin-{number:0digits$x}")
}

/// The search ends as the specification says, and again so with what it kept.
pub fn search(data: &[u8]) {
    let Some(graph) = Graph::of(data) else { return };
    let expected = graph.expected();
    let files = graph.files();
    let (set, whole) = refresh(&files);
    assert!(whole, "the four roles at the top are sound");
    let name: TargetName = NAME.parse().expect("a target name");
    let mut search = Search::start(set, name.clone(), NOW);
    while let Step::Want(want) = search.next() {
        let answer = files.get(&want.name).map_or(Answer::NotFound, |bytes| Answer::Found(bytes.clone()));
        if search.supply(answer).is_err() {
            break;
        }
    }
    let (set, found) = match search.finish() {
        Ok((set, found)) => (set, found),
        Err(error) => return assert_eq!(expected, Outcome::Refused, "{error}: {data:02x?}"),
    };
    let outcome = found.as_ref().map_or(Outcome::Nothing, |found| Outcome::Found(found.role.clone()));
    assert_eq!(outcome, expected, "{data:02x?}");
    assert_eq!(set.find(&name), found.as_ref().map(|found| found.target.clone()));
    let mut again = Search::start(set, name, NOW);
    assert_eq!(again.next(), Step::Done, "all that it needs is held");
    assert_eq!(again.finish().expect("as before").1, found);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds;

    /// A harness in which every search ended alike would say little.
    #[test]
    fn the_seeds_end_in_every_way() {
        let outcomes: Vec<Outcome> =
            seeds::search().iter().map(|seed| Graph::of(seed).expect("long enough").expected()).collect();
        for role in [None, Some("ü"), Some("bin-1"), Some("rollout")] {
            let wanted = Outcome::Found(role.map(|name| name.parse().expect("a role")));
            assert!(outcomes.contains(&wanted), "{wanted:?} in {outcomes:?}");
        }
        assert!(outcomes.contains(&Outcome::Nothing) && outcomes.contains(&Outcome::Refused), "{outcomes:?}");
    }
}
