//! The set-associative cache behind the IOTLB and the walk caches.

use super::index::Index;
use super::replacement::{Replacement, Shape};
use super::sizes::{SizeCounts, Sizes};
use super::{Key, Tag};
use crate::events::PageSize;

/// Up to this many ways a set is scanned; wider sets use a hash index.
const SCAN_WAYS: usize = 16;
const NONE: u32 = u32::MAX;

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The entry that had to make room.
    pub evicted: Option<Key>,
}

/// A set-associative cache from [`Key`] to a small value.
///
/// All memory is allocated at creation. A set is chosen by the low bits of the
/// page number (the remainder where the number of sets is no power of two), as
/// hardware does, so equal IOVAs of several domains compete.
#[derive(Clone, Debug)]
pub struct SetAssoc<P, V> {
    shape: Shape,
    /// `sets - 1` if that is a mask.
    mask: Option<u64>,
    keys: Vec<Key>,
    values: Vec<V>,
    policy: P,
    index: Option<Index>,
    /// Stack of free slots per set: head by set, link by slot.
    free_head: Vec<u32>,
    free_next: Vec<u32>,
    len: usize,
    /// Entries present by page size, to skip look-ups of absent sizes.
    by_size: SizeCounts,
}

impl<P: Replacement, V: Copy + Default> SetAssoc<P, V> {
    /// A cache of `entries` in sets of `ways`; `ways` divides `entries`, both
    /// are at least 1 (the configuration is checked before).
    pub fn new(entries: usize, ways: usize, config: &P::Config, seed: u64) -> Self {
        assert!(ways >= 1 && entries >= ways && entries.is_multiple_of(ways), "{entries} / {ways}");
        let shape = Shape { sets: entries / ways, ways };
        let mut cache = SetAssoc {
            shape,
            mask: shape.sets.is_power_of_two().then_some(shape.sets as u64 - 1),
            keys: vec![Key::FREE; entries],
            values: vec![V::default(); entries],
            policy: P::new(shape, config, seed),
            index: (ways > SCAN_WAYS).then(|| Index::new(entries)),
            free_head: vec![NONE; shape.sets],
            free_next: vec![NONE; entries],
            len: 0,
            by_size: SizeCounts::default(),
        };
        for slot in (0..entries).rev() {
            cache.push_free(slot);
        }
        cache
    }

    /// Entries present.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no entry is present.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Capacity in entries.
    pub fn capacity(&self) -> usize {
        self.keys.len()
    }

    /// Page sizes of the entries present.
    #[inline(always)]
    pub fn sizes(&self) -> Sizes {
        self.by_size.present()
    }

    /// True if an entry of this page size is present.
    #[inline]
    pub fn holds(&self, size: PageSize) -> bool {
        self.by_size.has(size)
    }

    #[inline(always)]
    fn set_of(&self, key: Key) -> usize {
        match self.mask {
            Some(mask) => (key.number() & mask) as usize,
            None => (key.number() % self.shape.sets as u64) as usize,
        }
    }

    #[inline(always)]
    fn find(&self, key: Key) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(key, &self.keys),
            None => {
                let at = self.set_of(key) * self.shape.ways;
                let set = &self.keys[at..at + self.shape.ways];
                set.iter().position(|k| *k == key).map(|way| at + way)
            }
        }
    }

    /// Looks `key` up and tells the policy of the reference.
    #[inline(always)]
    pub fn get(&mut self, key: Key) -> Option<V> {
        let slot = self.find(key)?;
        let set = self.set_of(key);
        self.policy.hit(set, slot - set * self.shape.ways);
        Some(self.values[slot])
    }

    /// Looks `key` up without a trace.
    #[inline(always)]
    pub fn peek(&self, key: Key) -> Option<V> {
        self.find(key).map(|slot| self.values[slot])
    }

    /// Inserts `key`; a present entry is overwritten in place.
    #[inline]
    pub fn insert(&mut self, key: Key, value: V) -> Fill {
        if let Some(slot) = self.find(key) {
            self.values[slot] = value;
            let set = self.set_of(key);
            self.policy.hit(set, slot - set * self.shape.ways);
            return Fill { evicted: None };
        }
        self.insert_absent(key, value)
    }

    /// Inserts `key`, which is not present: saves the search.
    #[inline(always)]
    pub fn insert_absent(&mut self, key: Key, value: V) -> Fill {
        debug_assert!(self.find(key).is_none());
        let set = self.set_of(key);
        let (slot, evicted) = match self.free_head[set] {
            NONE => {
                let slot = set * self.shape.ways + self.policy.victim(set);
                let old = self.keys[slot];
                if let Some(index) = &mut self.index {
                    index.remove(old, slot);
                }
                self.by_size.remove(old);
                (slot, Some(old))
            }
            free => {
                self.free_head[set] = self.free_next[free as usize];
                self.len += 1;
                (free as usize, None)
            }
        };
        self.keys[slot] = key;
        self.values[slot] = value;
        self.by_size.add(key);
        if let Some(index) = &mut self.index {
            index.insert(key, slot);
        }
        self.policy.fill(set, slot - set * self.shape.ways);
        Fill { evicted }
    }

    /// Removes `key`; true if it was present.
    pub fn remove(&mut self, key: Key) -> bool {
        match self.find(key) {
            Some(slot) => {
                self.remove_slot(slot);
                true
            }
            None => false,
        }
    }

    fn remove_slot(&mut self, slot: usize) {
        let key = std::mem::replace(&mut self.keys[slot], Key::FREE);
        if let Some(index) = &mut self.index {
            index.remove(key, slot);
        }
        self.by_size.remove(key);
        self.len -= 1;
        let set = slot / self.shape.ways;
        self.policy.remove(set, slot - set * self.shape.ways);
        self.push_free(slot);
    }

    fn push_free(&mut self, slot: usize) {
        let set = slot / self.shape.ways;
        self.free_next[slot] = self.free_head[set];
        self.free_head[set] = slot as u32;
    }

    /// Removes the entries of `tag` that overlap `[start, end)`; returns how many.
    ///
    /// Small ranges are probed page by page and size by size; ranges with more
    /// pages than the cache has entries are found by going through the entries.
    pub fn remove_range(&mut self, tag: Tag, start: u64, end: u64) -> usize {
        if self.len == 0 || start >= end {
            return 0;
        }
        let mut removed = 0;
        for size in PageSize::ALL {
            if !self.holds(size) {
                continue;
            }
            let (first, last) = (start >> size.shift(), (end - 1) >> size.shift());
            if last - first >= self.keys.len() as u64 {
                removed += self
                    .remove_if(|k| k.tag() == tag && k.size() == size && k.overlaps(start, end));
                continue;
            }
            for number in first..=last {
                removed += self.remove(Key::new(tag, size, number << size.shift())) as usize;
            }
        }
        removed
    }

    /// Removes every entry for which `f` holds; returns how many.
    pub fn remove_if(&mut self, mut f: impl FnMut(Key) -> bool) -> usize {
        let before = self.len;
        for slot in 0..self.keys.len() {
            if self.keys[slot] != Key::FREE && f(self.keys[slot]) {
                self.remove_slot(slot);
            }
        }
        before - self.len
    }

    /// Calls `f` for every entry present, in slot order.
    pub fn for_each(&self, mut f: impl FnMut(Key, V)) {
        for (key, value) in self.keys.iter().zip(&self.values) {
            if *key != Key::FREE {
                f(*key, *value);
            }
        }
    }
}
