//! S3-FIFO: a small queue, a main queue, and a ghost queue of keys.

use super::order::Order;
use super::{NoConfig, Replacement, Shape};
use crate::cache::index::Index;
use crate::cache::{Key, SetAssoc, Value};

/// Share of the small queue in the ways: one tenth, at least one way.
const SMALL: (usize, usize) = (1, 10);
/// Keys in the ghost queue per way: nine tenths, as many as the main queue has
/// ways.
const GHOSTS: (usize, usize) = (9, 10);
/// Hits that are told apart: two bits.
const MOST_HITS: u8 = 3;
/// Hits in the small queue that lead to the main queue.
const MAIN_FROM: u8 = 2;
/// Up to this many ghosts of a set are scanned; more use a hash index.
const SCAN_GHOSTS: usize = 16;

/// Evicts what was referenced once or twice and not again, early; keeps the
/// rest in a queue with second (to fourth) chances.
///
/// Yang et al., "FIFO Queues Are All You Need for Cache Eviction", SOSP 2023.
/// Each set has its own three queues. A new entry goes to the small
/// queue, or to the main queue if its key is in the ghost queue. Hits are
/// counted, up to three. The victim is
///
/// * the oldest of the small queue if that has its share or more. On the way,
///   entries with two hits or more move to the young end of the main queue,
///   where they begin without hits; the victim's key goes to the ghosts;
/// * the oldest of the main queue otherwise. On the way, entries with hits give
///   one away and move to the young end.
///
/// An entry that finds a free way while the small queue has its share goes to
/// the main queue. That is how libCacheSim 0.3.5's `S3FIFO` fills an empty
/// cache; the miss counts are the same, from 20 ways on and without
/// invalidations (`docs/replacement.md`).
///
/// With few ways: the small queue has at least one, so 8 ways are 1 small, 7
/// main and 7 ghosts; one way has no ghost.
///
/// An invalidated entry leaves its queue, and its key does not become a ghost:
/// it was not evicted. Invalidations do not reach ghosts, which hold no
/// translation: a page that is mapped again soon after it was evicted is an
/// old acquaintance.
#[derive(Clone, Debug)]
pub struct S3Fifo {
    ways: usize,
    /// The small queue's share in ways.
    share: usize,
    small: Order,
    main: Order,
    /// Entries of the small queue, by set.
    in_small: Vec<u32>,
    /// By slot.
    keys: Vec<Key>,
    hits: Vec<u8>,
    is_small: Vec<bool>,
    /// The latest victim came from the small queue and no entry took its way
    /// yet.
    becomes_ghost: bool,
    ghosts: Option<Ghosts>,
}

impl Replacement for S3Fifo {
    type Config = NoConfig;
    type Full<V: Value> = SetAssoc<Self, V>;

    const COUNTS_HITS: bool = true;

    fn full<V: Value>(entries: usize, config: &NoConfig, seed: u64) -> SetAssoc<Self, V> {
        SetAssoc::new(entries, entries, config, seed)
    }

    fn new(shape: Shape, _: &NoConfig, _seed: u64) -> S3Fifo {
        let entries = shape.sets * shape.ways;
        let ghosts = shape.ways * GHOSTS.0 / GHOSTS.1;
        S3Fifo {
            ways: shape.ways,
            share: (shape.ways * SMALL.0 / SMALL.1).max(1),
            small: Order::new(shape),
            main: Order::new(shape),
            in_small: vec![0; shape.sets],
            keys: vec![Key::FREE; entries],
            hits: vec![0; entries],
            is_small: vec![false; entries],
            becomes_ghost: false,
            ghosts: (ghosts > 0).then(|| Ghosts::new(shape.sets, ghosts)),
        }
    }

    #[inline(always)]
    fn hit(&mut self, set: usize, way: usize) {
        let hits = &mut self.hits[set * self.ways + way];
        *hits = (*hits + 1).min(MOST_HITS);
    }

