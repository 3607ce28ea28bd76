//! How accesses lie together: reuse distances, the working set over time, and
//! bursts of one device.

use ioasim_events::{Event, PAGE_SHIFT};
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::values::{Spread, Values};

/// Intervals of the working set.
const INTERVALS: u64 = 60;

/// How accesses lie together. An access counts for the page in which it begins.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Locality {
    /// Distinct (domain, 4 KiB page) pairs from one access of a page to the
    /// next, itself included: 1 = the next access. An LRU cache of n entries
    /// hits where it is at most n. First accesses are left out.
    pub reuse_distance_4k: Spread,
    /// The same of 2 MiB regions.
    pub reuse_distance_2m: Spread,
    /// First accesses of a 4 KiB page.
    pub first_accesses_4k: u64,
    /// First accesses of a 2 MiB region.
    pub first_accesses_2m: u64,
    /// Accesses of one device without one of another between them.
    pub burst_accesses: Spread,
    /// The trace in at most 60 parts of equally many events.
    pub working_set: Vec<Interval>,
}

/// A part of the trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// Time of its first event in ns.
    pub time_ns: u64,
    /// Accesses.
    pub accesses: u64,
    /// Distinct (domain, 4 KiB page) pairs accessed.
    pub pages: u64,
}

/// A page of a domain.
type Key = (u32, u64);

/// Exact LRU stack distances. The last access of every key has a slot; a binary
/// indexed tree counts those behind a slot. Memory grows with the keys.
#[derive(Debug, Default)]
pub(super) struct Distances {
    slots: FxHashMap<Key, u32>,
    /// Binary indexed tree over the slots in use; entry 0 is not used.
    tree: Vec<u32>,
    next: u32,
    values: Values,
    firsts: u64,
}

impl Distances {
    pub fn access(&mut self, key: Key) {
        if self.next as usize + 1 >= self.tree.len() {
            self.compact();
        }
        self.next += 1;
        match self.slots.insert(key, self.next) {
            Some(old) => {
                let upto = self.sum(old);
                self.values.add(self.slots.len() as u64 - upto + 1);
                self.add(old, u32::MAX);
            }
            None => self.firsts += 1,
        }
        self.add(self.next, 1);
    }

    /// Numbers the slots anew, with room for as many accesses again.
    fn compact(&mut self) {
        let mut order: Vec<(u32, Key)> = self.slots.iter().map(|(k, s)| (*s, *k)).collect();
        order.sort_unstable();
        self.tree.clear();
        self.tree.resize((2 * order.len()).max(1024), 0);
        self.next = 0;
        for (_, key) in order {
            self.next += 1;
            self.slots.insert(key, self.next);
            self.add(self.next, 1);
        }
    }

    /// Adds 1, or -1 as its complement.
    fn add(&mut self, slot: u32, by: u32) {
        let mut i = slot as usize;
        while i < self.tree.len() {
            self.tree[i] = self.tree[i].wrapping_add(by);
            i += i & i.wrapping_neg();
        }
    }

    /// Slots in use up to this one.
    fn sum(&self, slot: u32) -> u64 {
        let (mut i, mut sum) = (slot as usize, 0);
        while i > 0 {
            sum += u64::from(self.tree[i]);
            i &= i - 1;
        }
        sum
    }
}

/// Collects [`Locality`].
#[derive(Debug)]
pub(super) struct Collector {
    small: Distances,
    large: Distances,
    bursts: Values,
    device: Option<u32>,
    burst: u64,
    /// Events of an interval.
    step: u64,
    events: u64,
    intervals: Vec<Interval>,
    /// The last interval in which a page was accessed.
    seen: FxHashMap<Key, u32>,
}

impl Collector {
    /// For a trace of so many events; 0 if that is not known.
    pub fn new(events: u64) -> Collector {
        Collector {
            small: Distances::default(),
            large: Distances::default(),
            bursts: Values::default(),
            device: None,
            burst: 0,
            step: events.div_ceil(INTERVALS).max(1),
            events: 0,
            intervals: Vec::new(),
            seen: FxHashMap::default(),
        }
    }

    /// Any event.
    pub fn event(&mut self, e: &Event) {
        let known = self.intervals.len() as u64;
        if self.events == known * self.step {
            if known == INTERVALS {
                // More events than were announced: two parts become one. Pages
                // of both are counted twice, so the sum is an upper bound.
                let halves = self.intervals.chunks(2).map(|c| Interval {
                    time_ns: c[0].time_ns,
                    accesses: c.iter().map(|i| i.accesses).sum(),
                    pages: c.iter().map(|i| i.pages).sum(),
                });
                self.intervals = halves.collect();
                self.step *= 2;
                self.seen.clear();
            }
            self.intervals.push(Interval { time_ns: e.time_ns, ..Interval::default() });
        }
        self.events += 1;
    }

    /// An access, behind [`event`](Collector::event).
    pub fn access(&mut self, e: &Event) {
        let page = (e.domain.0, e.addr >> PAGE_SHIFT);
        self.small.access(page);
        self.large.access((e.domain.0, e.addr >> 21));
        let now = self.intervals.len() as u32;
        if let Some(interval) = self.intervals.last_mut() {
            interval.accesses += 1;
            interval.pages += u64::from(self.seen.insert(page, now) != Some(now));
        }
        if self.device == Some(e.requester.0) {
            self.burst += 1;
        } else {
            self.end_burst();
            (self.device, self.burst) = (Some(e.requester.0), 1);
        }
    }

    fn end_burst(&mut self) {
        if self.burst > 0 {
            self.bursts.add(self.burst);
        }
    }

    pub fn finish(mut self) -> Locality {
        self.end_burst();
        Locality {
            reuse_distance_4k: self.small.values.spread(),
            reuse_distance_2m: self.large.values.spread(),
            first_accesses_4k: self.small.firsts,
            first_accesses_2m: self.large.firsts,
            burst_accesses: self.bursts.spread(),
            working_set: self.intervals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn distances_are_those_of_a_stack(keys in proptest::collection::vec(0..60u64, 0..6000)) {
            let mut fast = Distances::default();
            let mut stack: Vec<u64> = Vec::new();
            let mut slow = Values::default();
            for key in keys {
                fast.access((1, key));
                if let Some(at) = stack.iter().rposition(|k| *k == key) {
                    slow.add((stack.len() - at) as u64);
                    stack.remove(at);
                }
                stack.push(key);
            }
            prop_assert_eq!(fast.values.spread(), slow.spread());
            prop_assert_eq!(fast.firsts, stack.len() as u64);
        }
    }

    #[test]
    fn intervals_and_bursts() {
        use ioasim_events::{Kind, Requester};
        let mut c = Collector::new(0);
        for i in 0..200u64 {
            let e = Event {
                time_ns: i,
                requester: Requester((i / 10 % 2) as u32),
                addr: (i % 4) << 12,
                ..Event::new(Kind::Dma)
            };
            c.event(&e);
            c.access(&e);
        }
        let found = c.finish();
        let bursts = found.burst_accesses;
        assert_eq!((bursts.count, bursts.min, bursts.max), (20, 10, 10));
        assert!(found.working_set.len() <= 60 && found.working_set.len() > 20);
        assert_eq!(found.working_set.iter().map(|i| i.accesses).sum::<u64>(), 200);
        assert!(found.working_set.iter().all(|i| i.pages >= 1 && i.accesses >= i.pages));
        assert_eq!((found.reuse_distance_4k.min, found.reuse_distance_4k.max), (4, 4));
        assert_eq!((found.reuse_distance_2m.max, found.first_accesses_2m), (1, 1));
    }
}
