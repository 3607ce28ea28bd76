//! Hash index from key to slot for sets too wide to scan.

use super::Key;

const NONE: u32 = u32::MAX;

/// Open addressing with linear probing at a load of at most one half.
///
/// `slots` is parallel to `keys`; deletion shifts later entries back, so there
/// are no tombstones and look-ups stay short however long the run is.
#[derive(Clone, Debug)]
pub(super) struct Index {
    keys: Vec<Key>,
    slots: Vec<u32>,
    shift: u32,
}

impl Index {
    /// An index for at most `entries` keys.
    pub fn new(entries: usize) -> Index {
        let size = (entries * 2).next_power_of_two().max(4);
        Index {
            keys: vec![Key::FREE; size],
            slots: vec![NONE; size],
            shift: 64 - size.trailing_zeros(),
        }
    }

    #[inline]
    fn home(&self, key: Key) -> usize {
        // Fibonacci hashing; the multiplier is 2^64 / golden ratio.
        (key.bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline]
    fn mask(&self) -> usize {
        self.keys.len() - 1
    }

    #[inline]
    fn probe(&self, key: Key) -> usize {
        let mut at = self.home(key);
        while self.keys[at] != key && self.keys[at] != Key::FREE {
            at = (at + 1) & self.mask();
        }
        at
    }

    /// Slot of `key`.
    #[inline]
    pub fn get(&self, key: Key) -> Option<usize> {
        let at = self.probe(key);
        (self.keys[at] == key).then(|| self.slots[at] as usize)
    }

    /// Adds `key`, which is not present.
    #[inline]
    pub fn insert(&mut self, key: Key, slot: usize) {
        let at = self.probe(key);
        self.keys[at] = key;
        self.slots[at] = slot as u32;
    }

    /// Removes `key`, which is present.
    #[inline]
    pub fn remove(&mut self, key: Key) {
        let mut hole = self.probe(key);
        let mask = self.mask();
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            if self.keys[at] == Key::FREE {
                break;
            }
            // An entry may move back into the hole unless its home lies
            // between the hole (exclusive) and where it is (inclusive).
            let home = self.home(self.keys[at]);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.keys[hole] = self.keys[at];
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.keys[hole] = Key::FREE;
    }
}
