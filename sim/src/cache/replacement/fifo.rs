//! First in, first out.

use super::order::Order;
use super::{NoConfig, Replacement, Shape};
use crate::cache::{Key, SetAssoc, Value};

/// Evicts the entry that was filled first, whatever its references.
#[derive(Clone, Debug)]
pub struct Fifo {
    order: Order,
}

impl Replacement for Fifo {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> Fifo {
        Fifo { order: Order::new(shape) }
    }

    #[inline(always)]
    fn hit(&mut self, _set: usize, _way: usize) {}

    #[inline(always)]
    fn fill(&mut self, set: usize, way: usize, _key: Key) {
        self.order.push_front(set, way);
    }

    #[inline(always)]
    fn victim(&mut self, set: usize) -> usize {
        let way = self.order.back(set);
        self.order.unlink(set, way);
        way
    }

    #[inline(always)]
    fn remove(&mut self, set: usize, way: usize) {
        self.order.unlink(set, way);
    }
}
