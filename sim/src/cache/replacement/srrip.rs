//! Static re-reference interval prediction (SRRIP), 2 bits, hit priority.

use super::first_of::FirstOf;
use super::{NoConfig, Replacement, Shape};
use crate::cache::{Key, SetAssoc, Value};

/// Predictions: 0 (referenced again soon) to 3 (in the distant future).
const PREDICTIONS: u8 = 4;
const DISTANT: u8 = PREDICTIONS - 1;
/// What an entry that was just filled gets.
const LONG: u8 = DISTANT - 1;

/// Evicts an entry that is predicted to be referenced in the distant future;
/// one that has not been hit since it was filled gets there before those that
/// have.
///
/// SRRIP-HP with M = 2 of Jaleel et al., "High Performance Cache Replacement
/// Using Re-Reference Interval Prediction (RRIP)", ISCA 2010: an entry is filled
/// with the prediction 2, a hit makes it 0, and the victim is the first way
/// (lowest number) that has 3; if there is none, all are raised by one until
/// there is.
///
/// An invalidated entry loses its prediction, and a free way takes no part: it
/// neither is a victim nor keeps the others from being raised, which happens
/// in full sets only.
///
/// The ways with equal predictions form a subset that gives its first way at
/// once, and raising all of a set renames its subsets: no set, however wide, is
/// gone through.
#[derive(Clone, Debug)]
pub struct Srrip {
    ways: usize,
    /// By set, how often its entries were raised, modulo 4.
    raised: Vec<u8>,
    /// By slot, its prediction less `raised`, modulo 4: its subset.
    subset: Vec<u8>,
    subsets: FirstOf,
}

impl Srrip {
    /// The subset of the set's entries with this prediction.
    #[inline(always)]
    fn named(&self, set: usize, prediction: u8) -> u8 {
        prediction.wrapping_sub(self.raised[set]) % PREDICTIONS
    }

    #[inline(always)]
    fn add(&mut self, set: usize, way: usize, prediction: u8) {
        let subset = self.named(set, prediction);
        self.subset[set * self.ways + way] = subset;
        self.subsets.add(set, subset.into(), way);
    }
}

impl Replacement for Srrip {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> Srrip {
        Srrip {
            ways: shape.ways,
            raised: vec![0; shape.sets],
            subset: vec![0; shape.sets * shape.ways],
            subsets: FirstOf::new(shape, PREDICTIONS.into()),
        }
    }

    #[inline]
    fn hit(&mut self, set: usize, way: usize) {
        let old = self.subset[set * self.ways + way];
        if old != self.named(set, 0) {
            self.subsets.remove(set, old.into(), way);
            self.add(set, way, 0);
        }
    }

    #[inline]
    fn fill(&mut self, set: usize, way: usize, _key: Key) {
        self.add(set, way, LONG);
    }

    #[inline]
    fn victim(&mut self, set: usize) -> usize {
        loop {
            let distant = self.named(set, DISTANT).into();
            if let Some(way) = self.subsets.first(set, distant) {
                self.subsets.remove(set, distant, way);
                return way;
            }
            // The subset of 3 is empty and becomes that of 0.
            self.raised[set] = (self.raised[set] + 1) % PREDICTIONS;
        }
    }

    #[inline]
    fn remove(&mut self, set: usize, way: usize) {
        let subset = self.subset[set * self.ways + way];
        self.subsets.remove(set, subset.into(), way);
    }
}
