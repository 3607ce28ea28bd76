//! Least recently used.

use super::order::Order;
use super::{NoConfig, Replacement, Shape};
use crate::cache::{FullLru, Key, Value};

/// Evicts the entry whose last reference is longest ago.
#[derive(Clone, Debug)]
pub struct Lru {
    order: Order,
}

impl Replacement for Lru {
    type Config = NoConfig;
    type Full<V: Value> = FullLru<V>;

    fn full<V: Value>(entries: usize, _: &NoConfig, _seed: u64) -> FullLru<V> {
        FullLru::new(entries)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> Lru {
        Lru { order: Order::new(shape) }
    }

    #[inline(always)]
    fn hit(&mut self, set: usize, way: usize) {
        self.order.move_to_front(set, way);
    }

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
