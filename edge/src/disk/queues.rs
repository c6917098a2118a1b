//! [`Queues`]: which unit goes first. S3-FIFO: what is new passes through a small queue; what was asked for again there, or came
//! back soon after it had gone, stays in the main one. Memory only: after a restart everything is equal.

use std::collections::{HashMap, HashSet, VecDeque};

/// Part of the bytes that new units may take: one in this many.
const SMALL_PART: u64 = 10;

/// More uses than this are not told apart.
const USES_MAX: u8 = 3;

/// A file of the tier by its number in the books, and one of its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Token {
    pub file: u32,
    pub unit: u32,
}

/// Units in the order in which they go.
#[derive(Debug, Default)]
pub(super) struct Queues {
    nodes: HashMap<Token, Node>,
    small: VecDeque<(Token, u32)>,
    main: VecDeque<(Token, u32)>,
    small_bytes: u64,
    bytes: u64,
    /// Tells an entry of a queue from an older one of the same token.
    stamp: u32,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    bytes: u64,
    uses: u8,
    in_main: bool,
    stamp: u32,
}

impl Queues {
    /// Takes a unit in; `wanted` units go straight to those that stay.
    pub fn insert(&mut self, token: Token, bytes: u64, wanted: bool) {
        self.remove(token);
        self.push(token, Node { bytes: bytes.max(1), uses: 0, in_main: wanted, stamp: 0 });
    }

    fn push(&mut self, token: Token, node: Node) {
        self.stamp = self.stamp.wrapping_add(1);
        self.bytes += node.bytes;
        if node.in_main {
            self.main.push_back((token, self.stamp));
        } else {
            self.small_bytes += node.bytes;
            self.small.push_back((token, self.stamp));
        }
        self.nodes.insert(token, Node { stamp: self.stamp, ..node });
    }

    pub fn contains(&self, token: Token) -> bool {
        self.nodes.contains_key(&token)
    }

    /// Remembers that the unit was asked for; false if it is not here.
    pub fn touch(&mut self, token: Token) -> bool {
        let Some(node) = self.nodes.get_mut(&token) else { return false };
        node.uses = (node.uses + 1).min(USES_MAX);
        true
    }

    /// Takes a unit out; its bytes, if it was here.
    pub fn remove(&mut self, token: Token) -> Option<u64> {
        let node = self.nodes.remove(&token)?;
        self.bytes -= node.bytes;
        if !node.in_main {
            self.small_bytes -= node.bytes;
        }
        // Its entry stays in its queue until it comes to the front, or until half of the entries are such.
        if self.small.len() + self.main.len() > 2 * self.nodes.len() + 64 {
            let nodes = &self.nodes;
            let is_live = |(token, stamp): &(Token, u32)| nodes.get(token).is_some_and(|node| node.stamp == *stamp);
            self.small.retain(is_live);
            self.main.retain(is_live);
        }
        Some(node.bytes)
    }

    /// Takes out the unit that goes next, and its bytes.
    pub fn pop(&mut self) -> Option<(Token, u64)> {
        loop {
            let from_small =
                !self.small.is_empty() && (self.small_bytes * SMALL_PART > self.bytes || self.main.is_empty());
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let (token, stamp) = queue.pop_front()?;
            if self.nodes.get(&token).is_none_or(|node| node.stamp != stamp) {
                continue;
            }
            let Some(node) = self.nodes.remove(&token) else { continue };
            self.bytes -= node.bytes;
            if !node.in_main {
                self.small_bytes -= node.bytes;
            }
            match node.uses {
                0 => return Some((token, node.bytes)),
                _ if !node.in_main => self.push(token, Node { uses: 0, in_main: true, ..node }),
                uses => self.push(token, Node { uses: uses - 1, ..node }),
            }
        }
    }

