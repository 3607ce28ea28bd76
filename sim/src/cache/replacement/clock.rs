//! CLOCK (second chance) with one reference bit.

use super::order::Order;
use super::{NoConfig, Replacement, Shape};
use crate::cache::{Key, SetAssoc, Value};

/// First in, first out, but an entry that was referenced since it was last
/// considered is moved to the young end instead of being evicted.
///
/// Kept as an ordered list rather than as a ring with a hand: the two evict
/// the same entries while no entry is invalidated (the hand's position is the
/// list's old end), and the list defines what happens to the holes that
/// invalidations leave in a ring.
#[derive(Clone, Debug)]
pub struct Clock {
    order: Order,
    referenced: Vec<bool>,
    ways: usize,
}

impl Replacement for Clock {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> Clock {
        Clock {
            order: Order::new(shape),
            referenced: vec![false; shape.sets * shape.ways],
            ways: shape.ways,
        }
    }

    #[inline]
    fn hit(&mut self, set: usize, way: usize) {
        self.referenced[set * self.ways + way] = true;
    }

    #[inline]
    fn fill(&mut self, set: usize, way: usize, _key: Key) {
        self.referenced[set * self.ways + way] = false;
        self.order.push_front(set, way);
    }

    #[inline]
    fn victim(&mut self, set: usize) -> usize {
        loop {
            let way = self.order.back(set);
            let referenced = &mut self.referenced[set * self.ways + way];
            if !*referenced {
                self.order.unlink(set, way);
                return way;
            }
            *referenced = false;
            self.order.move_to_front(set, way);
        }
    }

    #[inline]
    fn remove(&mut self, set: usize, way: usize) {
        self.order.unlink(set, way);
    }
}
