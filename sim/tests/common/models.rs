//! Slow, obvious caches to compare with.
#![allow(dead_code)] // each test file uses its part

use std::collections::HashMap;

use ioasim_sim::cache::{Key, Tag};
use ioasim_sim::events::PageSize;
use rand::Rng;
use rand_pcg::Pcg64;

/// Replacement policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Lru,
    Plru,
    Fifo,
    Clock,
    Random,
    Lfu,
    Srrip,
    S3Fifo,
}

/// One entry. `way` matters to the policies that choose by position.
#[derive(Clone, Debug)]
struct Entry<V> {
    key: Key,
    value: V,
    way: usize,
    referenced: bool,
    /// References after the fill (LFU, S3-FIFO).
    hits: u64,
    /// Re-reference prediction value (SRRIP).
    prediction: u8,
    /// In the small queue (S3-FIFO).
    small: bool,
}

/// One set: youngest entry first.
#[derive(Clone, Debug)]
struct Set<V> {
    entries: Vec<Entry<V>>,
    /// Free ways; the last one freed is used first.
    free: Vec<usize>,
    /// Tree bits of PLRU by (first way, ways) of the subtree; true = the
    /// victim is in the right half.
    right: HashMap<(usize, usize), bool>,
    /// Keys in the ghost queue of S3-FIFO, youngest first.
    ghosts: Vec<Key>,
}

/// A set-associative cache as vectors.
#[derive(Clone, Debug)]
pub struct Model<V> {
    policy: Policy,
    ways: usize,
    sets: Vec<Set<V>>,
    rng: Pcg64,
}

impl<V: Copy> Model<V> {
    pub fn new(policy: Policy, entries: usize, ways: usize, seed: u64) -> Self {
        let set = Set {
            entries: Vec::new(),
            free: (0..ways).rev().collect(),
            right: HashMap::new(),
            ghosts: Vec::new(),
        };
        Model {
            policy,
            ways,
            sets: vec![set; entries / ways],
            rng: Pcg64::new(seed as u128, 0xa02_bdbf_7bb3_c0a7),
        }
    }

    fn set_of(&self, key: Key) -> usize {
        (key.number() % self.sets.len() as u64) as usize
    }

    /// Points the tree bits away from `way`.
    fn touch_tree(&mut self, set: usize, way: usize) {
        let (mut first, mut span) = (0, self.ways.next_power_of_two());
        while span > 1 {
            let half = span / 2;
            let in_left = way < first + half;
            self.sets[set].right.insert((first, span), in_left);
            if !in_left {
                first += half;
            }
            span = half;
        }
    }

    fn tree_victim(&self, set: usize, first: usize, span: usize) -> usize {
        if span == 1 {
            return first;
        }
        let half = span / 2;
        let right = self.sets[set].right.get(&(first, span)).copied().unwrap_or(false);
        if right && first + half < self.ways {
            self.tree_victim(set, first + half, half)
        } else {
            self.tree_victim(set, first, half)
        }
    }

    fn referenced(&mut self, set: usize, at: usize) {
        self.sets[set].entries[at].hits += 1;
        self.sets[set].entries[at].prediction = 0;
        match self.policy {
            Policy::Lru | Policy::Lfu => {
                let entry = self.sets[set].entries.remove(at);
                self.sets[set].entries.insert(0, entry);
            }
            Policy::Clock => self.sets[set].entries[at].referenced = true,
            Policy::Plru => self.touch_tree(set, self.sets[set].entries[at].way),
            Policy::Fifo | Policy::Random | Policy::Srrip | Policy::S3Fifo => {}
        }
    }

    pub fn get(&mut self, key: Key) -> Option<V> {
        let set = self.set_of(key);
        let at = self.sets[set].entries.iter().position(|e| e.key == key)?;
        let value = self.sets[set].entries[at].value;
        self.referenced(set, at);
        Some(value)
    }

