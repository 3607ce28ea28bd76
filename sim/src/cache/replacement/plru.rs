//! Tree pseudo-LRU.

use super::{NoConfig, Replacement, Shape};
use crate::cache::{Key, SetAssoc, Value};

/// A binary tree per set whose bits point away from recent references.
///
/// Associativities that are not powers of two use the next larger tree; the
/// victim search never turns into a subtree without ways.
#[derive(Clone, Debug)]
pub struct Plru {
    ways: usize,
    /// Leaves of the tree: `ways` rounded up to a power of two.
    leaves: usize,
    /// One bit per inner node, `leaves` bytes per set (node 1 is the root);
    /// true = the victim is to the right.
    right: Vec<bool>,
}

impl Plru {
    #[inline]
    fn touch(&mut self, set: usize, way: usize) {
        let tree = &mut self.right[set * self.leaves..(set + 1) * self.leaves];
        let mut node = way + self.leaves;
        while node > 1 {
            let came_from_left = node & 1 == 0;
            node >>= 1;
            tree[node] = came_from_left;
        }
    }
}

impl Replacement for Plru {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> Plru {
        let leaves = shape.ways.next_power_of_two();
        Plru { ways: shape.ways, leaves, right: vec![false; shape.sets * leaves] }
    }

    #[inline]
    fn hit(&mut self, set: usize, way: usize) {
        self.touch(set, way);
    }

    #[inline]
    fn fill(&mut self, set: usize, way: usize, _key: Key) {
        self.touch(set, way);
    }

    #[inline]
    fn victim(&mut self, set: usize) -> usize {
        let tree = &self.right[set * self.leaves..(set + 1) * self.leaves];
        let (mut node, mut low, mut span) = (1, 0, self.leaves);
        while span > 1 {
            span /= 2;
            let right = tree[node] && low + span < self.ways;
            node = 2 * node + right as usize;
            low += span * right as usize;
        }
        low
    }

    #[inline]
    fn remove(&mut self, _set: usize, _way: usize) {}
}
