//! Least frequently used.

use super::{NoConfig, Replacement, Shape};
use crate::cache::{Key, SetAssoc, Value};

const NONE: u32 = u32::MAX;

/// Evicts the entry with the fewest references since it was filled (the fill
/// is the first); of several, the one whose last reference is longest ago.
///
/// In-cache LFU without aging: an entry that makes room, or is invalidated,
/// loses its count, and what was hot once stays until it is invalidated. Ties
/// are broken as in libCacheSim's `LFU`, the miss counts are the same.
///
/// The entries of equal count form a group, oldest reference first, and the
/// groups of a set a list by count. A hit moves an entry to the end of the
/// next group: constant time. A set has at most as many groups as entries, so
/// groups are numbered like slots.
#[derive(Clone, Debug)]
pub struct Lfu {
    ways: usize,
    /// By slot.
    entries: Vec<Entry>,
    /// By group.
    groups: Vec<Group>,
    /// By set, its group with the lowest count.
    lowest: Vec<u32>,
    /// By set, a stack of unused groups, linked by `above`.
    unused: Vec<u32>,
}

/// An entry's place.
#[derive(Clone, Copy, Debug)]
struct Entry {
    group: u32,
    /// Slot with the next older reference of the group.
    older: u32,
    /// Slot with the next younger one.
    younger: u32,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    /// References of each of its entries.
    count: u64,
    /// Groups with the next lower and next higher count.
    below: u32,
    above: u32,
    /// Slots of its first and its last entry.
    oldest: u32,
    youngest: u32,
}

impl Lfu {
    /// Takes an entry out of its group, and the group out of the list if it
    /// was the last one.
    #[inline]
    fn unlink(&mut self, set: usize, slot: u32) {
        let Entry { group, older, younger } = self.entries[slot as usize];
        match older {
            NONE => self.groups[group as usize].oldest = younger,
            _ => self.entries[older as usize].younger = younger,
        }
        match younger {
            NONE => self.groups[group as usize].youngest = older,
            _ => self.entries[younger as usize].older = older,
        }
        if self.groups[group as usize].oldest == NONE {
            let Group { below, above, .. } = self.groups[group as usize];
            match below {
                NONE => self.lowest[set] = above,
                _ => self.groups[below as usize].above = above,
            }
            if above != NONE {
                self.groups[above as usize].below = below;
            }
            self.groups[group as usize].above = self.unused[set];
            self.unused[set] = group;
        }
    }

    /// Puts an unlinked entry at the young end of the group with `count`, which
    /// is the one above `below` or has to be made there.
    #[inline]
    fn link(&mut self, set: usize, slot: u32, below: u32, count: u64) {
        let above = match below {
            NONE => self.lowest[set],
            _ => self.groups[below as usize].above,
        };
        if above != NONE && self.groups[above as usize].count == count {
            let older = std::mem::replace(&mut self.groups[above as usize].youngest, slot);
            self.entries[older as usize].younger = slot;
            self.entries[slot as usize] = Entry { group: above, older, younger: NONE };
            return;
        }
        let group = self.unused[set];
        self.unused[set] = self.groups[group as usize].above;
        self.groups[group as usize] = Group { count, below, above, oldest: slot, youngest: slot };
        match below {
            NONE => self.lowest[set] = group,
            _ => self.groups[below as usize].above = group,
        }
        if above != NONE {
            self.groups[above as usize].below = group;
        }
        self.entries[slot as usize] = Entry { group, older: NONE, younger: NONE };
    }
}

impl Replacement for Lfu {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    const COUNTS_HITS: bool = true;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> Lfu {
        let entries = shape.sets * shape.ways;
        let group = |number: usize| {
            let last = (number + 1).is_multiple_of(shape.ways);
            let above = if last { NONE } else { number as u32 + 1 };
            Group { count: 0, below: NONE, above, oldest: NONE, youngest: NONE }
        };
        Lfu {
            ways: shape.ways,
            entries: vec![Entry { group: NONE, older: NONE, younger: NONE }; entries],
            groups: (0..entries).map(group).collect(),
            lowest: vec![NONE; shape.sets],
            unused: (0..shape.sets).map(|set| (set * shape.ways) as u32).collect(),
        }
    }

    #[inline]
    fn hit(&mut self, set: usize, way: usize) {
        let slot = (set * self.ways + way) as u32;
        let Entry { group, older, younger } = self.entries[slot as usize];
        let Group { count, below, above, .. } = self.groups[group as usize];
        let next = count + 1;
        if older == NONE && younger == NONE {
            // Alone: the group can have the next count, unless that exists.
            if above == NONE || self.groups[above as usize].count != next {
                self.groups[group as usize].count = next;
                return;
            }
            self.unlink(set, slot);
            self.link(set, slot, below, next);
        } else {
            self.unlink(set, slot);
            self.link(set, slot, group, next);
        }
    }

    #[inline]
    fn fill(&mut self, set: usize, way: usize, _key: Key) {
        self.link(set, (set * self.ways + way) as u32, NONE, 1);
    }

    #[inline]
    fn victim(&mut self, set: usize) -> usize {
        let slot = self.groups[self.lowest[set] as usize].oldest;
        self.unlink(set, slot);
        slot as usize - set * self.ways
    }

    #[inline]
    fn remove(&mut self, set: usize, way: usize) {
        self.unlink(set, (set * self.ways + way) as u32);
    }
}
