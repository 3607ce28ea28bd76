//! Hash index from key to slot for sets too wide to scan.

use super::Key;

/// Low bits of a bucket: the slot. More than the largest cache needs, so that
/// no bucket in use is all ones.
const SLOT_BITS: u32 = 25;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const FREE: u64 = u64::MAX;

/// Open addressing with linear probing at a load of at most one half.
///
/// A bucket holds the upper bits of the key's hash and the slot, so that most
/// probes and all deletions need no look at the keys themselves. Deletion
/// shifts later entries back: there are no tombstones, and look-ups stay short
/// however long the run is.
#[derive(Clone, Debug)]
pub(super) struct Index {
    buckets: Vec<u64>,
    /// 64 - log2 of the number of buckets.
    shift: u32,
}

/// Fibonacci hashing; the multiplier is 2^64 / golden ratio.
#[inline]
fn hash(key: Key) -> u64 {
    key.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// An index for at most `entries` keys.
    pub fn new(entries: usize) -> Index {
        assert!(entries < 1 << SLOT_BITS, "the configuration's limit is lower");
        let size = (entries * 2).next_power_of_two().max(4);
        Index { buckets: vec![FREE; size], shift: 64 - size.trailing_zeros() }
    }

    /// Where the search for a hash begins: its upper bits, which a bucket keeps.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (hash >> self.shift) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    /// Slot of `key`; `keys` are the keys by slot.
    #[inline]
    pub fn get(&self, key: Key, keys: &[Key]) -> Option<usize> {
        let hash = hash(key);
        let mut at = self.home(hash);
        loop {
            let bucket = self.buckets[at];
            if bucket == FREE {
                return None;
            }
            let slot = (bucket & SLOT_MASK) as usize;
            if (bucket ^ hash) >> SLOT_BITS == 0 && keys[slot] == key {
                return Some(slot);
            }
            at = self.after(at);
        }
    }

    /// Adds `key`, which is not present.
    #[inline]
    pub fn insert(&mut self, key: Key, slot: usize) {
        let hash = hash(key);
        let mut at = self.home(hash);
        while self.buckets[at] != FREE {
            at = self.after(at);
        }
        self.buckets[at] = hash & !SLOT_MASK | slot as u64;
    }

    /// Removes `key`, which is present in `slot`.
    #[inline]
    pub fn remove(&mut self, key: Key, slot: usize) {
        let hash = hash(key);
        let mut hole = self.home(hash);
        while self.buckets[hole] != hash & !SLOT_MASK | slot as u64 {
            hole = self.after(hole);
        }
        let mask = self.buckets.len() - 1;
        let mut at = hole;
        loop {
            at = self.after(at);
            let bucket = self.buckets[at];
            if bucket == FREE {
                break;
            }
            // An entry may move back into the hole unless its home lies
            // between the hole (exclusive) and where it is (inclusive).
            if (at.wrapping_sub(self.home(bucket)) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.buckets[hole] = bucket;
                hole = at;
            }
        }
        self.buckets[hole] = FREE;
    }
}