    #[inline]
    fn fill(&mut self, set: usize, way: usize, key: Key) {
        let slot = set * self.ways + way;
        let victim = std::mem::replace(&mut self.keys[slot], key);
        let becomes_ghost = std::mem::take(&mut self.becomes_ghost);
        let mut known = false;
        if let Some(ghosts) = &mut self.ghosts {
            // First out, then in: the key may be the ghost that is due to go.
            known = ghosts.take(set, key);
            if becomes_ghost {
                ghosts.put(set, victim);
            }
        }
        self.hits[slot] = 0;
        // Where there was a victim, the small queue is below its share now.
        let is_small = !known && (self.in_small[set] as usize) < self.share;
        self.is_small[slot] = is_small;
        match is_small {
            true => self.small.push_front(set, way),
            false => self.main.push_front(set, way),
        }
        self.in_small[set] += u32::from(is_small);
    }

    #[inline]
    fn victim(&mut self, set: usize) -> usize {
        if self.in_small[set] as usize >= self.share {
            while self.in_small[set] > 0 {
                let way = self.small.back(set);
                let slot = set * self.ways + way;
                self.small.unlink(set, way);
                self.in_small[set] -= 1;
                if self.hits[slot] < MAIN_FROM {
                    self.becomes_ghost = true;
                    return way;
                }
                self.hits[slot] = 0;
                self.is_small[slot] = false;
                self.main.push_front(set, way);
            }
        }
        loop {
            let way = self.main.back(set);
            let hits = &mut self.hits[set * self.ways + way];
            if *hits == 0 {
                self.main.unlink(set, way);
                return way;
            }
            *hits -= 1;
            self.main.move_to_front(set, way);
        }
    }

    #[inline]
    fn remove(&mut self, set: usize, way: usize) {
        match self.is_small[set * self.ways + way] {
            true => {
                self.small.unlink(set, way);
                self.in_small[set] -= 1;
            }
            false => self.main.unlink(set, way),
        }
    }
}

/// For every set, the keys that left its small queue last.
///
/// All places are always in an order: latest first, empty ones last. The place
/// of the next key is the last one, whether it is empty or not.
#[derive(Clone, Debug)]
struct Ghosts {
    per_set: usize,
    order: Order,
    /// By place.
    keys: Vec<Key>,
    index: Option<Index>,
}

impl Ghosts {
    fn new(sets: usize, per_set: usize) -> Ghosts {
        let mut order = Order::new(Shape { sets, ways: per_set });
        for set in 0..sets {
            (0..per_set).for_each(|place| order.push_front(set, place));
        }
        let places = sets * per_set;
        let index = (per_set > SCAN_GHOSTS).then(|| Index::new(places));
        Ghosts { per_set, order, keys: vec![Key::FREE; places], index }
    }

    /// Removes `key`; true if it was present.
    #[inline]
    fn take(&mut self, set: usize, key: Key) -> bool {
        let first = set * self.per_set;
        let found = match &self.index {
            Some(index) => index.get(key, &self.keys),
            None => {
                let of_set = &self.keys[first..first + self.per_set];
                of_set.iter().position(|k| *k == key).map(|place| first + place)
            }
        };
        let Some(at) = found else { return false };
        if let Some(index) = &mut self.index {
            index.remove(key, at);
        }
        self.keys[at] = Key::FREE;
        self.order.move_to_back(set, at - first);
        true
    }

    /// Adds `key`, which is not present; the oldest goes if there are too many.
    #[inline]
    fn put(&mut self, set: usize, key: Key) {
        let place = self.order.back(set);
        let at = set * self.per_set + place;
        let old = std::mem::replace(&mut self.keys[at], key);
        if let Some(index) = &mut self.index {
            if old != Key::FREE {
                index.remove(old, at);
            }
            index.insert(key, at);
        }
        self.order.move_to_front(set, place);
    }
}
