//! Per-set order of the ways as a doubly linked list.

use super::Shape;

const NONE: u32 = u32::MAX;

/// Both neighbours of a slot, or both ends of a set's list.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Towards the front.
    front: u32,
    /// Towards the back.
    back: u32,
}

/// For every set, its filled ways in an order; constant-time at both ends and
/// for removal.
#[derive(Clone, Debug)]
pub(super) struct Order {
    ways: usize,
    links: Vec<Pair>,
    ends: Vec<Pair>,
}

impl Order {
    pub fn new(shape: Shape) -> Order {
        let none = Pair { front: NONE, back: NONE };
        Order {
            ways: shape.ways,
            links: vec![none; shape.sets * shape.ways],
            ends: vec![none; shape.sets],
        }
    }

    /// The way at the back; the set is not empty.
    #[inline(always)]
    pub fn back(&self, set: usize) -> usize {
        self.ends[set].back as usize - set * self.ways
    }

    #[inline(always)]
    pub fn push_front(&mut self, set: usize, way: usize) {
        let slot = (set * self.ways + way) as u32;
        let ends = &mut self.ends[set];
        let old = ends.front;
        self.links[slot as usize] = Pair { front: NONE, back: old };
        ends.front = slot;
        if old == NONE {
            ends.back = slot;
        } else {
            self.links[old as usize].front = slot;
        }
    }

    #[inline(always)]
    pub fn unlink(&mut self, set: usize, way: usize) {
        let Pair { front, back } = self.links[set * self.ways + way];
        if front == NONE {
            self.ends[set].front = back;
        } else {
            self.links[front as usize].back = back;
        }
        if back == NONE {
            self.ends[set].back = front;
        } else {
            self.links[back as usize].front = front;
        }
    }

    #[inline(always)]
    pub fn move_to_front(&mut self, set: usize, way: usize) {
        if self.ends[set].front as usize != set * self.ways + way {
            self.unlink(set, way);
            self.push_front(set, way);
        }
    }

    #[inline(always)]
    pub fn move_to_back(&mut self, set: usize, way: usize) {
        if self.back(set) != way {
            self.unlink(set, way);
            let slot = (set * self.ways + way) as u32;
            let old = std::mem::replace(&mut self.ends[set].back, slot);
            self.links[slot as usize] = Pair { front: old, back: NONE };
            self.links[old as usize].back = slot;
        }
    }
}
