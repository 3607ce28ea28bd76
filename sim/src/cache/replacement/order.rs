//! Per-set order of the ways as a doubly linked list in two arrays.

use super::Shape;

const NONE: u32 = u32::MAX;

/// For every set, its filled ways in an order; constant-time at both ends and
/// for removal.
#[derive(Clone, Debug)]
pub(super) struct Order {
    ways: usize,
    /// Neighbour towards the front, by slot.
    prev: Vec<u32>,
    /// Neighbour towards the back, by slot.
    next: Vec<u32>,
    front: Vec<u32>,
    back: Vec<u32>,
}

impl Order {
    pub fn new(shape: Shape) -> Order {
        let slots = shape.sets * shape.ways;
        Order {
            ways: shape.ways,
            prev: vec![NONE; slots],
            next: vec![NONE; slots],
            front: vec![NONE; shape.sets],
            back: vec![NONE; shape.sets],
        }
    }

    /// The way at the back; the set is not empty.
    #[inline]
    pub fn back(&self, set: usize) -> usize {
        self.back[set] as usize - set * self.ways
    }

    #[inline]
    pub fn push_front(&mut self, set: usize, way: usize) {
        let slot = (set * self.ways + way) as u32;
        let old = self.front[set];
        self.prev[slot as usize] = NONE;
        self.next[slot as usize] = old;
        if old == NONE {
            self.back[set] = slot;
        } else {
            self.prev[old as usize] = slot;
        }
        self.front[set] = slot;
    }

    #[inline]
    pub fn unlink(&mut self, set: usize, way: usize) {
        let slot = set * self.ways + way;
        let (p, n) = (self.prev[slot], self.next[slot]);
        if p == NONE {
            self.front[set] = n;
        } else {
            self.next[p as usize] = n;
        }
        if n == NONE {
            self.back[set] = p;
        } else {
            self.prev[n as usize] = p;
        }
    }

    #[inline]
    pub fn to_front(&mut self, set: usize, way: usize) {
        if self.front[set] as usize != set * self.ways + way {
            self.unlink(set, way);
            self.push_front(set, way);
        }
    }
}
