//! Hash index from key to slot for sets too wide to scan.

use super::Key;

const NONE: u32 = u32::MAX;

/// Chains of slots, one per bucket, linked through the slots themselves.
///
/// With twice as many buckets as slots a chain has one slot or two, a look-up
/// of an absent key mostly ends at the bucket, and neither insertion nor
/// deletion moves anything: no tombstones, however long the run is.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// First slot by bucket.
    heads: Vec<u32>,
    /// Next slot of the same bucket, by slot.
    next: Vec<u32>,
    /// 64 - log2 of the number of buckets.
    shift: u32,
}

impl Index {
    /// An index for `entries` slots.
    pub fn new(entries: usize) -> Index {
        let buckets = (entries * 2).next_power_of_two().max(4);
        Index {
            heads: vec![NONE; buckets],
            next: vec![NONE; entries],
            shift: 64 - buckets.trailing_zeros(),
        }
    }

    /// Fibonacci hashing; the multiplier is 2^64 / golden ratio.
    #[inline(always)]
    fn bucket(&self, key: Key) -> usize {
        (key.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Slot of `key`; `keys` are the keys by slot.
    #[inline(always)]
    pub fn get(&self, key: Key, keys: &[Key]) -> Option<usize> {
        let mut slot = self.heads[self.bucket(key)];
        while slot != NONE {
            if keys[slot as usize] == key {
                return Some(slot as usize);
            }
            slot = self.next[slot as usize];
        }
        None
    }

    /// Adds `key`, which is not present.
    #[inline(always)]
    pub fn insert(&mut self, key: Key, slot: usize) {
        let bucket = self.bucket(key);
        self.next[slot] = std::mem::replace(&mut self.heads[bucket], slot as u32);
    }

    /// Removes `key`, which is present in `slot`.
    #[inline(always)]
    pub fn remove(&mut self, key: Key, slot: usize) {
        let after = self.next[slot];
        let bucket = self.bucket(key);
        let mut at = self.heads[bucket];
        if at as usize == slot {
            self.heads[bucket] = after;
            return;
        }
        while self.next[at as usize] as usize != slot {
            at = self.next[at as usize];
        }
        self.next[at as usize] = after;
    }
}