    /// Inserts; returns the victim.
    pub fn insert(&mut self, key: Key, value: V) -> Option<Key> {
        let set = self.set_of(key);
        if let Some(at) = self.sets[set].entries.iter().position(|e| e.key == key) {
            self.sets[set].entries[at].value = value;
            self.referenced(set, at);
            return None;
        }
        let known = self.sets[set].ghosts.contains(&key);
        self.sets[set].ghosts.retain(|k| *k != key);
        let victim = (self.sets[set].entries.len() == self.ways).then(|| self.evict(set));
        let way = self.sets[set].free.pop().unwrap();
        let small = !known && self.small_entries(set) < self.small_share();
        let entry = Entry { key, value, way, referenced: false, hits: 0, prediction: 2, small };
        self.sets[set].entries.insert(0, entry);
        if self.policy == Policy::Plru {
            self.touch_tree(set, way);
        }
        victim
    }

    fn small_entries(&self, set: usize) -> usize {
        self.sets[set].entries.iter().filter(|e| e.small).count()
    }

    /// A tenth of the ways, at least one.
    fn small_share(&self) -> usize {
        (self.ways / 10).max(1)
    }

    /// S3-FIFO: looks at one entry after the other until one has to go.
    fn evict_from_queues(&mut self, set: usize) -> Key {
        let mut from_small = self.small_entries(set) >= self.small_share();
        loop {
            // The oldest of the queue; the small one may have become empty.
            from_small &= self.small_entries(set) > 0;
            let entries = &mut self.sets[set].entries;
            let at = entries.iter().rposition(|e| e.small == from_small).unwrap();
            let mut entry = entries.remove(at);
            let stays = if from_small { entry.hits >= 2 } else { entry.hits >= 1 };
            if !stays {
                entries.push(entry);
                let last = entries.len() - 1;
                let key = self.take(set, last);
                if from_small {
                    self.sets[set].ghosts.insert(0, key);
                    self.sets[set].ghosts.truncate(self.ways * 9 / 10);
                }
                return key;
            }
            entry.hits = if from_small { 0 } else { entry.hits.min(3) - 1 };
            entry.small = false;
            entries.insert(0, entry);
        }
    }

    fn evict(&mut self, set: usize) -> Key {
        if self.policy == Policy::S3Fifo {
            return self.evict_from_queues(set);
        }
        let by_way = match self.policy {
            Policy::Lfu => {
                let entries = &self.sets[set].entries;
                let fewest = entries.iter().map(|e| e.hits).min().unwrap();
                // Latest reference first.
                entries.iter().rfind(|e| e.hits == fewest).map(|e| e.way)
            }
            Policy::Srrip => {
                let entries = &mut self.sets[set].entries;
                while !entries.iter().any(|e| e.prediction == 3) {
                    entries.iter_mut().for_each(|e| e.prediction += 1);
                }
                entries.iter().filter(|e| e.prediction == 3).map(|e| e.way).min()
            }
            Policy::Plru => Some(self.tree_victim(set, 0, self.ways.next_power_of_two())),
            Policy::Random => {
                Some(((self.rng.next_u64() as u128 * self.ways as u128) >> 64) as usize)
            }
            Policy::Lru | Policy::Fifo | Policy::Clock | Policy::S3Fifo => None,
        };
        let entries = &mut self.sets[set].entries;
        if let Some(way) = by_way {
            let at = entries.iter().position(|e| e.way == way).unwrap();
            return self.take(set, at);
        }
        // FIFO with second chance; without references plain FIFO.
        while entries.last().unwrap().referenced {
            let mut again = entries.pop().unwrap();
            again.referenced = false;
            entries.insert(0, again);
        }
        let last = entries.len() - 1;
        self.take(set, last)
    }

    fn take(&mut self, set: usize, at: usize) -> Key {
        let gone = self.sets[set].entries.remove(at);
        self.sets[set].free.push(gone.way);
        gone.key
    }

