//! Uniformly random.

use rand::Rng;
use rand_pcg::Pcg64;

use super::{NoConfig, Replacement, Shape};
use crate::cache::{Key, SetAssoc, Value};

/// Evicts a way chosen uniformly with a seeded `Pcg64` (value-stable).
#[derive(Clone, Debug)]
pub struct Random {
    rng: Pcg64,
    ways: usize,
}

impl Replacement for Random {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, seed: u64) -> Random {
        // 0xa02bdbf7bb3c0a7 is Pcg64's documented default stream.
        Random { rng: Pcg64::new(seed as u128, 0xa02_bdbf_7bb3_c0a7), ways: shape.ways }
    }

    #[inline]
    fn hit(&mut self, _set: usize, _way: usize) {}

    #[inline]
    fn fill(&mut self, _set: usize, _way: usize, _key: Key) {}

    #[inline]
    fn victim(&mut self, _set: usize) -> usize {
        // Multiply-shift: the bias is below ways / 2^64.
        ((self.rng.next_u64() as u128 * self.ways as u128) >> 64) as usize
    }

    #[inline]
    fn remove(&mut self, _set: usize, _way: usize) {}
}
