//! A small set-associative LRU cache: the walker's caches.

use super::{Key, Tag};
use crate::events::PageSize;

/// A set-associative LRU cache for few ways.
///
/// Each set is kept in the order of its references, latest first, free places
/// last: with the few ways of a walker's cache, moving entries is cheaper than
/// any bookkeeping. Behaves exactly as `SetAssoc<Lru, V>`.
#[derive(Clone, Debug)]
pub struct LruSets<V> {
    sets: usize,
    ways: usize,
    /// `sets - 1` if that is a mask.
    mask: Option<u64>,
    keys: Vec<Key>,
    values: Vec<V>,
    /// Entries present by page size.
    by_size: [usize; 3],
}

impl<V: Copy + Default> LruSets<V> {
    /// A cache of `entries` in sets of `ways`, which divides `entries`.
    pub fn new(entries: usize, ways: usize) -> Self {
        assert!(ways >= 1 && entries >= ways && entries.is_multiple_of(ways), "{entries} / {ways}");
        let sets = entries / ways;
        LruSets {
            sets,
            ways,
            mask: sets.is_power_of_two().then_some(sets as u64 - 1),
            keys: vec![Key::FREE; entries],
            values: vec![V::default(); entries],
            by_size: [0; 3],
        }
    }

    /// Entries present.
    pub fn len(&self) -> usize {
        self.by_size.iter().sum()
    }

    /// True if no entry is present.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.by_size == [0; 3]
    }

    /// True if an entry of this page size is present.
    #[inline]
    pub fn holds(&self, size: PageSize) -> bool {
        self.by_size[size as usize] != 0
    }

    /// First place of the key's set.
    #[inline]
    fn set_at(&self, key: Key) -> usize {
        let set = match self.mask {
            Some(mask) => key.number() & mask,
            None => key.number() % self.sets as u64,
        };
        set as usize * self.ways
    }

    /// Moves the first `way` entries of a set back by one and puts the entry
    /// in front.
    #[inline]
    fn put_first(&mut self, at: usize, way: usize, key: Key, value: V) {
        let keys = &mut self.keys[at..=at + way];
        let values = &mut self.values[at..=at + way];
        for i in (0..way).rev() {
            keys[i + 1] = keys[i];
            values[i + 1] = values[i];
        }
        (keys[0], values[0]) = (key, value);
    }

    /// Looks `key` up; it is the latest reference then.
    #[inline]
    pub fn get(&mut self, key: Key) -> Option<V> {
        let at = self.set_at(key);
        let way = self.keys[at..at + self.ways].iter().position(|k| *k == key)?;
        let value = self.values[at + way];
        if way > 0 {
            self.put_first(at, way, key, value);
        }
        Some(value)
    }

    /// Inserts `key`; returns the entry that had to make room.
    #[inline]
    pub fn insert(&mut self, key: Key, value: V) -> Option<Key> {
        let at = self.set_at(key);
        let set = &self.keys[at..at + self.ways];
        let way = set.iter().position(|k| *k == key || *k == Key::FREE).unwrap_or(self.ways - 1);
        let old = self.keys[at + way];
        self.put_first(at, way, key, value);
        if old == key {
            return None;
        }
        self.by_size[key.size() as usize] += 1;
        if old == Key::FREE {
            return None;
        }
        self.by_size[old.size() as usize] -= 1;
        Some(old)
    }

    /// Removes the entries of `tag` that overlap `[start, end)`; returns how many.
    pub fn remove_range(&mut self, tag: Tag, start: u64, end: u64) -> usize {
        if self.is_empty() || start >= end {
            return 0;
        }
        let mut removed = 0;
        for size in PageSize::ALL {
            if !self.holds(size) {
                continue;
            }
            let (first, last) = (start >> size.shift(), (end - 1) >> size.shift());
            let gone = |k: Key| k.tag() == tag && k.size() == size && k.overlaps(start, end);
            if last - first >= self.sets as u64 {
                removed += self.remove_if(gone);
                continue;
            }
            for number in first..=last {
                let at = self.set_at(Key::new(tag, size, number << size.shift()));
                removed += self.remove_in_set(at, gone);
            }
        }
        removed
    }

    /// Removes every entry for which `f` holds; returns how many.
    pub fn remove_if(&mut self, f: impl Fn(Key) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        (0..self.sets).map(|set| self.remove_in_set(set * self.ways, &f)).sum()
    }

    fn remove_in_set(&mut self, at: usize, f: impl Fn(Key) -> bool) -> usize {
        let mut kept = at;
        let mut removed = 0;
        for from in at..at + self.ways {
            let key = self.keys[from];
            if key == Key::FREE {
                break;
            }
            if f(key) {
                self.by_size[key.size() as usize] -= 1;
                removed += 1;
            } else {
                self.keys[kept] = key;
                self.values[kept] = self.values[from];
                kept += 1;
            }
        }
        self.keys[kept..kept + removed].fill(Key::FREE);
        removed
    }

    /// Calls `f` for every entry present.
    pub fn for_each(&self, mut f: impl FnMut(Key, V)) {
        for (key, value) in self.keys.iter().zip(&self.values) {
            if *key != Key::FREE {
                f(*key, *value);
            }
        }
    }
}