    /// Looks up without a trace.
    pub fn peek(&self, key: Key) -> Option<V> {
        let entries = &self.sets[self.set_of(key)].entries;
        entries.iter().find(|e| e.key == key).map(|e| e.value)
    }

    pub fn remove(&mut self, key: Key) -> bool {
        let set = self.set_of(key);
        match self.sets[set].entries.iter().position(|e| e.key == key) {
            Some(at) => {
                self.take(set, at);
                true
            }
            None => false,
        }
    }

    /// Removes all for which `f` holds; by position, first set and way first.
    pub fn remove_if(&mut self, f: impl Fn(Key) -> bool) -> usize {
        let mut removed = 0;
        for set in 0..self.sets.len() {
            for way in 0..self.ways {
                let found = self.sets[set].entries.iter().position(|e| e.way == way && f(e.key));
                if let Some(at) = found {
                    self.take(set, at);
                    removed += 1;
                }
            }
        }
        removed
    }

    /// Removes what overlaps the range. Which free way is used first afterwards
    /// depends on the order: by size, then by address, or by position if the
    /// range has more pages than the cache has entries.
    pub fn remove_range(&mut self, tag: Tag, start: u64, end: u64) -> usize {
        let mut removed = 0;
        for size in PageSize::ALL {
            let gone = |k: Key| k.tag() == tag && k.size() == size && k.overlaps(start, end);
            let pages = ((end - 1) >> size.shift()) - (start >> size.shift()) + 1;
            if pages > (self.sets.len() * self.ways) as u64 {
                removed += self.remove_if(gone);
                continue;
            }
            let mut keys: Vec<Key> = self.keys().into_iter().filter(|k| gone(*k)).collect();
            keys.sort();
            removed += keys.into_iter().filter(|k| self.remove(*k)).count();
        }
        removed
    }

    pub fn len(&self) -> usize {
        self.sets.iter().map(|s| s.entries.len()).sum()
    }

    pub fn keys(&self) -> Vec<Key> {
        self.sets.iter().flat_map(|s| s.entries.iter().map(|e| e.key)).collect()
    }

    pub fn contents(&self) -> HashMap<Key, V> {
        self.sets.iter().flat_map(|s| s.entries.iter().map(|e| (e.key, e.value))).collect()
    }
}

/// QEMU's IOTLB: emptied by the insertion that finds it full.
#[derive(Clone, Debug, Default)]
pub struct QemuModel<V> {
    pub capacity: usize,
    pub held: HashMap<Key, V>,
}

impl<V: Copy> QemuModel<V> {
    pub fn new(capacity: usize) -> Self {
        QemuModel { capacity, held: HashMap::new() }
    }

    /// Returns the number of entries lost.
    pub fn insert(&mut self, key: Key, value: V) -> usize {
        let mut lost = 0;
        if !self.held.contains_key(&key) && self.held.len() == self.capacity {
            lost = self.held.len();
            self.held.clear();
        }
        self.held.insert(key, value);
        lost
    }

    /// `vtd_hash_remove_by_page`, with its mask in eight bits; returns the
    /// keys removed.
    pub fn remove_page_selective(&mut self, tag: Tag, addr: u64, am: u32) -> Vec<Key> {
        let mask = !((1u64 << am.min(63)) - 1) as u8;
        let hit = |k: &Key| {
            let gfn = k.base() >> 12;
            let same_low_bits = (gfn as u8 & mask) == ((addr >> 12) as u8 & mask);
            let page_of_addr = k.base() == addr / k.size().bytes() * k.size().bytes();
            k.tag() == tag && (same_low_bits || page_of_addr)
        };
        let gone: Vec<Key> = self.held.keys().filter(|k| hit(k)).copied().collect();
        gone.iter().for_each(|k| {
            self.held.remove(k);
        });
        gone
    }
}
