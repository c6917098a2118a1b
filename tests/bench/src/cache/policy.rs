//! What an edge's memory tier is compared with: replacement policies alone, with a budget in bytes and nothing around them.

use std::collections::{HashMap, HashSet, VecDeque};

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

/// A cache that only decides what stays.
pub trait Policy {
    /// Asks for an object and takes it in if it is not there; true if it was.
    fn ask(&mut self, key: u32, bytes: u64) -> bool;
}

/// What was asked for longest ago goes first.
#[derive(Debug)]
pub struct Lru {
    budget_bytes: u64,
    bytes: u64,
    tick: u64,
    entries: HashMap<u32, (u64, u64)>,
    order: std::collections::BTreeMap<u64, u32>,
}

impl Lru {
    /// With room for so many bytes.
    pub fn new(budget_bytes: u64) -> Self {
        Self { budget_bytes, bytes: 0, tick: 0, entries: HashMap::new(), order: std::collections::BTreeMap::new() }
    }
}

impl Policy for Lru {
    fn ask(&mut self, key: u32, bytes: u64) -> bool {
        self.tick += 1;
        let known = self.entries.insert(key, (self.tick, bytes));
        match known {
            Some((tick, _)) => _ = self.order.remove(&tick),
            None => self.bytes += bytes,
        }
        self.order.insert(self.tick, key);
        while self.bytes > self.budget_bytes {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.bytes -= self.entries.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
        known.is_some()
    }
}

#[derive(Debug)]
struct Entry {
    bytes: u64,
    visits: u8,
    main: bool,
}

/// S3-FIFO as its paper has it: a tenth of the room for what is new, the rest for what was asked for again, and a memory of
/// what was new and went.
#[derive(Debug)]
pub struct S3Fifo {
    small_bytes_max: u64,
    main_bytes_max: u64,
    small_bytes: u64,
    main_bytes: u64,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghost: VecDeque<u32>,
    ghosts: HashSet<u32>,
    entries: HashMap<u32, Entry>,
}

impl S3Fifo {
    /// With room for so many bytes.
    pub fn new(budget_bytes: u64) -> Self {
        let small_bytes_max = budget_bytes / 10;
        Self {
            small_bytes_max,
            main_bytes_max: budget_bytes - small_bytes_max,
            small_bytes: 0,
            main_bytes: 0,
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            ghosts: HashSet::new(),
            entries: HashMap::new(),
        }
    }

    fn to_main(&mut self, key: u32) {
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.main, entry.visits) = (true, 0);
            self.main_bytes += entry.bytes;
            self.main.push_back(key);
        }
    }

    fn evict_small(&mut self) {
        let Some(key) = self.small.pop_front() else { return };
        let Some(entry) = self.entries.get(&key) else { return };
        self.small_bytes -= entry.bytes;
        if entry.visits > 0 {
            return self.to_main(key);
        }
        self.entries.remove(&key);
        if self.ghosts.insert(key) {
            self.ghost.push_back(key);
        }
        while self.ghost.len() > self.main.len().max(64) {
            self.ghost.pop_front().inspect(|key| _ = self.ghosts.remove(key));
        }
    }

    fn evict_main(&mut self) {
        while let Some(key) = self.main.pop_front() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.visits == 0 {
                self.main_bytes -= entry.bytes;
                self.entries.remove(&key);
                return;
            }
            entry.visits -= 1;
            self.main.push_back(key);
        }
    }
}

impl Policy for S3Fifo {
    fn ask(&mut self, key: u32, bytes: u64) -> bool {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.visits = (entry.visits + 1).min(3);
            return true;
        }
        let main = self.ghosts.contains(&key);
        self.entries.insert(key, Entry { bytes, visits: 0, main: false });
        if main {
            self.to_main(key);
        } else {
            self.small_bytes += bytes;
            self.small.push_back(key);
        }
        while self.small_bytes + self.main_bytes > self.small_bytes_max + self.main_bytes_max {
            if self.small_bytes > self.small_bytes_max || self.main.is_empty() {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        false
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<u32, u64> for ByBytes {
    fn weight(&self, _: &u32, bytes: &u64) -> u64 {
        *bytes
    }
}

/// The crate that the edge uses, alone.
pub struct QuickCache(Cache<u32, u64, ByBytes>);

impl QuickCache {
    /// With room for so many bytes, and sized for so many objects.
    pub fn new(budget_bytes: u64, objects: usize) -> Self {
        Self(Cache::with_weighter(objects, budget_bytes, ByBytes))
    }
}

impl Policy for QuickCache {
    fn ask(&mut self, key: u32, bytes: u64) -> bool {
        if self.0.get(&key).is_some() {
            return true;
        }
        self.0.insert(key, bytes);
        false
    }
}
