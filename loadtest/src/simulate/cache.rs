//! [`Lru`]: the model of a cache: so many bytes, the least recently used goes first.

use std::collections::HashMap;

/// A blob of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Object {
    /// A file of the release package in one of its versions.
    File {
        /// Which.
        file: u32,
        /// How often it had changed.
        version: u32,
    },
    /// The file that names a release.
    Tag(u32),
    /// The meta.far of a release.
    MetaFar(u32),
    /// The content of another package.
    Package(u16),
    /// The meta.far of another package.
    PackageMeta(u16),
}

const NONE: usize = usize::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    object: Object,
    bytes: u64,
    newer: usize,
    older: usize,
}

/// Least recently used.
#[derive(Debug)]
pub(crate) struct Lru {
    capacity_bytes: u64,
    held_bytes: u64,
    places: HashMap<Object, usize>,
    entries: Vec<Entry>,
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
}

impl Lru {
    /// An empty cache.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            held_bytes: 0,
            places: HashMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Whether it holds an object, which is the newest then.
    pub fn touch(&mut self, object: Object) -> bool {
        let Some(place) = self.places.get(&object).copied() else { return false };
        self.unlink(place);
        self.link(place);
        true
    }

    /// Takes an object that it does not hold; others go to make room. One that is larger than the cache is not taken.
    pub fn insert(&mut self, object: Object, bytes: u64) {
        if bytes > self.capacity_bytes || self.places.contains_key(&object) {
            return;
        }
        while self.held_bytes + bytes > self.capacity_bytes {
            let place = self.oldest;
            self.unlink(place);
            self.places.remove(&self.entries[place].object);
            self.held_bytes -= self.entries[place].bytes;
            self.free.push(place);
        }
        let entry = Entry { object, bytes, newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.entries[place] = entry;
                place
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.places.insert(object, place);
        self.held_bytes += bytes;
        self.link(place);
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older].newer = newer,
        }
    }

    fn link(&mut self, place: usize) {
        (self.entries[place].newer, self.entries[place].older) = (NONE, self.newest);
        match self.newest {
            NONE => self.oldest = place,
            newest => self.entries[newest].newer = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes() {
        let mut cache = Lru::new(30);
        (1..=3).for_each(|package| cache.insert(Object::Package(package), 10));
        assert!(cache.touch(Object::Package(1)));
        cache.insert(Object::Package(4), 15);
        let held: Vec<_> = (1..=4).filter(|package| cache.touch(Object::Package(*package))).collect();
        assert_eq!(held, [1, 4], "two had to go for a larger one");
        cache.insert(Object::Package(5), 31);
        assert!(!cache.touch(Object::Package(5)) && cache.touch(Object::Package(1)));
        cache.insert(Object::Package(6), 30);
        assert!(cache.touch(Object::Package(6)) && !cache.touch(Object::Package(4)));
    }
}