    /// Takes all units out, the first to go first.
    pub fn drain(&mut self) -> Vec<(Token, u64)> {
        let this = std::mem::take(self);
        let entries = this.small.into_iter().chain(this.main);
        let live = entries.filter_map(|(token, stamp)| {
            let node = this.nodes.get(&token).filter(|node| node.stamp == stamp)?;
            Some((token, node.bytes))
        });
        live.collect()
    }
}

/// What went lately, by hash.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    order: VecDeque<u64>,
    known: HashSet<u64>,
}

impl Ghosts {
    pub fn push(&mut self, hash: u64, max: usize) {
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
        while self.order.len() > max {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// True if it went lately; it is back now.
    pub fn take(&mut self, hash: u64) -> bool {
        // Its place in the order stays: it is forgotten with it.
        self.known.remove(&hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn token(unit: u32) -> Token {
        Token { file: 0, unit }
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_asked_for_again() {
        let mut queues = Queues::default();
        for unit in 0..100 {
            queues.insert(token(unit), 100, false);
            queues.touch(token(unit));
        }
        for unit in 1000..3000 {
            queues.insert(token(unit), 100, false);
            while queues.bytes > 15_000 {
                let (gone, bytes) = queues.pop().unwrap();
                assert!(gone.unit >= 1000 && bytes == 100, "{gone:?}");
            }
        }
        for unit in 0..100 {
            assert!(queues.contains(token(unit)));
        }
    }

    #[test]
    fn what_is_removed_never_comes_out_and_everything_else_does_once() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut queues, mut here) = (Queues::default(), HashMap::new());
        for _ in 0..20_000 {
            let (unit, bytes) = (random.u32(0..300), random.u64(1..5000));
            match random.u8(0..6) {
                0 | 1 => {
                    queues.insert(token(unit), bytes, random.bool());
                    here.insert(token(unit), bytes);
                }
                2 | 3 => assert_eq!(queues.touch(token(unit)), here.contains_key(&token(unit))),
                4 => assert_eq!(queues.remove(token(unit)), here.remove(&token(unit))),
                _ => match queues.pop() {
                    Some((gone, bytes)) => assert_eq!(here.remove(&gone), Some(bytes)),
                    None => assert!(here.is_empty()),
                },
            }
            assert_eq!(queues.bytes, here.values().sum::<u64>());
        }
        assert!(queues.small.len() + queues.main.len() <= 2 * here.len() + 65);
        let drained: HashMap<_, _> = queues.drain().into_iter().collect();
        assert_eq!(drained, here);
    }

    /// Zipf-like use of ten times what there is room for: within a point of `quick_cache`, or better.
    #[test]
    fn as_many_hits_as_quick_cache() {
        const ROOM: u64 = 2000;
        let mut random = fastrand::Rng::with_seed(11);
        let sum: f64 = (1..=20_000).map(|rank| f64::from(rank).powf(-0.9)).sum();
        let mut at = 0.0;
        let steps: Vec<f64> = (1..=20_000)
            .map(|rank| {
                at += f64::from(rank).powf(-0.9) / sum;
                at
            })
            .collect();
        let quick = quick_cache::sync::Cache::new(ROOM as usize);
        let (mut queues, mut ghosts, mut hits, mut quick_hits) = (Queues::default(), Ghosts::default(), 0, 0);
        for _ in 0..400_000 {
            let draw = random.f64();
            let unit = steps.partition_point(|step| *step < draw) as u32;
            if quick.get(&unit).is_some() {
                quick_hits += 1;
            } else {
                quick.insert(unit, ());
            }
            if queues.touch(token(unit)) {
                hits += 1;
                continue;
            }
            let wanted = ghosts.take(unit.into());
            queues.insert(token(unit), 1, wanted);
            while queues.bytes > ROOM {
                let (gone, _) = queues.pop().unwrap();
                ghosts.push(gone.unit.into(), ROOM as usize);
            }
        }
        println!("{hits} hits, quick_cache {quick_hits}");
        assert!(hits + 4000 > quick_hits, "{hits} {quick_hits}");
    }
}
