//! A fully associative LRU cache.

use super::sizes::SizeCounts;
use super::{Associative, Cache, Key, Value};

/// One entry and its places in two lists, in half a cache line: with an array
/// for each field a look-up would touch twice the lines.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Slot<V> {
    key: Key,
    value: V,
    /// Next slot of the same hash bucket.
    next: u32,
    /// Towards the latest reference.
    front: u32,
    /// Towards the oldest reference.
    back: u32,
}

/// A fully associative LRU cache from [`Key`] to a small value.
///
/// All slots are always in the order of their last references, free ones
/// last, so the victim is the last slot whether it is free or not. One more
/// slot ends the order, at both ends, and every hash chain: no list has an
/// end to be treated apart. Behaves exactly as `SetAssoc<Lru, V>` of one set.
#[derive(Clone, Debug)]
pub struct FullLru<V> {
    slots: Vec<Slot<V>>,
    /// First slot by bucket.
    heads: Vec<u32>,
    /// 64 - log2 of the number of buckets.
    shift: u32,
    /// Entries present by page size.
    by_size: SizeCounts,
}

impl<V: Value> FullLru<V> {
    /// A cache of `entries`, 1 to 2^31.
    pub fn new(entries: usize) -> Self {
        assert!((1..=1 << 31).contains(&entries), "{entries}");
        let end = entries as u32;
        let slots = (0..=end)
            .map(|slot| Slot {
                key: Key::FREE,
                value: V::default(),
                next: end,
                front: if slot == 0 { end } else { slot - 1 },
                back: if slot == end { 0 } else { slot + 1 },
            })
            .collect();
        // Most chains are empty or one slot long then.
        let buckets = (entries * 4).next_power_of_two();
        FullLru {
            slots,
            heads: vec![end; buckets],
            shift: 64 - buckets.trailing_zeros(),
            by_size: SizeCounts::default(),
        }
    }

    /// The slot that ends every list.
    #[inline(always)]
    fn end(&self) -> u32 {
        (self.slots.len() - 1) as u32
    }

    /// Fibonacci hashing; the multiplier is 2^64 / golden ratio.
    #[inline(always)]
    fn bucket(&self, key: Key) -> usize {
        (key.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline(always)]
    fn find(&self, key: Key) -> Option<u32> {
        let mut at = self.heads[self.bucket(key)];
        loop {
            let slot = &self.slots[at as usize];
            if slot.key == key {
                return Some(at);
            }
            if at == self.end() {
                return None;
            }
            at = slot.next;
        }
    }

    #[inline(always)]
    fn unlink(&mut self, slot: u32) {
        let Slot { front, back, .. } = self.slots[slot as usize];
        self.slots[front as usize].back = back;
        self.slots[back as usize].front = front;
    }

    /// Puts an unlinked slot behind `front`.
    #[inline(always)]
    fn link_behind(&mut self, front: u32, slot: u32) {
        let back = std::mem::replace(&mut self.slots[front as usize].back, slot);
        self.slots[back as usize].front = slot;
        let slot = &mut self.slots[slot as usize];
        (slot.front, slot.back) = (front, back);
    }

    #[inline(always)]
    fn make_latest(&mut self, slot: u32) {
        self.unlink(slot);
        self.link_behind(self.end(), slot);
    }

    #[inline(always)]
    fn unchain(&mut self, key: Key, slot: u32) {
        let after = self.slots[slot as usize].next;
        let bucket = self.bucket(key);
        let mut at = self.heads[bucket];
        if at == slot {
            self.heads[bucket] = after;
            return;
        }
        while self.slots[at as usize].next != slot {
            at = self.slots[at as usize].next;
        }
        self.slots[at as usize].next = after;
    }

    fn remove_slot(&mut self, slot: u32) {
        let key = std::mem::replace(&mut self.slots[slot as usize].key, Key::FREE);
        self.unchain(key, slot);
        self.by_size.remove(key);
        self.unlink(slot);
        let last = self.slots[self.end() as usize].front;
        self.link_behind(last, slot);
    }
}

impl<V: Value> Cache<V> for FullLru<V> {
    #[inline(always)]
    fn by_size(&self) -> &SizeCounts {
        &self.by_size
    }

    fn capacity(&self) -> usize {
        self.slots.len() - 1
    }

    #[inline(always)]
    fn get(&mut self, key: Key) -> Option<V> {
        let slot = self.find(key)?;
        self.make_latest(slot);
        Some(self.slots[slot as usize].value)
    }

    #[inline(always)]
    fn peek(&self, key: Key) -> Option<V> {
        self.find(key).map(|slot| self.slots[slot as usize].value)
    }

    #[inline(always)]
    fn insert(&mut self, key: Key, value: V) -> Option<Key> {
        if let Some(slot) = self.find(key) {
            self.slots[slot as usize].value = value;
            self.make_latest(slot);
            return None;
        }
        self.insert_absent(key, value)
    }

    #[inline(always)]
    fn insert_absent(&mut self, key: Key, value: V) -> Option<Key> {
        debug_assert!(self.find(key).is_none());
        let victim = self.slots[self.end() as usize].front;
        let old = self.slots[victim as usize].key;
        if old == Key::FREE {
            self.by_size.add(key);
        } else {
            self.unchain(old, victim);
            self.by_size.replace(old, key);
        }
        self.make_latest(victim);
        let bucket = self.bucket(key);
        let next = std::mem::replace(&mut self.heads[bucket], victim);
        let slot = &mut self.slots[victim as usize];
        (slot.key, slot.value, slot.next) = (key, value, next);
        (old != Key::FREE).then_some(old)
    }

    fn remove(&mut self, key: Key) -> bool {
        let slot = self.find(key);
        slot.map(|slot| self.remove_slot(slot)).is_some()
    }

    fn remove_if(&mut self, mut f: impl FnMut(Key) -> bool) -> usize {
        let before = self.len();
        for slot in 0..self.end() {
            let key = self.slots[slot as usize].key;
            if key != Key::FREE && f(key) {
                self.remove_slot(slot);
            }
        }
        before - self.len()
    }

    /// In slot order.
    fn for_each(&self, mut f: impl FnMut(Key, V)) {
        let (_, slots) = self.slots.split_last().expect("one more than entries");
        for slot in slots {
            if slot.key != Key::FREE {
                f(slot.key, slot.value);
            }
        }
    }
}

impl<V: Value> Associative<V> for FullLru<V> {
    type Full = Self;

    fn full(&self) -> Option<Self> {
        None
    }
}
