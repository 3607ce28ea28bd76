//! A small set-associative LRU cache: the walker's caches.

use super::sizes::SizeCounts;
use super::{Cache, Key, Tag, Value};

/// A set-associative LRU cache of `W` ways.
///
/// Each set is kept in the order of its references, latest first, free places
/// last: with the few ways of a walker's cache, moving entries is cheaper than
/// any bookkeeping, and a number of ways known to the compiler makes search
/// and move straight code. Behaves exactly as `SetAssoc<Lru, V>`.
#[derive(Clone, Debug)]
pub struct LruSets<V, const W: usize> {
    sets: Vec<Set<V, W>>,
    /// `sets - 1` if that is a mask.
    mask: Option<u64>,
    /// Entries present by page size.
    by_size: SizeCounts,
}

#[derive(Clone, Copy, Debug)]
struct Set<V, const W: usize> {
    keys: [Key; W],
    values: [V; W],
}

impl<V: Copy, const W: usize> Set<V, W> {
    /// First way for which `is` holds, or `W`. All are compared: a branch for
    /// each would be mispredicted more than that costs.
    #[inline]
    fn first(&self, is: impl Fn(Key) -> bool) -> usize {
        let mut found = W;
        for way in (0..W).rev() {
            if is(self.keys[way]) {
                found = way;
            }
        }
        found
    }

    /// Moves the entries before `way` back by one and puts the entry in front.
    #[inline]
    fn put_first(&mut self, way: usize, key: Key, value: V) {
        for i in (1..W).rev() {
            if i <= way {
                self.keys[i] = self.keys[i - 1];
                self.values[i] = self.values[i - 1];
            }
        }
        (self.keys[0], self.values[0]) = (key, value);
    }
}

impl<V: Value, const W: usize> LruSets<V, W> {
    /// A cache of `entries`, a multiple of `W`.
    pub fn new(entries: usize) -> Self {
        assert!(entries >= W && entries.is_multiple_of(W), "{entries} / {W}");
        let sets = entries / W;
        LruSets {
            sets: vec![Set { keys: [Key::FREE; W], values: [V::default(); W] }; sets],
            mask: sets.is_power_of_two().then_some(sets as u64 - 1),
            by_size: SizeCounts::default(),
        }
    }

    #[inline(always)]
    fn set_of(&self, key: Key) -> usize {
        match self.mask {
            Some(mask) => (key.number() & mask) as usize,
            None => (key.number() % self.sets.len() as u64) as usize,
        }
    }

    fn remove_in_set(&mut self, at: usize, mut f: impl FnMut(Key) -> bool) -> usize {
        let set = &mut self.sets[at];
        let mut kept = 0;
        let mut removed = 0;
        for from in 0..W {
            let key = set.keys[from];
            if key == Key::FREE {
                break;
            }
            if f(key) {
                self.by_size.remove(key);
                removed += 1;
            } else {
                set.keys[kept] = key;
                set.values[kept] = set.values[from];
                kept += 1;
            }
        }
        set.keys[kept..kept + removed].fill(Key::FREE);
        removed
    }
}

impl<V: Value, const W: usize> Cache<V> for LruSets<V, W> {
    #[inline(always)]
    fn by_size(&self) -> &SizeCounts {
        &self.by_size
    }

    fn capacity(&self) -> usize {
        self.sets.len() * W
    }

    fn peek(&self, key: Key) -> Option<V> {
        let set = &self.sets[self.set_of(key)];
        let way = set.first(|k| k == key);
        (way < W).then(|| set.values[way])
    }

    #[inline(always)]
    fn get(&mut self, key: Key) -> Option<V> {
        let at = self.set_of(key);
        let set = &mut self.sets[at];
        let way = set.first(|k| k == key);
        if way == W {
            return None;
        }
        let value = set.values[way];
        if way > 0 {
            set.put_first(way, key, value);
        }
        Some(value)
    }

    #[inline(always)]
    fn insert(&mut self, key: Key, value: V) -> Option<Key> {
        let at = self.set_of(key);
        let set = &mut self.sets[at];
        let way = set.first(|k| k == key || k == Key::FREE).min(W - 1);
        let old = set.keys[way];
        set.put_first(way, key, value);
        if old == key {
            return None;
        }
        if old == Key::FREE {
            self.by_size.add(key);
            return None;
        }
        self.by_size.replace(old, key);
        Some(old)
    }

    #[inline(always)]
    fn insert_absent(&mut self, key: Key, value: V) -> Option<Key> {
        self.insert(key, value)
    }

    fn remove(&mut self, key: Key) -> bool {
        // Most invalidations find nothing.
        self.peek(key).is_some() && self.remove_in_set(self.set_of(key), |k| k == key) > 0
    }

    /// Set by set: each is in reach at once.
    fn remove_range(&mut self, tag: Tag, start: u64, end: u64) -> usize {
        if self.is_empty() || start >= end {
            return 0;
        }
        let mut removed = 0;
        for size in self.sizes() {
            let (first, last) = (start >> size.shift(), (end - 1) >> size.shift());
            if last - first >= self.sets.len() as u64 {
                let gone = |k: Key| k.tag() == tag && k.size() == size && k.overlaps(start, end);
                removed += self.remove_if(gone);
                continue;
            }
            for number in first..=last {
                removed += usize::from(self.remove(Key::new(tag, size, number << size.shift())));
            }
        }
        removed
    }

    fn remove_if(&mut self, mut f: impl FnMut(Key) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        (0..self.sets.len()).map(|at| self.remove_in_set(at, &mut f)).sum()
    }

    fn for_each(&self, mut f: impl FnMut(Key, V)) {
        for set in &self.sets {
            for (key, value) in set.keys.iter().zip(&set.values) {
                if *key != Key::FREE {
                    f(*key, *value);
                }
            }
        }
    }
}
