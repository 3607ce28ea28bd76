//! The set-associative cache behind the IOTLB and the walk caches.

use super::index::Index;
use super::replacement::{Replacement, Shape};
use super::sizes::SizeCounts;
use super::{Associative, Cache, Key, Value};

/// Up to this many ways a set is scanned; wider sets use a hash index.
const SCAN_WAYS: usize = 16;
const NONE: u32 = u32::MAX;

/// A set-associative cache from [`Key`] to a small value.
///
/// All memory is allocated at creation. A set is chosen by the low bits of the
/// page number (the remainder where the number of sets is no power of two), as
/// hardware does, so equal IOVAs of several domains compete.
#[derive(Clone, Debug)]
pub struct SetAssoc<P: Replacement, V> {
    shape: Shape,
    config: P::Config,
    seed: u64,
    /// `sets - 1` if that is a mask and there is one partition.
    mask: Option<u64>,
    /// Equal parts of the sets; a tag uses one of them.
    partitions: u64,
    keys: Vec<Key>,
    values: Vec<V>,
    policy: P,
    index: Option<Index>,
    /// Stack of free slots per set: head by set, link by slot.
    free_head: Vec<u32>,
    free_next: Vec<u32>,
    /// Entries present by page size, to skip look-ups of absent sizes.
    by_size: SizeCounts,
}

impl<P: Replacement, V: Value> SetAssoc<P, V> {
    /// A cache of `entries` in sets of `ways`; `ways` divides `entries`, both
    /// are at least 1 (the configuration is checked before).
    pub fn new(entries: usize, ways: usize, config: &P::Config, seed: u64) -> Self {
        SetAssoc::partitioned(entries, ways, 1, config, seed)
    }

    /// As [`SetAssoc::new`], with the sets divided into `partitions` equal
    /// parts (which divide the sets): a tag's entries lie in the part that its
    /// number names, so that tags of different parts never displace each other.
    pub fn partitioned(
        entries: usize,
        ways: usize,
        partitions: usize,
        config: &P::Config,
        seed: u64,
    ) -> Self {
        assert!(ways >= 1 && entries >= ways && entries.is_multiple_of(ways), "{entries} / {ways}");
        let shape = Shape { sets: entries / ways, ways };
        assert!(partitions >= 1 && shape.sets.is_multiple_of(partitions), "{partitions} parts");
        let mask = partitions == 1 && shape.sets.is_power_of_two();
        let mut cache = SetAssoc {
            shape,
            config: config.clone(),
            seed,
            mask: mask.then_some(shape.sets as u64 - 1),
            partitions: partitions as u64,
            keys: vec![Key::FREE; entries],
            values: vec![V::default(); entries],
            policy: P::new(shape, config, seed),
            index: (ways > SCAN_WAYS).then(|| Index::new(entries)),
            free_head: vec![NONE; shape.sets],
            free_next: vec![NONE; entries],
            by_size: SizeCounts::default(),
        };
        for slot in (0..entries).rev() {
            cache.push_free(slot);
        }
        cache
    }

    #[inline(always)]
    fn set_of(&self, key: Key) -> usize {
        match self.mask {
            Some(mask) => (key.number() & mask) as usize,
            None => {
                let sets = self.shape.sets as u64 / self.partitions;
                let part = u64::from(key.tag().0) % self.partitions;
                (part * sets + key.number() % sets) as usize
            }
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

    fn remove_slot(&mut self, slot: usize) {
        let key = std::mem::replace(&mut self.keys[slot], Key::FREE);
        if let Some(index) = &mut self.index {
            index.remove(key, slot);
        }
        self.by_size.remove(key);
        let set = slot / self.shape.ways;
        self.policy.remove(set, slot - set * self.shape.ways);
        self.push_free(slot);
    }

    fn push_free(&mut self, slot: usize) {
        let set = slot / self.shape.ways;
        self.free_next[slot] = self.free_head[set];
        self.free_head[set] = slot as u32;
    }
}

impl<P: Replacement, V: Value> Cache<V> for SetAssoc<P, V> {
    const COUNTS_HITS: bool = P::COUNTS_HITS;

    #[inline(always)]
    fn by_size(&self) -> &SizeCounts {
        &self.by_size
    }

    fn capacity(&self) -> usize {
        self.keys.len()
    }

    #[inline(always)]
    fn get(&mut self, key: Key) -> Option<V> {
        let slot = self.find(key)?;
        let set = self.set_of(key);
        self.policy.hit(set, slot - set * self.shape.ways);
        Some(self.values[slot])
    }

    #[inline(always)]
    fn peek(&self, key: Key) -> Option<V> {
        self.find(key).map(|slot| self.values[slot])
    }

    #[inline]
    fn insert(&mut self, key: Key, value: V) -> Option<Key> {
        if let Some(slot) = self.find(key) {
            self.values[slot] = value;
            let set = self.set_of(key);
            self.policy.hit(set, slot - set * self.shape.ways);
            return None;
        }
        self.insert_absent(key, value)
    }

    #[inline(always)]
    fn insert_absent(&mut self, key: Key, value: V) -> Option<Key> {
        debug_assert!(self.find(key).is_none());
        let set = self.set_of(key);
        let (slot, evicted) = match self.free_head[set] {
            NONE => {
                let slot = set * self.shape.ways + self.policy.victim(set);
                let old = self.keys[slot];
                if let Some(index) = &mut self.index {
                    index.remove(old, slot);
                }
                self.by_size.replace(old, key);
                (slot, Some(old))
            }
            free => {
                self.free_head[set] = self.free_next[free as usize];
                self.by_size.add(key);
                (free as usize, None)
            }
        };
        self.keys[slot] = key;
        self.values[slot] = value;
        if let Some(index) = &mut self.index {
            index.insert(key, slot);
        }
        self.policy.fill(set, slot - set * self.shape.ways, key);
        evicted
    }

    fn remove(&mut self, key: Key) -> bool {
        let slot = self.find(key);
        slot.map(|slot| self.remove_slot(slot)).is_some()
    }

    fn remove_if(&mut self, mut f: impl FnMut(Key) -> bool) -> usize {
        let before = self.len();
        for slot in 0..self.keys.len() {
            if self.keys[slot] != Key::FREE && f(self.keys[slot]) {
                self.remove_slot(slot);
            }
        }
        before - self.len()
    }

    /// In slot order.
    fn for_each(&self, mut f: impl FnMut(Key, V)) {
        for (key, value) in self.keys.iter().zip(&self.values) {
            if *key != Key::FREE {
                f(*key, *value);
            }
        }
    }
}

impl<P: Replacement, V: Value> Associative<V> for SetAssoc<P, V> {
    type Full = P::Full<V>;

    fn full(&self) -> Option<Self::Full> {
        (self.shape.sets > 1).then(|| P::full(self.capacity(), &self.config, self.seed))
    }
}
